"""Probes, metrics, authentication, overload and errors that nobody expected."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_server.server import Behaviour, running
from ragkube_api import __version__
from ragkube_api.context import Backends
from ragkube_api.schemas import ProblemBody, ReadyBody
from ragkube_api.telemetry import EVENTS
from support.api import RunningApp, metric_in, running_app, settings_in
from support.trouble import Away

NAMES = (
    "rag_requests_total", "rag_request_latency_seconds", "rag_cache_hits_total", "rag_cache_misses_total",
    "rag_llm_calls_total", "rag_llm_tokens_total", "rag_llm_cost_dollars", "rag_requests_in_flight",
    "rag_documents_indexed_total", "rag_retrieval_seconds", "rag_dependency_up",
)  # fmt: skip
OPEN = ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"]


@pytest.mark.proves("O1")
async def test_metrics_have_the_documented_names_and_count(app: RunningApp) -> None:
    await app.put("a/b.txt", "The moon is far.")
    await app.client.get("/v1/documents/a/b.txt")
    await app.client.get("/v1/documents/c/d.txt")
    await app.ask("How far is the moon?")
    await app.client.get("/some/path")

    text = (await app.client.get("/metrics")).text

    assert all(f"# HELP {name}" in text for name in NAMES)
    one = "/v1/documents/{id:path}"
    assert metric_in(text, "rag_requests_total", route=one, method="PUT", status="201") == 1
    assert metric_in(text, "rag_requests_total", route=one, method="GET", status="404") == 1
    assert metric_in(text, "rag_requests_total", route="unmatched", status="404") == 1
    assert metric_in(text, "rag_request_latency_seconds_count", route="/v1/query") == 1
    assert metric_in(text, "rag_documents_indexed_total", outcome="created") == 1
    assert metric_in(text, "rag_retrieval_seconds_count") == 1
    assert metric_in(text, "rag_dependency_up", dependency="store") == 1
    assert metric_in(text, "rag_requests_in_flight") == 0
    assert "a/b.txt" not in text


@pytest.mark.proves("O4")
async def test_the_limit_of_requests_at_a_time_is_a_metric(tmp_path: Path) -> None:
    async with running_app(settings_in(tmp_path, server={"max_concurrency": 7})) as app:
        assert await app.metric("rag_requests_limit") == 7


@asynccontextmanager
async def with_a_slow_model(directory: Path) -> AsyncIterator[RunningApp]:
    """Its first answer takes 1.5 s."""
    with running() as llm:
        settings = {"kind": "anthropic", "model": "m", "base_url": llm.url}
        async with running_app(settings_in(directory, llm=settings)) as app:
            await app.put("a.txt", "The moon is far.")
            llm.script(Behaviour(delay=1.5))
            yield app


@pytest.mark.proves("O1")
async def test_failures_are_counted_from_zero_so_that_a_rate_sees_the_first(tmp_path: Path) -> None:
    llm = {"kind": "anthropic", "model": "m", "base_url": "http://127.0.0.1:9"}
    async with running_app(settings_in(tmp_path, llm=llm)) as app:
        text = (await app.client.get("/metrics")).text
    for series in (
        'rag_requests_total{method="POST",route="/v1/query",status="500"} 0.0',
        'rag_llm_calls_total{model="m",outcome="unavailable"} 0.0',
        'rag_degraded_answers_total{reason="llm-unavailable"} 0.0',
        'rag_cache_errors_total{reason="unavailable"} 0.0',
        'rag_documents_indexed_total{outcome="failed"} 0.0',
    ):
        assert series in text.splitlines()


@pytest.mark.proves("O1")
async def test_the_time_of_the_model_is_a_metric_of_its_own(tmp_path: Path) -> None:
    async with with_a_slow_model(tmp_path) as app:
        await app.ask("How far is the moon?")
        text = (await app.client.get("/metrics")).text
    assert metric_in(text, "rag_llm_latency_seconds_count", model="m") == 1
    assert metric_in(text, "rag_llm_latency_seconds_sum", model="m") >= 1.5


@pytest.mark.proves("K9", "O1")
async def test_the_local_latency_leaves_the_wait_for_the_model_out(tmp_path: Path) -> None:
    async with with_a_slow_model(tmp_path) as app:
        await app.ask("How far is the moon?")
        await app.ask("How far is the moon?")
        text = (await app.client.get("/metrics")).text
    assert metric_in(text, "rag_local_latency_seconds_count") == 2
    assert metric_in(text, "rag_local_latency_seconds_sum") < 1.5
    assert metric_in(text, "rag_request_latency_seconds_sum", route="/v1/query") >= 1.5


@pytest.mark.proves("K9", "O1")
async def test_waiting_for_another_askers_model_and_refusals_are_no_local_latency(tmp_path: Path) -> None:
    async with with_a_slow_model(tmp_path) as app:
        await asyncio.gather(*(app.ask("How far is the moon?") for _ in range(4)))
        refused = await app.client.post("/v1/query", json={}, headers={"host": "evil.example"})
        text = (await app.client.get("/metrics")).text
    assert refused.status_code == 403
    assert metric_in(text, "rag_llm_calls_total") == 1
    assert metric_in(text, "rag_local_latency_seconds_count") == 4
    assert metric_in(text, "rag_local_latency_seconds_sum") < 4 * 1.5 - 1.5
    assert metric_in(text, "rag_request_latency_seconds_sum", route="/v1/query") >= 4 * 1.5


async def test_two_applications_count_apart(tmp_path: Path) -> None:
    async with (
        running_app(settings_in(tmp_path / "a")) as one,
        running_app(settings_in(tmp_path / "b")) as two,
    ):
        await one.ask("How far is the moon?")

        assert await one.metric("rag_requests_total", route="/v1/query") == 1
        assert await two.metric("rag_requests_total", route="/v1/query") == 0


@pytest.mark.proves("R4")
async def test_probes(app: RunningApp) -> None:
    alive = await app.client.get("/healthz")
    ready = await app.client.get("/readyz")

    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    assert ready.status_code == 200
    body = ReadyBody.model_validate_json(ready.content)
    assert body.status == "ready"
    assert set(body.dependencies) == {"store", "cache", "embedder", "llm", "auth"}
    assert all(dependency.up for dependency in body.dependencies.values())


@pytest.mark.proves("R4")
async def test_a_dependency_that_hangs_counts_as_down_and_does_not_hang_the_probe(tmp_path: Path) -> None:
    class Hanging(Away):
        async def ping(self) -> None:
            await asyncio.Event().wait()

    def change(backends: Backends) -> Backends:
        return replace(backends, cache=Hanging(backends.cache))

    async with running_app(settings_in(tmp_path), change) as app:
        ready = await app.client.get("/readyz")

        assert ready.status_code == 200
        assert "No answer" in ready.json()["dependencies"]["cache"]["detail"]
        assert await app.metric("rag_dependency_up", dependency="cache") == 0


@pytest.mark.parametrize(
    "credential", [None, "", "wrong", "Basic c2VjcmV0", "Bearer", "Bearer wrong", "Bearer ü"]
)
async def test_without_the_key_nothing_but_the_open_paths(tmp_path: Path, credential: str | None) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    headers = {} if credential is None else {b"authorization": credential.encode()}
    auth = {"mode": "api-key", "admin_key_file": str(key)}
    async with running_app(settings_in(tmp_path, auth=auth)) as app:
        for path in OPEN:
            assert (await app.client.get(path, headers=headers)).status_code == 200
        for path in ["/v1/documents", "/v1/sources", "/nothing"]:
            refused = await app.client.get(path, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
            assert refused.headers["www-authenticate"] == "Bearer"
        malformed = await app.client.post("/v1/query", content=b"{", headers=headers)
        assert malformed.status_code == 401


async def test_the_key_opens_and_may_be_changed_taken_away_and_brought_back(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first")
    auth = {"mode": "api-key", "admin_key_file": str(key)}

    async with running_app(settings_in(tmp_path, auth=auth)) as app:

        async def status(credential: str) -> int:
            headers = {"Authorization": f"Bearer {credential}"}
            return (await app.client.get("/v1/documents", headers=headers)).status_code

        assert await status("first") == 200
        _replace(key, "other")
        await app.client.get("/readyz")  # looks at the file, as a request does a second later at the latest
        assert (await status("first"), await status("other")) == (401, 200)

        key.unlink()
        ready = await app.client.get("/readyz")
        refused = await app.client.get("/v1/documents", headers={"Authorization": "Bearer other"})
        assert (refused.status_code, refused.json()["code"]) == (503, "auth-unavailable")
        assert (ready.status_code, ready.json()["dependencies"]["auth"]["up"]) == (503, False)
        assert str(key) not in refused.text

        _replace(key, "   \n")
        assert await status("") == 503
        _replace(key, "third")
        assert await status("third") == 200


def _replace(path: Path, text: str) -> None:
    """As a Secret volume does it: the name points to a new file at once."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


