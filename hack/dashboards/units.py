"""Values as Grafana writes them, for the units that the dashboards use."""

from __future__ import annotations

import math
from typing import Final

_LETTERS: Final = ("", "K", "M", "G", "T")
_NAMES: Final = {
    "bytes": (1024, (" B", " KiB", " MiB", " GiB", " TiB")),
    "Bps": (1000, (" B/s", " kB/s", " MB/s", " GB/s", " TB/s")),
    "short": (1000, ("", " K", " Mil", " Bil", " Tri")),
    "reqps": (1000, tuple(f"{letter} req/s" for letter in _LETTERS)),
    "ops": (1000, tuple(f"{letter} ops/s" for letter in _LETTERS)),
    "none": (1000, ("",)),
}
_DURATIONS: Final = ((3600, "hours"), (60, "mins"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))


def written(value: float, unit: str) -> str:
    """Raises KeyError for a unit that no dashboard had so far."""
    if unit == "percentunit":
        return f"{_rounded(value * 100)}%"
    if unit == "currencyUSD":
        return f"${_rounded(value)}"
    if unit in {"s", "ms"}:
        return _duration(value if unit == "s" else value / 1000)
    base, names = _NAMES[unit]
    power = min(int(math.log(abs(value), base)), len(names) - 1) if abs(value) >= base else 0
    return _rounded(value / base**power) + names[power]


def _duration(seconds: float) -> str:
    size, name = next((each for each in _DURATIONS if abs(seconds) >= each[0]), (1, "s"))
    return f"{_rounded(seconds / size)} {name}"


def _rounded(value: float) -> str:
    """Three digits, or all of a whole number."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{2 - math.floor(math.log10(abs(value)))}f}"
