"""What happens to a platform over time: how much is asked, how much of it the cache answers, how slow the model is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Moment:
    """One second: questions a second, the share that the cache answers, seconds of the model and of the store."""

    questions: float
    hits: float = 0.7
    model: float = 1.0
    store: float = 0.03


@dataclass(frozen=True, slots=True)
class Trace:
    """``retries``: how often a refused question comes again. ``first``: the pods it starts with."""

    name: str
    minutes: int
    at: Callable[[int], Moment]
    retries: int = 0
    first: int = 2


_MINUTE: Final = 60


def _steady(_: int) -> Moment:
    return Moment(30)


def _spike(second: int) -> Moment:
    return Moment(300 if 10 * _MINUTE <= second < 16 * _MINUTE else 15)


def _diurnal(second: int) -> Moment:
    return Moment(80 - 70 * math.cos(2 * math.pi * second / (120 * _MINUTE)))


def _slow_model(second: int) -> Moment:
    return Moment(30, model=20 if 10 * _MINUTE <= second < 40 * _MINUTE else 1)


def _cleared(second: int) -> Moment:
    """The cache fills again within a quarter of an hour."""
    gone = second - 10 * _MINUTE
    share = 0.9 if gone < 0 else 0.9 * (1 - math.exp(-gone / (5 * _MINUTE)))
    return Moment(150, hits=share)


def _silence(second: int) -> Moment:
    return Moment(120 if second < 5 * _MINUTE else 0)


def _storm(second: int) -> Moment:
    return Moment(180 if 10 * _MINUTE <= second < 20 * _MINUTE else 20, hits=0.4)


def _slow_store(second: int) -> Moment:
    return Moment(30, store=2.0 if 10 * _MINUTE <= second < 40 * _MINUTE else 0.03)


TRACES: Final = (
    Trace("steady", 60, _steady),
    Trace("spike", 40, _spike),
    Trace("diurnal", 120, _diurnal),
    Trace("slow-model", 60, _slow_model),
    Trace("cache-cleared", 60, _cleared),
    Trace("zero-traffic", 60, _silence, first=6),
    Trace("retry-storm", 50, _storm, retries=3),
    Trace("slow-store", 60, _slow_store),
)
