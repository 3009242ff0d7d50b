"""What one replica has computed the other need not: passages, vectors of a remote embedder, refreshed answers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llm_server.server import Behaviour, LLMServer, running
from ragkube_api.adapters import redis_flights, redis_scripts
from ragkube_api.context import Backends
from ragkube_api.services.answering import Question
from support.api import RunningApp, running_app, settings_in
from support.redis import RedisServers
from support.trouble import Away

pytestmark = pytest.mark.component("redis")

QUESTION = "How far is the moon?"
MOON = "The moon is 384,400 kilometres away."
Replicas = tuple[RunningApp, RunningApp]


class Embeddings(ThreadingHTTPServer):
    """``/v1/embeddings`` that remembers what it was asked for."""

    texts: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: Embeddings

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        self.server.texts += texts
        data = [{"index": i, "embedding": [1.0, float(len(text))]} for i, text in enumerate(texts)]
        payload = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def embeddings() -> Iterator[Embeddings]:
    with Embeddings(("127.0.0.1", 0), _Handler) as server:
        server.texts = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def model() -> Iterator[LLMServer]:
    with running() as server:
        yield server


@asynccontextmanager
async def replicas(tmp_path: Path, redis: RedisServers, **parts: Any) -> AsyncIterator[Replicas]:
    """Two applications over one Redis Cluster and one store, with a document."""
    backend = redis.settings(prefix=f"shared{uuid.uuid4().hex[:8]}").model_dump(mode="json")
    parts["cache"] = {"backend": backend, **parts.get("cache", {})}
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_app(settings_in(tmp_path / "a", **parts)))

        def same_store(backends: Backends) -> Backends:
            return replace(backends, store=first.runtime.backends.store)

        second = await stack.enter_async_context(
            running_app(settings_in(tmp_path / "b", **parts), same_store)
        )
        await first.put("moon.txt", MOON)
        yield first, second


@pytest.mark.proves("C3")
async def test_a_vector_of_a_remote_embedder_is_taken_from_the_other_replica(
    tmp_path: Path, redis_cluster: RedisServers, embeddings: Embeddings
) -> None:
    url = f"http://127.0.0.1:{embeddings.server_port}"
    embedding = {"kind": "openai", "url": url, "model": "m", "dimensions": 2}
    async with replicas(tmp_path, redis_cluster, embedding=embedding) as (first, second):
        await first.ask(QUESTION)
        assert embeddings.texts.count(QUESTION) == 1
        # another k: neither its answer nor its passages are cached, only the vector of its text
        answer = await second.ask(QUESTION, k=3)
        again = await second.ask(QUESTION, k=2)

        assert answer["cache"]["status"] == again["cache"]["status"] == "miss"
        assert embeddings.texts.count(QUESTION) == 1
        assert await second.metric("rag_cache_hits_total", level="redis", kind="embedding") == 1
        assert await second.metric("rag_cache_hits_total", level="l1", kind="embedding") == 1


@pytest.mark.proves("C6")
@pytest.mark.parametrize("by_the_lane", [False, True])
async def test_who_looked_before_an_answer_was_stored_gets_it_however_late_he_goes_on(
    tmp_path: Path, redis_cluster: RedisServers, by_the_lane: bool
) -> None:
    question = Question("default", QUESTION, 5, 0.5)
    async with replicas(tmp_path, redis_cluster) as (first, second):
        late, looked, may_go_on = first.runtime.answering, asyncio.Event(), asyncio.Event()
        if by_the_lane:  # it asks the cache in the protocol, and goes on from the reply
            attempt, began = late._maker.attempt(question), time.monotonic()
            lookup = await late._cache.lookup("default", attempt.key, attempt.search)
        else:
            late._cache = _Slow(late._cache, looked, may_go_on)
            asked = asyncio.create_task(late.answer(question))
            await looked.wait()
        made = await second.runtime.answering.answer(question)
        await _until(lambda: _is_stored(second))
        await _until(lambda: _is_quiet(second))
        if by_the_lane:
            answer = await late.answer(question, lookup, ago_seconds=time.monotonic() - began)
        else:
            may_go_on.set()
            answer = await asked
        assert answer.entry.id == made.entry.id


@pytest.mark.proves("C6")
async def test_who_looked_before_an_answer_was_stored_gets_it_however_long_his_claim_takes(
    tmp_path: Path, redis_cluster: RedisServers
) -> None:
    question = Question("default", QUESTION, 5, 0.5)
    async with replicas(tmp_path, redis_cluster) as (first, second):
        await first.ask_and_store("What is far away?")  # connects
        late = first.runtime.answering
        attempt, began = late._maker.attempt(question), time.monotonic()
        lookup = await late._cache.lookup("default", attempt.key, attempt.search)
        made = await second.runtime.answering.answer(question)
        await _until(lambda: _is_stored(second))
        await _until(lambda: _is_quiet(second))
        took = time.monotonic() - began
        sent = _Spy(first)
        sent.delay[redis_flights.CLAIM.sha] = 2 * took + 0.1
        answer = await late.answer(question, lookup, ago_seconds=time.monotonic() - began)
    assert answer.entry.id == made.entry.id


class _Slow(Away):
    """Much happens between its replies and what is done with them."""

    def __init__(self, inner: Any, looked: asyncio.Event, may_go_on: asyncio.Event) -> None:
        super().__init__(inner)
        self.looked, self.may_go_on = looked, may_go_on

    async def lookup(self, *asked: Any) -> Any:
        found = await self.inner.lookup(*asked)
        self.looked.set()
        await self.may_go_on.wait()
        return found


@pytest.mark.proves("C3")
async def test_passages_are_taken_from_the_other_replica(
    tmp_path: Path, redis_cluster: RedisServers, model: LLMServer
) -> None:
    llm = {"kind": "anthropic", "model": "m", "allowed_models": ["m", "n"], "base_url": model.url}
    async with replicas(tmp_path, redis_cluster, llm=llm) as (first, second):
        one = await first.ask(QUESTION)
        await _until(lambda: _is_stored(second))
        other = await second.ask(QUESTION, model="n")

        assert other["cache"]["status"] == "miss"
        assert other["cache"]["documents"] == one["cache"]["documents"]
        assert await second.metric("rag_cache_hits_total", level="redis", kind="retrieval") == 1


@pytest.mark.proves("C9")
async def test_a_miss_waits_for_two_round_trips_and_is_stored_behind_its_answer(
    tmp_path: Path, redis_cluster: RedisServers
) -> None:
    async with replicas(tmp_path, redis_cluster) as (first, second):
        await first.ask("What is far away?")  # connects
        await _until(lambda: _is_quiet(first))
        may_store, sent = asyncio.Event(), _Spy(first)
        sent.hold[redis_scripts.STORE.sha] = may_store

        made = await first.ask(QUESTION)
        assert sent.waited_for == [redis_scripts.LOOKUP.sha, redis_flights.CLAIM.sha]
        again = asyncio.gather(first.ask(QUESTION), second.ask(QUESTION))
        await _until(lambda: _joined(second))
        may_store.set()
        here, there = await again

    assert made["cache"]["status"] == "miss"
    assert here["id"] == there["id"] == made["id"]
    assert here["cache"]["status"] == "hit"


@pytest.mark.proves("C6")
async def test_one_refresh_over_all_replicas(
    tmp_path: Path, redis_cluster: RedisServers, model: LLMServer
) -> None:
    llm = {"kind": "anthropic", "model": "m", "base_url": model.url}
    cache = {"answer_ttl_seconds": 2, "stale_while_revalidate_seconds": 600}
    async with replicas(tmp_path, redis_cluster, llm=llm, cache=cache) as both:
        old = await both[0].ask("Tell me about the moon.")
        await both[1].ask("Tell me about the moon.")
        for app in both:
            await app.runtime.answering.settled()
            await _until(lambda app=app: _is_past_its_ttl(app))  # type: ignore[misc]
        model.script(*[Behaviour(delay=1)] * 5)

        answers = await asyncio.gather(*(app.ask("Tell me about the moon.") for app in both))
        for app in both:
            await app.runtime.answering.settled()
        fresh = await both[1].ask("Tell me about the moon.")

    assert [answer["cache"]["status"] for answer in answers] == ["stale", "stale"]
    assert {answer["id"] for answer in answers} == {old["id"]}
    assert len(model.requests) == 1
    assert fresh["id"] != old["id"]


_OF_A_QUESTION = {
    script.sha
    for script in (redis_scripts.LOOKUP, redis_scripts.STORE, redis_flights.CLAIM, redis_flights.FINISH)
}


class _Spy:
    """Scripts that were replied to; ``hold`` has events that hold some back, ``delay`` seconds."""

    def __init__(self, app: RunningApp) -> None:
        self.waited_for: list[str] = []
        self.hold: dict[str, asyncio.Event] = {}
        self.delay: dict[str, float] = {}
        cache: Any = app.runtime.backends.cache
        self._client = cache._level._client
        self._script, self._send = self._client.script, self._client.send
        self._client.script, self._client.send = self, self.send

    async def __call__(self, script: Any, keys: list[str], arguments: list[Any]) -> Any:
        if script.sha in self.hold:
            await self.hold[script.sha].wait()
        reply = await self._script(script, keys, arguments)
        self._replied(script)
        return reply

    def send(self, script: Any, keys: list[str], arguments: list[Any], deliver: Any) -> None:
        def told(reply: Any) -> None:
            self._replied(script)
            deliver(reply)

        call = partial(self._send, script, keys, arguments, told)
        asyncio.get_running_loop().call_later(self.delay.get(script.sha, 0.0), call)

    def _replied(self, script: Any) -> None:
        if script.sha in _OF_A_QUESTION:
            self.waited_for.append(script.sha)


async def _is_stored(app: RunningApp) -> bool:
    return await _found(app, QUESTION) is not None


async def _is_past_its_ttl(app: RunningApp) -> bool:
    found = await _found(app, "Tell me about the moon.")
    return found is not None and found.fresh_seconds <= 0


async def _found(app: RunningApp, text: str) -> Any:
    settings = app.runtime.settings.retrieval
    key = app.runtime.answering.key_of(Question("default", text, settings.k, settings.alpha))
    return (await app.runtime.backends.cache.lookup("default", key)).found


async def _is_quiet(app: RunningApp) -> bool:
    flights: Any = app.runtime.backends.flights
    return not (flights._tasks or flights._flights)


async def _joined(app: RunningApp) -> bool:
    return await app.metric("rag_cache_misses_total", kind="exact") == 1


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110  another process's
            await asyncio.sleep(0.02)
