"""Paraphrases on two replicas over a real Redis Cluster: one error budget, and answers of one served by the other."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from llm_server.server import Behaviour, LLMServer, running
from ragkube_api.adapters.redis_cache import open_redis
from ragkube_api.context import Backends
from ragkube_api.services.semantic import budget, proposer
from support.api import RunningApp, running_app, settings_in
from support.redis import RedisServers
from support.semantic import SUBJECTS, eventually, paraphrase, put_all, question

pytestmark = [pytest.mark.component("redis"), pytest.mark.proves("C7")]

MORE = (
    "alerts", "avatars", "batches", "cameras", "carts", "charts", "claims", "coupons", "drafts", "drivers",
    "events", "folders", "garages", "hotels", "images", "kitchens", "labels", "letters", "markets", "meters",
    "parcels", "patients", "permits", "photos", "recipes", "rentals", "routes", "seats", "shifts", "stables",
)  # fmt: skip
BUDGET = 0.2
# What one replica would have to compare by itself.
NEEDED = 19


@dataclass
class Stage:
    """A Redis Cluster, a model, and replicas that are opened over them."""

    directory: Path
    cache: dict[str, Any]
    model: LLMServer
    stack: AsyncExitStack
    first: RunningApp | None = None

    async def replica(self) -> RunningApp:
        """One more, over the store of the first."""
        llm = {"kind": "anthropic", "model": "m", "base_url": self.model.url, "timeout_seconds": 30}
        settings = settings_in(self.directory / uuid.uuid4().hex, cache=self.cache, llm=llm)
        app = await self.stack.enter_async_context(running_app(settings, self._same_store))
        self.first = self.first or app
        return app

    def _same_store(self, backends: Backends) -> Backends:
        return backends if self.first is None else replace(backends, store=self.first.runtime.backends.store)


@pytest.fixture
def model() -> Iterator[LLMServer]:
    with running() as server:
        yield server


@pytest.fixture
async def stage(
    tmp_path: Path, redis_cluster: RedisServers, model: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """Every question looks for what was stored meanwhile, and every hit is audited."""
    monkeypatch.setattr(proposer, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(proposer, "_REPEATED_SECONDS", 0.0)
    monkeypatch.setattr(budget, "SHOWN_SECONDS", 0.2)
    backend = redis_cluster.settings(prefix=f"sem{uuid.uuid4().hex[:8]}").model_dump(mode="json")
    semantic = {"max_error_rate": BUDGET, "audit_rate": 1.0}
    async with AsyncExitStack() as stack:
        yield Stage(tmp_path, {"backend": backend, "semantic": semantic}, model, stack)


async def test_replicas_learn_stop_and_come_back_together(stage: Stage) -> None:
    first, second = await stage.replica(), await stage.replica()
    await put_all(first, SUBJECTS + MORE)
    subjects = iter(SUBJECTS[1:] + MORE)

    await _learn(first, second, subjects)
    counted = [await _audits(app, "right") for app in (first, second)]
    assert sum(counted) >= NEEDED
    assert max(counted) < NEEDED, "neither could serve by what it has seen itself"
    await _agree(first, second, serving=True)

    await first.ask_and_store(question(SUBJECTS[0]))
    while await first.metric("rag_semantic_serving"):
        wrong = await _audits(first, "wrong")
        stage.model.script(
            Behaviour(overrides={"content": [{"type": "text", "text": "It is never removed."}]})
        )
        assert (await first.ask(paraphrase(SUBJECTS[0])))["cache"]["kind"] == "semantic"

        async def audited(wrong: float = wrong) -> bool:
            return await _audits(first, "wrong") > wrong

        await eventually(audited, "the hit is audited")
    stage.model.script()
    await _agree(first, second, serving=False)
    assert await _audits(second, "wrong") == 0, "only the other one has seen errors"
    assert (await second.ask(paraphrase(SUBJECTS[0])))["cache"]["status"] == "miss"

    await _learn(second, first, subjects)
    await _agree(first, second, serving=True)


async def test_what_one_replica_answered_another_serves_for_a_paraphrase_also_a_new_one(stage: Stage) -> None:
    first, second = await stage.replica(), await stage.replica()
    await put_all(first)
    await _learn(first, second, iter(SUBJECTS[2:]))
    own = await first.ask_and_store(question(SUBJECTS[0]))
    hit = await second.ask(paraphrase(SUBJECTS[0]))
    assert (hit["cache"]["kind"], hit["cache"]["level"], hit["id"]) == ("semantic", "redis", own["id"])

    new = await stage.replica()
    hit = await new.ask(paraphrase(SUBJECTS[0]))
    assert (hit["cache"]["kind"], hit["id"]) == ("semantic", own["id"]), (
        "it knows the budget and the questions"
    )
    assert await new.metric("rag_semantic_serving") == 1

    gone = await second.client.delete(f"/v1/cache/answers/{own['id']}")
    assert gone.status_code == 204
    for app in (first, second, new):
        again = await app.ask(question(SUBJECTS[0]))
        assert (again["answer"], again["cache"]["status"]) == (own["answer"], "miss")
    assert (await new.ask(paraphrase(SUBJECTS[0])))["id"] != own["id"]
    again = await first.ask(question(SUBJECTS[0]))
    assert again["cache"]["status"] == "miss", "nor does its text come back from the paraphrase's own answer"


async def test_a_foreign_value_in_the_place_of_the_record_is_dropped_and_counted(
    redis_cluster: RedisServers,
) -> None:
    prefix, damaged = uuid.uuid4().hex, []
    key = f"{{{prefix}:acme}}:audits:0.2"
    redis_cluster.call(redis_cluster.primary_of(key), "RPUSH", key, "x")
    async with open_redis(
        redis_cluster.settings(prefix=prefix), damaged=lambda: damaged.append(1)
    ) as backend:
        assert await backend.audits.read("acme", "0.2") is None
        assert await backend.audits.replace("acme", "0.2", None, b"1") == (True, b"1")
    assert damaged == [1]


async def _learn(asked: RunningApp, other: RunningApp, subjects: Iterator[str]) -> None:
    """Questions and paraphrases by turns, until both serve."""
    while not (await asked.metric("rag_semantic_serving") and await other.metric("rag_semantic_serving")):
        subject = next(subjects)
        await asked.ask_and_store(question(subject))
        await other.ask(paraphrase(subject))
        asked, other = other, asked


async def _agree(first: RunningApp, second: RunningApp, *, serving: bool) -> None:
    """The metrics of both say so, and show the same bound; also of one that is not asked."""

    async def same() -> bool:
        one, other = [
            (await app.metric("rag_semantic_serving"), await app.metric("rag_semantic_error_bound"))
            for app in (first, second)
        ]
        return one == other and one[0] == serving

    await eventually(same, "both replicas say the same")


async def _audits(app: RunningApp, outcome: str) -> float:
    return await app.metric("rag_semantic_audits_total", outcome=outcome)
