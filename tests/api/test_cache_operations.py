"""Statistics, lists, clearing, disowning and warming up, over HTTP on the real application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ragkube_api.context import Backends
from ragkube_api.domain import Generation
from ragkube_api.errors import CacheUnavailableError, LLMUnavailableError
from ragkube_api.schemas_cache import (
    AskedListBody,
    CachedAnswerDetailBody,
    CachedAnswersBody,
    CacheStatisticsBody,
    WarmLine,
)
from ragkube_api.services.answering import Question
from ragkube_api.services.asked import MAX_DISTINCT, MOST_AT_ONCE
from ragkube_api.services.cache_operations import Warmed
from support.api import RunningApp, running_app, settings_in
from support.trouble import Away

pytestmark = pytest.mark.proves("C8")

MOON, SUN = "How far is the moon?", "How hot is the sun?"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[RunningApp]:
    """Two documents, and classes of questions."""
    classes = [{"name": "heat", "ttl_seconds": 60, "words": ["hot"]}]
    async with running_app(settings_in(tmp_path, cache={"classes": classes})) as running:
        await running.put("moon.txt", "The moon is 384,400 kilometres away.")
        await running.put("sun.txt", "The sun is 5,772 kelvin hot at its surface.")
        yield running


async def cached(app: RunningApp, **params: Any) -> CachedAnswersBody:
    response = await app.client.get("/v1/cache/answers", params=params)
    assert response.status_code == 200, response.text
    return CachedAnswersBody.model_validate_json(response.content)


async def questions(app: RunningApp) -> list[str]:
    return [answer.question for answer in (await cached(app)).answers]


async def clear(app: RunningApp, **params: str) -> int:
    response = await app.client.delete("/v1/cache", params=params)
    assert response.status_code == 200, response.text
    return int(response.json()["removed"])


async def warm(app: RunningApp, **body: Any) -> list[WarmLine]:
    response = await app.client.post("/v1/cache/warm", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/x-ndjson")
    return [WarmLine.model_validate_json(line) for line in response.content.splitlines()]


async def test_statistics_count_entries_by_level_and_kind_and_what_happened(app: RunningApp) -> None:
    await app.ask(MOON)
    await app.ask(MOON)
    await app.ask(SUN)

    found = CacheStatisticsBody.model_validate_json((await app.client.get("/v1/cache")).content)

    (answers,) = (row for row in found.levels if row.kind == "answer")
    assert (answers.level, answers.entries, answers.evictions) == ("l1", 2, 0)
    assert answers.bytes is not None
    assert answers.bytes > 100
    hits = {(row.labels["level"], row.labels["kind"]): row.count for row in found.replica.hits}
    misses = {row.labels["kind"]: row.count for row in found.replica.misses}
    assert (hits["l1", "exact"], misses["exact"]) == (1, 2)
    assert (found.enabled, found.tenant) == (True, "default")
    other = await app.client.get("/v1/cache", headers={"X-Ragkube-Tenant": "other"})
    assert sum(row["entries"] for row in other.json()["levels"]) == 0


async def test_answers_are_listed_by_pages_and_shown(app: RunningApp) -> None:
    asked = [f"{MOON} {number}" for number in range(5)]
    for question in asked:
        await app.ask(question, k=3, tags=["release-7"])
    answer = await app.ask(SUN)

    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = await cached(app, limit=2, **({"cursor": cursor} if cursor else {}))
        seen += page.answers
        cursor, pages = page.next_cursor, pages + 1

    assert [one.question for one in seen] == [*asked, SUN]
    assert pages == 3
    first, last = seen[0], seen[-1]
    assert {"release-7", "class:default", "answerer:extractive"} <= set(first.tags)
    assert first.request["k"] == 3
    assert (last.ttl_class, last.documents[0]) == ("heat", "sun.txt")
    assert answer["id"].startswith(last.id)
    for answer_id in (answer["id"], last.id):
        shown = await app.client.get(f"/v1/cache/answers/{answer_id}")
        detail = CachedAnswerDetailBody.model_validate_json(shown.content)
        assert (detail.id, detail.answer) == (answer["id"], answer["answer"])
        assert detail.current
        assert 0 < detail.fresh_s <= 60


@pytest.mark.parametrize("path", ["/v1/cache/answers/" + "0" * 48, "/v1/cache/answers/nonsense"])
async def test_an_answer_that_is_not_there_is_not_found(app: RunningApp, path: str) -> None:
    for method in ("GET", "DELETE"):
        response = await app.client.request(method, path)
        assert (response.status_code, response.json()["code"]) == (404, "not-found")


async def test_a_disowned_answer_never_comes_back(app: RunningApp) -> None:
    wrong = await app.ask(MOON)

    gone = await app.client.delete(f"/v1/cache/answers/{wrong['id']}")

    assert gone.status_code == 204
    again = await app.ask(MOON)
    assert (again["cache"]["status"], again["answer"]) == ("miss", wrong["answer"])
    assert again["id"] != wrong["id"]
    assert (await app.ask(MOON))["cache"]["status"] == "miss"
    assert MOON not in await questions(app)
    assert (await app.client.delete(f"/v1/cache/answers/{wrong['id']}")).status_code == 404
    await app.put("moon.txt", "The moon is 400,000 kilometres away.")
    assert "400,000" in (await app.ask(MOON))["answer"]
    assert (await app.ask(MOON))["cache"]["status"] == "hit"


async def test_an_answer_that_was_replaced_is_not_disowned_in_place_of_the_old_one(app: RunningApp) -> None:
    old = await app.ask(MOON)
    await app.put("moon.txt", "The moon is 400,000 kilometres away.")
    new = await app.ask(MOON)
    assert new["id"] != old["id"]

    assert (await app.client.delete(f"/v1/cache/answers/{old['id']}")).status_code == 404

    assert (await app.ask(MOON))["id"] == new["id"]


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        ({}, []),
        ({"tag": "mine"}, [SUN]),
        ({"tag": "class:heat"}, [MOON]),
        ({"tag": "other"}, [MOON, SUN]),
        ({"question": "how far*"}, [SUN]),
        ({"question": "how"}, [MOON, SUN]),
        ({"question": "*", "tag": "mine"}, [SUN]),
        ({"kind": "retrieval"}, [MOON, SUN]),
        ({"kind": "answer"}, []),
    ],
)
async def test_the_cache_is_cleared_by_what_is_given(
    app: RunningApp, conditions: dict[str, str], left: list[str]
) -> None:
    await app.ask(MOON, tags=["mine"], k=1)
    await app.ask(SUN, k=1)

    await clear(app, **conditions)

    assert await questions(app) == left
    for question in (MOON, SUN):
        again = await app.ask(question, k=1)
        assert again["cache"]["status"] == ("hit" if question in left else "miss")


async def test_the_cache_is_cleared_by_document_and_by_tenant(app: RunningApp) -> None:
    other = {"X-Ragkube-Tenant": "other"}
    await app.ask(MOON, k=1)
    await app.ask(SUN, k=1)
    await app.ask(SUN, headers=other)

    assert await clear(app, document="sun.txt") >= 1
    assert await questions(app) == [MOON]
    await clear(app)
    assert await questions(app) == []
    assert (await app.ask(SUN, headers=other))["cache"]["status"] == "hit"


@pytest.mark.parametrize(
    "params", [{"tags": "a"}, {"kind": "everything"}, {"tag": ""}, {"document": "a" * 2000}]
)
async def test_a_condition_that_is_wrong_clears_nothing(app: RunningApp, params: dict[str, str]) -> None:
    await app.ask(MOON)

    refused = await app.client.delete("/v1/cache", params=params)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-request")
    assert [error["field"] for error in refused.json()["errors"]] == list(params)
    assert await questions(app) == [MOON]


async def test_questions_are_answered_ahead_of_time(app: RunningApp) -> None:
    await app.ask(SUN)

    lines = await warm(app, questions=[MOON, {"question": MOON, "k": 2, "tags": ["early"]}, SUN, MOON])

    outcomes = sorted((line.question, line.outcome) for line in lines)
    assert outcomes == [(MOON, "warmed"), (MOON, "warmed"), (SUN, "cached")]
    assert [line.done for line in lines] == [1, 2, 3]
    assert {line.total for line in lines} == {3}
    assert (await app.ask(MOON))["cache"]["status"] == "hit"
    assert (await app.ask(MOON, k=2))["cache"]["status"] == "hit"


async def test_the_most_asked_questions_are_counted_and_answered_ahead_of_time(app: RunningApp) -> None:
    for _ in range(3):
        await app.ask(MOON)
    await app.ask(SUN, k=2, filters={"b": 1, "a": [True, "x"]})
    await app.ask(SUN, headers={"Cache-Control": "no-store"})
    asked = (await app.client.get("/v1/cache/questions", params={"limit": 10})).content
    found = [(row.count, row.request) for row in AskedListBody.model_validate_json(asked).questions]
    assert found == [
        (3, {"question": MOON}),
        (1, {"question": SUN, "k": 2, "filters": {"a": [True, "x"], "b": 1}}),
    ]
    await clear(app)

    lines = await warm(app, most_asked=1)

    assert [(line.question, line.outcome) for line in lines] == [(MOON, "warmed")]
    assert (await app.ask(MOON))["cache"]["status"] == "hit"


async def test_what_was_counted_is_handed_over_when_the_process_ends(app: RunningApp) -> None:
    counting = asyncio.create_task(app.runtime.asked.run())
    await app.ask(MOON)
    assert await app.runtime.backends.cache.most_asked("default", 9) == []
    counting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await counting
    assert [count for _, count in await app.runtime.backends.cache.most_asked("default", 9)] == [1]


async def test_counting_is_bounded_between_two_flushes(app: RunningApp) -> None:
    asked = app.runtime.asked
    for number in range(MAX_DISTINCT + 10):
        asked.note(_question(f"{MOON} {number}"))
    asked.note(_question(f"{MOON} 0"))
    assert len(asked._counts) == MAX_DISTINCT
    assert sum(asked._counts.values()) == MAX_DISTINCT + 1


@pytest.mark.parametrize("away", [False, True])
async def test_many_counts_are_handed_over_in_parts_that_keep_nobody_waiting(
    app: RunningApp, away: bool
) -> None:
    asked, book = app.runtime.asked, _Book()
    book.error = CacheUnavailableError("away") if away else None
    for number in range(1000):
        asked.note(_question(f"{MOON} {number}"))
    with patch.object(asked, "_cache", book):
        await asked.flush()
    assert book.sizes == ([] if away else [MOST_AT_ONCE] * (1000 // MOST_AT_ONCE))
    assert book.calls == ["tally"] * (1 if away else 1000 // MOST_AT_ONCE), "who is away is asked once"
    assert sum(asked._counts.values()) == (1000 if away else 0)


class _Book(Away):
    """Remembers how much it was handed over at a time."""

    def __init__(self) -> None:
        super().__init__(self)
        self.sizes: list[int] = []

    async def tally(self, _: str, asked: dict[bytes, int]) -> None:
        self._pass("tally")
        self.sizes.append(len(asked))


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["questions"]),
        ({"questions": []}, ["questions"]),
        ({"questions": ["ok?", "no"]}, ["questions.1"]),
        ({"questions": [{"question": "what?", "k": 99, "x": 1}]}, ["questions.0.k", "questions.0.x"]),
        ({"questions": ["what?"], "concurrency": 0}, ["concurrency"]),
        ({"most_asked": 0}, ["most_asked"]),
        ({"question": "what?"}, ["question"]),
    ],
)
async def test_wrong_bodies_for_warming_up_are_refused_by_name(
    app: RunningApp, body: dict[str, Any], fields: list[str]
) -> None:
    refused = await app.client.post("/v1/cache/warm", json=body)

    assert refused.status_code == 422
    assert sorted(error["field"] for error in refused.json()["errors"]) == fields
    assert await questions(app) == []


class _Together(Away):
    """Answers questions by threes, counts how many it works on, and refuses one."""

    running = 0
    most = 0

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._three = asyncio.Barrier(3)

    async def answer(self, question: str, *arguments: Any, **named: Any) -> Generation:
        if "sun" in question:
            raise LLMUnavailableError("The model is away.", retry_after=1)
        self.running += 1
        self.most = max(self.most, self.running)
        async with asyncio.timeout(30), self._three:
            self.running -= 1
        written: Generation = await self.inner.answer(question, *arguments, **named)
        return written


async def test_warming_up_is_bounded_and_goes_on_past_a_failure(tmp_path: Path) -> None:
    answerers: list[_Together] = []

    def change(backends: Backends) -> Backends:
        answerers.append(_Together(backends.answerer))
        return replace(backends, answerer=answerers[0])

    async with running_app(settings_in(tmp_path), change) as app:
        await app.put("moon.txt", "The moon is far. The sun is hot.")
        lines = await warm(app, questions=[SUN, *(f"{MOON} {n}" for n in range(9))], concurrency=3)

        assert answerers[0].most == 3
        assert sorted(line.outcome for line in lines) == ["failed", *["warmed"] * 9]
        (failed,) = (line for line in lines if line.outcome == "failed")
        assert (failed.question, failed.code) == (SUN, "llm-unavailable")


async def test_with_the_cache_off_nothing_is_said_to_be_warm(tmp_path: Path) -> None:
    async with running_app(settings_in(tmp_path, cache={"enabled": False})) as app:
        (line,) = await warm(app, questions=[MOON])
        assert (line.outcome, line.code) == ("uncacheable", "cache-disabled")
        assert (await app.client.get("/v1/cache")).json()["enabled"] is False


async def test_without_the_shared_level_operations_say_so_and_counts_are_kept(tmp_path: Path) -> None:
    caches: list[Away] = []

    def change(backends: Backends) -> Backends:
        caches.append(Away(backends.cache))
        return replace(backends, cache=caches[0])

    async with running_app(settings_in(tmp_path), change) as app:
        await app.ask(MOON)
        caches[0].error = CacheUnavailableError("The cache cannot be reached.")
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/answers"), ("GET", "/questions")):
            refused = await app.client.request(method, f"/v1/cache{path}")
            assert (refused.status_code, refused.json()["code"]) == (503, "cache-unavailable"), path
            assert "retry-after" in refused.headers
        caches[0].error = None
        counted = (await app.client.get("/v1/cache/questions")).json()["questions"]
        assert [(row["request"]["question"], row["count"]) for row in counted] == [(MOON, 1)]


async def test_a_cursor_that_is_none_is_refused(app: RunningApp) -> None:
    for cursor in ("x", "ü", "bm9uc2Vuc2U=", "bmFu", "aW5mIGE="):
        response = await app.client.get("/v1/cache/answers", params={"cursor": cursor})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "cursor")


async def test_a_client_that_leaves_stops_the_warming_up(app: RunningApp) -> None:
    operations = app.runtime.cache_operations
    begun, two, ended = 0, asyncio.Event(), 0

    async def answer(question: Question, looked_up: object = None) -> Any:
        nonlocal begun, ended
        begun += 1
        if begun == 2:
            two.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    operations._answering = _Stub(answer)  # type: ignore[assignment]
    reader = asyncio.create_task(_read(operations.warm([_question(str(n)) for n in range(5)], concurrency=2)))
    await two.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert (begun, ended) == (2, 2)


async def _read(lines: AsyncIterator[Warmed]) -> None:
    async for _ in lines:
        pass


class _Stub:
    def __init__(self, answer: Any) -> None:
        self.answer = answer


def _question(text: str) -> Question:
    return Question("default", text, 5, 0.5)
