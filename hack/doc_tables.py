"""Tables inside hand-written pages, made from the code: between ``<!-- NAME: generated -->`` and ``<!-- end -->``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

import footprint
from ragkube_api.loop_metrics import LoopCounter, LoopHistogram
from ragkube_api.telemetry import EVENTS as LOG_EVENTS
from ragkube_api.telemetry import Telemetry
from ragkube_operator.explanations import CONDITIONS, EVENTS, EXPLANATIONS
from ragkube_operator.metrics import Metrics
from ragkube_operator.options import VARIABLES
from ragkube_operator.render.rules import Alert, Goals, Record, Scope, groups, operator_groups
from ragkube_operator.render.rules.names import SLO_WINDOWS


def operator_metrics() -> str:
    """Every metric of the operator."""
    rows = sorted(_row(each) for each in vars(Metrics()).values() if isinstance(each, MetricWrapperBase))
    return table(("metric", "type", "labels", "meaning"), rows)


def reasons() -> str:
    """Every reason of a condition."""
    rows = [(f"`{reason.value}`", *EXPLANATIONS[reason]) for reason in EXPLANATIONS]
    return table(("reason", "of", "what it means", "what to do"), rows)


def conditions() -> str:
    """Every condition."""
    rows = ((f"`{name}`", *meanings) for name, meanings in CONDITIONS.items())
    return table(("condition", "True means", "False means"), rows)


def events() -> str:
    """Every Kubernetes event."""
    rows = [(f"`{name}`", *told) for name, told in EVENTS.items()]
    trouble = "a reason above that asks for action", "Warning", "once, when a condition takes that reason"
    healed = "a reason above that asks for none", "Normal", "when a condition took it after one that did"
    return table(("event", "type", "when"), [*rows, trouble, healed])


def log_events() -> str:
    """Every event of the API's log."""
    rows = ((f"`{name}`", text) for name, text in LOG_EVENTS.items())
    return table(("event", "meaning, and its fields"), rows)


def operator_settings() -> str:
    """Every variable that the operator reads."""
    rows = ((f"`{name}`", *variable) for name, variable in VARIABLES.items())
    return table(("variable", "default", "what it sets"), rows)


def footprint_of_the_minimal_sample() -> str:
    """What its pods ask for."""
    return table(("part", "pods", "CPU of each", "memory of each"), footprint.rows())


def _row(metric: MetricWrapperBase | LoopCounter | LoopHistogram) -> tuple[str, ...]:
    (described,) = metric.describe()
    name = f"{described.name}_total" if described.type == "counter" else described.name
    names = metric._labelnames if isinstance(metric, MetricWrapperBase) else metric.label_names  # noqa: SLF001
    labels = ", ".join(f"`{label}`" for label in names)
    return f"`{name}`", described.type, labels, described.documentation


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join("| " + " | ".join(line).replace("|  |", "| |") + " |\n" for line in lines)


def api_metrics() -> str:
    """Every metric of the API, in the order in which the code has them."""
    kinds = MetricWrapperBase | LoopCounter | LoopHistogram
    found = [each for each in vars(Telemetry()).values() if isinstance(each, kinds)]
    rows = [(name, kind, labels or "none", text.rstrip(".")) for name, kind, labels, text in map(_row, found)]
    return table(("metric", "type", "labels", "what it counts"), rows)


def recorded_series() -> str:
    """Every recorded series with its docstring."""
    members = re.findall(
        r'    [A-Z0-9_]+ = "(ragkube:[^"]+)"\n    """(.*?)"""', inspect.getsource(Record), re.DOTALL
    )
    rows = [(f"`{name}`", " ".join(text.split())) for name, text in members]
    windows = ", ".join(f"`{window}`" for window in SLO_WINDOWS)
    for record in (Record.errors, Record.slow):
        text = " ".join((record.__doc__ or "").split())
        rows.append((f"`{record('WINDOW')}`", f"{text} Windows: {windows}"))
    return table(("series", "meaning"), rows)


def alerts() -> str:
    """Every alert, with what it says of a deployment."""
    found = [*groups(Scope("NAMESPACE", "NAME"), Goals(daily_cost=50)), *operator_groups()]
    rules = [rule for group in found for rule in group.rules if isinstance(rule, Alert)]
    named = {"{{ $labels.namespace }}/{{ $labels.ragkube_deployment }}": "NAMESPACE/NAME"}
    rows = []
    for rule in rules:
        text = rule.summary
        for template, name in named.items():
            text = text.replace(template, name)
        text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: match[1].upper(), text)
        rows.append((f"[`{rule.name}`](runbooks.md#{rule.name.lower()})", rule.severity, rule.lasting, text))
    return table(("alert", "severity", "after", "says"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "conditions": conditions,
    "reasons": reasons,
    "events": events,
    "log events": log_events,
    "operator settings": operator_settings,
    "operator metrics": operator_metrics,
    "api metrics": api_metrics,
    "recorded series": recorded_series,
    "alerts": alerts,
    "footprint": footprint_of_the_minimal_sample,
}


def filled(page: Path) -> str:
    """The page with its tables as the code has them now.

    Raises:
        KeyError: the page asks for a table that nothing makes.
    """

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}{TABLES[match[2]]()}{match[3]}"

    pattern = r"(<!-- ([a-z ]+): generated -->\n\n).*?(\n<!-- end -->)"
    return re.sub(pattern, made, page.read_text(), flags=re.DOTALL)
