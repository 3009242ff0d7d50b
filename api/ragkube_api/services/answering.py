"""From a question to an answer: cache, retrieval, answerer, and what is done when one of them is away.

A cached answer is valid when no document was written since (its fence holds), or when the same passages are retrieved
now (its evidence holds). Everything else is a miss, and one asker of all makes the answer for the others.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import orjson

from ragkube_api.domain import About, Asked, Cached, Filters, Generation, Key, Lifetime, Lookup
from ragkube_api.errors import RagkubeError
from ragkube_api.ports import FencedCache, Flights, Proposals
from ragkube_api.services import answer_codec, answer_keys, evidence, flight_results, freshness
from ragkube_api.services.answer_codec import CacheReport, Entry
from ragkube_api.services.background import Background
from ragkube_api.services.deadline import deadline
from ragkube_api.services.flight_results import Landed
from ragkube_api.services.retrieval import Retrieval, Retrieved, Wanted
from ragkube_api.services.tags import tags_of
from ragkube_api.services.ttl_classes import TtlClasses
from ragkube_api.services.writing import Writer
from ragkube_api.telemetry import Telemetry

_MOST_REFRESHES: Final = 4
# Other replicas see an old answer near its end at about the same moment; so long they take the new one of the first.
_REFRESHED_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; ``text`` is normalised when it is answered. ``tags`` label the cached answer."""

    tenant: str
    text: str
    k: int
    alpha: float
    filters: Filters = field(default_factory=dict)
    model: str | None = None
    read_cache: bool = True
    write_cache: bool = True
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
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


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What the cache said about a question: the answer, or what ``Answering.answer`` goes on from."""

    question: Question
    answer: Answer | None
    lookup: Lookup | None = None
    held: Held | None = None


class Held(NamedTuple):
    """What lies in the cache for a question, whole."""

    cached: Cached
    entry: Entry


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How answers are cached."""

    enabled: bool
    classes: TtlClasses
    stale_seconds: float
    max_bytes: int


