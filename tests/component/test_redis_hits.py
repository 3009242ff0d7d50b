"""Hits in a real Redis over a socket: one round trip each and nothing of the application, and what becomes of them without Redis."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from ragkube_api.adapters.leases import Leases
from support.lanes import Exchanged, Lane, Lanes, Outcome, Sent, normal, opened, question, response, until
from support.redis import RedisServers

pytestmark = pytest.mark.component("redis")
HIT = "rag_cache_hits_total[('kind', 'exact'), ('level', 'redis')]"


@pytest.fixture
async def lanes(redis_cluster: RedisServers, tmp_path: Path) -> AsyncIterator[Lanes]:
    """Redis is waited for as long as a machine with much to do may take."""
    async with over(redis_cluster, tmp_path, timeout_seconds=30) as lanes:
        yield lanes


@asynccontextmanager
async def over(servers: RedisServers, folder: Path, *, timeout_seconds: float) -> AsyncIterator[Lanes]:
    """With nothing in the process: every hit is one in Redis."""
    backend = servers.settings(prefix=uuid.uuid4().hex, timeout_seconds=timeout_seconds)
    cache = {"backend": backend.model_dump(mode="json"), "local": {"max_entries": 0}}
    async with AsyncExitStack() as stack:
        yield await opened(folder, stack, cache=cache)


@contextmanager
def silent(servers: RedisServers) -> Iterator[None]:
    """Scripts are not answered, all else is: no node takes another for lost."""
    nodes = range(len(servers.ports))
    try:
        for index in nodes:
            servers.call(index, "CLIENT", "PAUSE", 60_000, "WRITE")
        yield
    finally:
        for index in nodes:
            servers.call(index, "CLIENT", "UNPAUSE")


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
    infos = [str(servers.call(index, "INFO", "commandstats")) for index in range(len(servers.ports))]
    lines = [line for info in infos for line in info.split()]
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines if "_evalsha" in line)


@pytest.mark.proves("C9")
async def test_a_hit_in_redis_is_one_round_trip_and_the_same_as_the_ordinary_way(
    lanes: Lanes, redis_cluster: RedisServers
) -> None:
    await lanes.slow.send(Sent(question()))
    for lane in (lanes.slow, lanes.fast):
        await lane.send(Sent(question()))
    with patch.object(Leases, "_start", lambda _, work: work.close()):  # what renews a lease is a script, too
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


def connections(servers: RedisServers) -> set[tuple[int, str]]:
    """Those of the cache that are open: node and id."""
    return {
        (index, client.split()[0])
        for index in range(len(servers.ports))
        for client in str(servers.call(index, "CLIENT", "LIST")).splitlines()
        if " name=ragkube " in client
    }


@pytest.mark.proves("C9")
async def test_a_request_that_is_given_up_while_redis_is_asked_disturbs_nobody(
    lanes: Lanes, redis_cluster: RedisServers
) -> None:
    """Replies come for many over one connection: one that nobody waits for any more must not close it on the others."""
    for sent in (Sent(question()), Sent(question(k=3))):
        for lane in (lanes.slow, lanes.fast):
            await lane.send(sent)
    visits, state = lanes.fast.app._visits, lanes.fast.state
    before = connections(redis_cluster)
    with silent(redis_cluster):
        _, leaving = await asyncio.open_connection(*lanes.fast.address[:2])
        leaving.write(Sent(question()).wire()[0])
        await until(lambda: visits.busy == 1)
        leaving.write(
            Sent(question()).wire()[0]
        )  # a second one behind it: the first is handed over to a task
        await until(lambda: state.tasks)
        reader, staying = await asyncio.open_connection(*lanes.fast.address[:2])
        staying.write(Sent(question(k=3)).wire()[0])
        await until(lambda: visits.busy == 2)
        (task,) = state.tasks
        task.cancel()
        await asyncio.wait([task])
        leaving.transport.abort()
    status, _, body = await response(reader, "POST")
    assert (status, json.loads(body)["cache"]["level"]) == (200, "redis")
    assert before <= connections(redis_cluster), "or the others had to ask again, over a new one"
    staying.close()
    await until(lambda: not state.connections)
    assert visits.busy == 0


@pytest.mark.proves("C9", "R3")
async def test_who_waits_while_redis_goes_away_is_answered_without_it(
    redis_cluster: RedisServers, tmp_path: Path
) -> None:
    async with over(redis_cluster, tmp_path, timeout_seconds=0.5) as lanes:
        await lanes.slow.send(Sent(question()))
        await until_hit(lanes)
        with silent(redis_cluster):
            outcome = await asked(lanes.fast, 1, connections=5)
        bodies = [json.loads(body) for _, _, body in [(0, [], outcome.body), *outcome.more]]
        assert [body["degraded"] for body in bodies] == [["cache-unavailable"]] * 5
        await until_hit(lanes)


async def until_hit(lanes: Lanes) -> None:
    """From Redis, as there is nothing in the process."""
    async with asyncio.timeout(60):
        while json.loads((await lanes.fast.send(Sent(question()))).body)["cache"]["status"] != "hit":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
