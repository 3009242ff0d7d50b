"""What one Redis Cluster (or Valkey) gives to the runtime: caches, flights, limits and the progress of sources.

Why an entry is never stale is told in ``tiered_cache`` (readers), ``redis_writes`` (writers) and ``redis_scripts``. Redis
may evict only keys with a TTL (``docs/caching.md`` names the policies): readers and marks of writes carry none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from ragkube_api.adapters.leases import Leases
from ragkube_api.adapters.local_level import LocalLevel
from ragkube_api.adapters.redis_audits import RedisAuditBook
from ragkube_api.adapters.redis_client import RedisClient
from ragkube_api.adapters.redis_counts import RedisCountBoard
from ragkube_api.adapters.redis_flights import RedisFlights
from ragkube_api.adapters.redis_level import RedisLevel
from ragkube_api.adapters.redis_limiter import RedisReservations
from ragkube_api.adapters.redis_subscription import Subscription
from ragkube_api.adapters.redis_values import RedisValueCache
from ragkube_api.adapters.redis_writes import RedisWrites
from ragkube_api.adapters.resp_cluster import slot_of
from ragkube_api.adapters.tiered_cache import TieredCache
from ragkube_api.domain import SourceStatus
from ragkube_api.settings import LocalLevel as LocalLevelSettings
from ragkube_api.settings import RedisCacheBackend

LEASE_SECONDS = 15.0
READER_SECONDS = 2.0
FLIGHT_SECONDS = 5.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class RedisBackend:
    """What one Redis Cluster gives to the runtime."""

    sources: RedisSourceBoard
    reservations: RedisReservations
    cache: TieredCache
    values: RedisValueCache
    flights: RedisFlights
    audits: RedisAuditBook
    counts: RedisCountBoard


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
    values = RedisValueCache(client, settings.key_prefix, clock=_clock, damaged=damaged)
    flights = RedisFlights(client, settings.key_prefix, lease_seconds=flight_seconds)
    renewing = asyncio.create_task(leases.run(), name="cache-leases")
    try:
        await client.open()
        prefix = settings.key_prefix
        yield RedisBackend(
            RedisSourceBoard(client, prefix), RedisReservations(client, prefix),
            TieredCache(level, memory, leases, writes, lease_seconds=reader_seconds, clock=_clock), values,
            flights, RedisAuditBook(client, prefix, damaged), RedisCountBoard(client, prefix, damaged),
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
        await self._client.command(slot_of(self._key), "HSET", self._key, status.name, body)

    async def read(self) -> Mapping[str, SourceStatus]:
        """Every source that was published."""
        found = [_status(body) for body in await self._client.command(slot_of(self._key), "HVALS", self._key)]
        return {status.name: status for status in sorted(found, key=lambda status: status.name)}


def _clock() -> float:
    """Goes on while the machine is suspended: a lease that was held then has run out."""
    return time.clock_gettime(_CLOCK)


def _status(body: bytes) -> SourceStatus:
    fields = orjson.loads(body)
    failures = {item["path"]: (item["code"], item["detail"]) for item in fields.pop("failures")}
    return SourceStatus(**fields, failures=failures)
