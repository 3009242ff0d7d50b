"""Tables inside hand-written pages, made from the code: between ``<!-- NAME: generated -->`` and ``<!-- end -->``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from ragkube_operator.metrics import Metrics


def operator_metrics() -> str:
    """Every metric of the operator."""
    rows = sorted(_row(each) for each in vars(Metrics()).values() if isinstance(each, MetricWrapperBase))
    return table(("metric", "type", "labels", "meaning"), rows)


def _row(metric: MetricWrapperBase) -> tuple[str, ...]:
    (described,) = metric.describe()
    name = f"{described.name}_total" if described.type == "counter" else described.name
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001  # told nowhere else
    return f"`{name}`", described.type, labels, described.documentation


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join("| " + " | ".join(line).replace("|  |", "| |") + " |\n" for line in lines)


TABLES: dict[str, Callable[[], str]] = {"operator metrics": operator_metrics}


def filled(page: Path) -> str:
    """The page with its tables as the code has them now.

    Raises:
        KeyError: the page asks for a table that nothing makes.
    """

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}{TABLES[match[2]]()}{match[3]}"

    pattern = r"(<!-- ([a-z ]+): generated -->\n\n).*?(\n<!-- end -->)"
    return re.sub(pattern, made, page.read_text(), flags=re.DOTALL)
