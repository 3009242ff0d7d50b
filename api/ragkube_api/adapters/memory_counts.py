"""``CountBoard`` of one process."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from ragkube_api.domain import Totals
from ragkube_api.ports import HEARD_SECONDS


class MemoryCountBoard:
    """The sums begin with the process. ``clock`` tells seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._since = clock()
        self._sums: Counter[str] = Counter()
        self._replicas: dict[str, tuple[int, float]] = {}

    async def add(self, replica: str, number: int, counts: Mapping[str, int], *, last: bool = False) -> None:
        """Nothing comes in between in one process."""
        if self._replicas.get(replica, (-1, 0.0))[0] < number:
            self._sums.update(counts)
        self._replicas[replica] = (number, self._clock())
        if last:
            del self._replicas[replica]

    async def read(self) -> Totals:
        """What was added."""
        now = self._clock()
        ages = [now - at for _, at in self._replicas.values() if now - at <= HEARD_SECONDS]
        return Totals(self._since, len(ages), max(ages, default=0.0), dict(self._sums))
