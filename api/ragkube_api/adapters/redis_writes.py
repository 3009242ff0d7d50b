"""A write of documents as Redis sees it: begun, held, ended, and what is done when one of that does not work.

A write *begins* when its mark is set, the epoch is changed and every reader that may serve from its memory has given
that up: by an acknowledgement, which takes milliseconds, or by its lease running out on this side's clock. It *ends*
when the mark is taken off under the same condition, which matters only when a failover lost the mark in between.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from ragkube_api.adapters.redis_level import RedisLevel, Waiting, token
from ragkube_api.errors import CacheUnavailableError, DependencyUnavailableError

END_PATIENCE_SECONDS: Final = 8.0
_POLL_SECONDS: Final = (0.001, 0.05)


class Readers:
    """Leases of the readers that were seen: one that is seen first now runs for one lease from now at most."""

    def __init__(self, lease_seconds: float, clock: Callable[[], float]) -> None:
        self._lease = lease_seconds
        self._clock = clock
        self._ends: dict[tuple[str, int], float] = {}

    def see(self, waiting: Waiting) -> None:
        """Remember those that are new."""
        end = self._clock() + self._lease
        for reader in waiting.readers:
            self._ends.setdefault(reader, end)

    @property
    def over(self) -> list[tuple[str, int]]:
        """Those whose lease has run out, whatever they do."""
        now = self._clock()
        return [reader for reader, end in self._ends.items() if end <= now]


class RedisWrites:
    """``writing`` of the port. ``revoke`` makes this process give up its own lease and numbers that."""

    def __init__(
        self,
        level: RedisLevel,
        *,
        lease_seconds: float,
        reader_seconds: float,
        reader: str,
        revoke: Callable[[str], int],
        clock: Callable[[], float],
    ) -> None:
        self._level = level
        self._lease = lease_seconds
        self._reader_lease = reader_seconds
        self._reader = reader
        self._revoke = revoke
        self._clock = clock
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def writing(self, tenant: str) -> AsyncIterator[None]:
        """Hold this around a write of documents."""
        write = token()
        try:
            deadline = await self._begin(tenant, write)
        except BaseException:
            # It may have been recorded all the same. Nothing was written: with its lease it is over by itself.
            self._start_ending(tenant, write, patience=self._lease)
            raise
        try:
            async with self._renewed(tenant, write, deadline):
                yield
        except (DependencyUnavailableError, TimeoutError, asyncio.CancelledError):
            self._start_ending(tenant, write, delay=self._lease)
            raise
        except BaseException:
            await self._end(tenant, write, confirm=False)
            raise
        await self._end(tenant, write, confirm=True)

    async def close(self, timeout_seconds: float) -> None:
        """Give ends of writes that are still due a last moment; leases take care of the rest."""
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _begin(self, tenant: str, write: str) -> float:
        """Returns when the mark's lease is nearly over, by the loop's clock."""
        readers = Readers(self._reader_lease, self._clock)
        pause, most = _POLL_SECONDS
        # whatever this process was granted before is given up before anybody can be told that it was
        number = self._revoke(tenant)
        while True:
            deadline = self._deadline()
            waiting = await self._hold(tenant, write, number, readers.over)
            if not waiting.readers and waiting.seconds <= 0:
                return deadline
            readers.see(waiting)
            await asyncio.sleep(pause)
            pause = min(2 * pause, most)

    async def _hold(self, tenant: str, write: str, number: int, waited: list[tuple[str, int]]) -> Waiting:
        return await self._level.hold(
            tenant, write, lease_seconds=self._lease, reader=self._reader, number=number, waited=waited
        )

    @asynccontextmanager
    async def _renewed(self, tenant: str, write: str, deadline: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(deadline) as limit:
                renewal = asyncio.create_task(self._renew(tenant, write, limit), name="cache-lease")
                try:
                    yield
                finally:
                    renewal.cancel()
                    await asyncio.gather(renewal, return_exceptions=True)
        except TimeoutError as error:
            if not limit.expired():
                raise
            message = "The cache went away while documents were written; the write was given up."
            raise CacheUnavailableError(message, retry_after=2) from error

    async def _renew(self, tenant: str, write: str, limit: asyncio.Timeout) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._lease / 4))
            deadline = self._deadline()
            try:
                await self._hold(tenant, write, 0, [])
            except CacheUnavailableError:
                continue
            limit.reschedule(deadline)

    async def _end(self, tenant: str, write: str, *, confirm: bool) -> None:
        task = self._start_ending(tenant, write)
        done, _ = await asyncio.wait([task], timeout=END_PATIENCE_SECONDS if confirm else 1)
        if confirm and not done:
            message = "The documents were written, but the cache went away before it confirmed that."
            raise CacheUnavailableError(message, retry_after=2)

    def _start_ending(
        self, tenant: str, write: str, *, delay: float = 0, patience: float = math.inf
    ) -> asyncio.Task[None]:
        ending = self._end_at_last(tenant, write, delay, self._clock() + patience)
        task = asyncio.create_task(ending, name="cache-end-of-write")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def _end_at_last(self, tenant: str, write: str, delay: float, until: float) -> None:
        await asyncio.sleep(delay)
        pause = 0.05
        while True:
            try:
                while await self._level.end(tenant, write) != 1:
                    await self._begin(tenant, write)
            except CacheUnavailableError:
                if self._clock() >= until:
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, 1.0)
            else:
                return

    def _deadline(self) -> float:
        # counted from before the request is sent, with a quarter to spare for the commit in flight
        return asyncio.get_running_loop().time() + self._lease * 0.75
