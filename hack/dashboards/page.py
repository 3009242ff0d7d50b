"""A dashboard as one plain page: what Grafana would show, for a look without Grafana."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from dashboards import drawing
from dashboards.units import written

Ask = Callable[[str], Sequence[tuple[Mapping[str, str], Sequence[tuple[float, float]]]]]
"""Labels and samples (time, value) of every series that a query returns."""
_STYLE: Final = """body{font:13px system-ui,sans-serif;background:#f4f5f5;margin:12px;width:1400px}
main{display:grid;grid-template-columns:repeat(24,1fr);gap:8px}
section{background:#fff;border:1px solid #dcdfe3;padding:8px;overflow:hidden}
h1{font-size:18px}h2{font-size:14px;margin:6px 0 0;grid-column:span 24}h3{font-size:13px;margin:0}
p{margin:0 0 4px;color:#6e7781;font-size:11px}b{font-size:26px;display:block}svg{display:block}
span{font-size:11px;margin-right:10px;white-space:nowrap}"""


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a panel under its name in the legend."""

    name: str
    samples: Sequence[tuple[float, float]]


def page(board: Mapping[str, Any], ask: Ask) -> str:
    """The whole page; ``board`` is a dashboard's JSON. A panel without data says so."""
    parts = [_part(panel, ask) for panel in board["panels"]]
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(board["title"])}</title><style>{_STYLE}</style>'
        f"<h1>{escape(board['title'])}</h1><p>{escape(board['description'])}</p><main>{''.join(parts)}</main>"
    )


def lines(panel: Mapping[str, Any], ask: Ask) -> list[Line]:
    """What a panel shows."""
    return [
        Line(_name(target["legendFormat"], labels), samples)
        for target in panel["targets"]
        for labels, samples in ask(target["expr"])
        if samples
    ]


def _name(pattern: str, labels: Mapping[str, str]) -> str:
    """As Grafana fills a legend in."""
    if pattern == "__auto":
        return ", ".join(f"{k}={v}" for k, v in sorted(labels.items()) if k != "__name__")
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), pattern)


def _part(panel: Mapping[str, Any], ask: Ask) -> str:
    if panel["type"] == "row":
        return f"<h2>{escape(panel['title'])}</h2>"
    found = lines(panel, ask)
    draw = {"stat": _figure, "timeseries": _graph, "heatmap": _buckets, "state-timeline": _states}[
        panel["type"]
    ]
    nothing = panel.get("fieldConfig", {}).get("defaults", {}).get("noValue", "No data")
    body = draw(panel, found) if found else f"<b>{escape(nothing)}</b>"
    width = f"grid-column:span {panel['gridPos']['w']}"
    head = f"<h3>{escape(panel['title'])}</h3><p>{escape(panel['description'])}</p>"
    return f'<section style="{width}">{head}{body}</section>'


def _figure(panel: Mapping[str, Any], found: Sequence[Line]) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    texts = []
    for line in found:
        value = line.samples[-1][1]
        colour = [
            step["color"]
            for step in defaults["thresholds"]["steps"]
            if step["value"] is None or value >= step["value"]
        ][-1]
        texts.append(f'<b style="color:{drawing.colour(colour)}">{written(value, defaults["unit"])}</b>')
    return "".join(texts)


def _graph(panel: Mapping[str, Any], found: Sequence[Line]) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    picture = drawing.graph([line.samples for line in found], _size(panel), defaults["unit"], stacked=stacked)
    names = [
        f'<span style="color:{drawing.LINES[index % len(drawing.LINES)]}">&#9632; {escape(line.name)}</span>'
        for index, line in enumerate(found)
    ]
    return picture + " ".join(names)


def _buckets(panel: Mapping[str, Any], found: Sequence[Line]) -> str:
    cells = sorted((float(line.name), line.samples) for line in found)
    return drawing.heatmap(cells, _size(panel))


def _states(panel: Mapping[str, Any], found: Sequence[Line]) -> str:
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    rows = [
        (line.name, [(moment, mapping["options"][f"{value:.0f}"]["color"]) for moment, value in line.samples])
        for line in found
    ]
    return drawing.states(rows, _size(panel))


def _size(panel: Mapping[str, Any]) -> tuple[int, int]:
    place = panel["gridPos"]
    return place["w"] * 58 - 28, place["h"] * 20
