"""Two hundred askers of one question at three replicas: one call of the model; at most two when its asker is killed."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from llm_server.server import Behaviour, LLMServer, running
from ragkube_api.settings import CacheSettings
from support.api import ApiProcess, api_process, metric_in
from support.redis import RedisServers
from support.weaviate import WeaviateServer

pytestmark = [
    pytest.mark.component("redis"),
    pytest.mark.component("weaviate"),
    pytest.mark.timeout(900),
]

ASKERS = 200
LEASE = CacheSettings().flight_lease_seconds
MODEL_SECONDS = 2.0
SLACK_SECONDS = 8.0
"""What a loaded machine may add."""
MOON = ("moon.txt", "The moon is 384,400 kilometres away.", "How far away is the moon?")
CANTEEN = ("canteen.txt", "The canteen opens at half past eleven.", "When does the canteen open?")
"""A document and the question about it, one for each test: they share the replicas, so nothing may be cached."""


@pytest.fixture(scope="module")
def model() -> Iterator[LLMServer]:
    """A model that takes its time."""
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory,
    redis_cluster: RedisServers,
    weaviate_server: WeaviateServer,
    model: LLMServer,
) -> Iterator[list[ApiProcess]]:
    """Three API processes over one Redis Cluster and one Weaviate, with the documents."""
    folder = tmp_path_factory.mktemp("stampede")
    prefix = f"Stampede{uuid.uuid4().hex[:8]}"
    cache = {"backend": redis_cluster.settings(prefix=prefix.lower()).model_dump(mode="json")}
    parts = {
        "store": weaviate_server.settings(prefix=prefix).model_dump(mode="json"),
        "cache": cache,
        "llm": {"kind": "anthropic", "model": "m", "base_url": model.url, "timeout_seconds": 300},
        "server": {"max_concurrency": 1000, "request_timeout_seconds": 300},
    }
    with ExitStack() as stack:
        processes = []
        for number in range(3):
            (folder / str(number)).mkdir()
            processes.append(stack.enter_context(api_process(folder / str(number), **parts)))
            processes[-1].start()
        for process in processes:
            process.wait_until("/readyz", lambda response: response.status_code == 200, seconds=400)
        for name, text, _ in (MOON, CANTEEN):
            put = httpx2.put(
                f"{processes[0].url}/v1/documents/{name}",
                content=text,
                headers={"content-type": "text/plain"},
                timeout=30,
            )
            assert put.status_code == 201, put.text
        yield processes
    weaviate_server.forget(prefix)


class Crowd:
    """Asks the same all at once."""

    def __init__(self, client: httpx2.AsyncClient, question: str) -> None:
        self.client = client
        self.question = question

    def ask(self, process: ApiProcess) -> asyncio.Task[tuple[Any, float]]:
        return asyncio.create_task(self._ask(process))

    async def _ask(self, process: ApiProcess) -> tuple[Any, float]:
        response = await self.client.post(f"{process.url}/v1/query", json={"question": self.question})
        assert response.status_code == 200, response.text
        return response.json(), time.monotonic()


def _client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=300, limits=httpx2.Limits(max_connections=ASKERS + 1))


def _sum(processes: list[ApiProcess], name: str, **labels: str) -> float:
    return sum(metric_in(httpx2.get(f"{p.url}/metrics").text, name, **labels) for p in processes)


def _told(processes: list[ApiProcess]) -> list[list[str]]:
    """What each replica counts of it, and its warnings: why a second call was made."""
    counted = re.compile(r"rag_(llm_calls|cache_(flights|errors|hits|misses))_total\{.*\} [1-9]")
    pages = [httpx2.get(f"{process.url}/metrics").text.splitlines() for process in processes]
    logs = [process.log.read_text().splitlines() for process in processes]
    return [
        [line for line in page if counted.match(line)] + [line for line in log if "info" not in line]
        for page, log in zip(pages, logs, strict=True)
    ]


@pytest.mark.proves("C6")
async def test_askers_at_every_replica_cost_one_call_of_the_model(
    replicas: list[ApiProcess], model: LLMServer
) -> None:
    model.script(*[Behaviour(delay=MODEL_SECONDS)] * 50)
    async with _client() as client:
        crowd = Crowd(client, MOON[2])
        tasks = [crowd.ask(replicas[number % 3]) for number in range(ASKERS)]
        answers = [answer for answer, _ in await asyncio.gather(*tasks)]
        later, _ = await crowd.ask(replicas[2])

    told = await asyncio.to_thread(_told, replicas)
    seen = Counter((answer["cache"]["status"], answer["id"], *answer["degraded"]) for answer in answers)
    assert len(model.requests) == 1, f"{seen}, then {later['cache']} {later['id']}; {told}"
    assert len({answer["id"] for answer in answers}) == 1
    assert sum(answer["usage"]["output_tokens"] > 0 for answer in answers) == 1, "one pays"
    assert (later["cache"]["status"], later["id"]) == ("hit", answers[0]["id"])
    assert await asyncio.to_thread(_sum, replicas, "rag_llm_calls_total") == 1
    assert await asyncio.to_thread(_sum, replicas, "rag_cache_flights_total", role="led") == 1


@pytest.mark.proves("C6")
async def test_when_the_replica_that_asks_the_model_is_killed_it_is_asked_once_more(
    replicas: list[ApiProcess], model: LLMServer
) -> None:
    """The last one: it kills a replica that the others share."""
    before = await asyncio.to_thread(_missed, replicas[1:])
    model.script(Behaviour(delay=300), *[Behaviour(delay=MODEL_SECONDS)] * 50)
    async with _client() as client:
        crowd = Crowd(client, CANTEEN[2])
        leader = crowd.ask(replicas[0])
        while not model.requests:  # noqa: ASYNC110  another thread's
            await asyncio.sleep(0.01)
        tasks = [crowd.ask(replicas[1 + number % 2]) for number in range(ASKERS)]
        await asyncio.to_thread(_until_all_wait, replicas[1:], before)
        replicas[0].kill()
        killed = time.monotonic()
        results = await asyncio.gather(*tasks)
        with pytest.raises(httpx2.TransportError):
            await leader

    longest = max(moment for _, moment in results) - killed
    print(
        f"\nlonger than the killed asker's call: {longest:.2f} s, lease {LEASE:g} s, call {MODEL_SECONDS:g} s"
    )
    assert len(model.requests) == 2
    assert len({answer["id"] for answer, _ in results}) == 1
    assert longest < LEASE + MODEL_SECONDS + SLACK_SECONDS


def _missed(processes: list[ApiProcess]) -> float:
    return _sum(processes, "rag_cache_misses_total", kind="exact")


def _until_all_wait(processes: list[ApiProcess], before: float) -> None:
    for _ in range(5000):
        if _missed(processes) == before + ASKERS:
            return
        time.sleep(0.02)
    raise AssertionError("not everyone has come to wait")
