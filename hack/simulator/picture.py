"""The pods of each rule over time, as one small SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from simulator.play import MAX_REPLICAS, Result

_WIDTH: Final = 300
_HEIGHT: Final = 120
_COLUMNS: Final = 2
_GAP: Final = 56
_COLOURS: Final = {"ragkube": "#1a7f37", "p95 only": "#cf222e", "CPU only": "#8250df"}
_STYLE: Final = "font-family:system-ui,sans-serif;font-size:12px"


def picture(results: Sequence[Sequence[Result]]) -> str:
    """One panel per trace; each holds the results of every rule on it."""
    rows = -(-len(results) // _COLUMNS)
    width, height = _COLUMNS * (_WIDTH + _GAP) + 16, rows * (_HEIGHT + _GAP) + 40
    shape = f'viewBox="0 0 {width} {height}" style="{_STYLE}" role="img"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {shape} aria-label="Pods over time for each trace and rule">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *_legend(),
    ]
    for index, group in enumerate(results):
        left = 40 + index % _COLUMNS * (_WIDTH + _GAP)
        top = 56 + index // _COLUMNS * (_HEIGHT + _GAP)
        parts += [f'<g transform="translate({left},{top})">', *_panel(group), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> list[str]:
    return [
        f'<text x="{40 + 110 * index}" y="20" fill="{colour}">&#9632; {name}</text>'
        for index, (name, colour) in enumerate(_COLOURS.items())
    ]


def _panel(group: Sequence[Result]) -> list[str]:
    top = max(8, *(max(result.pods) for result in group))
    minutes = len(group[0].pods) // 4
    parts = [
        f'<text x="0" y="-6" font-weight="600">{group[0].trace}</text>',
        f'<path d="M0,0V{_HEIGHT}H{_WIDTH}" fill="none" stroke="#8c959f"/>',
        f'<text x="-8" y="10" text-anchor="end">{top}</text><text x="-8" y="{_HEIGHT}" text-anchor="end">0</text>',
        f'<text x="{_WIDTH}" y="{_HEIGHT + 16}" text-anchor="end">{minutes} min</text>',
    ]
    # ours last, on top of the others
    for offset, result in enumerate(reversed(group)):
        colour = _COLOURS[result.rule]
        parts.append(
            f'<path d="{_line(result.pods, top, offset)}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )
    return parts


def _line(pods: Sequence[int], top: int, offset: int) -> str:
    """Steps; lines that lie on each other are a pixel apart."""
    step = _WIDTH / len(pods)
    turns = [
        f"H{index * step:.1f}V{_place(count, top, offset)}"
        for index, count in enumerate(pods)
        if index and count != pods[index - 1]
    ]
    return "".join([f"M0,{_place(pods[0], top, offset)}", *turns, f"H{_WIDTH}"])


def _place(count: int, top: int, offset: int) -> str:
    return f"{_HEIGHT - min(count, MAX_REPLICAS) / top * (_HEIGHT - 6) - offset:.1f}"
