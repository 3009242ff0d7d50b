"""Paraphrases answered from the cache: over the real API, its embedded store and its in-process cache."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ragkube_api.services.semantic import index, proposer
from support.api import RunningApp, running_app, settings_in

SUBJECTS = (
    "archive", "billing", "catalogue", "dispatch", "exports", "forecast", "gateway", "history", "inventory",
    "journal", "keyring", "ledger", "mailbox", "notices", "orders", "payments", "quotas", "reports", "sessions",
    "tracing", "uploads", "vouchers", "webhooks", "tickets",
)  # fmt: skip
BUDGET = 0.2


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question looks for what was stored meanwhile."""
    monkeypatch.setattr(proposer, "_POLL_SECONDS", 0.0)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[RunningApp]:
    semantic = {"max_error_rate": BUDGET, "audit_rate": 1.0}
    async with running_app(settings_in(tmp_path, cache={"semantic": semantic})) as running:
        for number, subject in enumerate(SUBJECTS):
            await running.put(subject, _text(subject, number))
        yield running


def _text(subject: str, number: int) -> str:
    return (
        f"The {subject} service keeps its records for {number + 3} days before they are removed. "
        f"An operator of the {subject} service reads them with the viewer tool of that team."
    )


def _question(subject: str) -> str:
    return f"How long does the {subject} service keep its records before they are removed?"


def _paraphrase(subject: str) -> str:
    return f"How long are records kept by the {subject} service before they get removed?"


async def _learn(app: RunningApp, subjects: tuple[str, ...] = SUBJECTS[:-2]) -> None:
    """Ask until the bound on the error rate is within the budget."""
    for subject in subjects:
        await app.ask(_question(subject))
        await app.ask(_paraphrase(subject))
    await app.ask("Which tool shows the records of another team?")


@pytest.mark.proves("C7")
async def test_nothing_is_served_before_the_bound_is_within_the_budget(app: RunningApp) -> None:
    first, second = SUBJECTS[:2]
    await app.ask(_question(first))
    assert (await app.ask(_paraphrase(first)))["cache"]["status"] == "miss"
    await app.ask(_question(second))
    assert await app.metric("rag_semantic_audits_total", outcome="right") == 1
    assert await app.metric("rag_semantic_error_bound", tenant="default") > BUDGET
    assert await app.metric("rag_semantic_serving", tenant="default") == 0


@pytest.mark.proves("C7")
async def test_a_paraphrase_is_answered_from_the_cache_and_says_so(app: RunningApp) -> None:
    await _learn(app)
    assert await app.metric("rag_semantic_error_bound", tenant="default") <= BUDGET
    subject = SUBJECTS[-1]
    own = await app.ask(_question(subject))
    hit = await app.ask(_paraphrase(subject))
    assert hit["cache"]["status"] == "hit"
    assert hit["cache"]["kind"] == "semantic"
    assert 0.6 < hit["cache"]["similarity"] < 1
    assert hit["cache"]["gates"] == ["partition", "candidate", "guards", "content", "score", "evidence"]
    assert (hit["id"], hit["answer"], hit["citations"]) == (own["id"], own["answer"], own["citations"])


@pytest.mark.proves("C7")
async def test_the_next_identical_paraphrase_needs_no_search_and_is_still_semantic(app: RunningApp) -> None:
    await _learn(app)
    subject = SUBJECTS[-1]
    await app.ask(_question(subject))
    await app.ask(_paraphrase(subject))
    searches = await app.metric("rag_retrieval_seconds_count")
    again = await app.ask(_paraphrase(subject))
    assert (again["cache"]["status"], again["cache"]["kind"]) == ("hit", "semantic")
    assert await app.metric("rag_semantic_proposals_total", outcome="recalled") == 1
    assert await app.metric("rag_retrieval_seconds_count") == searches


@pytest.mark.proves("C7")
@pytest.mark.parametrize(
    "change",
    [
        ("How long", "Why"),
        ("before", "after"),
        ("keep", "not keep"),
        ("records", "backups"),
        ("tickets service", "ticketsync service"),
        ("removed", "added"),
        ("tickets", "tіckets"),  # noqa: RUF001  a Cyrillic letter is meant
        ("How long", "How many seconds"),
        ("removed?", "removed in version 2?"),
    ],
)
async def test_a_near_miss_is_answered_by_itself(app: RunningApp, change: tuple[str, str]) -> None:
    await _learn(app)
    await app.ask(_question("tickets"))
    asked = _question("tickets").replace(*change)
    assert asked != _question("tickets")
    assert (await app.ask(asked))["cache"]["status"] == "miss"


@pytest.mark.proves("C7")
@pytest.mark.parametrize("fields", [{"k": 2}, {"alpha": 0.3}, {"filters": {"team": "a"}}])
async def test_other_parameters_are_another_partition(app: RunningApp, fields: dict[str, Any]) -> None:
    await _learn(app)
    await app.ask(_question(SUBJECTS[-1]))
    assert (await app.ask(_paraphrase(SUBJECTS[-1]), **fields))["cache"]["status"] == "miss"


@pytest.mark.proves("C7")
async def test_other_tenants_answers_are_not_proposed(app: RunningApp) -> None:
    await _learn(app)
    await app.ask(_question(SUBJECTS[-1]))
    answer = await app.ask(_paraphrase(SUBJECTS[-1]), headers={"X-Ragkube-Tenant": "another"})
    assert answer["cache"]["status"] == "miss"
    assert answer["citations"] == []


@pytest.mark.proves("C4")
@pytest.mark.proves("C7")
async def test_no_paraphrase_gets_an_answer_from_before_a_write(app: RunningApp) -> None:
    await _learn(app)
    subject = SUBJECTS[-1]
    await app.ask(_question(subject))
    assert (await app.ask(_paraphrase(subject)))["cache"]["kind"] == "semantic"
    await app.put(subject, _text(subject, 90))
    for _ in range(2):
        answer = await app.ask(_paraphrase(subject))
        assert "93 days" in answer["answer"]
        assert re.search(r"\b22 days", answer["answer"]) is None


@pytest.mark.proves("C7")
async def test_no_cache_asks_for_an_answer_of_its_own(app: RunningApp) -> None:
    await _learn(app)
    await app.ask(_question(SUBJECTS[-1]))
    answer = await app.ask(_paraphrase(SUBJECTS[-1]), headers={"Cache-Control": "no-cache"})
    assert answer["cache"]["status"] == "bypass"


@pytest.mark.proves("C7")
async def test_off_by_default(tmp_path: Path) -> None:
    async with running_app(settings_in(tmp_path)) as plain:
        await plain.put("archive", _text("archive", 0))
        await plain.ask(_question("archive"))
        assert (await plain.ask(_paraphrase("archive")))["cache"]["status"] == "miss"
        assert "rag_semantic_error_bound{" not in (await plain.client.get("/metrics")).text


async def test_the_index_is_bounded(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest questions are forgotten: they cost a hit, not memory."""
    monkeypatch.setattr(index, "_MOST_OF_ONE", 1)
    await _learn(app, SUBJECTS[:3])
    assert await app.metric("rag_semantic_proposals_total", outcome="withheld") == 3
    assert (await app.ask(_paraphrase(SUBJECTS[0])))["cache"]["status"] == "hit"
