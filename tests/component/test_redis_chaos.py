"""Readers and writers of many tenants while primaries die: no reader ever gets an answer from before a finished write."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ragkube_api.domain import Fill
from ragkube_api.errors import CacheUnavailableError
from ragkube_api.ports import FencedCache
from support.caches import HOUR, KEY, opened
from support.redis import RedisServers, start_cluster

TENANTS = [f"tenant-{number}" for number in range(6)]
pytestmark = pytest.mark.component("redis")


@pytest.fixture(params=["redis", "valkey"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServers]:
    servers = start_cluster(request.param, tmp_path)
    yield servers
    servers.stop()


@dataclass
class World:
    """A document a tenant: its version in the store, and the last one whose write was confirmed."""

    stored: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TENANTS, 0))
    finished: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TENANTS, 0))
    hits: Counter[str] = field(default_factory=Counter)
    misses: int = 0
    writes: int = 0
    away: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, cache: FencedCache) -> None:
        tenant = random.choice(TENANTS)
        finished = self.finished[tenant]
        cached = cache.peek(tenant, KEY)
        if cached is None:
            lookup = await cache.lookup(tenant, KEY)
            cached = lookup.found
        if cached is not None and cached.current:
            assert int(cached.value) >= finished, "an answer from before a finished write"
            self.hits[cached.level] += 1
            return
        self.misses += 1
        if lookup.fence is None:
            self.away += 1
        retrieved = self.stored[tenant]
        await asyncio.sleep(random.uniform(0, 0.02))
        await cache.store(tenant, Fill(KEY, b"%d" % retrieved, HOUR), fence=lookup.fence)

    async def write(self, cache: FencedCache) -> None:
        tenant = random.choice(TENANTS)
        async with cache.writing(tenant):
            await asyncio.sleep(random.uniform(0, 0.03))
            self.stored[tenant] += 1
            written = self.stored[tenant]
            await asyncio.sleep(random.uniform(0, 0.03))
        self.finished[tenant] = max(self.finished[tenant], written)
        self.writes += 1

    async def reader(self, cache: FencedCache) -> None:
        while not self.over.is_set():
            await self.read(cache)
            await asyncio.sleep(random.uniform(0, 0.01))

    async def writer(self, cache: FencedCache) -> None:
        while not self.over.is_set():
            try:
                await self.write(cache)
            except CacheUnavailableError:
                self.away += 1
            await asyncio.sleep(random.uniform(0.05, 0.3))

    async def chaos(self, cluster: RedisServers, rounds: int) -> None:
        try:
            for _ in range(rounds):
                tenant = random.choice(TENANTS)
                slot_key = f"{{test:{tenant}}}"
                lost = await asyncio.to_thread(cluster.primary_of, slot_key)
                cluster.processes[lost].kill()
                await asyncio.to_thread(cluster.wait_for_failover, slot_key, lost=lost)
                await asyncio.sleep(0.5)
                cluster.processes[lost].start()
                await asyncio.to_thread(cluster.wait_until_whole)
                await asyncio.sleep(0.5)
        finally:
            self.over.set()


@pytest.mark.proves("C1", "C2", "R3")
@pytest.mark.parametrize(
    "rounds", [2, pytest.param(60, marks=[pytest.mark.soak, pytest.mark.timeout(3600)], id="soak")]
)
async def test_no_failover_brings_an_old_answer_back(cluster: RedisServers, rounds: int) -> None:
    world = World()
    async with AsyncExitStack() as stack:
        settings = cluster.settings(timeout_seconds=0.5)
        caches = [await stack.enter_async_context(opened(settings, lease=15, readers=1)) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for cache in caches:
                group.create_task(world.reader(cache))
                group.create_task(world.reader(cache))
                group.create_task(world.writer(cache))
            group.create_task(world.chaos(cluster, rounds))
    assert world.hits["l1"] > 0
    assert world.hits["redis"] > 0
    assert world.writes > 0
    assert world.away > 0, "nothing went wrong: this proved little"