class Answering:
    """Answers questions. Every dependency is a port or a service over ports."""

    def __init__(
        self,
        *,
        cache: FencedCache,
        flights: Flights,
        retrieval: Retrieval,
        writer: Writer,
        proposals: Proposals | None,
        policy: CachePolicy,
        state: str,
        timeout_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        """``state`` names the revisions of everything that an answer depends on besides question and documents."""
        self._cache = cache
        self._flights = flights
        self._retrieval = retrieval
        self._writer = writer
        self._proposals = proposals
        self._policy = policy
        self._state = state
        self._timeout = timeout_seconds
        self._telemetry = telemetry
        self._refreshes = Background(_MOST_REFRESHES)

    async def look_up(self, question: Question) -> LookedUp:
        """A cached answer that may be served as it is, if there is one; a hit is counted, a miss is not yet."""
        return await self._looked_up(self._attempt(question))

    async def answer(self, question: Question, looked_up: LookedUp | None = None) -> Answer:
        """Answer within the deadline; raises the errors of the ports it cannot do without.

        ``looked_up`` spares a look-up, if it is of this question.
        """
        attempt = self._attempt(question)
        async with deadline(self._timeout):
            if looked_up is None or looked_up.question != question:
                looked_up = await self._looked_up(attempt)
            answer = looked_up.answer or await self._validated_or_made(attempt, looked_up)
        for reason in answer.degraded:
            self._telemetry.degraded.labels(reason).inc()
        return answer

    def key_of(self, question: Question) -> Key:
        """What its answer is cached under; raises ``InvalidRequestError`` for a model that is not allowed."""
        return self._attempt(question).key

    async def settled(self) -> None:
        """Wait for answers that are made anew in the background."""
        await self._refreshes.settled()

    async def close(self) -> None:
        """End what runs in the background."""
        await self._refreshes.close()

    def _attempt(self, question: Question) -> _Attempt:
        text, model = answer_keys.normalise(question.text), self._writer.model(question.model)
        key = answer_keys.answer_key(
            question=text, k=question.k, alpha=question.alpha, filters=question.filters, model=model,
            state=self._state,
        )  # fmt: skip
        return _Attempt(question, text, model, key, time.monotonic())

    async def _looked_up(self, attempt: _Attempt) -> LookedUp:
        question = attempt.question
        if not self._policy.enabled or not question.write_cache:
            return LookedUp(question, None)
        cached = self._cache.peek(question.tenant, attempt.key) if question.read_cache else None
        lookup = Lookup(None, cached)
        if cached is None:
            lookup = await self._cache.lookup(question.tenant, attempt.key)
        held = self._held(attempt, lookup.found) if question.read_cache else None
        current = held is not None and held.cached.current
        answer = self._hit(attempt, held, "fence") if held is not None and current else None
        return LookedUp(question, answer, lookup, held)

    async def _validated_or_made(self, attempt: _Attempt, looked_up: LookedUp) -> Answer:
        lookup, held = looked_up.lookup, looked_up.held
        away = lookup is not None and lookup.fence is None
        if away:
            self._telemetry.cache_errors.labels("unavailable").inc()
            self._telemetry.log.warning("cache_unavailable")
        work = await self._work(attempt, lookup)
        missing = ("cache-unavailable",) if away else ()
        if held is not None and self._holds(held.entry, work.retrieved):
            await self._restamp(work, held)
            return self._hit(attempt, held, "evidence", missing)
        return await self._made(work, missing, consulted=lookup is not None and attempt.question.read_cache)

    def _held(self, attempt: _Attempt, found: Cached | None) -> Held | None:
        entry = None if found is None else self._opened(found.value, attempt.key.digest)
        return None if found is None or entry is None else Held(found, entry)

    def _opened(self, value: bytes, digest: str | None) -> Entry | None:
        entry = answer_codec.open_entry(value, digest)
        if entry is None:
            self._telemetry.cache_errors.labels("corrupt").inc()
            self._telemetry.log.warning("cache_entry_corrupt", key=digest)
        return entry

    def _hit(
        self,
        attempt: _Attempt,
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

    async def _work(self, attempt: _Attempt, lookup: Lookup | None) -> _Work:
        question = attempt.question
        wanted = Wanted(
            question.tenant, attempt.text, question.k, question.alpha, question.filters,
            read=lookup is not None and question.read_cache, write=lookup is not None,
            fence=lookup.fence if lookup else None,
        )  # fmt: skip
        return _Work(attempt, wanted, await self._retrieval.passages(wanted))

    async def _made(self, work: _Work, missing: tuple[str, ...], *, consulted: bool) -> Answer:
        if not consulted:
            landed = await self._generated(work)
            return Answer(
                answer_codec.opened(landed.value), CacheReport("bypass"), missing + landed.degraded, paid=True
            )
        proposed = await self._proposed(work)
        if proposed is not None:
            return proposed
        self._telemetry.cache_misses.labels("exact").inc()
        landed, ours = await self._flown(work, work.name, time.monotonic() - work.attempt.began)
        entry = answer_codec.opened(landed.value)
        return Answer(entry, CacheReport("miss"), missing + landed.degraded, paid=ours)

    async def _proposed(self, work: _Work) -> Answer | None:
        if self._proposals is None or work.retrieved.degraded:
            return None
        attempt = work.attempt
        question = attempt.question

        async def generate() -> bytes:
            return (await self._generated(work, store=False)).value

        proposal = await self._proposals.propose(
            Asked(
                question.tenant, attempt.text, attempt.key, self._partition(attempt),
                work.retrieved.passages, work.retrieved.evidence, generate,
            )
        )  # fmt: skip
        entry = None if proposal is None else self._opened(proposal.value, None)
        if proposal is None or entry is None:
            return None
        self._telemetry.cache_hits.labels(proposal.level, "semantic").inc()
        report = CacheReport(
            "hit", proposal.level, "semantic", entry.age + proposal.age_seconds, proposal.similarity,
            proposal.validated, proposal.gates,
        )  # fmt: skip
        return Answer(entry, report)

    async def _flown(self, work: _Work, name: str, looked_seconds: float) -> tuple[Landed, bool]:
        """One asker of all makes the answer; the others get it, or the error that kept it from being made."""
        failed: list[RagkubeError] = []

        async def compute() -> bytes:
            try:
                async with deadline(self._timeout):
                    return flight_results.encode(await self._generated(work))
            except RagkubeError as error:
                failed.append(error)
                return flight_results.encode_error(error)

        tenant = work.attempt.question.tenant
        result, ours = await self._flights.once(tenant, name, compute, looked_seconds=looked_seconds)
        self._telemetry.cache_flights.labels("led" if ours else "joined").inc()
        if ours and failed:
            raise failed[0]  # with its cause, for the log
        landed = flight_results.decode(result)
        if landed is not None:
            return landed, ours
        self._telemetry.cache_errors.labels("corrupt").inc()
        return await self._generated(work), True

    async def _generated(self, work: _Work, *, store: bool = True) -> Landed:
        attempt, retrieved = work.attempt, work.retrieved
        started = time.monotonic()
        writing = self._writer.write(
            attempt.text, retrieved.passages, model=attempt.model, ends=started + self._timeout
        )
        (generation, missing), _ = await asyncio.gather(writing, self._retrieval.keep(work.wanted, retrieved))
        value = self._encoded(work, generation, time.monotonic() - started)
        landed = Landed(value, retrieved.degraded + missing, generation.complete)
        if store:
            await self._store(work, landed)
        return landed

    def _encoded(self, work: _Work, generation: Generation, seconds: float) -> bytes:
        ttl_class = self._policy.classes.of(work.attempt.text).name
        return answer_codec.encode(
            generation,
            digest=work.attempt.key.digest,
            evidence=work.retrieved.evidence,
            documents=evidence.documents(work.retrieved.passages),
            ttl_class=ttl_class,
            seconds=seconds,
            tags=tags_of(
                work.attempt.question.tags, ttl_class=ttl_class, model=generation.model,
                answerer=generation.answerer,
            ),
        )  # fmt: skip

    async def _store(self, work: _Work, landed: Landed) -> None:
        if not work.wanted.write or landed.degraded or not landed.complete:
            return
        if len(landed.value) > self._policy.max_bytes:
            self._telemetry.cache_errors.labels("oversized").inc()
            return
        ttl = self._policy.classes.of(work.attempt.text)
        lifetime = Lifetime(ttl.seconds, self._policy.stale_seconds)
        await self._keep(work, landed.value, lifetime)

    async def _restamp(self, work: _Work, held: Held) -> None:
        """The same answer under the fence of now: the next asker need not search. It lives no longer for that."""
        cached, entry = held
        if work.wanted.fence is None or cached.fresh_seconds <= 0:
            return
        age = entry.age + cached.age_seconds
        value = answer_codec.again(entry, age=age, tags=work.attempt.question.tags)
        await self._keep(work, value, Lifetime(cached.fresh_seconds, self._policy.stale_seconds))

    async def _keep(self, work: _Work, value: bytes, lifetime: Lifetime) -> None:
        attempt, entry = work.attempt, answer_codec.opened(value)
        question = attempt.question
        about = About(
            question=attempt.text,
            request=answer_keys.request_of(
                question=attempt.text, k=question.k, alpha=question.alpha, filters=question.filters,
                model=attempt.model,
            ),
            partition=self._partition(attempt),
            ttl_class=self._policy.classes.of(attempt.text).name,
            documents=tuple(name for name, _ in evidence.documents(work.retrieved.passages)),
            tags=tuple(orjson.loads(entry.tags)),
            mark=entry.mark,
        )  # fmt: skip
        await self._cache.store(
            question.tenant, attempt.key, value, fence=work.wanted.fence, lifetime=lifetime, about=about
        )

    def _partition(self, attempt: _Attempt) -> str:
        question = attempt.question
        return answer_keys.partition(
            k=question.k, alpha=question.alpha, filters=question.filters, model=attempt.model,
            state=self._state,
        )  # fmt: skip

    def _refresh_soon(self, attempt: _Attempt, entry: Entry, reason: Literal["stale", "early"]) -> None:
        name = f"refresh:{attempt.question.tenant}:{attempt.key.digest}"
        if self._refreshes.start(name, lambda: self._refresh(attempt.question, entry)):
            self._telemetry.cache_refreshes.labels(reason).inc()

    async def _refresh(self, question: Question, old: Entry) -> None:
        attempt = self._attempt(question)
        try:
            async with deadline(self._timeout):
                lookup = await self._cache.lookup(question.tenant, attempt.key)
                work = await self._work(attempt, lookup)
                if lookup.fence is None or work.retrieved.degraded:
                    return
                landed, ours = await self._flown(work, f"{work.name}:{old.id}", _REFRESHED_SECONDS)
                if not ours:  # another replica's: into the level of this one too
                    await self._store(work, landed)
        except RagkubeError as error:
            self._telemetry.log.warning("cache_refresh_failed", code=error.code)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One question on its way."""

    question: Question
    text: str
    model: str | None
    key: Key
    began: float


@dataclass(frozen=True, slots=True)
class _Work:
    """What an answer is made from. ``wanted.fence`` was read before the passages were."""

    attempt: _Attempt
    wanted: Wanted
    retrieved: Retrieved

    @property
    def name(self) -> str:
        """The flight: everything that the answer is a function of, so that no result is from before a write."""
        degraded = ",".join(self.retrieved.degraded)
        return f"{self.attempt.key.digest}:{self.retrieved.evidence.hex()}:{degraded}"
