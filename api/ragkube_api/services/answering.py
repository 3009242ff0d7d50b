"""From a question to an answer: cache, retrieval, answerer, and what is done when one of them is away.

A cached answer is valid when no document was written since (its fence holds), or when the same passages are retrieved
now (its evidence holds). Everything else is a miss, and one asker of all makes the answer for the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from ragkube_api.bounded import Bounded
from ragkube_api.domain import Asked, Cached, Key, Lookup, Proposal
from ragkube_api.errors import RagkubeError
from ragkube_api.ports import FencedCache, Proposals
from ragkube_api.services import answer_codec, freshness
from ragkube_api.services.answer_codec import CacheReport, Entry
from ragkube_api.services.background import Background
from ragkube_api.services.deadline import Deadline
from ragkube_api.services.embeddings import Found
from ragkube_api.services.making import Attempt, Maker, Question, Work
from ragkube_api.services.retrieval import Retrieval, Retrieved
from ragkube_api.telemetry import Telemetry

__all__ = ["Answer", "Answering", "Question", "Ready"]

_MOST_REFRESHES: Final = 4
# Values of this process that were found whole need not be checked at each hit; their parts are copies.
_MOST_WHOLE: Final = 2048
_MOST_WHOLE_BYTES: Final = 8 * 1024 * 1024
# Other replicas see an old answer near its end at about the same moment; so long they take the new one of the first.
_REFRESHED_SECONDS: Final = 10.0


class Answer(NamedTuple):
    """An answer, how it came about, and what was missing. ``paid``: generated for this request."""

    entry: Entry
    cache: CacheReport
    degraded: tuple[str, ...] = ()
    paid: bool = False

    def body(self, *, latency_ms: float, trace_id: str) -> bytes:
        """The response of ``POST /v1/query``."""
        entry, report, degraded = self.entry, self.cache, self.degraded
        if report.status in {"hit", "stale"}:
            return answer_codec.render_hit(
                entry, report, latency_ms=latency_ms, trace_id=trace_id, degraded=degraded
            )
        return answer_codec.render_fresh(
            entry, report, latency_ms=latency_ms, trace_id=trace_id, degraded=degraded, paid=self.paid
        )


class Held(NamedTuple):
    """What lies in the cache for a question, whole."""

    cached: Cached
    entry: Entry


class Ready(NamedTuple):
    """What may be served without asking anybody."""

    attempt: Attempt
    held: Held


class Answering:
    """Answers questions. Every dependency is a port or a service over ports."""

    def __init__(
        self,
        *,
        cache: FencedCache,
        cached: bool,
        maker: Maker,
        proposals: Proposals | None,
        timeout_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        """``cached``: whether answers are cached at all."""
        self._cache = cache
        self._cached = cached
        self._maker = maker
        self._proposals = proposals
        self._timeout = timeout_seconds
        self._telemetry = telemetry
        self._refreshes = Background(_MOST_REFRESHES)
        self._whole: Bounded[str | None, tuple[bytes, Entry]] = Bounded(
            most=_MOST_WHOLE, most_bytes=_MOST_WHOLE_BYTES, weigh=lambda known: 2 * len(known[0])
        )

    def peek(self, question: Question) -> Ready | None:
        """What may be served right now without asking anybody; nothing is counted yet. None tells nothing.

        Raises ``InvalidRequestError`` for a model that is not allowed.
        """
        if not self._cached:
            return None
        attempt = self._maker.attempt(question)
        cached = self._cache.peek(question.tenant, attempt.key)
        entry = None if cached is None else self._checked(cached.value, attempt.key.digest)
        return None if cached is None or entry is None else Ready(attempt, Held(cached, entry))

    def hit(self, ready: Ready) -> Answer:
        """Serve it: now it counts, and is made anew in the background if its time has come."""
        return self._hit(ready.attempt, ready.held, "fence")

    def ask(self, question: Question, deliver: Callable[[Lookup], None]) -> bool:
        """Ask the shared level for what ``peek`` did not find; ``deliver`` is called once, later.

        False when that takes waiting for somebody: then it is for ``answer``.
        """
        attempt = self._maker.attempt(question)
        return self._cached and self._cache.ask(question.tenant, attempt.key, attempt.search, deliver)

    def found(self, question: Question, lookup: Lookup) -> Ready | None:
        """What of it may be served as it is; nothing is counted yet. Else ``answer`` goes on from it."""
        attempt, cached = self._maker.attempt(question), lookup.found
        entry = (
            None if cached is None or not cached.current else self._checked(cached.value, attempt.key.digest)
        )
        return None if cached is None or entry is None else Ready(attempt, Held(cached, entry))

    async def prepared(self, question: Question) -> Found | None:
        """What can be made for an answer before it is known whether one is cached, if it costs next to nothing."""
        attempt = self._maker.attempt(question)
        return await self.retrieval.prepared(question.tenant, attempt.text)

    async def answer(
        self,
        question: Question,
        lookup: Lookup | None = None,
        *,
        ago_seconds: float = 0.0,
        vector: Found | None = None,
    ) -> Answer:
        """Answer within the deadline; raises the errors of the ports it cannot do without.

        ``lookup`` is what the cache said of this question when it was asked, at most ``ago_seconds`` ago. ``vector`` is
        what ``prepared`` made of it.
        """
        attempt = self._maker.attempt(question, ago_seconds=ago_seconds, vector=vector)
        async with Deadline(self._timeout):
            answer = await self._answered(attempt, lookup)
        for reason in answer.degraded:
            self._telemetry.degraded.labels(reason).inc()
        return answer

    @property
    def retrieval(self) -> Retrieval:
        """What finds the passages."""
        return self._maker.retrieval

    def key_of(self, question: Question) -> Key:
        """What its answer is cached under; raises ``InvalidRequestError`` for a model that is not allowed."""
        return self._maker.attempt(question).key

    async def settled(self) -> None:
        """Wait for answers that are made anew in the background."""
        await self._refreshes.settled()

    async def close(self) -> None:
        """End what runs in the background."""
        await self._refreshes.close()

    async def _answered(self, attempt: Attempt, lookup: Lookup | None) -> Answer:
        question = attempt.question
        if not self._cached or not question.write_cache:
            return await self._validated_or_made(attempt, None, None)
        if lookup is None:
            lookup = await self._ask(attempt)
        held = self._held(attempt, lookup.found) if question.read_cache else None
        if held is not None and held.cached.current:
            return self._hit(attempt, held, "fence")
        return await self._recalled(attempt) or await self._validated_or_made(attempt, lookup, held)

    async def _ask(self, attempt: Attempt) -> Lookup:
        question = attempt.question
        cached = self._cache.peek(question.tenant, attempt.key) if question.read_cache else None
        if cached is not None:
            return Lookup(None, cached)
        beside = attempt.search if question.read_cache else None
        return await self._cache.lookup(question.tenant, attempt.key, beside)

    async def _recalled(self, attempt: Attempt) -> Answer | None:
        """A wording that was judged before is answered as fast as one that was asked before."""
        question = attempt.question
        if self._proposals is None or not question.read_cache:
            return None

        async def generate() -> bytes | None:
            return await self._once_more(await self._maker.work(attempt, None))

        proposal = await self._proposals.recall(question.tenant, attempt.key, generate)
        return None if proposal is None else self._paraphrased(proposal)

    async def _validated_or_made(self, attempt: Attempt, lookup: Lookup | None, held: Held | None) -> Answer:
        away = lookup is not None and lookup.fence is None
        if away:
            self._telemetry.cache_errors.labels("unavailable").inc()
            self._telemetry.log.warning("cache_unavailable")
        work = await self._maker.work(attempt, lookup)
        missing = ("cache-unavailable",) if away else ()
        if held is not None and self._holds(held.entry, work.retrieved):
            await self._maker.restamp(work, *held)
            return self._hit(attempt, held, "evidence", missing)
        return await self._made(work, missing, consulted=lookup is not None and attempt.question.read_cache)

    def _held(self, attempt: Attempt, found: Cached | None) -> Held | None:
        entry = None if found is None else self._opened(found.value, attempt.key.digest)
        return None if found is None or entry is None else Held(found, entry)

    def _opened(self, value: bytes, digest: str | None) -> Entry | None:
        entry = self._checked(value, digest)
        if entry is None:
            self._telemetry.cache_errors.labels("corrupt").inc()
            self._telemetry.log.warning("cache_entry_corrupt", key=digest)
        return entry

    def _checked(self, value: bytes, digest: str | None) -> Entry | None:
        known = self._whole.get(digest)
        if known is not None and known[0] == value:  # the very bytes that were checked before
            return known[1]
        entry = answer_codec.open_entry(value, digest)
        if entry is not None and digest is not None:
            self._whole.put(digest, (value, entry))
        return entry

    def _hit(
        self,
        attempt: Attempt,
        held: Held,
        validated: Literal["fence", "evidence"],
        missing: tuple[str, ...] = (),
    ) -> Answer:
        cached, entry = held
        stale = cached.fresh_seconds <= 0
        if stale or freshness.due(entry, cached):
            self._refresh_soon(attempt, entry, "stale" if stale else "early")
        self._telemetry.cache_hits.labels(cached.level, "exact").inc()
        age = entry.age + cached.age_seconds
        status: Literal["stale", "hit"] = "stale" if stale else "hit"
        return Answer(entry, CacheReport(status, cached.level, "exact", age, None, validated), missing)

    def _holds(self, entry: Entry, retrieved: Retrieved) -> bool:
        if retrieved.degraded:
            return False  # another kind of search: it tells nothing
        holds = entry.evidence == retrieved.evidence
        self._telemetry.cache_validations.labels("held" if holds else "changed").inc()
        return holds

    async def _made(self, work: Work, missing: tuple[str, ...], *, consulted: bool) -> Answer:
        if not consulted:
            landed = await self._maker.generated(work)
            await self._maker.keep(work, landed)
            return Answer(
                answer_codec.opened(landed.value), CacheReport("bypass"), missing + landed.degraded, paid=True
            )
        proposed = await self._proposed(work)
        if proposed is not None:
            return proposed
        self._telemetry.cache_misses.labels("exact").inc()
        landed, ours = await self._maker.flown(work, work.name, time.monotonic() - work.attempt.began)
        entry = answer_codec.opened(landed.value)
        return Answer(entry, CacheReport("miss"), missing + landed.degraded, paid=ours)

    async def _proposed(self, work: Work) -> Answer | None:
        if self._proposals is None or work.retrieved.degraded:
            return None
        attempt = work.attempt
        question = attempt.question

        async def generate() -> bytes | None:
            return await self._once_more(work)

        proposal = await self._proposals.propose(
            Asked(
                question.tenant, attempt.text, attempt.key, self._maker.partition(attempt),
                work.retrieved.passages, work.retrieved.evidence, generate,
            )
        )  # fmt: skip
        return None if proposal is None else self._paraphrased(proposal)

    async def _once_more(self, work: Work) -> bytes | None:
        """An answer to compare with; None for one that is not what it would be with everything there."""
        landed = await self._maker.generated(work)
        return None if landed.degraded or not landed.complete else landed.value

    def _paraphrased(self, proposal: Proposal) -> Answer | None:
        entry = self._opened(proposal.value, None)
        if entry is None:
            return None
        self._telemetry.cache_hits.labels(proposal.level, "semantic").inc()
        report = CacheReport(
            "hit", proposal.level, "semantic", entry.age + proposal.age_seconds, proposal.similarity,
            proposal.validated, proposal.gates,
        )  # fmt: skip
        return Answer(entry, report)

    def _refresh_soon(self, attempt: Attempt, entry: Entry, reason: Literal["stale", "early"]) -> None:
        name = f"refresh:{attempt.question.tenant}:{attempt.key.digest}"
        if self._refreshes.start(name, lambda: self._refresh(attempt.question, entry)):
            self._telemetry.cache_refreshes.labels(reason).inc()

    async def _refresh(self, question: Question, old: Entry) -> None:
        attempt = self._maker.attempt(question)
        try:
            async with Deadline(self._timeout):
                lookup = await self._cache.lookup(question.tenant, attempt.search)
                # without its moment: one that another replica has made a little earlier will do
                work = await self._maker.work(attempt, Lookup(lookup.fence, None, lookup.found))
                if lookup.fence is None or work.retrieved.degraded:
                    return
                landed, ours = await self._maker.flown(work, f"{work.name}:{old.id}", _REFRESHED_SECONDS)
                if not ours:  # another replica's: into the level of this one too
                    await self._maker.store(work, landed)
        except RagkubeError as error:
            self._telemetry.log.warning("cache_refresh_failed", code=error.code)
