"""Answers and source progress inside one process: bounded by entries and by bytes, least recently used goes first."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from uuid import uuid4

from ragkube_api.adapters.local_level import LocalEntry, LocalLevel
from ragkube_api.domain import (
    Cached,
    EntryNote,
    Fence,
    Fill,
    Key,
    LevelStatistics,
    Lookup,
    Selector,
    SourceStatus,
)
from ragkube_api.errors import DependencyUnavailableError

MAX_TENANTS = 10_000
MAX_DISOWNED = 10_000
"""Disowned answers a tenant remembers; the oldest are forgotten."""
MAX_ASKED = 1_000
"""Requests a tenant remembers by how often they are asked."""


@dataclass(slots=True)
class _State:
    """A tenant's documents as this process knows them, and what operations asked to remember."""

    generation: int
    drops: int = 0
    writers: int = 0
    disowned: OrderedDict[str, None] = field(default_factory=OrderedDict)
    asked: Counter[bytes] = field(default_factory=Counter)

    @property
    def idle(self) -> bool:
        return not (self.writers or self.disowned or self.asked)


class MemoryCache:
    """``FencedCache`` for a process that alone owns its documents."""

    def __init__(
        self,
        *,
        max_entries: int,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        unknown_seconds: float = 15,
    ) -> None:
        """``unknown_seconds``: how long a write whose outcome is not known may still be carried out."""
        self._level = LocalLevel(max_entries=max_entries, max_bytes=max_bytes, clock=clock)
        self._clock = clock
        self._unknown = unknown_seconds
        self._states: OrderedDict[str, _State] = OrderedDict()
        # One count for all tenants, and a token of this run: no generation ever comes back.
        self._generations = itertools.count(1)
        self._instance = uuid4().hex

    def peek(self, tenant: str, key: Key) -> Cached | None:
        """A current value within its TTL."""
        found = self._found(tenant, key)
        return found if found is not None and found.current and found.fresh_seconds > 0 else None

    def ask(self, tenant: str, key: Key, beside: Key | None, deliver: Callable[[Lookup], None]) -> bool:
        """There is no other level to ask."""
        del tenant, key, beside, deliver
        return False

    async def lookup(self, tenant: str, key: Key, beside: Key | None = None) -> Lookup:
        """The value, if any, and the current fence."""
        found = self._found(tenant, key)
        also = beside is not None and not (found is not None and found.current)
        return Lookup(
            self._fence(self._state(tenant)), found, self._found(tenant, beside) if beside and also else None
        )

    async def store(self, tenant: str, *fills: Fill, fence: Fence | None) -> bool:
        """Store unless a write began since the fence was read, or one is under way."""
        state = self._state(tenant)
        if fence is not None and (state.writers or fence != self._fence(state)):
            return False
        documents, now, noted = self._documents(state) if fence else "", self._clock(), time.time()
        stored = [
            fill.mark not in state.disowned
            and self._level.put(tenant, fill.key, LocalEntry.new(fill, documents, now=now, noted=noted))
            for fill in fills
        ]
        return all(stored)

    def afterwards(self, tenant: str, key: Key) -> AbstractAsyncContextManager[None]:
        """Storing takes no time here."""
        del tenant, key
        return nullcontext()

    async def settled(self, tenant: str) -> None:
        """What is stored is stored at once."""

    def writing(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """A new generation at the beginning, and again at the end for fills that began in between."""
        return self._writing(tenant)

    async def drop(self, tenant: str, selector: Selector) -> int:
        """Remove entries; fills that are under way are not stored."""
        self._state(tenant).drops += 1
        return self._level.drop(tenant, selector)

    async def disown(self, tenant: str, key: Key) -> bool:
        """Remove the answer and refuse it from now on."""
        entry = self._level.get(tenant, key, self._clock())
        if entry is None:
            return False
        state = self._state(tenant)
        state.drops += 1
        self._level.remove(tenant, key)
        if entry.about is not None and entry.about.mark:
            state.disowned[entry.about.mark] = None
            while len(state.disowned) > MAX_DISOWNED:
                state.disowned.popitem(last=False)
        return True

    def disowned(self, tenant: str, mark: str) -> bool:
        """Known at once."""
        return mark in self._state(tenant).disowned

    async def entries(self, tenant: str, *, since: float = 0.0, limit: int = 1000) -> Sequence[EntryNote]:
        """Stored answers in the order of their time."""
        return self._level.notes(tenant, since=since, limit=limit)

    async def tally(self, tenant: str, asked: Mapping[bytes, int]) -> None:
        """Count; when there are too many requests, the least asked half is forgotten."""
        counts = self._state(tenant).asked
        counts.update(asked)
        if len(counts) > 2 * MAX_ASKED:
            self._state(tenant).asked = Counter(dict(counts.most_common(MAX_ASKED)))

    async def most_asked(self, tenant: str, limit: int) -> Sequence[tuple[bytes, int]]:
        """Most asked first."""
        return self._state(tenant).asked.most_common(limit)

    async def statistics(self, tenant: str) -> Sequence[LevelStatistics]:
        """By kind."""
        return self._level.statistics(tenant)

    async def ping(self) -> None:
        """It is always there."""

    @asynccontextmanager
    async def _writing(self, tenant: str) -> AsyncIterator[None]:
        state = self._state(tenant)
        state.writers += 1
        self._renew(state)
        try:
            yield
        except (DependencyUnavailableError, TimeoutError, asyncio.CancelledError):
            # it may still be carried out: nothing is served or stored until that is over
            asyncio.get_running_loop().call_later(self._unknown, self._end, state)
            raise
        except BaseException:
            self._end(state)
            raise
        self._end(state)

    def _end(self, state: _State) -> None:
        state.writers -= 1
        self._renew(state)

    def _renew(self, state: _State) -> None:
        state.generation = next(self._generations)

    def _found(self, tenant: str, key: Key) -> Cached | None:
        now = self._clock()
        entry = self._level.get(tenant, key, now)
        if entry is None:
            return None
        state = self._state(tenant)
        current = state.writers == 0 and entry.state == self._documents(state)
        return entry.cached(now, current=current)

    def _state(self, tenant: str) -> _State:
        state = self._states.get(tenant)
        if state is None:
            state = self._states[tenant] = _State(next(self._generations))
            self._forget_idle()
        return state

    def _forget_idle(self) -> None:
        """Names of tenants come from outside. A tenant that is forgotten gets a new generation."""
        if len(self._states) > MAX_TENANTS:
            name, oldest = next(iter(self._states.items()))
            if oldest.idle:
                del self._states[name]
            else:
                self._states.move_to_end(name)

    def _documents(self, state: _State) -> str:
        return f"{self._instance}:{state.generation}"

    def _fence(self, state: _State) -> Fence:
        return Fence(f"{self._documents(state)}:{state.drops}")


class MemorySourceBoard:
    """``SourceBoard`` of one process."""

    def __init__(self) -> None:
        self._statuses: dict[str, SourceStatus] = {}

    async def publish(self, status: SourceStatus) -> None:
        """Replace what is known of that source."""
        self._statuses[status.name] = status

    async def read(self) -> Mapping[str, SourceStatus]:
        """By name."""
        return dict(self._statuses)
