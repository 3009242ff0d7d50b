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
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
import structlog
from redis.asyncio.cluster import RedisCluster

from ragkube_api.adapters.leases import Leases
from ragkube_api.adapters.local_level import LocalLevel, MemoryValueCache
from ragkube_api.adapters.redis_client import RedisClient
from ragkube_api.adapters.redis_flights import RedisFlights
from ragkube_api.adapters.redis_level import RedisLevel
from ragkube_api.adapters.redis_limiter import RedisReservations
from ragkube_api.adapters.redis_subscription import Subscription
from ragkube_api.adapters.redis_values import RedisValueCache
from ragkube_api.adapters.redis_writes import RedisWrites
from ragkube_api.adapters.tiered_cache import TieredCache
from ragkube_api.domain import SourceStatus
from ragkube_api.settings import LocalLevel as LocalLevelSettings
from ragkube_api.settings import RedisCacheBackend

log = structlog.get_logger(__name__)

LEASE_SECONDS = 15.0
READER_SECONDS = 2.0
FLIGHT_SECONDS = 5.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
END_PATIENCE_SECONDS = 5.0
_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class RedisBackend:
    """What one Redis Cluster gives to the runtime."""

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
            RedisSourceBoard(client, prefix), RedisReservations(client, prefix),
            TieredCache(level, memory, leases, writes, lease_seconds=reader_seconds, clock=_clock), values,
            flights,
        )  # fmt: skip
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await asyncio.gather(
            writes.close(settings.timeout_seconds),
            leases.close(settings.timeout_seconds), flights.close(),
        )  # fmt: skip
        await client.close()


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
