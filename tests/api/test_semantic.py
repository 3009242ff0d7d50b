"""Paraphrases answered from the cache: over the real API, its embedded store and its in-process cache."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ragkube_api.context import Backends
from ragkube_api.domain import EntryNote
from ragkube_api.ports import FencedCache
from ragkube_api.services.semantic import index, proposer
from support.api import RunningApp, running_app, settings_in
from support.semantic import SUBJECTS, document, eventually, learn, paraphrase, put_all, question

BUDGET = 0.2


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question looks for what was stored meanwhile."""
    monkeypatch.setattr(proposer, "_POLL_SECONDS", 0.0)


@pytest.fixture
def audit_rate() -> float:
    """Every hit that is served is answered once more."""
    return 1.0


@pytest.fixture
async def app(tmp_path: Path, audit_rate: float) -> AsyncIterator[RunningApp]:
    semantic = {"max_error_rate": BUDGET, "audit_rate": audit_rate}
    async with running_app(settings_in(tmp_path, cache={"semantic": semantic})) as running:
        await put_all(running)
        yield running


async def served(app: RunningApp) -> str:
    """A subject whose question answers its paraphrase."""
    await learn(app)
    await app.ask(question(SUBJECTS[-1]))
    assert (await app.ask(paraphrase(SUBJECTS[-1])))["cache"]["kind"] == "semantic"
    return SUBJECTS[-1]


@pytest.mark.proves("C7")
async def test_nothing_is_served_before_the_bound_is_within_the_budget(app: RunningApp) -> None:
    first, second = SUBJECTS[:2]
    await app.ask(question(first))
    assert (await app.ask(paraphrase(first)))["cache"]["status"] == "miss"
    await app.ask(question(second))
    assert await app.metric("rag_semantic_audits_total", outcome="right") == 1
    assert await app.metric("rag_semantic_error_bound", tenant="default") > BUDGET
    assert await app.metric("rag_semantic_serving", tenant="default") == 0


@pytest.mark.proves("C7")
async def test_a_paraphrase_is_answered_from_the_cache_and_says_so(app: RunningApp) -> None:
    await learn(app)
    assert await app.metric("rag_semantic_error_bound", tenant="default") <= BUDGET
    subject = SUBJECTS[-1]
    own = await app.ask(question(subject))
    hit = await app.ask(paraphrase(subject))
    assert hit["cache"]["status"] == "hit"
    assert hit["cache"]["kind"] == "semantic"
    assert 0.6 < hit["cache"]["similarity"] < 1
    assert hit["cache"]["gates"] == ["partition", "candidate", "guards", "content", "score", "evidence"]
    assert (hit["id"], hit["answer"], hit["citations"]) == (own["id"], own["answer"], own["citations"])


class Paged:
    """A cache whose second page of questions comes when it is let through."""

    def __init__(self, cache: FencedCache) -> None:
        self.cache = cache
        self.pages = 0
        self.through = asyncio.Event()

    async def entries(self, tenant: str, *, since: float = 0.0, limit: int = 1000) -> Sequence[EntryNote]:
        self.pages += 1
        if self.pages > 1:
            await self.through.wait()
        return await self.cache.entries(tenant, since=since, limit=limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)


