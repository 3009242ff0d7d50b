"""Answers and source progress on Redis Cluster.

Why an entry is never stale
---------------------------
Everything of a tenant lives in one slot, ``{prefix:tenant}``: an *epoch* (a random token), the *pending writers*
(token and lease deadline) and the entries. The **fence** is the epoch plus the replication id of the primary that
answered. A hit needs: no pending writer, and the entry's fence equal to the current one, checked by one script on
the server. A fill needs the same, against the fence that was read before retrieval. A write of documents changes the
epoch twice, when it begins and when it ends, and is pending in between. All clocks are the server's.

Epochs are random and not counted, so that a lost one can never come back. What happens when things break:

* *Redis away when a write begins*: the write is refused. When only the reply was lost, the marker is taken back in
  the background, or its lease runs out; until then the tenant misses.
* *Redis away when it ends*: the marker stays, so nobody is served; the end is tried again for ``END_PATIENCE``, then
  the caller gets ``CacheUnavailableError`` (stored, but not confirmed) and it is tried on in the background.
* *The write fails with its outcome unknown* (the store went away, a timeout, a cancellation): the store may still
  carry it out, so the tenant misses for one more lease before the write counts as ended.
* *The writer crashes*: the next script that sees its lease expired removes it and changes the epoch.
* *The lease cannot be renewed in time*: the body of ``writing()`` is cancelled before the lease ends, so that no
  write commits after others were allowed to fill.
* *A failover, a restart from disk, a slot that moved*: another primary has another replication id, which no earlier
  entry and no earlier fence carries. If the new primary had not yet received a pending marker, the writer's next
  renewal puts it back and changes the epoch; its end changes the epoch in any case.
* *A primary that lost its data*, or evicted the epoch: a new random epoch.
* *A server without the script*: it is sent again.

What is left: a writer that loses its marker to a failover **and** crashes after its commit, before the next renewal
(a second or so); a primary that was frozen through its own failover and answers queries in the instant before it
notices. Give Redis a ``volatile-*`` eviction policy: epochs and markers carry no TTL, entries do. An ACL user needs
``+@read +@write +@fast +@scripting +@connection +info +cluster|info +cluster|slots +command`` on ``~{prefix*``.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

import orjson
import structlog
from redis.asyncio.cluster import RedisCluster

from ragkube_api.adapters.leases import Leases
from ragkube_api.adapters.local_level import LocalLevel, MemoryValueCache
from ragkube_api.adapters.redis_client import RedisClient, Script
from ragkube_api.adapters.redis_flights import RedisFlights
from ragkube_api.adapters.redis_level import RedisLevel
from ragkube_api.adapters.redis_limiter import RedisReservations
from ragkube_api.adapters.redis_subscription import Subscription
from ragkube_api.adapters.redis_values import RedisValueCache
from ragkube_api.adapters.redis_writes import RedisWrites
from ragkube_api.adapters.tiered_cache import TieredCache
from ragkube_api.domain import CachedAnswer, CacheLookup, Fence, SourceStatus
from ragkube_api.errors import CacheUnavailableError, DependencyUnavailableError
from ragkube_api.settings import LocalLevel as LocalLevelSettings
from ragkube_api.settings import RedisCacheBackend

log = structlog.get_logger(__name__)

LEASE_SECONDS = 15.0
READER_SECONDS = 2.0
FLIGHT_SECONDS = 5.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
END_PATIENCE_SECONDS = 5.0
_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_STATE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local primary = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if not primary then return redis.error_reply('ERR no replication id') end
local epoch = redis.call('GET', KEYS[1])
local function begin_epoch()
  epoch = ARGV[1]
  redis.call('SET', KEYS[1], epoch)
end
if redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now) > 0 or not epoch then begin_epoch() end
"""
_FENCE = _STATE + "local fence = epoch .. ':' .. primary\n"

LOOKUP = Script(
    _FENCE
    + """
if redis.call('ZCARD', KEYS[2]) > 0 then return {fence} end
local entry = redis.call('HMGET', KEYS[3], 'fence', 'stored', 'value')
if entry[1] ~= fence then return {fence} end
return {fence, math.max(0, now - entry[2]), entry[3]}
"""
)
STORE = Script(
    _FENCE
    + """
if redis.call('ZCARD', KEYS[2]) > 0 or ARGV[2] ~= fence then return 0 end
redis.call('HSET', KEYS[3], 'fence', fence, 'stored', now, 'value', ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return 1
"""
)
BEGIN = Script(
    _STATE
    + """
begin_epoch()
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[2])
return 1
"""
)
RENEW = Script(
    _STATE
    + """
if not redis.call('ZSCORE', KEYS[2], ARGV[2]) then begin_epoch() end
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[2])
return 1
"""
)
END = Script(
    _STATE
    + """
begin_epoch()
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
"""
)
CLEAR = Script(_STATE + "begin_epoch()\nreturn 1")


