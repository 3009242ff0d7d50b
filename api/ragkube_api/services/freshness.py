"""When a cached answer is made anew before its time is over."""

from __future__ import annotations

import math
import random
from typing import Final

from ragkube_api.domain import Cached
from ragkube_api.services.answer_codec import Entry

_LAST_PART: Final = 0.1


def due(entry: Entry, cached: Cached, dice: float | None = None) -> bool:
    """Whether the one who gets this answer should have it made anew in the background.

    The nearer the end of the TTL and the longer the answer takes to make, the likelier (probabilistic early expiry),
    so that of many askers a few begin, at different moments; never before the last tenth of the TTL.
    """
    left = cached.fresh_seconds
    if left > _LAST_PART * (left + cached.age_seconds):
        return False
    chance = random.random() if dice is None else dice  # noqa: S311  nothing secret
    return left < -entry.seconds * math.log(max(chance, 1e-12))
