"""Audits of paraphrase hits where a model writes the answers: which re-answers count as right, and which as wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from llm_server.server import Behaviour, LLMServer, running
from ragkube_api.services.semantic import proposer
from support.api import RunningApp, running_app, settings_in
from support.semantic import SUBJECTS, document, eventually, learn, paraphrase, put_all, question

pytestmark = pytest.mark.proves("C7")
SUBJECT = SUBJECTS[-1]
SENTENCE = document(SUBJECT, len(SUBJECTS) - 1).partition(".")[0] + "."


@pytest.fixture
def model() -> Iterator[LLMServer]:
    with running() as server:
        yield server


@pytest.fixture
async def app(tmp_path: Path, model: LLMServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningApp]:
    """One that serves paraphrases, audits each hit, and has answered the question of the last subject."""
    monkeypatch.setattr(proposer, "_POLL_SECONDS", 0.0)
    semantic = {"max_error_rate": 0.2, "audit_rate": 1.0}
    llm = {"kind": "anthropic", "model": "m", "base_url": model.url, "timeout_seconds": 30}
    async with running_app(settings_in(tmp_path, cache={"semantic": semantic}, llm=llm)) as running:
        await put_all(running)
        await learn(running)
        assert (await running.ask(question(SUBJECT)))["answerer"] == "llm"
        yield running


def _says(text: str) -> Behaviour:
    """The model answers so."""
    citation = {
        "type": "char_location", "cited_text": SENTENCE, "document_index": 0, "document_title": None,
        "start_char_index": 0, "end_char_index": len(SENTENCE),
    }  # fmt: skip
    return Behaviour(overrides={"content": [{"type": "text", "text": text, "citations": [citation]}]})


async def _audits(app: RunningApp) -> tuple[float, float]:
    found = [await app.metric("rag_semantic_audits_total", outcome=outcome) for outcome in ("right", "wrong")]
    return found[0], found[1]


async def _audited(app: RunningApp, model: LLMServer, *behaviours: Behaviour) -> tuple[float, float]:
    """Ask the paraphrase; how many more right and wrong audits there are then."""
    right, wrong = await _audits(app)
    model.script(*behaviours)
    hit = await app.ask(paraphrase(SUBJECT))
    assert hit["cache"]["kind"] == "semantic"

    async def counted() -> bool:
        return sum(await _audits(app)) > right + wrong

    await eventually(counted, "the hit is audited")
    now = await _audits(app)
    return now[0] - right, now[1] - wrong


async def test_the_model_says_the_same_in_other_words_and_the_audit_leaves_nothing_in_the_cache(
    app: RunningApp, model: LLMServer
) -> None:
    """Its answer is for the comparison only: what was cleared or disowned does not come back by it."""
    hit = await app.ask(question(SUBJECT))
    assert await _audited(app, model, _says(f"The documents say this: {SENTENCE}")) == (1, 0)
    assert (await app.ask(paraphrase(SUBJECT)))["id"] == hit["id"]
    assert (await app.client.delete(f"/v1/cache/answers/{hit['id']}")).status_code == 204
    for asked in (paraphrase(SUBJECT), question(SUBJECT)):
        again = await app.ask(asked)
        assert again["cache"]["status"] == "miss"
        assert again["id"] != hit["id"]


async def test_an_audit_that_the_model_does_not_answer_counts_as_nothing(
    app: RunningApp, model: LLMServer
) -> None:
    before = await _audits(app)
    model.script(*[Behaviour("fail", status=400)])
    assert (await app.ask(paraphrase(SUBJECT)))["cache"]["kind"] == "semantic"

    async def tried() -> bool:
        return bool(model.requests)

    await eventually(tried, "the audit asks the model")
    await app.runtime.answering.close()
    assert await _audits(app) == before


async def test_a_wording_that_is_asked_again_is_audited_again_until_the_budget_is_spent(
    app: RunningApp, model: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget is about hits: a wrong pair that is asked often must show."""
    monkeypatch.setattr(proposer, "_REPEATED_SECONDS", 0.0)
    assert await _audited(app, model) == (1, 0)
    for _ in range(5):
        assert await _audited(app, model, _says(SENTENCE.replace("26", "27"))) == (0, 1)
        if await app.metric("rag_semantic_serving") == 0:
            break
    assert await app.metric("rag_semantic_proposals_total", outcome="recalled") >= 1
    assert await app.metric("rag_semantic_serving") == 0
    assert await app.metric("rag_semantic_error_bound") > 0.2
    assert (await app.ask(paraphrase(SUBJECT)))["cache"]["status"] == "miss"