@dataclass(frozen=True, slots=True)
class RedisBackend:
    """What one Redis Cluster gives to the runtime."""

    answers: RedisAnswerCache
    sources: RedisSourceBoard
    reservations: RedisReservations
    cache: TieredCache
    values: RedisValueCache
    flights: RedisFlights


@asynccontextmanager
async def open_redis(
    settings: RedisCacheBackend,
    *,
    local: LocalLevelSettings | None = None,
    lease_seconds: float = LEASE_SECONDS,
    reader_seconds: float = READER_SECONDS,
    flight_seconds: float = FLIGHT_SECONDS,
    damaged: Callable[[], None] = lambda: None,
) -> AsyncIterator[RedisBackend]:
    """A backend that starts whether or not Redis is there, and heals by itself.

    ``damaged`` is called for every value that could not be used. ``reader_seconds`` is the lease of what a replica
    keeps in its memory; all replicas must have the same. ``flight_seconds`` is the lease of one that computes for all.
    """
    local = local or LocalLevelSettings()
    client = RedisClient(settings)
    answers = RedisAnswerCache(client, settings.key_prefix, lease_seconds)
    level = RedisLevel(client, settings.key_prefix, lease_seconds=reader_seconds, damaged=damaged)
    memory = LocalLevel(max_entries=local.max_entries, max_bytes=local.max_bytes, clock=_clock)
    listening = Subscription(settings, level.channel)
    leases = Leases(level, memory, listening, lease_seconds=reader_seconds, clock=_clock)
    writes = RedisWrites(
        level, lease_seconds=lease_seconds, reader_seconds=reader_seconds, reader=leases.reader,
        revoke=leases.revoke, clock=_clock,
    )  # fmt: skip
    values = RedisValueCache(
        client, settings.key_prefix,
        MemoryValueCache(max_entries=local.max_entries, max_bytes=local.max_bytes // 4, clock=_clock),
        clock=_clock, damaged=damaged,
    )  # fmt: skip
    flights = RedisFlights(client, settings.key_prefix, lease_seconds=flight_seconds)
    renewing = asyncio.create_task(leases.run(), name="cache-leases")
    try:
        prefix = settings.key_prefix
        yield RedisBackend(
            answers, RedisSourceBoard(client, prefix), RedisReservations(client, prefix),
            TieredCache(level, memory, leases, writes, lease_seconds=reader_seconds, clock=_clock), values,
            flights,
        )  # fmt: skip
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await asyncio.gather(
            answers.close(settings.timeout_seconds), writes.close(settings.timeout_seconds),
            leases.close(settings.timeout_seconds), flights.close(),
        )  # fmt: skip
        await client.close()


class RedisAnswerCache:
    """``AnswerCache`` on Redis Cluster; the module says why it is never stale."""

    def __init__(self, client: RedisClient, prefix: str, lease_seconds: float) -> None:
        self._client = client
        self._prefix = prefix
        self._lease = lease_seconds
        self._ending: set[asyncio.Task[None]] = set()

    async def lookup(self, tenant: str, key: str) -> CacheLookup:
        """One round trip."""
        keys = [*self._state_keys(tenant), self._entry_key(tenant, key)]
        found = await self._client.script(LOOKUP, keys, [_token()])
        fence = Fence(found[0].decode())
        if len(found) == 1:
            return CacheLookup(fence, None)
        return CacheLookup(fence, CachedAnswer(bytes(found[2]), int(found[1]) / 1000))

    async def store(self, tenant: str, key: str, value: bytes, fence: Fence, ttl_seconds: int) -> bool:
        """One round trip; the server decides whether the fence still holds."""
        keys = [*self._state_keys(tenant), self._entry_key(tenant, key)]
        arguments: list[bytes | str | int] = [_token(), fence.token, value, ttl_seconds * 1000]
        return bool(await self._client.script(STORE, keys, arguments))

    def writing(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Hold this around a write of documents."""
        return self._writing(self._state_keys(tenant), _token())

    async def clear(self, tenant: str) -> None:
        """A new epoch: entries from before can no longer be read and expire by their TTL."""
        await self._client.script(CLEAR, self._state_keys(tenant), [_token()])

    async def ping(self) -> None:
        """The cluster says of itself that every slot is served."""
        state = await self._client.run(_cluster_state)
        if state != "ok":
            raise CacheUnavailableError(
                "The Redis Cluster does not serve every slot: cluster_state is not ok.", retry_after=2
            )

    async def close(self, timeout_seconds: float) -> None:
        """Give ends of writes that are still due a last moment; leases take care of the rest."""
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    @asynccontextmanager
    async def _writing(self, keys: list[str], token: str) -> AsyncIterator[None]:
        deadline = self._deadline()
        try:
            await self._client.script(BEGIN, keys, self._lease_arguments(token))
        except BaseException:
            self._start_ending(keys, token)  # it may have been recorded all the same
            raise
        try:
            async with self._renewed(keys, token, deadline):
                yield
        except (DependencyUnavailableError, TimeoutError, asyncio.CancelledError):
            self._start_ending(keys, token, delay=self._lease)
            raise
        except BaseException:
            await self._end(keys, token, confirm=False)
            raise
        await self._end(keys, token, confirm=True)

    @asynccontextmanager
    async def _renewed(self, keys: list[str], token: str, deadline: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(deadline) as limit:
                renewal = asyncio.create_task(self._renew(keys, token, limit), name="cache-lease")
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

    async def _renew(self, keys: list[str], token: str, limit: asyncio.Timeout) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._lease / 4))
            deadline = self._deadline()
            try:
                await self._client.script(RENEW, keys, self._lease_arguments(token))
            except CacheUnavailableError:
                continue
            limit.reschedule(deadline)

    async def _end(self, keys: list[str], token: str, *, confirm: bool) -> None:
        task = self._start_ending(keys, token)
        done, _ = await asyncio.wait([task], timeout=END_PATIENCE_SECONDS if confirm else 1)
        if confirm and not done:
            message = "The documents were written, but the cache went away before it confirmed that."
            raise CacheUnavailableError(message, retry_after=2)

    def _start_ending(self, keys: list[str], token: str, *, delay: float = 0) -> asyncio.Task[None]:
        task = asyncio.create_task(self._end_at_last(keys, token, delay), name="cache-end-of-write")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def _end_at_last(self, keys: list[str], token: str, delay: float) -> None:
        await asyncio.sleep(delay)
        pause = 0.05
        while True:
            try:
                await self._client.script(END, keys, [_token(), token])
            except CacheUnavailableError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, 1.0)
            else:
                return

    def _deadline(self) -> float:
        # counted from before the request is sent, with a quarter to spare for the commit in flight
        return asyncio.get_running_loop().time() + self._lease * 0.75

    def _lease_arguments(self, token: str) -> list[bytes | str | int]:
        return [_token(), token, int(self._lease * 1000)]

    def _tag(self, tenant: str) -> str:
        if not _TENANT.fullmatch(tenant):
            msg = f"not a tenant: {tenant!r}"
            raise ValueError(msg)
        return f"{{{self._prefix}:{tenant}}}"

    def _state_keys(self, tenant: str) -> list[str]:
        tag = self._tag(tenant)
        return [f"{tag}:epoch", f"{tag}:writers"]

    def _entry_key(self, tenant: str, key: str) -> str:
        return f"{self._tag(tenant)}:answer:{sha256(key.encode()).hexdigest()}"


class RedisSourceBoard:
    """``SourceBoard`` as one hash."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self._client = client
        self._key = f"{{{prefix}}}:sources"

    async def publish(self, status: SourceStatus) -> None:
        """Replace the source's field."""
        body = orjson.dumps(status.as_json())

        async def write(client: RedisCluster) -> None:
            await client.execute_command("HSET", self._key, status.name, body)

        await self._client.run(write)

    async def read(self) -> Mapping[str, SourceStatus]:
        """Every source that was published."""

        async def fetch(client: RedisCluster) -> list[bytes]:
            return list(await client.execute_command("HVALS", self._key))

        found = [_status(body) for body in await self._client.run(fetch)]
        return {status.name: status for status in sorted(found, key=lambda status: status.name)}


def _clock() -> float:
    """Goes on while the machine is suspended: a lease that was held then has run out."""
    return time.clock_gettime(_CLOCK)


async def _cluster_state(client: RedisCluster) -> str:
    info = await client.execute_command("CLUSTER INFO", target_nodes=RedisCluster.RANDOM)
    return str(info.get("cluster_state"))


def _status(body: bytes) -> SourceStatus:
    fields = orjson.loads(body)
    failures = {item["path"]: (item["code"], item["detail"]) for item in fields.pop("failures")}
    return SourceStatus(**fields, failures=failures)


def _token() -> str:
    return uuid.uuid4().hex