@pytest.mark.proves("C7")
async def test_no_question_waits_while_a_new_replica_reads_many_cached_questions(
    app: RunningApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = await served(app)
    (tmp_path / "other").mkdir()
    held: list[Paged] = []

    def same(backends: Backends) -> Backends:
        known = app.runtime.backends
        held.append(Paged(known.cache))
        return replace(backends, store=known.store, cache=cast("Any", held[0]), audits=known.audits)

    monkeypatch.setattr(index, "_PAGE", 4)
    other = paraphrase(subject).replace("get removed", "are removed")
    semantic = {"max_error_rate": BUDGET, "audit_rate": 1e-12}
    async with running_app(settings_in(tmp_path / "other", cache={"semantic": semantic}), same) as new:
        for number in range(3):
            asked = await new.ask(f"{other} Case {number}")
            assert asked["cache"]["status"] == "miss", "exact only until it has read them all"
        assert held[0].pages == 2, "the rest is read once, in the background"
        assert await new.metric("rag_semantic_proposals_total", outcome="loading") == 3
        held[0].through.set()

        wordings = (other + "?" * number for number in itertools.count())

        async def known() -> bool:
            return bool((await new.ask(next(wordings)))["cache"].get("kind") == "semantic")

        await eventually(known, "a paraphrase is served")


@pytest.mark.proves("C7")
@pytest.mark.parametrize("audit_rate", [1e-12])  # an audit searches, too
async def test_the_next_identical_paraphrase_needs_no_search_and_is_still_semantic(app: RunningApp) -> None:
    await learn(app)
    subject = SUBJECTS[-1]
    await app.ask(question(subject))
    await app.ask(paraphrase(subject))
    searches = await app.metric("rag_retrieval_seconds_count")
    again = await app.ask(paraphrase(subject))
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
    await learn(app)
    await app.ask(question("tickets"))
    asked = question("tickets").replace(*change)
    assert asked != question("tickets")
    assert (await app.ask(asked))["cache"]["status"] == "miss"


@pytest.mark.proves("C7")
@pytest.mark.parametrize("fields", [{"k": 2}, {"alpha": 0.3}, {"filters": {"team": "a"}}])
async def test_other_parameters_are_another_partition(app: RunningApp, fields: dict[str, Any]) -> None:
    await learn(app)
    await app.ask(question(SUBJECTS[-1]))
    assert (await app.ask(paraphrase(SUBJECTS[-1]), **fields))["cache"]["status"] == "miss"


@pytest.mark.proves("C7")
async def test_other_tenants_answers_are_not_proposed(app: RunningApp) -> None:
    await learn(app)
    await app.ask(question(SUBJECTS[-1]))
    answer = await app.ask(paraphrase(SUBJECTS[-1]), headers={"X-Ragkube-Tenant": "another"})
    assert answer["cache"]["status"] == "miss"
    assert answer["citations"] == []


@pytest.mark.proves("C4")
@pytest.mark.proves("C7")
async def test_no_paraphrase_gets_an_answer_from_before_a_write(app: RunningApp) -> None:
    subject = await served(app)
    await app.put(subject, document(subject, 90))
    for _ in range(2):
        answer = await app.ask(paraphrase(subject))
        assert "93 days" in answer["answer"]
        assert re.search(r"\b22 days", answer["answer"]) is None


@pytest.mark.proves("C7")
@pytest.mark.proves("C8")
@pytest.mark.parametrize("asked_before", [False, True])
async def test_a_disowned_answer_does_not_come_back_from_a_paraphrase(
    app: RunningApp, asked_before: bool
) -> None:
    """The paraphrase has the same text for an answer of its own: that is not proposed to who has disowned it."""
    await learn(app)
    subject = SUBJECTS[-1]
    own = {"Cache-Control": "no-cache"}
    if asked_before:  # so that the wording is known as one that the paraphrase's answer serves
        await app.ask(paraphrase(subject))
        assert (await app.ask(question(subject)))["cache"]["kind"] == "semantic"
    else:
        await app.ask(paraphrase(subject), headers=own)
    wrong = await app.ask(question(subject), headers=own)
    assert (await app.client.delete(f"/v1/cache/answers/{wrong['id']}")).status_code == 204
    for _ in range(2):
        answer = await app.ask(question(subject))
        assert (answer["cache"]["status"], answer["answer"]) == ("miss", wrong["answer"])
    assert (await app.ask(paraphrase(subject)))["cache"]["kind"] == "exact"


@pytest.mark.proves("C7")
@pytest.mark.proves("C8")
async def test_a_cleared_answer_does_not_come_back_from_a_paraphrase(app: RunningApp) -> None:
    subject = await served(app)
    await app.client.delete("/v1/cache", params={"question": question(subject)})
    assert (await app.ask(paraphrase(subject)))["cache"]["status"] == "miss"


@pytest.mark.proves("C7")
async def test_no_cache_asks_for_an_answer_of_its_own(app: RunningApp) -> None:
    await learn(app)
    await app.ask(question(SUBJECTS[-1]))
    answer = await app.ask(paraphrase(SUBJECTS[-1]), headers={"Cache-Control": "no-cache"})
    assert answer["cache"]["status"] == "bypass"


@pytest.mark.proves("C7")
async def test_off_by_default(tmp_path: Path) -> None:
    async with running_app(settings_in(tmp_path)) as plain:
        await plain.put("archive", document("archive", 0))
        await plain.ask(question("archive"))
        assert (await plain.ask(paraphrase("archive")))["cache"]["status"] == "miss"
        assert "rag_semantic_error_bound{" not in (await plain.client.get("/metrics")).text


async def test_the_index_is_bounded(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest questions are forgotten: they cost a hit, not memory."""
    monkeypatch.setattr(index, "_MOST_OF_ONE", 1)
    await learn(app, SUBJECTS[:3])
    assert await app.metric("rag_semantic_proposals_total", outcome="withheld") == 3
    # its wordings have been forgotten, so another one finds nothing that it could be compared with
    another = f"How long does the {SUBJECTS[0]} service keep records before they get removed?"
    assert (await app.ask(another))["cache"]["status"] == "miss"
    assert await app.metric("rag_semantic_proposals_total", outcome="withheld") == 3
