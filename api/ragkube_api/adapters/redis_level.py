"""The shared level: one method a script, in Python's types. What the replies mean is ``tiered_cache``'s business.

Every method raises ``CacheUnavailableError``. What lies in Redis may be damaged or somebody else's: that is counted,
and is as good as nothing.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ragkube_api.adapters import redis_scripts as scripts
from ragkube_api.adapters.redis_client import RedisClient, Script
from ragkube_api.adapters.redis_keys import slot_tag
from ragkube_api.adapters.resp_cluster import SLOTS
from ragkube_api.adapters.resp_connection import Word
from ragkube_api.domain import About, Fence, Fill, Key, Kind
from ragkube_api.errors import CacheUnavailableError

KINDS: Final[tuple[Kind, ...]] = ("answer", "retrieval", "document")

MOST_AT_ONCE = 1_000
_MOST_TENANTS: Final = 1_000
_PAGE: Final = 200
_ASKED_MS: Final = 30 * 24 * 3600 * 1000
_NOTHING: Final[frozenset[str]] = frozenset()
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")


class Stored(NamedTuple):
    """An entry as it lies in Redis; times in seconds."""

    value: bytes
    current: bool
    age: float
    fresh: float
    kept: float
    mark: str


class Reply(NamedTuple):
    """What a look-up tells, ``at`` the server's milliseconds. ``disowned`` is filled only when ``drops`` is new to the reader."""

    token: str
    drops: str
    granted: bool
    disowned: frozenset[str]
    entry: Stored | None = None
    beside: Stored | None = None
    at: int | None = None


class Waiting(NamedTuple):
    """Who must give up what it was granted, and how long nobody can know of leases that may live."""

    seconds: float
    readers: frozenset[tuple[str, int]]


class Note(NamedTuple):
    """An entry without its value."""

    key: Key
    stored: float
    about: About | None


def token() -> str:
    """Random: a lost one never comes back."""
    return uuid.uuid4().hex