OWN = "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("server", "headers", "allowed"),
    [
        ({}, {}, True),
        ({}, {"origin": OWN}, True),
        ({}, {"host": "localhost:8080", "origin": "http://localhost:8080"}, True),
        ({}, {"host": "[::1]:8080"}, True),
        ({}, {"origin": "https://evil.example"}, False),
        ({}, {"origin": "http://127.0.0.1:3000"}, False),
        ({}, {"origin": "null"}, False),
        ({}, {"host": "evil.example", "origin": "http://evil.example"}, False),
        ({}, {"host": "evil.example"}, False),
        ({}, {"host": "[bad"}, False),
        ({"host": "0.0.0.0"}, {"host": "rag.example"}, True),
        ({"host": "0.0.0.0"}, {"host": "rag.example", "origin": "https://rag.example"}, True),
        ({"host": "0.0.0.0"}, {"host": "rag.example", "origin": "https://evil.example"}, False),
    ],
)
async def test_pages_of_other_sites_cannot_use_an_open_api(
    tmp_path: Path, server: dict[str, str], headers: dict[str, str], allowed: bool
) -> None:
    async with running_app(settings_in(tmp_path, server=server)) as app:
        response = await app.client.post(
            "/v1/documents", files=[("file", ("a.txt", b"Planted."))], headers=headers
        )

        assert response.status_code == (200 if allowed else 403), response.text
        assert (
            bool((await app.client.get("/v1/documents", headers={"host": "127.0.0.1"})).json()["documents"])
            is allowed
        )


