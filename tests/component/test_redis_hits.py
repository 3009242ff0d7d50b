"""Hits in a real Redis over a socket: one round trip each and nothing of the application, and what becomes of them without Redis."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from support.lanes import Exchanged, Lane, Lanes, Outcome, Sent, normal, opened, question, response
from support.redis import RedisServers

pytestmark = pytest.mark.component("redis")
HIT = "rag_cache_hits_total[('kind', 'exact'), ('level', 'redis')]"


@pytest.fixture
async def lanes(redis_cluster: RedisServers, tmp_path: Path) -> AsyncIterator[Lanes]:
    """With nothing in the process: every hit is one in Redis."""
    backend = redis_cluster.settings(prefix=uuid.uuid4().hex, timeout_seconds=0.5)
    cache = {"backend": backend.model_dump(mode="json"), "local": {"max_entries": 0}}
    async with AsyncExitStack() as stack:
        yield await opened(tmp_path, stack, cache=cache)


async def asked(lane: Lane, times: int, connections: int = 1) -> Outcome:
    async def client() -> Exchanged:
        reader, writer = await asyncio.open_connection(*lane.address[:2])
        found = []
        for _ in range(times):
            writer.write(Sent(question()).wire()[0])
            found.append(normal(*await response(reader, "POST")))
        writer.close()
        return [], found

    async def all_of_them() -> Exchanged:
        results = await asyncio.gather(*(client() for _ in range(connections)))
        return [], [each for _, found in results for each in found]

    return await lane.seen(all_of_them)


def scripts(servers: RedisServers) -> int:
    """How many were run so far."""
    lines = [line for index in range(3) for line in str(servers.call(index, "INFO", "commandstats")).split()]
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines if "_evalsha" in line)


@pytest.mark.proves("C9")
async def test_a_hit_in_redis_is_one_round_trip_and_the_same_as_the_ordinary_way(
    lanes: Lanes, redis_cluster: RedisServers
) -> None:
    await lanes.slow.send(Sent(question()))
    for lane in (lanes.slow, lanes.fast):
        await lane.send(Sent(question()))
    before, passed_on = scripts(redis_cluster), lanes.fast.passed_on
    fast = await asked(lanes.fast, 50)
    assert scripts(redis_cluster) - before == 50
    assert lanes.fast.passed_on == passed_on, "nothing of it reached the application"
    assert fast == await asked(lanes.slow, 50)
    assert fast.metrics[HIT] == 50


@pytest.mark.proves("C9")
async def test_many_clients_of_one_answer_get_it_each(lanes: Lanes) -> None:
    await lanes.slow.send(Sent(question()))
    outcome = await asked(lanes.fast, 20, connections=20)
    assert [outcome.status, *(status for status, _, _ in outcome.more)] == [200] * 400
    assert outcome.metrics[HIT] == 400


@pytest.mark.proves("C9", "R3")
async def test_who_waits_while_redis_goes_away_is_answered_without_it(
    lanes: Lanes, redis_cluster: RedisServers
) -> None:
    await lanes.slow.send(Sent(question()))
    assert json.loads((await lanes.fast.send(Sent(question()))).body)["cache"]["level"] == "redis"
    for index in range(len(redis_cluster.ports)):  # silent for a while, and no node takes another for lost
        redis_cluster.call(index, "CLIENT", "PAUSE", 3000, "ALL")
    outcome = await asked(lanes.fast, 1, connections=5)
    bodies = [json.loads(body) for _, _, body in [(0, [], outcome.body), *outcome.more]]
    assert [body["degraded"] for body in bodies] == [["cache-unavailable"]] * 5
    async with asyncio.timeout(60):
        while json.loads((await lanes.fast.send(Sent(question()))).body)["cache"]["status"] != "hit":
            pass
