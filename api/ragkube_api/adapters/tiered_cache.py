"""``FencedCache`` of many replicas: a level in the process over Redis. A hit in the process costs no round trip.

A replica serves from its memory while it holds a *lease* on the state of the tenant's documents. A look-up asks for
one on the way; Redis grants it while nobody writes, and remembers who may hold one. A write that begins changes the
state, tells the holders, and goes on when each has given its lease up or the lease has run out: a write that has
*finished* is seen by every replica, whatever is lost, frozen or cut off. ``docs/adr/0007-cache-levels.md`` argues why.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final

from ragkube_api.adapters.leases import Holding, Leases
from ragkube_api.adapters.local_level import LocalEntry, LocalLevel
from ragkube_api.adapters.redis_level import KINDS, RedisLevel, Reply, Waiting
from ragkube_api.adapters.redis_writes import Readers, RedisWrites
from ragkube_api.adapters.selection import matches
from ragkube_api.domain import (
    Cached,
    EntryNote,
    Fence,
    Fill,
    Key,
    LevelStatistics,
    Lookup,
    Selector,
)
from ragkube_api.errors import CacheUnavailableError

_AWAY_SECONDS: Final = (0.1, 2.0)
_PROBE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = (0.001, 0.05)
# An answer is on its way by then: preparing and sending what is stored takes half as long.
_AFTERWARDS_SECONDS: Final = 0.001
# What is in both levels is described in Redis only.
_NOTED_BELOW: Final = math.nan


class _Flight:
    """A look-up on its way that others may join."""

    __slots__ = ("_result", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._result: asyncio.Future[Lookup | None] | None = None

    async def joined(self) -> Lookup | None:
        """Its result, or None when it came to nothing."""
        if self._result is None:
            self._result = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._result)

    def end(self, result: Lookup | None) -> None:
        """Tell those who joined."""
        if self._result is not None and not self._result.done():
            self._result.set_result(result)


class TieredCache:
    """``FencedCache`` over Redis, with ``local`` above it. ``close`` is its owner's (``redis_cache.open_redis``)."""

    def __init__(
        self,
        level: RedisLevel,
        local: LocalLevel,
        leases: Leases,
        writes: RedisWrites,
        *,
        lease_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._level = level
        self._local = local
        self._leases = leases
        self._writes = writes
        self._lease = lease_seconds
        self._clock = clock
        self._flights: dict[tuple[str, Key, Key | None], _Flight] = {}
        self._storing: dict[tuple[str, Key], asyncio.Future[None]] = {}

    def peek(self, tenant: str, key: Key) -> Cached | None:
        """From this process, under a lease and within the TTL."""
        holding = self._leases.held.get(tenant)
        if holding is None:
            return None
        now = self._clock()
        if now >= holding.until:
            return None
        holding.used = True
        entry = self._local.get(tenant, key, now)
        if entry is None or entry.state != holding.token or entry.fresh_until <= now:
            return None
        return entry.cached(now, current=True)

    async def lookup(self, tenant: str, key: Key, beside: Key | None = None) -> Lookup:
        """No round trip for what ``peek`` finds, else one; those who ask the same at the same time share it."""
        asked = self._leases.number()
        await self._stored((tenant, key))  # made here a moment ago: then it is in this process too
        while True:
            holding = self._leases.of(tenant)
            hit = self.peek(tenant, key)
            if hit is not None:
                return Lookup(Fence(holding.token), hit)
            flight = self._flights.get((tenant, key, beside))
            if flight is None:
                return await self._fly(holding, key, beside)
            result = await flight.joined()
            # What began before we asked may be from before a write that has finished since, and so may its fence.
            if result is not None and (flight.number > asked or result.fence is None):
                return result

    async def store(self, tenant: str, *fills: Fill, fence: Fence | None) -> bool:
        """One round trip for all of them; the server decides whether the fence still holds."""
        holding, now = self._leases.of(tenant), self._clock()
        wanted = [fill for fill in fills if not fill.mark or fill.mark not in holding.disowned]
        if fence is None:
            kept = [self._keep(tenant, fill, "", now) for fill in wanted]
            return all(kept) and len(kept) == len(fills)
        with self._marked(tenant, (fill.key for fill in wanted)):
            done = await self._store(holding, wanted, fence)
            if done is None:
                for fill in wanted:
                    self._keep(tenant, fill, "", now)
                return False
            # after a drop that these fills did not see, nothing of before it may be kept
            if self._leases.of(tenant) is holding and fence.token.partition(":")[2] == holding.drops:
                for fill in itertools.compress(wanted, done):
                    self._keep(tenant, fill, holding.shared(fence.token), now)
            return all(done) and len(done) == len(fills)

    @asynccontextmanager
    async def afterwards(self, tenant: str, key: Key) -> AsyncIterator[None]:
        """Look-ups of this process wait for it; those of others are kept by the flight."""
        with self._marked(tenant, (key,)):
            await asyncio.sleep(_AFTERWARDS_SECONDS)
            yield

    async def settled(self, tenant: str) -> None:
        """Of the shared level, too."""
        for place in [place for place in self._storing if place[0] == tenant]:
            await self._stored(place)

    def writing(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Waits until no replica serves from its memory what was valid before."""
        return self._writes.writing(tenant)

    async def drop(self, tenant: str, selector: Selector) -> int:
        """Fills that are under way are refused first; then entries go, then what replicas hold of them."""
        await self._tell(tenant)
        removed = 0
        described = (selector.tag, selector.document, selector.question) != (None, None, None)
        for kind in ("answer",) if described else KINDS:  # nothing else is described
            if selector.kind in {None, kind}:
                async for digests in self._level.pages(tenant, kind):
                    chosen = await self._chosen(tenant, selector, digests) if described else digests
                    removed += await self._level.remove(tenant, kind, chosen)
        await self._wait_out(tenant, await self._tell(tenant))
        return removed

    async def disown(self, tenant: str, key: Key) -> bool:
        """Its mark is remembered, and every replica told, in the same step that removes it."""
        entry = self._local.get(tenant, key, self._clock())
        there, waiting = await self._level.disown(
            tenant, key, entry.mark if entry else "", reader=self._leases.reader,
            number=self._leases.revoke(tenant),
        )  # fmt: skip
        self._leases.forget_entries(tenant)
        await self._wait_out(tenant, waiting)
        return there

    def disowned(self, tenant: str, mark: str) -> bool:
        """Who serves under a lease knows all: a disowning waits until every reader has given up an earlier one."""
        return mark in self._leases.of(tenant).disowned

    async def entries(self, tenant: str, *, since: float = 0.0, limit: int = 1000) -> Sequence[EntryNote]:
        """Of the shared level."""
        before: Sequence[str] | None = None
        while True:  # those that have gone are forgotten by asking: others stand in their places then
            digests = await self._level.digests(tenant, "answer", since=since, limit=limit)
            notes = await self._level.notes(tenant, "answer", digests)
            if len(notes) == len(digests) or digests == before:
                return [EntryNote(note.key, note.about, note.stored) for note in notes if note.about]
            before = digests

    async def tally(self, tenant: str, asked: Mapping[bytes, int]) -> None:
        """For all replicas."""
        await self._level.tally(tenant, asked)

    async def most_asked(self, tenant: str, limit: int) -> Sequence[tuple[bytes, int]]:
        """Of all replicas."""
        return await self._level.most_asked(tenant, limit)

    async def statistics(self, tenant: str) -> Sequence[LevelStatistics]:
        """Of this process and of the shared level."""
        rows = list(self._local.statistics(tenant)) if self._local.capacity else []
        for kind in KINDS:
            entries = size = 0
            async for digests in self._level.pages(tenant, kind):
                more, larger = await self._level.sizes(tenant, kind, digests)
                entries, size = entries + more, size + larger
            rows.append(LevelStatistics("redis", kind, entries, size))
        return rows

    async def ping(self) -> None:
        """Every slot of the cluster is served."""
        await self._level.ping()

    async def _chosen(self, tenant: str, selector: Selector, digests: Sequence[str]) -> list[str]:
        notes = await self._level.notes(tenant, "answer", digests)
        return [note.key.digest for note in notes if matches(selector, note.key, note.about)]

    async def _store(self, holding: Holding, fills: Sequence[Fill], fence: Fence) -> list[bool] | None:
        """Which of them are stored; None with the shared level away."""
        if not fills:
            return []
        if self._left_alone(holding):
            return None
        sent = self._clock()
        try:
            done = await self._level.store(holding.tenant, fills, fence)
        except CacheUnavailableError:
            self._went_away(holding, sent)
            return None
        holding.pause = 0.0
        return done

    def _keep(self, tenant: str, fill: Fill, state: str, now: float) -> bool:
        """In this process. Retrieved passages come with the look-up of their answer: memory would spare nothing."""
        if not _kept_here(fill.key):
            return False
        entry = LocalEntry.new(fill, state, now=now, noted=_NOTED_BELOW).without_about()
        return self._local.put(tenant, fill.key, entry)

    @contextmanager
    def _marked(self, tenant: str, keys: Iterable[Key]) -> Iterator[None]:
        """Being stored: who looks for one of them meanwhile waits for that, and for what holds a mark already."""
        places = [place for place in ((tenant, key) for key in keys) if place not in self._storing]
        storing = asyncio.get_running_loop().create_future()
        self._storing.update(dict.fromkeys(places, storing))
        try:
            yield
        finally:
            for place in places:
                del self._storing[place]
            storing.set_result(None)

    async def _stored(self, place: tuple[str, Key]) -> None:
        while (storing := self._storing.get(place)) is not None:
            await asyncio.wait((storing,))

    async def _fly(self, holding: Holding, key: Key, beside: Key | None) -> Lookup:
        place = (holding.tenant, key, beside)
        flight = self._flights[place] = _Flight(self._leases.number())
        result: Lookup | None = None
        try:
            result = await self._ask(holding, key, beside, flight.number)
            return result
        finally:
            del self._flights[place]
            flight.end(result)

    def ask(self, tenant: str, key: Key, beside: Key | None, deliver: Callable[[Lookup], None]) -> bool:
        """One round trip without a task, where there is nobody to wait for and nothing of it in this process."""
        place = (tenant, key, beside)
        holding = self._leases.of(tenant)
        if (tenant, key) in self._storing or place in self._flights or holding.pause:
            return False
        flight, sent = _Flight(self._leases.number()), self._clock()

        def told(reply: Reply | CacheUnavailableError) -> None:
            self._flights.pop(place, None)
            result = self._learned(holding, key, flight.number, sent, reply)
            flight.end(result)
            deliver(result)

        begun = self._level.begin_lookup(
            tenant, key, beside, told, reader=self._leases.wanted(holding), number=flight.number,
            drops=holding.drops,
        )  # fmt: skip
        if begun:
            self._flights[place] = flight
        return begun

    async def _ask(self, holding: Holding, key: Key, beside: Key | None, number: int) -> Lookup:
        if self._left_alone(holding):
            return Lookup(None, self._of_this_process(holding, key))
        sent = self._clock()
        reply: Reply | CacheUnavailableError
        try:
            reply = await self._level.lookup(
                holding.tenant, key, beside, reader=self._leases.wanted(holding), number=number,
                drops=holding.drops,
            )  # fmt: skip
        except CacheUnavailableError as error:
            reply = error
        return self._learned(holding, key, number, sent, reply)

    def _learned(
        self, holding: Holding, key: Key, number: int, sent: float, reply: Reply | CacheUnavailableError
    ) -> Lookup:
        if isinstance(reply, CacheUnavailableError):
            self._went_away(holding, sent)
            return Lookup(None, self._of_this_process(holding, key))
        holding.pause = 0.0
        also = reply.beside
        return Lookup(
            Fence(reply.token), self._taken(holding, key, number, sent, reply),
            Cached(also.value, "redis", also.current, also.age, also.fresh) if also else None,
            reply.at,
        )  # fmt: skip

    def _taken(self, holding: Holding, key: Key, number: int, sent: float, reply: Reply) -> Cached | None:
        newest = self._leases.take(holding, number, sent, reply)
        found = reply.entry
        if found is None:
            return self._of_this_process(holding, key, reply.token) if newest else None
        if newest and _kept_here(key):
            now = self._clock()
            entry = LocalEntry(
                found.value, holding.shared(reply.token) if found.current else "", stored=now - found.age,
                fresh_until=now + found.fresh, kept_until=now + found.kept, noted=_NOTED_BELOW, about=None, mark=found.mark,
            )  # fmt: skip
            self._local.put(holding.tenant, key, entry)
        return Cached(found.value, "redis", found.current, found.age, found.fresh)

    def _of_this_process(self, holding: Holding, key: Key, state: str | None = None) -> Cached | None:
        now = self._clock()
        entry = self._local.get(holding.tenant, key, now)
        return entry.cached(now, current=entry.state == state) if entry is not None else None

    def _left_alone(self, holding: Holding) -> bool:
        """While Redis is away only one caller in a while waits for it."""
        if not holding.pause:
            return False
        now = self._clock()
        if now < holding.away_until:
            return True
        holding.away_until = now + _PROBE_SECONDS
        return False

    def _went_away(self, holding: Holding, sent: float) -> None:
        if sent < holding.failed:
            return  # one outage, noticed by many
        first, most = _AWAY_SECONDS
        holding.failed = now = self._clock()
        holding.pause = min(most, 2 * holding.pause) or first
        holding.away_until = now + holding.pause

    async def _tell(self, tenant: str) -> Waiting:
        number = self._leases.revoke(tenant)
        waiting = await self._level.dropped(tenant, reader=self._leases.reader, number=number)
        self._leases.forget_entries(tenant)
        return waiting

    async def _wait_out(self, tenant: str, waiting: Waiting) -> None:
        """Until whoever held a lease when it was told has given it up, or taken one that knows of the drop."""
        readers = Readers(self._lease, self._clock)
        readers.see(waiting)
        told = waiting.readers
        pause, most = _POLL_SECONDS
        while waiting.seconds > 0 or (told & waiting.readers).difference(readers.over):
            await asyncio.sleep(pause)
            pause = min(2 * pause, most)
            waiting = await self._level.readers(tenant)


def _kept_here(key: Key) -> bool:
    """Retrieved passages come with the look-up of their answer: memory would spare nothing, and they are large."""
    return key.kind != "retrieval"
