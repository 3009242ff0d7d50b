"""One bucket a client over all replicas: never more than it allows, and no round trip for most requests."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from ragkube_api.adapters.redis_client import RedisClient
from ragkube_api.adapters.redis_limiter import RedisReservations
from ragkube_api.services.limits import Allowance, Grant, Limiter
from ragkube_api.settings import RateTier, RedisCacheBackend
from support.redis import RedisServers, start_cluster

pytestmark = pytest.mark.component("redis")


class Counted(RedisReservations):
    """Counts round trips."""

    trips = 0

    async def reserve(self, client: str, tier: RateTier, *, wanted: int, left: int) -> Grant:
        self.trips += 1
        return await super().reserve(client, tier, wanted=wanted, left=left)


@asynccontextmanager
async def replicas(settings: RedisCacheBackend, count: int) -> AsyncIterator[list[Limiter]]:
    async with AsyncExitStack() as stack:
        limiters = []
        for _ in range(count):
            client = RedisClient(settings)
            stack.push_async_callback(client.close)
            limiter = Limiter(Counted(client, settings.key_prefix))
            stack.push_async_callback(limiter.close)
            limiters.append(limiter)
        yield limiters


async def charge(limiter: Limiter, client: str, tier: RateTier) -> Allowance:
    return limiter.take(client, tier) or await limiter.ask(client, tier)


@pytest.mark.proves("S4")
@pytest.mark.parametrize(("per_minute", "burst"), [(600, 5), (6000, 50), (60_000, 300), (60, 1)])
async def test_no_stretch_of_time_sees_more_than_the_bucket_allows(
    redis_cluster: RedisServers, per_minute: int, burst: int
) -> None:
    """Three replicas that are asked more than allowed, in bursts and with pauses in which batches are held."""
    tier, spent = RateTier(requests_per_minute=per_minute, burst=burst), list[tuple[float, float]]()
    rng = random.Random(burst)
    client = f"client-{rng.random()}-{time.time()}"

    async def one(limiter: Limiter) -> None:
        began = time.monotonic()
        if (await charge(limiter, client, tier)).retry_after == 0:
            spent.append((began, time.monotonic()))

    async with replicas(redis_cluster.settings(prefix="limits"), 3) as limiters:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            asked = [one(rng.choice(limiters)) for _ in range(rng.randrange(2 * burst + 2))]
            await asyncio.gather(*asked)
            await asyncio.sleep(rng.choice([0, 0.001, 0.01, 0.3]))
    spent.sort()
    for first, (began, _) in enumerate(spent):
        ended = began
        for number, (_, end) in enumerate(spent[first:], start=1):
            ended = max(ended, end)
            assert number <= burst + per_minute / 60 * (ended - began) + 0.001
    assert len(spent) >= burst


@pytest.mark.proves("S4")
async def test_a_busy_client_costs_few_round_trips(redis_cluster: RedisServers) -> None:
    tier = RateTier(requests_per_minute=1_000_000, burst=10_000)
    async with replicas(redis_cluster.settings(prefix="trips"), 1) as (limiter,):
        for _ in range(5000):
            assert (await charge(limiter, "busy", tier)).retry_after == 0
            await asyncio.sleep(0)
        assert isinstance(limiter.shared, Counted)
        assert limiter.shared.trips < 500


@pytest.mark.proves("S4")
async def test_a_client_that_is_refused_does_not_bother_redis(redis_cluster: RedisServers) -> None:
    tier = RateTier(requests_per_minute=1, burst=3)
    async with replicas(redis_cluster.settings(prefix="refused"), 1) as (limiter,):
        told = [await charge(limiter, "greedy", tier) for _ in range(1000)]
        assert [allowance.retry_after == 0 for allowance in told] == [True] * 3 + [False] * 997
        assert 0 < told[-1].retry_after <= 60
        assert told[-1].remaining == 0
        assert isinstance(limiter.shared, Counted)
        assert limiter.shared.trips <= 6


@pytest.mark.proves("S4", "S3")
async def test_clients_have_buckets_of_their_own(redis_cluster: RedisServers) -> None:
    tier = RateTier(requests_per_minute=1, burst=2)
    async with replicas(redis_cluster.settings(prefix="apart"), 2) as limiters:
        for client in ("a", "b", "}{", "a\r\n", "ä"):
            told = [await charge(limiters[number % 2], client, tier) for number in range(6)]
            assert sum(allowance.retry_after == 0 for allowance in told) == 2


@pytest.mark.proves("S4", "R3")
async def test_without_redis_each_replica_limits_by_itself_and_shares_again_later(tmp_path: Path) -> None:
    servers = start_cluster("redis", tmp_path, persistent=True)
    tier = RateTier(requests_per_minute=1, burst=4)
    try:
        async with replicas(servers.settings(timeout_seconds=0.3), 2) as limiters:
            servers.stop()
            for limiter in limiters:
                told = [await charge(limiter, "alone", tier) for _ in range(10)]
                assert [each.retry_after == 0 for each in told] == [True] * 4 + [False] * 6
            servers.start()
            await asyncio.to_thread(servers.wait_until_whole)
            async with asyncio.timeout(60):
                while any(limiter._away for limiter in limiters):
                    for limiter in limiters:
                        await charge(limiter, "alone", tier)
                    await asyncio.sleep(0.05)
            told = [await charge(limiters[n % 2], "together", tier) for n in range(10)]
            assert sum(each.retry_after == 0 for each in told) == 4
    finally:
        servers.stop()


@pytest.mark.proves("S4")
async def test_a_caller_that_leaves_takes_nothing_from_the_others(redis_cluster: RedisServers) -> None:
    tier = RateTier(requests_per_minute=1, burst=20)
    async with replicas(redis_cluster.settings(prefix="leaving"), 1) as (limiter,):
        calls = [asyncio.create_task(charge(limiter, "many", tier)) for _ in range(20)]
        await asyncio.sleep(0)
        for call in calls[:10]:
            call.cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(each, Allowance) and each.retry_after == 0 for each in done) == 10
        more = [await charge(limiter, "many", tier) for _ in range(12)]
        assert sum(each.retry_after == 0 for each in more) == 10
