"""The level in the process: entries of every tenant, bounded by number and by bytes, least recently used goes first.

It knows nothing of fences: each entry carries the state of documents it was computed from, its owner compares it.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ragkube_api.adapters.selection import matches
from ragkube_api.domain import About, Cached, EntryNote, Fill, Key, LevelStatistics, Lifetime, Selector

# What Python needs for an entry besides its value: its objects and its place in the dictionary.
_OVERHEAD = 600


class LocalEntry(NamedTuple):
    """A value and the state of documents it belongs to; times are the owner's clock, ``noted`` is since 1970."""

    value: bytes
    state: str
    stored: float
    fresh_until: float
    kept_until: float
    noted: float
    about: About | None = None
    mark: str = ""

    @classmethod
    def new(cls, fill: Fill, state: str, *, now: float, noted: float) -> LocalEntry:
        """One that is stored now."""
        fresh_until = now + fill.lifetime.fresh_seconds
        stale = fill.lifetime.stale_seconds
        kept_until = fresh_until + stale if stale else fresh_until
        return cls(fill.value, state, now, fresh_until, kept_until, noted, fill.about, fill.mark)

    def without_about(self) -> LocalEntry:
        """The same where another level has the description."""
        return self._replace(about=None)

    def without_state(self) -> LocalEntry:
        """The same, never current: only its evidence can tell whether it is valid."""
        return self._replace(state="")

    def cached(self, now: float, *, current: bool) -> Cached:
        """As the port shows it."""
        return Cached(self.value, "l1", current, max(0.0, now - self.stored), self.fresh_until - now)

    @property
    def weight(self) -> int:
        """Bytes it is counted with."""
        about = self.about
        described = len(about.question) + len(about.request) if about else 0
        return len(self.value) + described + _OVERHEAD


class LocalLevel:
    """A bounded dictionary of entries. Not for threads."""

    def __init__(self, *, max_entries: int, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self.capacity = min(max_entries, max_bytes)
        self._entries: OrderedDict[tuple[str, Key], LocalEntry] = OrderedDict()
        self._count: Counter[str] = Counter()  # by tenant; a set of keys each would need 65 bytes an entry
        self._bytes = 0
        self._evictions: Counter[str] = Counter()

    def get(self, tenant: str, key: Key, now: float) -> LocalEntry | None:
        """The entry while it is kept; it counts as used. ``now`` is what the clock says."""
        place = (tenant, key)
        entry = self._entries.get(place)
        if entry is None:
            return None
        if entry.kept_until <= now:
            self.remove(tenant, key)
            return None
        self._entries.move_to_end(place)
        return entry

    def put(self, tenant: str, key: Key, entry: LocalEntry) -> bool:
        """Keep it and make room for it; False when it is larger than all the room."""
        self.remove(tenant, key)
        if self._max_entries == 0 or entry.weight > self._max_bytes:
            return False
        self._entries[tenant, key] = entry
        self._count[tenant] += 1
        self._bytes += entry.weight
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            oldest_tenant, oldest_key = next(iter(self._entries))
            self.remove(oldest_tenant, oldest_key)
            self._evictions[oldest_key.kind] += 1
        return True

    def remove(self, tenant: str, key: Key) -> bool:
        """Forget one; False when it was not there."""
        entry = self._entries.pop((tenant, key), None)
        if entry is None:
            return False
        self._bytes -= entry.weight
        self._count[tenant] -= 1
        if not self._count[tenant]:
            del self._count[tenant]
        return True

    def clear(self, tenant: str) -> None:
        """Forget everything of the tenant."""
        for key in self._keys(tenant):
            self.remove(tenant, key)

    def drop(self, tenant: str, selector: Selector) -> int:
        """Forget the tenant's entries that the selector names; how many there were."""
        chosen = [key for key, entry in self._of(tenant) if matches(selector, key, entry.about)]
        return sum(self.remove(tenant, key) for key in chosen)

    def notes(self, tenant: str, *, since: float, limit: int) -> Sequence[EntryNote]:
        """Answers that are described, in the order of their time."""
        found = [
            EntryNote(key, entry.about, entry.noted)
            for key, entry in self._of(tenant)
            if key.kind == "answer" and entry.about is not None and entry.noted >= since
        ]
        return sorted(found, key=lambda note: note.stored)[:limit]

    def statistics(self, tenant: str) -> Sequence[LevelStatistics]:
        """One row a kind; evictions are those of all tenants."""
        count: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for key, entry in self._of(tenant):
            count[key.kind] += 1
            size[key.kind] += len(entry.value)
        kinds: tuple[str, ...] = ("answer", "retrieval", "document")
        return [LevelStatistics("l1", kind, count[kind], size[kind], self._evictions[kind]) for kind in kinds]

    def _of(self, tenant: str) -> list[tuple[Key, LocalEntry]]:
        now = self._clock()
        found = [(key, self._entries[tenant, key]) for key in self._keys(tenant)]
        return [(key, entry) for key, entry in found if entry.kept_until > now]

    def _keys(self, tenant: str) -> list[Key]:
        """Asks every entry of all tenants, unless the tenant has none."""
        return [key for owner, key in self._entries if owner == tenant] if tenant in self._count else []


class MemoryValueCache:
    """``ValueCache`` of one process."""

    def __init__(self, *, max_entries: int, max_bytes: int, clock: Callable[[], float]) -> None:
        self._values = LocalLevel(max_entries=max_entries, max_bytes=max_bytes, clock=clock)
        self._clock = clock

    async def get(self, tenant: str, digest: str) -> bytes | None:
        """The value, if it is there and its TTL is not over."""
        entry = self._values.get(tenant, Key("document", digest), self._clock())
        return entry.value if entry else None

    async def put(self, tenant: str, digest: str, value: bytes, ttl_seconds: float) -> None:
        """Keep it if it fits."""
        fill = Fill(Key("document", digest), value, Lifetime(ttl_seconds))
        self._values.put(tenant, fill.key, LocalEntry.new(fill, "", now=self._clock(), noted=math.nan))
