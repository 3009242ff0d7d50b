"""What an administrator does on one replica holds on the other: clearing, disowning, counting, over a real Redis Cluster."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragkube_api.context import Backends
from support.api import RunningApp, running_app, settings_in
from support.redis import RedisServers

pytestmark = [pytest.mark.component("redis"), pytest.mark.proves("C8")]

MOON, SUN = "How far is the moon?", "How hot is the sun?"


@pytest.fixture
async def replicas(
    tmp_path: Path, redis_cluster: RedisServers
) -> AsyncIterator[tuple[RunningApp, RunningApp]]:
    """Two applications over one Redis Cluster and one store."""
    backend = redis_cluster.settings(prefix=f"ops{uuid.uuid4().hex[:8]}").model_dump(mode="json")
    cache = {"backend": backend}
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_app(settings_in(tmp_path / "a", cache=cache)))

        def same_store(backends: Backends) -> Backends:
            return replace(backends, store=first.runtime.backends.store)

        second = await stack.enter_async_context(
            running_app(settings_in(tmp_path / "b", cache=cache), same_store)
        )
        await first.put("moon.txt", "The moon is 384,400 kilometres away.")
        await first.put("sun.txt", "The sun is 5,772 kelvin hot.")
        yield first, second


async def statuses(app: RunningApp, *questions: str) -> list[str]:
    return [str((await app.ask_and_store(question))["cache"]["status"]) for question in questions]


async def warm_both(first: RunningApp, second: RunningApp) -> dict[str, Any]:
    """Both answers lie in Redis and in the memory of both replicas; the one about the moon."""
    for app in (first, second, second, first):
        await statuses(app, MOON, SUN)
    moon: dict[str, Any] = await second.ask_and_store(MOON)
    assert moon["cache"]["level"] == "l1"
    assert await statuses(first, MOON, SUN) == ["hit", "hit"]
    return moon


async def test_what_one_replica_clears_the_other_does_not_serve(
    replicas: tuple[RunningApp, RunningApp],
) -> None:
    first, second = replicas
    await warm_both(first, second)

    removed = await first.client.delete("/v1/cache", params={"question": "*moon*"})

    assert (removed.status_code, removed.json()["removed"]) == (200, 1)
    assert await statuses(second, MOON, SUN) == ["miss", "hit"]
    await warm_both(first, second)
    assert (await second.client.delete("/v1/cache")).status_code == 200
    assert await statuses(first, MOON, SUN) == ["miss", "miss"]


async def test_what_one_replica_disowns_no_replica_serves_or_stores_again(
    replicas: tuple[RunningApp, RunningApp],
) -> None:
    first, second = replicas
    wrong = await warm_both(first, second)

    gone = await first.client.delete(f"/v1/cache/answers/{wrong['id']}")

    assert gone.status_code == 204
    for app in (second, first, second, first):
        again = await app.ask(MOON)
        assert (again["cache"]["status"], again["answer"]) == ("miss", wrong["answer"])
        assert again["id"] != wrong["id"]
    assert await statuses(second, SUN) == ["hit"]


async def test_an_answer_that_redis_evicted_is_disowned_where_a_replica_still_holds_it(
    replicas: tuple[RunningApp, RunningApp], redis_cluster: RedisServers
) -> None:
    first, second = replicas
    wrong = await warm_both(first, second)
    cache: Any = first.runtime.backends.cache
    tag = cache._level._tag("default")
    redis_cluster.call(redis_cluster.primary_of(tag), "DEL", f"{tag}:answer:{wrong['id'][:32]}")
    cache._local.clear("default")

    gone = await first.client.delete(f"/v1/cache/answers/{wrong['id']}")

    assert gone.status_code == 404, "this replica knows of none"
    assert await statuses(second, MOON, SUN) == ["miss", "hit"]


async def test_lists_and_counts_are_those_of_all_replicas(replicas: tuple[RunningApp, RunningApp]) -> None:
    first, second = replicas
    for app, question in ((first, MOON), (second, MOON), (second, MOON), (first, SUN)):
        await app.ask(question)
    for app in replicas:
        await app.runtime.asked.flush()

    for app in replicas:
        listed = (await app.client.get("/v1/cache/answers")).json()["answers"]
        assert [answer["question"] for answer in listed] == [MOON, SUN]
        asked = (await app.client.get("/v1/cache/questions")).json()["questions"]
        assert [(row["request"]["question"], row["count"]) for row in asked] == [(MOON, 3), (SUN, 1)]
        levels = (await app.client.get("/v1/cache")).json()["levels"]
        (answers,) = (row for row in levels if (row["level"], row["kind"]) == ("redis", "answer"))
        assert answers["entries"] == 2
    page = (await first.client.get("/v1/cache/answers", params={"limit": 1})).json()
    rest = await second.client.get("/v1/cache/answers", params={"cursor": page["next_cursor"]})
    assert [answer["question"] for answer in rest.json()["answers"]] == [SUN]


async def test_either_replica_tells_what_both_and_what_it_alone_has_counted(
    replicas: tuple[RunningApp, RunningApp],
) -> None:
    first, second = replicas
    assert await statuses(first, MOON, SUN, MOON) == ["miss", "miss", "hit"]
    assert await statuses(second, MOON, MOON) == ["hit", "hit"]
    for app in (second, first, second):  # each hands over what it has counted, once
        found = (await app.client.get("/v1/cache")).json()

    assert found["deployment"]["replicas"] == 2
    assert 0 <= found["deployment"]["age_s"] < 30
    assert _exact(found["deployment"], "misses") == 2
    assert _exact(found["deployment"], "hits") == 3
    assert (_exact(found["replica"], "misses"), _exact(found["replica"], "hits")) == (0, 2)

    await _ended(first)
    await statuses(second, SUN)
    found = (await second.client.get("/v1/cache")).json()
    assert (found["deployment"]["replicas"], _exact(found["deployment"], "hits")) == (1, 4), (
        "what it counted stays"
    )


async def test_statistics_do_not_read_what_is_cached(
    replicas: tuple[RunningApp, RunningApp], redis_cluster: RedisServers
) -> None:
    first, _ = replicas
    for number in range(30):
        await first.ask(f"How far is the moon? {number} {'x' * 900}")
    cache: Any = first.runtime.backends.cache
    node = redis_cluster.primary_of(cache._level._tag("default"))

    def sent() -> int:
        info = str(redis_cluster.call(node, "INFO", "stats"))
        return int(info.partition("total_net_output_bytes:")[2].split()[0])

    before = sent()
    levels = (await first.client.get("/v1/cache")).json()["levels"]
    (answers,) = (row for row in levels if (row["level"], row["kind"]) == ("redis", "answer"))
    assert (answers["entries"], answers["bytes"] > 30 * 500) == (30, True)
    assert sent() - before < 30 * 500


def _exact(counted: dict[str, Any], counter: str) -> int:
    return sum(row["count"] for row in counted[counter] if row["labels"]["kind"] == "exact")


async def _ended(app: RunningApp) -> None:
    """As its process does at its end."""
    counting = asyncio.create_task(app.runtime.counts.run())
    await asyncio.sleep(0)
    counting.cancel()
    await asyncio.wait([counting])


async def test_one_replica_warms_up_what_all_were_asked(replicas: tuple[RunningApp, RunningApp]) -> None:
    first, second = replicas
    await statuses(first, MOON, SUN)
    await statuses(second, MOON)
    for app in replicas:
        await app.runtime.asked.flush()
    await first.client.delete("/v1/cache")

    warmed = await second.client.post("/v1/cache/warm", json={"most_asked": 10})

    assert warmed.text.count('"outcome":"warmed"') == 2
    assert await statuses(first, MOON, SUN) == ["hit", "hit"]
