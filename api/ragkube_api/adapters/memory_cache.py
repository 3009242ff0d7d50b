"""Answers and source progress inside one process: bounded by entries and by bytes, least recently used goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from ragkube_api.domain import CachedAnswer, CacheLookup, Fence, SourceStatus


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    stored_at: float
    expires_at: float


@dataclass(slots=True)
class _Tenant:
    generation: int = 0
    writers: int = 0
    keys: set[str] = field(default_factory=set)


class MemoryAnswerCache:
    """``AnswerCache`` for a process that alone owns its documents."""

    def __init__(
        self, *, max_entries: int, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._tenants: dict[str, _Tenant] = {}
        self._bytes = 0
        # A fence of another process or another run never matches.
        self._instance = uuid4().hex

    async def lookup(self, tenant: str, key: str) -> CacheLookup:
        """The valid entry, if any, and the current fence."""
        fence = self._fence(tenant)
        entry = self._entries.get((tenant, key))
        if entry is None:
            return CacheLookup(fence, None)
        now = self._clock()
        if entry.expires_at <= now:
            self._drop(tenant, key)
            return CacheLookup(fence, None)
        self._entries.move_to_end((tenant, key))
        return CacheLookup(fence, CachedAnswer(entry.value, max(0.0, now - entry.stored_at)))

    async def store(self, tenant: str, key: str, value: bytes, fence: Fence, ttl_seconds: int) -> bool:
        """Store unless a write began since the fence was read, or one is under way."""
        state = self._tenant(tenant)
        if state.writers or fence != self._fence(tenant) or len(value) > self._max_bytes:
            return False
        self._drop(tenant, key)
        now = self._clock()
        self._entries[tenant, key] = _Entry(value, now, now + ttl_seconds)
        state.keys.add(key)
        self._bytes += len(value)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            oldest_tenant, oldest_key = next(iter(self._entries))
            self._drop(oldest_tenant, oldest_key)
        return True

    def writing(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Invalidate at the beginning, and again at the end for fills that began in between."""
        return self._writing(tenant)

    async def clear(self, tenant: str) -> None:
        """Drop the tenant's entries."""
        self._invalidate(tenant)

    async def ping(self) -> None:
        """It is always there."""

    @asynccontextmanager
    async def _writing(self, tenant: str) -> AsyncIterator[None]:
        state = self._tenant(tenant)
        state.writers += 1
        self._invalidate(tenant)
        try:
            yield
        finally:
            state.writers -= 1
            self._invalidate(tenant)

    def _tenant(self, tenant: str) -> _Tenant:
        return self._tenants.setdefault(tenant, _Tenant())

    def _fence(self, tenant: str) -> Fence:
        return Fence(f"{self._instance}:{self._tenant(tenant).generation}")

    def _invalidate(self, tenant: str) -> None:
        state = self._tenant(tenant)
        state.generation += 1
        for key in tuple(state.keys):
            self._drop(tenant, key)

    def _drop(self, tenant: str, key: str) -> None:
        entry = self._entries.pop((tenant, key), None)
        if entry is not None:
            self._bytes -= len(entry.value)
            self._tenants[tenant].keys.discard(key)


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
