"""Cached answers past writes, past their TTL and past a missing store, and the other kinds that are cached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ragkube_api.adapters.memory_cache import MemoryCache
from ragkube_api.context import Backends
from ragkube_api.domain import Cached, Fence, Fill, Generation, Passage, Usage
from ragkube_api.errors import LLMUnavailableError, StoreUnavailableError
from ragkube_api.services import answer_codec, freshness
from support.api import RunningApp, running_app, settings_in
from support.trouble import Away

QUESTION = "How far away is the moon?"
MOON = "The moon is 384,400 kilometres away."
COST = {"input_tokens": 100, "output_tokens": 20, "cost_usd": 0.5}


class Model:
    """Stands for a model that writes another text each time, when it may."""

    default_model = "small"
    allowed_models = frozenset({"large"})
    revision = "counting"

    def __init__(self) -> None:
        self.calls = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: LLMUnavailableError | None = None

    async def answer(
        self, question: str, passages: Sequence[Passage], *, model: str | None, timeout_seconds: float
    ) -> Generation:
        del question, passages, timeout_seconds
        self.calls += 1
        text = f"Answer {self.calls}."
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return Generation(text, [], "llm", model or "small", Usage(100, 20), 0.5, complete=True)

    async def ping(self) -> None: ...


@dataclass
class Stage:
    """An application, the model it asks, its store and the clock of its cache."""

    model: Model = field(default_factory=Model)
    now: float = 1000.0
    app: RunningApp = field(init=False)
    store: Away = field(init=False)

    async def ask(self, question: str = QUESTION, **fields: Any) -> Any:
        return await self.app.ask(question, **fields)

    async def settled(self) -> None:
        await self.app.runtime.answering.settled()

    async def called(self, times: int) -> None:
        """Until the model is being asked."""
        async with asyncio.timeout(30):
            while self.model.calls < times:  # noqa: ASYNC110  that is the event
                await asyncio.sleep(0)

    async def hits(self, kind: str) -> float:
        return await self.app.metric("rag_cache_hits_total", level="l1", kind=kind)


@asynccontextmanager
async def staged(directory: Path, **cache: Any) -> AsyncIterator[Stage]:
    stage = Stage()

    def change(backends: Backends) -> Backends:
        stage.store = Away(backends.store)
        memory = MemoryCache(max_entries=1000, max_bytes=1 << 24, clock=lambda: stage.now)
        return replace(
            backends, cache=memory, answerer=stage.model, fallback=backends.answerer, store=stage.store
        )

    async with running_app(settings_in(directory, cache=cache), change) as app:
        stage.app = app
        await app.put("moon.txt", MOON)
        yield stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


@pytest.mark.proves("C4")
async def test_a_write_that_leaves_the_passages_alone_leaves_the_answer(stage: Stage) -> None:
    first = await stage.ask(k=1)
    stage.now += 5
    await stage.app.put("bread.txt", "Bread is baked in an oven.")
    after = await stage.ask(k=1)
    stage.now += 5
    again = await stage.ask(k=1)

    assert [each["id"] for each in (after, again)] == [first["id"]] * 2
    assert (after["cache"]["status"], after["cache"]["validated"]) == ("hit", "evidence")
    assert (again["cache"]["status"], again["cache"]["validated"]) == ("hit", "fence")
    assert (after["cache"]["age_s"], again["cache"]["age_s"]) == (5, 10)
    assert after["cache"]["saved"] == COST
    assert stage.model.calls == 1
    assert await stage.app.metric("rag_cache_validations_total", outcome="held") == 1


@pytest.mark.proves("C4")
@pytest.mark.parametrize("change", ["replaced", "deleted", "added"])
async def test_a_write_that_changes_the_passages_ends_the_answer(stage: Stage, change: str) -> None:
    first = await stage.ask()
    if change == "replaced":
        await stage.app.put("moon.txt", "The moon is 7 kilometres away.")
    elif change == "deleted":
        await stage.app.client.delete("/v1/documents/moon.txt")
    else:
        await stage.app.put("luna.txt", "How far away is the moon? 384,400 kilometres.")
    after = await stage.ask()

    assert after["cache"]["status"] == "miss"
    assert after["id"] != first["id"]
    assert stage.model.calls == 2
    assert await stage.app.metric("rag_cache_validations_total", outcome="changed") == 1
    assert (await stage.ask())["id"] == after["id"]


@pytest.mark.proves("C4")
async def test_what_is_put_back_is_another_version_and_another_answer(stage: Stage) -> None:
    first = await stage.ask()
    await stage.app.put("moon.txt", "Else.")
    await stage.app.put("moon.txt", MOON)
    assert (await stage.ask())["id"] != first["id"]


@pytest.mark.proves("C4")
@pytest.mark.proves("C5")
async def test_an_answer_does_not_live_longer_for_being_validated(tmp_path: Path) -> None:
    async with staged(tmp_path, answer_ttl_seconds=10) as stage:
        first = await stage.ask(k=1)
        for number in range(3):
            stage.now += 3
            await stage.app.put("bread.txt", f"Bread {number}.")
            assert (await stage.ask(k=1))["id"] == first["id"]
        stage.now += 2
        assert (await stage.ask(k=1))["cache"]["status"] == "miss"


@pytest.mark.proves("R3")
@pytest.mark.proves("C4")
async def test_without_the_store_only_answers_under_the_fence_go_on(stage: Stage) -> None:
    await stage.ask()
    await stage.ask("What else?")
    await stage.app.put("bread.txt", "Bread is baked in an oven.")
    await stage.ask()
    stage.store.error = StoreUnavailableError("The document store cannot be reached.")

    assert (await stage.ask())["cache"]["validated"] == "fence"
    other = await stage.app.client.post("/v1/query", json={"question": "What else?"})
    assert (other.status_code, other.json()["code"]) == (503, "store-unavailable")


@pytest.mark.proves("C5")
async def test_each_class_of_questions_has_a_ttl_of_its_own(tmp_path: Path) -> None:
    classes = [{"name": "live", "ttl_seconds": 5, "words": ["right now"]}]
    async with staged(tmp_path, classes=classes, answer_ttl_seconds=50) as stage:
        live, lasting = "Where is the moon RIGHT NOW?", QUESTION
        assert (await stage.ask(live))["cache"]["class"] == "live"
        assert (await stage.ask(lasting))["cache"]["class"] == "default"
        stage.now += 4
        assert (await stage.ask(live))["cache"]["class"] == "live"
        stage.now += 2
        assert (await stage.ask(live))["cache"]["status"] == "miss"
        assert (await stage.ask(lasting))["cache"]["status"] == "hit"
        stage.now += 50
        assert (await stage.ask(lasting))["cache"]["status"] == "miss"


@pytest.mark.proves("C6")
async def test_past_its_ttl_an_answer_is_served_while_one_asker_has_it_made_anew(tmp_path: Path) -> None:
    async with staged(tmp_path, answer_ttl_seconds=10, stale_while_revalidate_seconds=100) as stage:
        first = await stage.ask()
        stage.now += 50
        stage.model.may_answer.clear()
        stale = [await stage.ask() for _ in range(5)]
        stage.model.may_answer.set()
        await stage.settled()
        fresh = await stage.ask()

        assert {(each["cache"]["status"], each["id"]) for each in stale} == {("stale", first["id"])}
        assert (fresh["cache"]["status"], fresh["answer"]) == ("hit", "Answer 2.")
        assert stage.model.calls == 2
        assert await stage.app.metric("rag_cache_refreshes_total", reason="stale") == 1


@pytest.mark.proves("C4")
@pytest.mark.proves("C6")
async def test_a_stale_answer_is_never_another_version(tmp_path: Path) -> None:
    async with staged(tmp_path, answer_ttl_seconds=10, stale_while_revalidate_seconds=100) as stage:
        first = await stage.ask(k=1)
        stage.now += 50
        await stage.app.put("bread.txt", "Bread is baked in an oven.")
        valid = await stage.ask(k=1)
        await stage.settled()
        await stage.app.put("moon.txt", "The moon is 7 kilometres away.")
        stage.now += 50
        changed = await stage.ask(k=1)

        assert (valid["cache"]["status"], valid["cache"]["validated"]) == ("stale", "evidence")
        assert valid["id"] == first["id"]
        assert changed["cache"]["status"] == "miss"


async def test_an_answer_that_cannot_be_made_anew_stays_until_its_end(tmp_path: Path) -> None:
    async with staged(tmp_path, answer_ttl_seconds=10, stale_while_revalidate_seconds=100) as stage:
        first = await stage.ask()
        stage.now += 50
        stage.model.error = LLMUnavailableError("overloaded")
        await stage.ask()
        await stage.settled()
        assert (await stage.ask())["id"] == first["id"]
        await stage.settled()
        stage.now += 100
        assert (await stage.ask())["degraded"] == ["llm-unavailable"]


@pytest.mark.proves("C6")
async def test_near_its_end_an_answer_is_made_anew_before_anybody_has_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    async with staged(tmp_path, answer_ttl_seconds=100) as stage:
        first = await stage.ask()
        stage.now += 50
        assert (await stage.ask())["id"] == first["id"]
        await stage.settled()
        assert stage.model.calls == 1
        stage.now += 49.9999
        assert (await stage.ask())["id"] == first["id"]
        await stage.settled()
        stage.now += 1
        renewed = await stage.ask()

        assert (renewed["cache"]["status"], renewed["answer"]) == ("hit", "Answer 2.")
        assert await stage.app.metric("rag_cache_refreshes_total", reason="early") == 1


@pytest.mark.parametrize(
    ("left", "age", "seconds", "dice", "expected"),
    [
        (50, 50, 100, 1e-9, False),
        (9, 91, 100, 0.5, True),
        (9, 91, 1, 0.5, False),
        (9, 91, 1, 1e-9, True),
        (9, 91, 0, 1e-9, False),
    ],
)
def test_the_nearer_the_end_and_the_dearer_the_answer_the_likelier_it_is_made_anew(
    left: float, age: float, seconds: float, dice: float, expected: bool
) -> None:
    generation = Generation("x", [], "llm", "m", Usage(), 0, complete=True)
    value = answer_codec.encode(
        generation, digest="0" * 32, evidence=bytes(16), documents=[], ttl_class="default", seconds=seconds
    )
    entry, cached = answer_codec.opened(value), Cached(value, "l1", True, age, left)
    assert freshness.due(entry, cached, dice) is expected


@pytest.mark.proves("C6")
async def test_askers_of_the_same_question_share_one_answer_and_one_bill(stage: Stage) -> None:
    stage.model.may_answer.clear()
    asking = [asyncio.create_task(stage.ask()) for _ in range(40)]
    await stage.called(1)
    stage.model.may_answer.set()
    answers = await asyncio.gather(*asking)

    assert stage.model.calls == 1
    assert len({each["id"] for each in answers}) == 1
    assert {each["cache"]["status"] for each in answers} == {"miss"}
    assert sum(each["cost_usd"] for each in answers) == 0.5
    assert sum(each["cache"]["saved"]["cost_usd"] for each in answers) == 39 * 0.5
    assert await stage.app.metric("rag_cache_flights_total", role="led") == 1
    assert await stage.app.metric("rag_cache_flights_total", role="joined") == 39
    assert stage.store.calls.count("search") == 1


@pytest.mark.proves("C6")
async def test_an_asker_that_leaves_does_not_take_the_answer_from_the_others(stage: Stage) -> None:
    stage.model.may_answer.clear()
    leader = asyncio.create_task(stage.ask())
    await stage.called(1)
    other = asyncio.create_task(stage.ask())
    while await stage.app.metric("rag_cache_misses_total", kind="exact") < 2:  # noqa: ASYNC110  then it waits
        await asyncio.sleep(0)
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    stage.model.may_answer.set()

    assert (await other)["answer"] == "Answer 1."
    assert stage.model.calls == 1


async def test_no_cache_asks_for_an_answer_of_its_own(stage: Stage) -> None:
    stage.model.may_answer.clear()
    first = asyncio.create_task(stage.ask())
    await stage.called(1)
    own = asyncio.create_task(stage.ask(headers={"Cache-Control": "no-cache"}))
    await stage.called(2)
    stage.model.may_answer.set()
    assert {each["answer"] for each in await asyncio.gather(first, own)} == {"Answer 1.", "Answer 2."}


@pytest.mark.proves("C3")
async def test_passages_are_cached_for_other_models_until_a_write(stage: Stage) -> None:
    await stage.ask()
    await stage.ask(model="large")
    assert stage.store.calls.count("search") == 1
    assert await stage.hits("retrieval") == 1
    await stage.app.put("bread.txt", "Bread is baked in an oven.")
    await stage.ask(model="large")
    assert stage.store.calls.count("search") == 2
    assert await stage.app.metric("rag_cache_misses_total", kind="retrieval") == 2


@pytest.mark.proves("C3")
async def test_vectors_of_questions_are_cached_and_outlive_writes(stage: Stage) -> None:
    await stage.ask()
    await stage.app.put("bread.txt", "Bread is baked in an oven.")
    await stage.ask(k=2)
    await stage.ask(k=3, headers={"X-Ragkube-Tenant": "other"})
    assert await stage.hits("embedding") == 1
    assert await stage.app.metric("rag_cache_misses_total", kind="embedding") == 2


@pytest.mark.proves("C3")
@pytest.mark.proves("C4")
async def test_descriptions_of_documents_are_cached_until_a_write(stage: Stage) -> None:
    async def describe(name: str = "moon.txt") -> tuple[int, str]:
        response = await stage.app.client.get(f"/v1/documents/{name}")
        return response.status_code, response.json().get("version", "")

    first = await describe()
    read = stage.store.calls.count("get")
    assert await describe() == first
    assert (stage.store.calls.count("get"), await stage.hits("document")) == (read, 1)
    stage.now += 3601
    assert await describe() == first
    assert stage.store.calls.count("get") == read + 1
    await stage.app.put("moon.txt", "Else.")
    assert (await describe())[1] not in {"", first[1]}
    await stage.app.client.delete("/v1/documents/moon.txt")
    assert [(await describe())[0] for _ in range(2)] == [404, 404]


@pytest.mark.proves("C3")
@pytest.mark.parametrize("kind", ["retrieval", "document"])
async def test_damaged_values_of_every_kind_are_misses_and_are_counted(tmp_path: Path, kind: str) -> None:
    class Damaging(Away):
        async def store(self, tenant: str, *fills: Fill, fence: Fence | None) -> bool:
            damaged = [
                fill._replace(value=fill.value[:-3] + b"\0\0\0") if fill.key.kind == kind else fill
                for fill in fills
            ]
            return bool(await self.inner.store(tenant, *damaged, fence=fence))

    def change(backends: Backends) -> Backends:
        return replace(backends, cache=Damaging(backends.cache), answerer=Model())

    async with running_app(settings_in(tmp_path), change) as app:
        await app.put("moon.txt", MOON)
        for _ in range(2):
            assert (await app.client.get("/v1/documents/moon.txt")).status_code == 200
        await app.ask(QUESTION)
        assert (await app.ask(QUESTION, model="large"))["cache"]["status"] == "miss"
        assert await app.metric("rag_cache_errors_total", reason="corrupt") == 1


async def test_a_cache_that_is_switched_off_keeps_nothing_of_any_kind(tmp_path: Path) -> None:
    async with staged(tmp_path, enabled=False) as stage:
        for _ in range(2):
            await stage.ask()
            await stage.app.client.get("/v1/documents/moon.txt")
        assert await stage.app.metric("rag_cache_hits_total") == 0
        assert stage.store.calls.count("search") == 2


async def test_no_store_keeps_nothing_of_any_kind(stage: Stage) -> None:
    for _ in range(2):
        await stage.ask(headers={"Cache-Control": "no-store"})
    assert await stage.app.metric("rag_cache_hits_total") == 0
    assert stage.store.calls.count("search") == 2
