"""Graphs and heatmaps as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from dashboards.units import written

Samples = Sequence[tuple[float, float]]
LINES: Final = (
    "#1f78c1", "#e5a100", "#3f9c35", "#bf1b00", "#705da0", "#0a8a8a", "#c15c17", "#6d1f62", "#7a7a7a",
)  # fmt: skip
_LEFT: Final = 76
_COLOURS: Final = {"green": "#1a7f37", "orange": "#bc4c00", "red": "#cf222e", "text": "#1f2328"}


def colour(name: str) -> str:
    """One of Grafana's colours by name."""
    return _COLOURS[name]


def graph(series: Sequence[Samples], size: tuple[int, int], unit: str, *, stacked: bool) -> str:
    """Lines over time, from zero, all on one axis."""
    lines = _piled(series) if stacked else series
    first, last = _times(series)
    top = max((value for line in lines for _, value in line), default=0) or 1
    width, height = size[0] - _LEFT, size[1]

    def place(moment: float, value: float) -> str:
        x = _LEFT + (moment - first) / max(last - first, 1) * width
        return f"{x:.1f},{height - value / top * (height - 10):.1f}"

    paths = [
        f'<polyline fill="none" stroke="{LINES[index % len(LINES)]}" stroke-width="1.5" points="'
        f'{" ".join(place(*sample) for sample in line)}"/>'
        for index, line in enumerate(lines)
    ]
    marks = [_text(written(part * top, unit), height - part * (height - 10)) for part in (0, 0.5, 1)]
    return _svg(size, [_axes(size), *marks, *paths])


def states(rows: Sequence[tuple[str, Sequence[tuple[float, str]]]], size: tuple[int, int]) -> str:
    """A band for each name, in the colour of each moment."""
    moments = [moment for _, samples in rows for moment, _ in samples]
    first, span = min(moments), max(max(moments) - min(moments), 1)
    step, width = min(size[1] / len(rows), 28), size[0] - _LEFT
    parts = []
    for index, (name, samples) in enumerate(rows):
        parts.append(_text(escape(name), (index + 0.6) * step))
        for (moment, shade), (after, _) in pairwise([*samples, (first + span, "")]):
            x, long = _LEFT + (moment - first) / span * width, (after - moment) / span * width
            shape = f'x="{x:.1f}" y="{index * step:.1f}" width="{long + 0.5:.1f}" height="{step - 3:.1f}"'
            parts.append(f'<rect {shape} fill="{colour(shade)}"/>')
    return _svg(size, parts)


def heatmap(buckets: Sequence[tuple[float, Samples]], size: tuple[int, int]) -> str:
    """``buckets``: upper bound in seconds, and how many there were up to it; the darker, the more between two bounds."""
    counts: list[tuple[float, Mapping[float, float]]] = []
    below: Mapping[float, float] = {}
    for bound, samples in buckets:
        here = dict(samples)
        counts.append((bound, {t: value - below.get(t, 0) for t, value in here.items()}))
        below = here
    shown = [each for each in counts if any(value > 0 for value in each[1].values())]
    first, last = _times([samples for _, samples in buckets])
    most = max((value for _, row in shown for value in row.values()), default=1)
    step = size[1] / max(len(shown), 1)
    parts = []
    for index, (bound, row) in enumerate(shown):
        y = size[1] - (index + 1) * step
        parts.append(_text("more" if bound == float("inf") else written(bound, "s"), y + step))
        for moment, value in row.items():
            x = _LEFT + (moment - first) / max(last - first, 1) * (size[0] - _LEFT - 6)
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="6" height="{step - 1:.1f}" fill="#1f78c1" '
                f'opacity="{max(value, 0) / most:.2f}"/>'
            )
    return _svg(size, [_axes(size), *parts])


def _piled(series: Sequence[Samples]) -> list[Samples]:
    """Each on top of those before it."""
    below: dict[float, float] = {}
    piled: list[Samples] = []
    for samples in series:
        for moment, value in samples:
            below[moment] = below.get(moment, 0) + value
        piled.append([(moment, below[moment]) for moment, _ in samples])
    return piled


def _times(series: Sequence[Samples]) -> tuple[float, float]:
    moments = [moment for samples in series for moment, _ in samples]
    return min(moments), max(moments)


def _axes(size: tuple[int, int]) -> str:
    return f'<path d="M{_LEFT},0V{size[1]}H{size[0]}" fill="none" stroke="#8c959f"/>'


def _text(text: str, y: float) -> str:
    return f'<text x="{_LEFT - 6}" y="{max(y, 9):.1f}" font-size="10" text-anchor="end">{text}</text>'


def _svg(size: tuple[int, int], parts: Sequence[str]) -> str:
    return f'<svg width="{size[0]}" height="{size[1] + 4}">{"".join(parts)}</svg>'
