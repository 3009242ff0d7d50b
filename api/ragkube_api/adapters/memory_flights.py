"""Flights of one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ragkube_api.bounded import Bounded
from ragkube_api.coalescing import Coalescer

KEPT_SECONDS: Final = 10.0
_MOST_KEPT: Final = 1_000
_MOST_KEPT_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Finished:
    result: bytes
    moment: float


class MemoryFlights:
    """``Flights`` for a process that shares nothing with others."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        abandon: Callable[[asyncio.Task[None]], object] = asyncio.Task.cancel,
    ) -> None:
        """``abandon`` is given a computation that nobody waits for any more."""
        self._clock = clock
        self._running: Coalescer[bytes] = Coalescer(abandon)
        self._finished: Bounded[tuple[str, str], _Finished] = Bounded(
            most=_MOST_KEPT, most_bytes=_MOST_KEPT_BYTES, weigh=lambda finished: len(finished.result)
        )

    async def once(
        self,
        tenant: str,
        flight: str,
        compute: Callable[[], Awaitable[bytes]],
        *,
        settle: Callable[[], Awaitable[None]] | None = None,
        behind: Callable[[], Awaitable[None]] | None = None,
        looked_seconds: float = 0.0,
        looked_at: int | None = None,
    ) -> tuple[bytes, bool]:
        """The result of one ``compute()`` at a time, and whether it was ours; ``behind`` runs when all have it."""
        del looked_at  # there is one clock, and nobody on the way
        key = (tenant, flight)
        finished = self._finished.get(key)
        if finished is not None and self._clock() - finished.moment <= min(looked_seconds, KEPT_SECONDS):
            return finished.result, False

        async def kept() -> bytes:
            result = await compute()
            if settle is not None:
                await settle()
            self._keep(key, result)
            return result

        return await self._running.run(key, kept, behind=behind)

    def _keep(self, key: tuple[str, str], result: bytes) -> None:
        now = self._clock()
        self._finished.put(key, _Finished(result, now))
        while (oldest := self._finished.oldest()) and now - oldest[1].moment > KEPT_SECONDS:
            self._finished.pop(oldest[0])