async def test_above_the_limit_of_concurrency_requests_are_turned_away(tmp_path: Path) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    class Waiting(Away):
        async def search(self, *arguments: Any) -> Any:
            entered.set()
            await gate.wait()
            return await self.inner.search(*arguments)

    def change(backends: Backends) -> Backends:
        return replace(backends, store=Waiting(backends.store))

    async with running_app(settings_in(tmp_path, server={"max_concurrency": 1}), change) as app:
        first = asyncio.create_task(app.ask("How far is the moon?"))
        await entered.wait()
        refused = await app.client.post("/v1/query", json={"question": "Another one?"})
        probes = [(await app.client.get(path)).status_code for path in OPEN]
        in_flight = await app.metric("rag_requests_in_flight")
        gate.set()
        await first

        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert probes == [200] * len(OPEN)
        assert in_flight == 1
        assert (await app.client.get("/v1/documents")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("PATCH", "/v1/query", 405)]
)
async def test_paths_and_methods_that_do_not_exist_are_problems(
    app: RunningApp, method: str, path: str, status: int
) -> None:
    response = await app.client.request(method, path)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    ProblemBody.model_validate_json(response.content)


async def test_a_fault_of_ours_says_nothing_of_the_inside(tmp_path: Path) -> None:
    class Faulty(Away):
        async def search(self, *_: Any) -> Any:
            raise ZeroDivisionError("secret detail")

    def change(backends: Backends) -> Backends:
        return replace(backends, store=Faulty(backends.store))

    async with running_app(settings_in(tmp_path), change) as app:
        response = await app.client.post("/v1/query", json={"question": "How far is the moon?"})

        assert (response.status_code, response.json()["code"]) == (500, "internal")
        assert "secret" not in response.text
        assert "ZeroDivision" not in response.text
        assert await app.metric("rag_requests_total", route="/v1/query", status="500") == 1


@pytest.mark.parametrize(
    ("traceparent", "taken"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", True),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", False),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        ("nonsense", False),
    ],
)
async def test_the_caller_s_trace_goes_on(app: RunningApp, traceparent: str, taken: bool) -> None:
    answer = await app.ask("How far is the moon?", headers={"traceparent": traceparent})
    refused = await app.client.post("/v1/query", content=b"{", headers={"traceparent": traceparent})

    assert len(answer["trace_id"]) == 32
    assert (answer["trace_id"] == "0af7651916cd43dd8448eb211c80319c") is taken
    assert (refused.json()["trace_id"] == "0af7651916cd43dd8448eb211c80319c") is taken
    assert refused.headers["x-trace-id"] == refused.json()["trace_id"]


async def test_the_page_of_the_api_loads_nothing_from_elsewhere(app: RunningApp) -> None:
    page = await app.client.get("/docs")

    assert page.status_code == 200
    assert "/v1/query" in page.text
    assert not re.search(r"https?://|//cdn", page.text)


def test_every_event_that_is_logged_is_documented(repository: Path) -> None:
    source = "\n".join(path.read_text() for path in (repository / "api").rglob("*.py"))
    logged = set(re.findall(r"log\.(?:debug|info|warning|error)\(\s*\"([^\"]+)\"", source))

    assert "document_indexed" in logged
    assert logged <= set(EVENTS)


def test_the_version_is_the_package_s(repository: Path) -> None:
    assert f'version = "{__version__}"' in (repository / "pyproject.toml").read_text()
