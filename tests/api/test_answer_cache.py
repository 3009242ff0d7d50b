"""The exact cache: what it is keyed by, when it is passed by, and that nothing stale or damaged is served."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragkube_api.context import Backends
from ragkube_api.domain import Fence, Fill
from ragkube_api.errors import StoreUnavailableError
from ragkube_api.services import answer_codec
from support.api import RunningApp, running_app, settings_in
from support.trouble import Away, CutOff

QUESTION = "How far away is the moon?"
MOON = "The moon is 384,400 kilometres away."


async def _status(app: RunningApp, question: str = QUESTION, **fields: Any) -> str:
    return str((await app.ask(question, **fields))["cache"]["status"])


@pytest.mark.proves("C1")
async def test_the_same_question_is_answered_from_the_cache_with_its_age(app: RunningApp) -> None:
    await app.put("moon.txt", MOON)
    first = await app.ask(QUESTION)
    second = await app.ask(QUESTION)

    stored = (await app.client.get("/v1/documents/moon.txt")).json()
    documents = [{"id": "moon.txt", "version": stored["version"]}]
    nothing = {"input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}
    assert first["cache"] == {
        "status": "miss", "level": None, "kind": None, "age_s": None, "similarity": None, "validated": None,
        "gates": [], "class": "default", "documents": documents, "saved": nothing,
    }  # fmt: skip
    assert (second["cache"]["validated"], second["cache"]["documents"]) == ("fence", documents)
    assert (second["cache"]["status"], second["cache"]["level"], second["cache"]["kind"]) == (
        "hit",
        "l1",
        "exact",
    )
    assert second["cache"]["age_s"] >= 0
    assert second["answer"] == first["answer"]
    assert second["citations"] == first["citations"]
    assert second["id"] == first["id"]
    assert re.fullmatch("[0-9a-f]{48}", first["id"])
    assert second["trace_id"] != first["trace_id"]
    assert await app.metric("rag_cache_hits_total", level="l1", kind="exact") == 1
    assert await app.metric("rag_cache_misses_total", kind="exact") == 1


@pytest.mark.proves("C1")
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("Where is the café?", "Where is the cafe\u0301?", "hit"),
        ("Where is it?", "  Where\n is \t it?", "hit"),
        ("Who is the US president?", "Who is the us president?", "miss"),
        ("Where is it?", "Where is it", "miss"),
    ],
)  # fmt: skip
async def test_what_counts_as_the_same_question(
    app: RunningApp, first: str, second: str, expected: str
) -> None:
    await app.ask(first)

    assert await _status(app, second) == expected


@pytest.mark.proves("C1")
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"k": 4}, "miss"),
        ({"alpha": 0.4}, "miss"),
        ({"filters": {"a": "x"}}, "miss"),
        ({"filters": {"a": 1}}, "miss"),
        ({"k": 5, "alpha": 0.5, "filters": {}}, "hit"),
        ({"headers": {"X-Ragkube-Tenant": "other"}}, "miss"),
    ],
)
async def test_every_parameter_and_the_tenant_are_part_of_the_key(
    app: RunningApp, fields: dict[str, Any], expected: str
) -> None:
    await app.ask(QUESTION)

    assert await _status(app, **fields) == expected


@pytest.mark.proves("C1")
async def test_filters_are_the_same_in_any_order_and_of_one_type(app: RunningApp) -> None:
    await app.ask(QUESTION, filters={"a": ["x", "y"], "b": 1})

    assert await _status(app, filters={"b": 1, "a": ["y", "x"]}) == "hit"
    assert await _status(app, filters={"b": "1", "a": ["y", "x"]}) == "miss"
    assert await _status(app, filters={"b": True, "a": ["y", "x"]}) == "miss"


@pytest.mark.proves("C1")
async def test_cache_control_passes_the_cache_by(app: RunningApp) -> None:
    no_cache, no_store = {"Cache-Control": "no-cache"}, {"Cache-Control": "max-age=0, no-store"}

    assert await _status(app, headers=no_store) == "bypass"
    assert await _status(app) == "miss"
    assert await _status(app, headers=no_cache) == "bypass"
    assert await _status(app) == "hit"
    assert await _status(app, "Another question?", headers=no_cache) == "bypass"
    assert await _status(app, "Another question?") == "hit"


@pytest.mark.proves("C1")
async def test_a_write_drops_the_answers_and_an_unchanged_one_does_not(app: RunningApp) -> None:
    await app.put("moon.txt", MOON)
    await app.ask(QUESTION)

    again = await app.put("moon.txt", MOON)
    assert again.json()["unchanged"] is True
    assert await _status(app) == "hit"

    await app.put("moon.txt", "The moon is 1,234 kilometres away.")
    changed = await app.ask(QUESTION)
    assert changed["cache"]["status"] == "miss"
    assert "1,234" in changed["answer"]

    await app.client.delete("/v1/documents/moon.txt")
    gone = await app.ask(QUESTION)
    assert gone["cache"]["status"] == "miss"
    assert gone["citations"] == []


async def test_a_write_of_one_tenant_leaves_the_answers_of_another(app: RunningApp) -> None:
    blue = {"X-Ragkube-Tenant": "blue"}
    await app.ask(QUESTION, headers=blue)

    await app.put("moon.txt", MOON)

    assert await _status(app, headers=blue) == "hit"


class _SlowStore(Away):
    """Runs a write between retrieval and the end of the answer."""

    after_search: Any = None

    async def search(self, *arguments: Any) -> Any:
        found = await self.inner.search(*arguments)
        if self.after_search is not None:
            action, self.after_search = self.after_search, None
            await action()
        return found


@pytest.mark.proves("C1")
async def test_an_answer_that_a_write_overtook_is_not_stored(tmp_path: Path) -> None:
    stores: list[_SlowStore] = []

    def change(backends: Backends) -> Backends:
        stores.append(_SlowStore(backends.store))
        return replace(backends, store=stores[0])

    async with running_app(settings_in(tmp_path), change) as app:
        await app.put("moon.txt", MOON)
        stores[0].after_search = lambda: app.put("moon.txt", "The moon is 7 kilometres away.")

        overtaken = await app.ask(QUESTION)
        next_one = await app.ask(QUESTION)

    assert "384,400" in overtaken["answer"]
    assert next_one["cache"]["status"] == "miss"
    assert "7 kilometres" in next_one["answer"]


@pytest.mark.proves("C2")
@pytest.mark.proves("R3")
async def test_without_the_cache_it_answers_and_says_so(tmp_path: Path) -> None:
    caches: list[CutOff] = []

    def change(backends: Backends) -> Backends:
        caches.append(CutOff(backends.cache))
        return replace(backends, cache=caches[0])

    async with running_app(settings_in(tmp_path), change) as app:
        await app.put("moon.txt", MOON)
        caches[0].away = True

        answer = await app.ask(QUESTION)
        again = await app.ask(QUESTION)
        write = await app.put("other.txt", "More text.")
        ready = await app.client.get("/readyz")
        caches[0].away = False
        healed = await app.ask(QUESTION)
        at_last = await app.ask(QUESTION)

        assert (answer["cache"]["status"], answer["degraded"]) == ("miss", ["cache-unavailable"])
        assert "384,400" in answer["answer"]
        assert (again["id"], again["degraded"]) == (answer["id"], ["cache-unavailable"])
        assert (again["cache"]["status"], again["cache"]["level"]) == ("hit", "l1")
        assert again["cache"]["validated"] == "evidence"
        assert (write.status_code, write.json()["code"]) == (503, "cache-unavailable")
        assert int(write.headers["retry-after"]) >= 1
        assert ready.status_code == 200
        assert ready.json()["dependencies"]["cache"]["up"] is False
        assert (healed["id"], healed["cache"]["validated"], healed["degraded"]) == (
            answer["id"],
            "evidence",
            [],
        )
        assert (at_last["id"], at_last["cache"]["validated"]) == (answer["id"], "fence")
        assert await app.metric("rag_cache_errors_total", reason="unavailable") == 2
        assert await app.metric("rag_degraded_answers_total", reason="cache-unavailable") == 2


@pytest.mark.proves("R3")
async def test_without_the_store_cached_answers_go_on_and_the_rest_is_told_to_come_back(
    tmp_path: Path,
) -> None:
    stores: list[Away] = []

    def change(backends: Backends) -> Backends:
        stores.append(Away(backends.store))
        return replace(backends, store=stores[0])

    async with running_app(settings_in(tmp_path), change) as app:
        await app.put("moon.txt", MOON)
        await app.ask(QUESTION)
        before = await app.client.get("/readyz")
        stores[0].error = StoreUnavailableError("The document store cannot be reached.")

        cached = await app.ask(QUESTION)
        fresh = await app.client.post("/v1/query", json={"question": "Something else?"})
        ready = await app.client.get("/readyz")

    assert cached["cache"]["status"] == "hit"
    assert (fresh.status_code, fresh.json()["code"]) == (503, "store-unavailable")
    assert int(fresh.headers["retry-after"]) >= 1
    assert (before.status_code, before.json()["status"]) == (200, "ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["dependencies"]["store"]["detail"] == "The document store cannot be reached."


def _of_another_key(value: bytes) -> answer_codec.Entry:
    return answer_codec.opened(value)._replace(digest="0" * 32)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda value: value[:-5] + bytes([value[-5] ^ 1]) + value[-4:], id="one bit"),
        pytest.param(lambda value: value[: len(value) // 2], id="cut"),
        pytest.param(lambda value: value[:0], id="empty"),
        pytest.param(lambda value: b"\x80\x04" + value, id="foreign"),
        pytest.param(lambda value: value + b"\0", id="longer"),
        pytest.param(lambda value: answer_codec.again(_of_another_key(value), age=0), id="of another key"),
    ],
)
async def test_a_damaged_entry_is_a_miss_and_is_counted(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    class Damaging(Away):
        async def store(self, tenant: str, *fills: Fill, fence: Fence | None) -> bool:
            stored = [
                fill._replace(value=damage(fill.value)) if fill.key.kind == "answer" else fill
                for fill in fills
            ]
            return bool(await self.inner.store(tenant, *stored, fence=fence))

    def change(backends: Backends) -> Backends:
        return replace(backends, cache=Damaging(backends.cache))

    async with running_app(settings_in(tmp_path), change) as app:
        await app.put("moon.txt", MOON)
        first, second = await app.ask(QUESTION), await app.ask(QUESTION)

        assert (second["cache"]["status"], second["answer"]) == ("miss", first["answer"])
        assert await app.metric("rag_cache_errors_total", reason="corrupt") == 1


async def test_an_answer_above_the_limit_is_given_but_not_stored(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, cache={"max_answer_bytes": 1024})
    async with running_app(settings) as app:
        await app.put("moon.txt", f"The moon is far away {'and further ' * 60}from here.")
        await app.ask(QUESTION, k=20)

        assert await _status(app, k=20) == "miss"
        assert await app.metric("rag_cache_errors_total", reason="oversized") >= 1


async def test_a_cache_that_is_switched_off_is_neither_read_nor_written(tmp_path: Path) -> None:
    async with running_app(settings_in(tmp_path, cache={"enabled": False})) as app:
        assert await _status(app) == "bypass"
        assert await _status(app) == "bypass"


@pytest.mark.proves("R4")
async def test_a_process_that_never_reached_its_store_is_not_ready(tmp_path: Path) -> None:
    def change(backends: Backends) -> Backends:
        store = Away(backends.store)
        store.error = StoreUnavailableError("The document store cannot be reached.")
        return replace(backends, store=store)

    async with running_app(settings_in(tmp_path), change) as app:
        ready = await app.client.get("/readyz")

    assert (ready.status_code, ready.json()["status"]) == (503, "not-ready")
