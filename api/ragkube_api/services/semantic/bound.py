"""How many of the paraphrase hits are wrong, at most: an upper bound that holds at every moment at once.

Each audit is a bet against the hypothesis "the error rate is at least m": a right answer multiplies the capital by
``1 + c·m/(1-m)``, a wrong one by ``1 - c``. Under the hypothesis no strategy gains on average, so the capital ever
reaches 1/alpha with a probability of at most alpha (Ville), however long one looks and whenever one stops. The bound is the
smallest rate that has not been refuted. Several stakes ``c`` are played side by side, so that it is tight with and without
errors. Pure: a function of two counts.
"""

from __future__ import annotations

import math
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
