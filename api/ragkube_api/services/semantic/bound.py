"""How many of the paraphrase hits are wrong, at most: an upper bound that holds at every moment at once.

Each audit is a bet against the hypothesis "the error rate is at least m": a right answer multiplies the capital by
``1 + c·m/(1-m)``, a wrong one by ``1 - c``. Under the hypothesis no strategy gains on average, so the capital ever
reaches 1/alpha with a probability of at most alpha (Ville), however long one looks and whenever one stops. The bound is the
smallest rate that has not been refuted. Several stakes ``c`` are played side by side, so that it is tight with and without
errors. Pure: a function of two counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

ALPHA: Final = 0.05
_STAKES: Final = ((1.0, 0.5), (0.8, 0.1), (0.6, 0.1), (0.4, 0.1), (0.2, 0.1), (0.08, 0.1))
"""Share of the capital that is bet, and share of the first capital that plays so."""


def log_capital(rate: float, right: int, wrong: int) -> float:
    """The logarithm of the capital after so many audits, betting against ``rate`` (0 < rate < 1)."""
    odds = rate / (1 - rate)
    logs = [
        math.log(share) + right * math.log1p(stake * odds) + (wrong * math.log1p(-stake) if wrong else 0.0)
        for stake, share in _STAKES
        if stake < 1 or not wrong
    ]
    highest = max(logs)
    return highest + math.log(sum(math.exp(value - highest) for value in logs))


def upper_bound(right: int, wrong: int, alpha: float = ALPHA) -> float:
    """With probability 1 - alpha the error rate has never been above the value that this has now; 1 without audits."""
    low, high, limit = 0.0, 1.0, -math.log(alpha)
    for _ in range(40):
        middle = (low + high) / 2
        if log_capital(middle, right, wrong) >= limit:
            high = middle
        else:
            low = middle
    return high


@dataclass(slots=True)
class Window:
    """Audits since a moment, and the share of alpha that their bound may spend."""

    alpha: float
    right: int = 0
    wrong: int = 0

    @property
    def bound(self) -> float:
        """Of this window alone."""
        return upper_bound(self.right, self.wrong, self.alpha)


class Windows:
    """The bound over the last audits only: what was long ago neither excuses nor damns.

    A second window is begun when the first one is half full and takes its place when it is full. The n-th window may spend
    ``alpha / (n (n + 1))``, so that all of them together are wrong with a probability of at most alpha.
    """

    def __init__(self, size: int, alpha: float = ALPHA) -> None:
        self._size = size
        self._alpha = alpha
        self._begun = 0
        self._windows = [self._new()]

    @property
    def bound(self) -> float:
        """Of the oldest window that is kept."""
        return self._windows[0].bound

    def add(self, *, wrong: bool) -> None:
        """One audit."""
        for window in self._windows:
            window.wrong += wrong
            window.right += not wrong
        first = self._windows[0]
        audits = first.right + first.wrong
        if len(self._windows) == 1 and audits >= self._size // 2:
            self._windows.append(self._new())
        elif audits >= self._size:
            del self._windows[0]

    def restart(self) -> None:
        """Forget: from here on with what is left of alpha."""
        self._windows = [self._new()]

    def _new(self) -> Window:
        self._begun += 1
        return Window(self._alpha / (self._begun * (self._begun + 1)))
