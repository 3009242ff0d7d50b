"""Where a tenant stands with its error budget: counts of audits and whether paraphrases are served. Pure.

The bound is over the last audits only: what was long ago neither excuses nor damns. A second window is begun when the
first one is half full and takes its place when it is full. The n-th window may spend ``alpha / (n (n + 1))``, so that all
of them together are wrong with a probability of at most alpha. A tenant whose bound leaves the budget begins again with a
new window.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ragkube_api.services.semantic.bound import ALPHA, upper_bound

_SIZE_BY_BUDGET: Final = 30
"""A window holds so many audits for each expected error of the whole budget."""


@dataclass(frozen=True, slots=True)
class Window:
    """Audits since a moment; ``number`` counts the windows of a tenant from 1."""

    number: int
    right: int = 0
    wrong: int = 0

    @property
    def audits(self) -> int:
        """Right and wrong ones."""
        return self.right + self.wrong

    @property
    def bound(self) -> float:
        """Of this window alone."""
        return upper_bound(self.right, self.wrong, ALPHA / (self.number * (self.number + 1)))


@dataclass(frozen=True, slots=True)
class Standing:
    """``audits`` counts all that there ever were: of two standings of a tenant the one with more is the later."""

    windows: tuple[Window, ...] = (Window(1),)
    serving: bool = False
    audits: int = 0

    @property
    def bound(self) -> float:
        """Of the oldest window that is kept."""
        return self.windows[0].bound

    def after(self, budget: float, *, wrong: bool) -> Standing:
        """One audit later. ``budget`` is the share of hits that may be wrong."""
        counted = tuple(
            replace(window, right=window.right + (not wrong), wrong=window.wrong + wrong)
            for window in self.windows
        )
        windows = _moved_on(counted, math.ceil(_SIZE_BY_BUDGET / budget))
        serving = windows[0].bound <= budget
        if self.serving and not serving:
            windows = (Window(windows[-1].number + 1),)
        return Standing(windows, serving, self.audits + 1)

    def encode(self) -> bytes:
        """As replicas hand it to each other."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()


def decode(record: bytes) -> Standing | None:
    """None for anything that is no standing."""
    try:
        fields = json.loads(record)
        windows = tuple(
            Window(**{key: _count(n) for key, n in window.items()}) for window in fields["windows"]
        )
        standing = Standing(windows, bool(fields["serving"]), _count(fields["audits"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return standing if 1 <= len(windows) <= 2 and all(window.number >= 1 for window in windows) else None


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise TypeError
    return value


def _moved_on(windows: tuple[Window, ...], size: int) -> tuple[Window, ...]:
    first = windows[0]
    if len(windows) == 1 and first.audits >= size // 2:
        return (first, Window(first.number + 1))
    if first.audits >= size:
        return windows[1:]
    return windows
