"""The plain page of a dashboard: it shows what Grafana would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards.page import page
from dashboards.units import written
from ragkube_operator import crd
from ragkube_operator.render import dashboards

DEPLOYMENT = crd.parse(
    {
        "apiVersion": crd.API_VERSION,
        "kind": crd.KIND,
        "metadata": {"name": "shop", "namespace": "team"},
        "spec": {},
    }
)


def panels() -> Iterator[dict[str, Any]]:
    for board in dashboards.NAMES:
        yield from json.loads(dashboards.content(DEPLOYMENT, board))["panels"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        # from getValueFormat of the package @grafana/data 12
        (0.0213, "percentunit", "2.13%"), (1, "percentunit", "100%"), (0.00042, "percentunit", "0.0420%"),
        (1234, "reqps", "1.23K req/s"), (3.5, "reqps", "3.50 req/s"), (0, "ops", "0 ops/s"),
        (1234, "short", "1.23 K"), (5.3e7, "short", "53 Mil"), (16384, "none", "16384"),
        (0.0213, "s", "21.3 ms"), (0.00042, "s", "420 µs"), (1234, "s", "20.6 mins"), (1234, "ms", "1.23 s"),
        (16384, "bytes", "16 KiB"), (5.3e7, "bytes", "50.5 MiB"), (1234, "Bps", "1.23 kB/s"),
        (0.0213, "currencyUSD", "$0.0213"), (3.5, "currencyUSD", "$3.50"),
    ],
)  # fmt: skip
def test_values_read_as_in_grafana(value: float, unit: str, text: str) -> None:
    assert written(value, unit) == text


@pytest.mark.proves("O4")
@pytest.mark.parametrize("board", dashboards.NAMES)
def test_a_page_shows_every_panel_and_says_which_have_no_data(board: str) -> None:
    content = json.loads(dashboards.content(DEPLOYMENT, board))
    titles = [panel["title"] for panel in content["panels"]]
    labels = {"le": "0.5", "pod": "<a>"}

    full = page(content, lambda _: [(labels, [(0, 1), (15, 0)])])
    empty = page(content, lambda _: [])

    assert all(title in full for title in titles)
    assert "No data" not in full
    assert "<a>" not in full
    figures = sum(panel["type"] in {"stat", "row"} for panel in content["panels"])
    assert empty.count("No data") == len(titles) - figures


@pytest.mark.proves("O4")
def test_grafana_can_tell_the_queries_of_a_panel_apart() -> None:
    for panel in panels():
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert all(letters), panel["title"]
        assert len(set(letters)) == len(letters), panel["title"]
        legends = [target["legendFormat"] for target in panel.get("targets", ())]
        assert panel["type"] == "stat" or "__auto" not in legends, panel["title"]