class RedisLevel:
    """``lease_seconds`` is how long a reader may serve from its memory; every replica must have the same."""

    def __init__(
        self, client: RedisClient, prefix: str, *, lease_seconds: float, damaged: Callable[[], None]
    ) -> None:
        self.channel = f"{prefix}:revoked"
        self._client = client
        self._prefix = prefix
        self._lease = int(lease_seconds * 1000)
        self._damaged = damaged
        self._name = token()
        self._epochs = itertools.count()
        self._tag = lru_cache(_MOST_TENANTS)(self._tag_of)
        self._state_keys = lru_cache(_MOST_TENANTS)(self._state_keys_of)

    async def lookup(
        self, tenant: str, key: Key, beside: Key | None = None, *, reader: str, number: int, drops: str
    ) -> Reply:
        """One round trip; a lease is asked for when ``reader`` is given."""
        keys = self._looked_at(tenant, key, beside)
        return self._found(
            await self._run(scripts.LOOKUP, keys, [self._new_epoch(), self._lease, reader, number, drops])
        )

    def begin_lookup(
        self,
        tenant: str,
        key: Key,
        beside: Key | None,
        deliver: Callable[[Reply | CacheUnavailableError], None],
        *,
        reader: str,
        number: int,
        drops: str,
    ) -> bool:
        """``lookup`` without a task; False when it must be awaited."""

        def told(reply: Any) -> None:
            deliver(reply if isinstance(reply, CacheUnavailableError) else self._found(reply))

        keys = self._looked_at(tenant, key, beside)
        arguments: list[Word] = [self._new_epoch(), self._lease, reader, number, drops]
        return self._begin(scripts.LOOKUP, keys, arguments, told)

    async def lease(self, tenant: str, *, reader: str, number: int, drops: str) -> Reply:
        """The state of the documents and a lease on it."""
        arguments: list[Word] = [token(), self._lease, reader, number, drops]
        reply = await self._run(scripts.LEASE, self._state_keys(tenant), arguments)
        self._count(reply[2])
        return self._reply(reply, None)

    async def store(self, tenant: str, fills: Sequence[Fill], fence: Fence) -> list[bool]:
        """Decided on the server, in one step: False where the fence does not hold or the answer was disowned."""
        keys = list(self._state_keys(tenant))
        arguments: list[Word] = [self._new_epoch(), self._lease, fence.token]
        for fill in fills:
            keys += [self._entry_key(tenant, fill.key), *self._index_keys(tenant, fill.key.kind)]
            fresh, stale = fill.lifetime.fresh_seconds, fill.lifetime.stale_seconds
            arguments += [
                fill.key.digest, fill.value, fill.mark, _encoded(fill.about),
                int(fresh * 1000), max(1, int((fresh + stale) * 1000)), zlib.crc32(fill.value),
            ]  # fmt: skip
        corrupt, *done = await self._run(scripts.STORE, keys, arguments)
        self._count(corrupt)
        return [bool(one) for one in done]

    async def hold(
        self,
        tenant: str,
        write: str,
        *,
        lease_seconds: float,
        reader: str,
        number: int,
        waited: Iterable[tuple[str, int]],
    ) -> Waiting:
        """Mark that a write is under way, or renew the mark; ``waited`` readers' leases have run out."""
        arguments: list[Word] = [
            token(), self._lease, write, int(lease_seconds * 1000), self.channel, tenant, reader, number,
        ]  # fmt: skip
        for name, seen in waited:
            arguments += [name, seen]
        return self._waiting(await self._run(scripts.HOLD, self._state_keys(tenant)[:3], arguments))

    async def end(self, tenant: str, write: str) -> int:
        """1: ended; 0: somebody has to be waited for; -1: the mark was lost."""
        arguments: list[Word] = [token(), self._lease, write]
        return int(await self._run(scripts.END, self._state_keys(tenant)[:3], arguments))

    async def acknowledge(self, tenant: str, reader: str, number: int) -> None:
        """The reader has given up whatever was granted before that number."""
        arguments: list[Word] = [token(), self._lease, reader, number]
        await self._run(scripts.ACKNOWLEDGE, self._state_keys(tenant)[:3], arguments)

    async def dropped(self, tenant: str, *, reader: str, number: int) -> Waiting:
        """Tell every reader that entries were dropped, and refuse fills that are under way."""
        arguments: list[Word] = [token(), self._lease, token(), self.channel, tenant, reader, number]
        return self._waiting(await self._run(scripts.DROPPED, self._state_keys(tenant)[:3], arguments))

    async def readers(self, tenant: str) -> Waiting:
        """Who holds a lease now."""
        return self._waiting(
            await self._run(scripts.READERS, self._state_keys(tenant)[:3], [token(), self._lease])
        )

    async def disown(
        self, tenant: str, key: Key, mark: str, *, reader: str, number: int
    ) -> tuple[bool, Waiting]:
        """Remove the answer, remember its mark and tell every reader; ``mark`` where a reader has it in its memory."""
        keys = [*self._state_keys(tenant), self._entry_key(tenant, key), *self._index_keys(tenant, key.kind)]
        arguments: list[Word] = [
            token(), self._lease, token(), self.channel, tenant, reader, number, key.digest, mark,
        ]  # fmt: skip
        seconds, corrupt, there, *readers = await self._run(scripts.DISOWN, keys, arguments)
        return bool(there), self._waiting([seconds, corrupt, *readers])

    async def digests(self, tenant: str, kind: Kind, *, since: float, limit: int) -> Sequence[str]:
        """Of the entries in the order of their time; some may have gone since."""
        return [
            digest
            for digest, _ in await self._page(tenant, kind, int(since * 1e6), limit)
            if _is_digest(digest)
        ]

    async def pages(self, tenant: str, kind: Kind) -> AsyncIterator[Sequence[str]]:
        """Of every entry that is there all the while, whatever comes and goes; no reply keeps others waiting."""
        since: Word = 0
        before: Sequence[str] = ()
        while True:
            page = await self._page(tenant, kind, since, MOST_AT_ONCE)
            digests = [digest for digest, _ in page if _is_digest(digest)]
            yield sorted(set(digests).difference(before))
            if len(page) < MOST_AT_ONCE:
                return
            # entries of the same moment may stand on both sides of the page's end
            since, before = page[-1][1] if page[-1][1] != since else f"({since}", digests

    async def _page(self, tenant: str, kind: Kind, since: Word, limit: int) -> list[tuple[str, str]]:
        corrupt, found = await self._run(scripts.PAGE, self._index_keys(tenant, kind)[:1], [since, limit])
        self._count(corrupt)
        return [(_text(digest), _text(time)) for digest, time in _pairs(found)]

    async def notes(self, tenant: str, kind: Kind, digests: Sequence[str]) -> list[Note]:
        """Those that are there, in the same order."""
        index = self._index_keys(tenant, kind)
        notes: list[Note] = []
        for part in _parts(digests):
            keys = [*index, *(self._entry_key(tenant, Key(kind, digest)) for digest in part)]
            rows = await self._run(scripts.NOTES, keys, list(part))
            notes += [note for note in (self._note(kind, row) for row in rows) if note is not None]
        return notes

    async def sizes(self, tenant: str, kind: Kind, digests: Sequence[str]) -> tuple[int, int]:
        """How many of them are there, and the bytes of their values."""
        entries = size = 0
        for part in _parts(digests):
            keys = [self._entry_key(tenant, Key(kind, digest)) for digest in part]
            found = await self._run(scripts.SIZES, [*self._index_keys(tenant, kind), *keys], list(part))
            entries, size = entries + int(found[0]), size + int(found[1])
        return entries, size

    async def remove(self, tenant: str, kind: Kind, digests: Sequence[str]) -> int:
        """How many of them there were."""
        removed = 0
        for part in _parts(digests):
            keys = [self._entry_key(tenant, Key(kind, digest)) for digest in part]
            removed += await self._run(
                scripts.REMOVE, [*self._index_keys(tenant, kind), *keys], list(part)
            )  # fmt: skip
        return removed

    async def tally(self, tenant: str, asked: Mapping[bytes, int]) -> None:
        """Add to the counts."""
        arguments: list[Word] = [_ASKED_MS]
        for request, count in asked.items():
            arguments += [count, request]
        self._count(await self._run(scripts.TALLY, [f"{self._tag(tenant)}:asked"], arguments))

    async def most_asked(self, tenant: str, limit: int) -> list[tuple[bytes, int]]:
        """Requests and counts, most asked first."""
        corrupt, found = await self._run(scripts.ASKED, [f"{self._tag(tenant)}:asked"], [limit])
        self._count(corrupt)
        return [(bytes(request), int(count)) for request, count in _pairs(found)]

    async def ping(self) -> None:
        """The cluster says of itself that every slot is served."""
        info = await self._client.command(random.randrange(SLOTS), "CLUSTER", "INFO")  # noqa: S311 - no secret
        if "cluster_state:ok" not in _text(info).split():
            raise CacheUnavailableError(
                "The Redis Cluster does not serve every slot: cluster_state is not ok.", retry_after=2
            )

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Word]) -> Any:
        return await self._client.script(script, keys, arguments)

    def _begin(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Word], deliver: Callable[[Any], None]
    ) -> bool:
        return self._client.begin(script, keys, arguments, deliver)

    def _looked_at(self, tenant: str, key: Key, beside: Key | None) -> list[str]:
        keys = [*self._state_keys(tenant), self._entry_key(tenant, key)]
        if beside is not None:
            keys.append(self._entry_key(tenant, beside))
        return keys

    def _new_epoch(self) -> str:
        """For the case that one begins: no replica has ever used it, nor does this one again."""
        return f"{self._name}{next(self._epochs):x}"

    def _found(self, reply: Sequence[Any]) -> Reply:
        if reply[2]:
            self._count(reply[2])
        now = int(reply[4])
        beside = self._stored(now, reply[8:11]) if len(reply) > 8 else None
        return self._reply(reply, self._stored(now, reply[5:8]), beside, now)

    def _reply(
        self,
        reply: Sequence[Any],
        entry: Stored | None,
        beside: Stored | None = None,
        at: int | None = None,
    ) -> Reply:
        state = _text(reply[0])
        marks = frozenset(map(_text, reply[3])) if reply[3] else _NOTHING
        return Reply(state, state.partition(":")[2], bool(reply[1]), marks, entry, beside, at)

    def _waiting(self, reply: Sequence[Any]) -> Waiting:
        self._count(reply[1])
        readers = frozenset((_text(name), int(float(number))) for name, number in _pairs(reply[2:]))
        return Waiting(int(reply[0]) / 1000, readers)

    def _stored(self, now: int, words: Sequence[Any]) -> Stored | None:
        if not words or not (words[1] or words[2]):
            return None
        current, meta, value = words
        entry = _entry(now, bool(current), _text(meta), bytes(value))
        if entry is None:
            self._damaged()
        return entry

    def _note(self, kind: Kind, row: Sequence[Any]) -> Note | None:
        try:
            stored = int(_text(row[1]).split(" ")[0]) / 1e6
            return Note(Key(kind, _text(row[0])), stored, _decoded(row[2]))
        except (ValueError, TypeError):
            self._damaged()
            return None

    def _count(self, corrupt: int) -> None:
        for _ in range(int(corrupt)):
            self._damaged()

    def _tag_of(self, tenant: str) -> str:
        return slot_tag(self._prefix, tenant)

    def _state_keys_of(self, tenant: str) -> tuple[str, ...]:
        tag = self._tag(tenant)
        return f"{tag}:state", f"{tag}:writers", f"{tag}:readers", f"{tag}:disowned"

    def _entry_key(self, tenant: str, key: Key) -> str:
        if key.kind not in KINDS or not _is_digest(key.digest):
            msg = f"not a key: {key!r}"
            raise ValueError(msg)
        return f"{self._tag(tenant)}:{key.kind}:{key.digest}"

    def _index_keys(self, tenant: str, kind: Kind) -> list[str]:
        tag = self._tag(tenant)
        return [f"{tag}:index:{kind}", f"{tag}:expiry:{kind}"]


