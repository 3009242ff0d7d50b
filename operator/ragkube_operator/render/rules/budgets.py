"""Alerts on what is promised over a month: each promise has a budget, and alerts tell how fast it is spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ragkube_operator.render.rules.model import Alert, Goals
from ragkube_operator.render.rules.names import PER_DEPLOYMENT, WHERE, Record, Scope
from ragkube_operator.render.rules.recording import failures, fast_and_all, limit_of_slowness

FEW: Final = 5
"""With so few failed or slow requests in the long window nobody is woken: one of ten at night is no outage."""


@dataclass(frozen=True, slots=True)
class _Promise:
    """``budget`` is the share that may be bad; ``ratio`` and ``bad`` give share and number of bad ones in a window."""

    name: str
    budget: float
    ratio: Callable[[str], str]
    bad: Callable[[str], str]
    fast: str
    slow: str
    text: str


def budgets(scope: Scope, goals: Goals) -> list[Alert]:
    """Two alerts for each promise."""
    return [alert for promise in (_errors(scope, goals), _slow(scope, goals)) for alert in _pair(promise)]


def _errors(scope: Scope, goals: Goals) -> _Promise:
    return _Promise(
        name="Error",
        budget=goals.budget,
        ratio=lambda window: scope.recorded(Record.errors(window)),
        bad=lambda window: f"sum by ({PER_DEPLOYMENT}) (increase({failures(scope)}[{window}]))",
        fast=f"{WHERE} fails so often that the month's error budget is gone within days",
        slow=f"{WHERE} fails more often than its error budget allows",
        text=f"of the requests to {WHERE} fail; {goals.availability * 100:g} % are promised not to.",
    )


def _slow(scope: Scope, goals: Goals) -> _Promise:
    def bad(window: str) -> str:
        fast, every = fast_and_all(scope, goals.local_latency, "increase", window)
        return f"({every} - {fast})"

    return _Promise(
        name="Latency",
        budget=goals.slow_budget,
        ratio=lambda window: scope.recorded(Record.slow(window)),
        bad=bad,
        fast=f"{WHERE} is so slow that the month's budget of slow questions is gone within days",
        slow=f"{WHERE} has more slow questions than its budget allows",
        text=slow_text(goals),
    )


def slow_text(goals: Goals) -> str:
    """The description of alerts about slow questions, after the share."""
    limit = limit_of_slowness(goals.local_latency)
    return f"of the questions to {WHERE} take longer than {limit:g} s without the model; {goals.slow_budget:.0%} may."


def _pair(promise: _Promise) -> list[Alert]:
    """2 % of a month's budget in an hour or 5 % in six page; 10 % in a day, or the pace of the budget, do not."""
    page = f"{_burn(promise, 14.4, '1h', '5m')} or {_burn(promise, 6, '6h', '30m')}"
    ticket = f"{_burn(promise, 3, '1d', '2h')} or {_burn(promise, 1, '3d', '6h')}"
    name, text = f"Ragkube{promise.name}BudgetBurns", f"{{{{ $value | humanizePercentage }}}} {promise.text}"
    return [
        Alert(f"{name}Fast", page, "critical", promise.fast, text, lasting="2m"),
        Alert(name, ticket, "warning", promise.slow, text, lasting="15m"),
    ]


def _burn(promise: _Promise, factor: float, long: str, short: str) -> str:
    limit = f"{factor * promise.budget:.9g}"
    return (
        f"({promise.ratio(long)} > {limit} and {promise.ratio(short)} > {limit}"
        f" and {promise.bad(long)} >= {FEW})"
    )
