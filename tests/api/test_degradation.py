"""A language model or an embedding server that is away: an answer all the same, flagged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ragkube_api.context import Backends
from ragkube_api.domain import Citation, Generation, Passage, Usage
from ragkube_api.errors import EmbedderUnavailableError, LLMUnavailableError
from support.api import Change, running_app, settings_in
from support.trouble import Away

QUESTION = "How far away is the moon?"


class ScriptedAnswerer:
    """Stands for a model whose behaviour the test decides; the real SDK has its own suite."""

    default_model = "small"
    allowed_models = frozenset({"large"})
    revision = "scripted"

    def __init__(self) -> None:
        self.error: LLMUnavailableError | None = None
        self.complete = True
        self.seconds = 0.0
        self.calls = 0

    async def answer(
        self, question: str, passages: Sequence[Passage], *, model: str | None, timeout_seconds: float
    ) -> Generation:
        del question, timeout_seconds
        self.calls += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        cited = [
            Citation(
                p.document, p.version, p.chunk.ordinal, p.chunk.start, p.chunk.end, p.chunk.text, p.score
            )
            for p in passages
        ]
        return Generation(
            "Very far.", cited, "llm", model or self.default_model, Usage(100, 20), 0.5, self.complete
        )

    async def ping(self) -> None:
        if self.error is not None:
            raise self.error


def _with(answerer: ScriptedAnswerer) -> Change:
    def change(backends: Backends) -> Backends:
        return replace(backends, answerer=answerer, fallback=backends.answerer)

    return change


@pytest.mark.proves("Q1")
async def test_a_model_s_answer_carries_model_usage_and_cost_and_a_cached_one_costs_nothing(
    tmp_path: Path,
) -> None:
    async with running_app(settings_in(tmp_path), _with(ScriptedAnswerer())) as app:
        await app.put("moon.txt", "The moon is far.")
        fresh = await app.ask(QUESTION)
        cached = await app.ask(QUESTION)
        large = await app.ask(QUESTION, model="large")
        unknown = await app.client.post("/v1/query", json={"question": QUESTION, "model": "huge"})

        assert (fresh["answerer"], fresh["model"], fresh["cost_usd"]) == ("llm", "small", 0.5)
        assert fresh["usage"] == {"input_tokens": 100, "output_tokens": 20}
        assert (cached["cache"]["status"], cached["model"], cached["cost_usd"]) == ("hit", "small", 0.0)
        assert cached["usage"] == {"input_tokens": 0, "output_tokens": 0}
        assert (large["cache"]["status"], large["model"]) == ("miss", "large")
        assert unknown.status_code == 422
        assert "large" in unknown.json()["detail"]
        assert await app.metric("rag_llm_calls_total", model="small", outcome="ok") == 1
        assert await app.metric("rag_llm_tokens_total", model="small", direction="input") == 100
        assert await app.metric("rag_llm_cost_dollars_total") == 1.0


@pytest.mark.proves("R3")
async def test_without_the_model_the_answer_is_extractive_flagged_and_not_kept(tmp_path: Path) -> None:
    answerer = ScriptedAnswerer()
    async with running_app(settings_in(tmp_path), _with(answerer)) as app:
        await app.put("moon.txt", "The moon is 384,400 kilometres away.")
        answerer.error = LLMUnavailableError("The model is overloaded.")
        degraded = await app.ask(QUESTION)
        ready = await app.client.get("/readyz")
        answerer.error = None
        healed = await app.ask(QUESTION)

        assert (degraded["answerer"], degraded["degraded"]) == ("extractive", ["llm-unavailable"])
        assert "384,400" in degraded["answer"]
        assert ready.status_code == 200
        assert ready.json()["dependencies"]["llm"] == {
            "up": False, "required": False, "detail": "The model is overloaded.",
        }  # fmt: skip
        assert (healed["answerer"], healed["cache"]["status"]) == ("llm", "miss")
        assert await app.metric("rag_llm_calls_total", outcome="unavailable") == 1


async def test_an_answer_that_was_cut_off_is_not_kept(tmp_path: Path) -> None:
    answerer = ScriptedAnswerer()
    answerer.complete = False
    async with running_app(settings_in(tmp_path), _with(answerer)) as app:
        await app.ask(QUESTION)
        assert (await app.ask(QUESTION))["cache"]["status"] == "miss"


async def test_a_question_that_takes_too_long_ends_at_the_deadline(tmp_path: Path) -> None:
    answerer = ScriptedAnswerer()
    answerer.seconds = 30
    settings = settings_in(tmp_path, server={"request_timeout_seconds": 0.1})
    async with running_app(settings, _with(answerer)) as app:
        response = await app.client.post("/v1/query", json={"question": QUESTION})

    assert (response.status_code, response.json()["code"]) == (504, "deadline-exceeded")


async def test_without_the_embedder_it_searches_by_words_and_says_so(tmp_path: Path) -> None:
    embedders: list[Away] = []

    def change(backends: Backends) -> Backends:
        embedders.append(Away(backends.embedder))
        return replace(backends, embedder=embedders[0])

    async with running_app(settings_in(tmp_path), change) as app:
        await app.put("moon.txt", "The moon is 384,400 kilometres away.")
        embedders[0].error = EmbedderUnavailableError("The embedding server cannot be reached.")
        answer = await app.ask(QUESTION)
        vectors_only = await app.client.post("/v1/query", json={"question": QUESTION, "alpha": 1.0})
        write = await app.put("other.txt", "More text.")

    assert "384,400" in answer["answer"]
    assert answer["degraded"] == ["embedder-unavailable"]
    assert (vectors_only.status_code, vectors_only.json()["code"]) == (503, "embedder-unavailable")
    assert (write.status_code, write.json()["code"]) == (503, "embedder-unavailable")
