"""Answers from the cache for another wording of a cached question: candidates, gates, audits."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from ragkube_api.bounded import Bounded
from ragkube_api.domain import Asked, Cached, EntryNote, Key, Proposal
from ragkube_api.errors import CacheUnavailableError, RagkubeError
from ragkube_api.ports import FencedCache, Verifier
from ragkube_api.services import answer_codec
from ragkube_api.services.answer_codec import Entry
from ragkube_api.services.background import Background
from ragkube_api.services.semantic import audit
from ragkube_api.services.semantic.budget import ErrorBudget
from ragkube_api.services.semantic.gates import Gates, cited, evidence_agrees
from ragkube_api.services.semantic.index import Candidate, QuestionIndex
from ragkube_api.telemetry import Telemetry
from ragkube_api.text.alignment import TokenModel

_POLL_SECONDS: Final = 0.5
"""So old the knowledge of what other replicas have answered may be."""
_MOST_AUDITS: Final = 2
_MOST_LOADS: Final = 4
"""Tenants whose questions are read at the same time."""
_REPEATED_SECONDS: Final = 1.0
"""Between audits of wordings that are asked again: thousands of hits a second must not become as many model calls."""
_MOST_REMEMBERED: Final = 10_000
_MOST_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Found:
    """A cached answer that passed every gate."""

    key: Key
    cached: Cached
    entry: Entry
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class _Alias:
    """A wording that was judged: of which value it may be served, as long as that is the same bytes."""

    key: Key
    value: bytes
    similarity: float
    gates: tuple[str, ...]
    mark: str
    """Of this answer under this wording."""


class Proposer:
    """``Proposals`` under an error budget."""

    def __init__(
        self,
        *,
        cache: FencedCache,
        index: QuestionIndex,
        gates: Gates,
        budget: ErrorBudget,
        model: TokenModel,
        verifier: Verifier | None,
        audit_rate: float,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._cache = cache
        self._index = index
        self._gates = gates
        self._budget = budget
        self._model = model
        self._verifier = verifier
        self._audit_rate = audit_rate
        self._telemetry = telemetry
        self._clock = clock
        self._dice = dice
        self._repeated = float("-inf")
        self._polled: dict[str, float] = {}
        self._known: set[str] = set()
        self._loads = Background(_MOST_LOADS)
        self._aliases: Bounded[tuple[str, str], _Alias] = Bounded(
            most=_MOST_REMEMBERED, most_bytes=_MOST_BYTES, weigh=lambda alias: len(alias.value)
        )
        self._withheld: Bounded[tuple[str, str], bytes] = Bounded(
            most=_MOST_REMEMBERED, most_bytes=_MOST_BYTES, weigh=len
        )
        self._audits = Background(_MOST_AUDITS)

    async def propose(self, asked: Asked) -> Proposal | None:
        """A cached answer that passed every gate, if the tenant's budget allows one. Never raises."""
        try:
            if not await self._refresh(asked.tenant):
                self._telemetry.semantic_proposals.labels("loading").inc()
                return None
            found = await self._first(asked)
        except CacheUnavailableError:
            return None
        if found is None:
            return None
        if not await self._budget.serving(asked.tenant):
            self._withheld.put((asked.tenant, asked.key.digest), found.cached.value)
            self._telemetry.semantic_proposals.labels("withheld").inc()
            return None
        self._telemetry.semantic_proposals.labels("served").inc()
        if found.proposal.validated == "fence":
            proposal = found.proposal
            alias = _Alias(
                found.key, found.cached.value, proposal.similarity, proposal.gates, _mark(asked, found.entry)
            )
            self._aliases.put((asked.tenant, asked.key.digest), alias)
        self._sample(asked.tenant, asked.key, found.cached.value, asked.generate)
        return found.proposal

    async def recall(
        self, tenant: str, key: Key, generate: Callable[[], Awaitable[bytes | None]]
    ) -> Proposal | None:
        """The answer to a wording that was judged before, if nothing has changed since.

        The bytes of the answer change when it is made anew and when it is found valid after a write: then the wording is
        judged again. One look-up for a wording that was judged, nothing for any other. Never raises.
        """
        alias = self._aliases.get((tenant, key.digest))
        if alias is None or not await self._budget.serving(tenant):
            return None
        cached = self._cache.peek(tenant, alias.key) or (await self._cache.lookup(tenant, alias.key)).found
        if cached is None or not self._stands(tenant, alias, cached):
            self._aliases.pop((tenant, key.digest))
            return None
        self._aliases.touch((tenant, key.digest))
        self._telemetry.semantic_proposals.labels("recalled").inc()
        now = self._clock()
        if now - self._repeated >= _REPEATED_SECONDS and self._sample(tenant, key, cached.value, generate):
            self._repeated = now
        return Proposal(
            cached.value, cached.level, cached.age_seconds, alias.similarity, alias.gates, "fence"
        )

    async def settled(self) -> None:
        """Wait for the audits that run, and for questions that are read."""
        await self._loads.settled()
        await self._audits.settled()
        await self._budget.settled()

    async def close(self) -> None:
        """End what runs in the background."""
        await self._loads.close()
        await self._audits.close()
        await self._budget.close()

    def _stands(self, tenant: str, alias: _Alias, cached: Cached) -> bool:
        unchanged = cached.current and cached.fresh_seconds > 0 and cached.value == alias.value
        return unchanged and not self._cache.disowned(tenant, alias.mark)

    async def _refresh(self, tenant: str) -> bool:
        """Whether the cached questions are known. One page is read here, where there are more the rest is in the background."""
        now = self._clock()
        due = now - self._polled.get(tenant, float("-inf")) >= _POLL_SECONDS
        if due and not self._loads.runs(tenant):
            self._polled[tenant] = now
            if await self._take_up(tenant):
                self._loads.start(tenant, lambda: self._load(tenant))
            else:
                self._known.add(tenant)
        return tenant in self._known

    async def _take_up(self, tenant: str) -> bool:
        """Whether there is more."""
        notes, more = await self._index.refresh(tenant)
        for note in notes:
            await self._compare_withheld(tenant, note)
        return more

    async def _load(self, tenant: str) -> None:
        more = True
        try:
            while more:
                await asyncio.sleep(0)
                more = await self._take_up(tenant)
        except CacheUnavailableError:
            return  # the next paraphrase goes on where this ended
        self._known.add(tenant)

    async def _compare_withheld(self, tenant: str, note: EntryNote) -> None:
        """The answer that was made instead of a hit has arrived: a comparison that costs nothing."""
        value = self._withheld.pop((tenant, note.key.digest))
        if value is None:
            return
        found = (await self._cache.lookup(tenant, note.key)).found
        fresh = None if found is None else answer_codec.open_entry(found.value, note.key.digest)
        if fresh is not None:
            self._compare(tenant, answer_codec.opened(value), fresh)

    def _compare(self, tenant: str, served: Entry, fresh: Entry) -> None:
        wrong = audit.wrong(served, fresh, self._model)
        if wrong is not None:
            self._budget.record(tenant, wrong=wrong)

    async def _first(self, asked: Asked) -> _Found | None:
        for candidate in self._index.candidates(asked.tenant, asked.partition, asked.text):
            if candidate.key == asked.key:
                continue
            found = await self._judged(asked, candidate)
            if isinstance(found, _Found):
                return found
            self._telemetry.semantic_refusals.labels(found).inc()
        return None

    async def _judged(self, asked: Asked, candidate: Candidate) -> _Found | str:
        """The candidate's answer, or the name of the gate that refused it."""
        judgement = self._gates.judge(asked.text, candidate.question)
        if judgement.refused is not None:
            return judgement.refused
        held = await self._valid(asked, candidate)
        if held is None:
            return "validity"
        cached, entry = held
        if self._cache.disowned(asked.tenant, _mark(asked, entry)):
            return "validity"
        if not _supported(asked, entry):
            return "evidence"
        passed = ("partition", "candidate", *judgement.passed, "evidence")
        if self._verifier is not None:
            if not await self._verifier.same(asked.text, candidate.question):
                return "verifier"
            passed = (*passed, "verifier")
        validated: Literal["fence", "evidence"] = "fence" if cached.current else "evidence"
        proposal = Proposal(
            cached.value, cached.level, cached.age_seconds, candidate.cosine, passed, validated
        )
        return _Found(candidate.key, cached, entry, proposal)

    async def _valid(self, asked: Asked, candidate: Candidate) -> tuple[Cached, Entry] | None:
        """The candidate's answer, if it is valid now: by its fence, or because it rests on the very same passages."""
        found = (await self._cache.lookup(asked.tenant, candidate.key)).found
        if found is None:
            self._index.drop(asked.tenant, asked.partition, candidate.key)
            return None
        entry = answer_codec.open_entry(found.value, candidate.key.digest)
        if entry is None or found.fresh_seconds <= 0:
            return None
        return (found, entry) if found.current or entry.evidence == asked.evidence else None

    def _sample(
        self, tenant: str, key: Key, served: bytes, generate: Callable[[], Awaitable[bytes | None]]
    ) -> bool:
        """Whether this hit is audited."""
        if self._dice() >= self._audit_rate:
            return False
        return self._audits.start(
            f"{tenant}:{key.digest}", lambda: self._audit(tenant, answer_codec.opened(served), generate)
        )

    async def _audit(
        self, tenant: str, served: Entry, generate: Callable[[], Awaitable[bytes | None]]
    ) -> None:
        try:
            fresh = await generate()
        except RagkubeError as error:
            self._telemetry.log.warning("semantic_audit_failed", code=error.code)
            return
        if fresh is not None:
            self._compare(tenant, served, answer_codec.opened(fresh))


def _mark(asked: Asked, entry: Entry) -> str:
    """What is disowned for one wording does not come back to it from another."""
    return answer_codec.mark(asked.key.digest, answer_codec.contents(entry)["answer"])


def _supported(asked: Asked, entry: Entry) -> bool:
    citations, documents = cited(answer_codec.contents(entry))
    same = entry.evidence == asked.evidence
    return evidence_agrees(asked.passages, citations=citations, documents=documents, same_evidence=same)