def _entry(now: int, current: bool, meta: str, value: bytes) -> Stored | None:
    try:
        stored, fresh, kept, checksum, mark = meta.split(" ")
        age = max(0.0, now / 1e3 - int(stored) / 1e6)
        entry = Stored(value, current, age, int(fresh) / 1000 - age, int(kept) / 1000 - age, mark)
        return entry if zlib.crc32(value) == int(checksum) else None
    except ValueError:
        return None


def _encoded(about: About | None) -> bytes:
    if about is None:
        return b""
    fields = [
        about.question, about.request.decode("latin-1"), about.partition, about.ttl_class,
        about.documents, about.tags, about.mark,
    ]  # fmt: skip
    return json.dumps(fields).encode()


def _decoded(text: bytes) -> About | None:
    """Raises ``ValueError`` or ``TypeError`` for what is no description."""
    if not text:
        return None
    question, request, partition, ttl_class, documents, tags, mark = json.loads(text)
    strings = (question, request, partition, ttl_class, mark, *documents, *tags)
    if not all(isinstance(each, str) for each in strings):
        raise TypeError
    return About(
        question, request.encode("latin-1"), partition, ttl_class, tuple(documents), tuple(tags), mark
    )


def _is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def _parts(digests: Sequence[str]) -> Iterator[Sequence[str]]:
    return (digests[start : start + _PAGE] for start in range(0, len(digests), _PAGE))


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _text(word: Any) -> str:
    """Never fails: what is no UTF-8 is nothing of ours and equals nothing."""
    return word.decode(errors="replace") if isinstance(word, bytes) else str(word)
