"""From a question to an answer: cache, retrieval, answerer, and what is done when one of them is away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ragkube_api.domain import CacheLookup, Fence, Filters, Generation, Key, Passage, SearchQuery, Vectors
from ragkube_api.errors import (
    CacheUnavailableError,
    EmbedderUnavailableError,
    FieldProblem,
    InvalidRequestError,
    LLMUnavailableError,
)
from ragkube_api.ports import AnswerCache, Answerer, Embedder, VectorStore
from ragkube_api.services import answer_codec, evidence
from ragkube_api.services.answer_codec import CacheReport, Entry
from ragkube_api.services.answer_keys import answer_key, normalise
from ragkube_api.services.deadline import deadline
from ragkube_api.services.ttl_classes import TtlClasses
from ragkube_api.telemetry import Telemetry

# Kept back from the model's time so that an extractive answer still fits into the request's deadline.
_FALLBACK_RESERVE = 0.1


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; ``text`` is normalised when it is answered."""

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
    """An answer, how it came about, and what was missing."""

    entry: Entry
    cache: CacheReport
    degraded: tuple[str, ...] = ()

    def body(self, *, latency_ms: float, trace_id: str) -> bytes:
        """The response of ``POST /v1/query``."""
        hit = self.cache.status in {"hit", "stale"}
        render = answer_codec.render_hit if hit else answer_codec.render_fresh
        return render(
            self.entry, self.cache, latency_ms=latency_ms, trace_id=trace_id, degraded=self.degraded
        )


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What the cache said about a question: the answer, or the look-up that ``Answering.answer`` goes on from."""

    question: Question
    answer: Answer | None
    lookup: CacheLookup | None
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How answers are cached; ``level`` is the name reported for a hit."""

    enabled: bool
    level: Literal["l1", "redis"]
    classes: TtlClasses
    max_bytes: int


class Answering:
    """Answers questions over a store. Every dependency is a port."""

    def __init__(
        self,
        *,
        store: VectorStore,
        embedder: Embedder,
        answerer: Answerer,
        fallback: Answerer | None,
        cache: AnswerCache,
        policy: CachePolicy,
        index_revision: str,
        timeout_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._answerer = answerer
        self._fallback = fallback
        self._cache = cache
        self._policy = policy
        self._index_revision = index_revision
        self._timeout = timeout_seconds
        self._telemetry = telemetry

    async def look_up(self, question: Question) -> LookedUp:
        """A cached answer that may be served as it is, if there is one; a hit is counted, a miss is not yet."""
        attempt = _Attempt(question, normalise(question.text), self._model(question.model), 0.0)
        key = self._key(attempt)
        lookup = await self._lookup(attempt, key)
        hit = self._decode(lookup, key) if question.read_cache else None
        return LookedUp(question, hit, lookup, tuple(attempt.degraded))

    async def answer(self, question: Question, looked_up: LookedUp | None = None) -> Answer:
        """Answer within the deadline; raises the errors of the ports it cannot do without.

        ``looked_up`` spares a look-up, if it is of this question.
        """
        model = self._model(question.model)
        async with deadline(self._timeout):
            ends = time.monotonic() + self._timeout
            attempt = _Attempt(question, normalise(question.text), model, ends)
            if looked_up is None or looked_up.question != question:
                looked_up = await self.look_up(question)
            answer = looked_up.answer or await self._fresh(attempt, looked_up)
        for reason in answer.degraded:
            self._telemetry.degraded.labels(reason).inc()
        return answer

    def _model(self, requested: str | None) -> str | None:
        default, allowed = self._answerer.default_model, self._answerer.allowed_models
        if requested is None or requested == default or requested in allowed:
            return requested or default
        choice = f"choose one of: {', '.join(sorted(allowed))}" if allowed else "no model can be chosen here"
        problem = FieldProblem("model", f"not available; {choice}")
        raise InvalidRequestError(f"model: {problem.message}", problems=(problem,))

    async def _fresh(self, attempt: _Attempt, looked_up: LookedUp) -> Answer:
        key, lookup = self._key(attempt), looked_up.lookup
        attempt.degraded.extend(looked_up.degraded)
        consulted = lookup is not None and attempt.question.read_cache
        if consulted:
            self._telemetry.cache_misses.labels("exact").inc()
        value, complete = await self._generate(attempt, key)
        if lookup is not None and complete and not attempt.degraded:
            await self._store_answer(attempt, key, value, lookup.fence)
        report = CacheReport("miss" if consulted else "bypass")
        return Answer(answer_codec.opened(value), report, tuple(attempt.degraded))

    def _key(self, attempt: _Attempt) -> Key:
        question = attempt.question
        state = f"{self._answerer.revision}|{self._embedder.name}|{self._index_revision}"
        return answer_key(
            question=attempt.text, k=question.k, alpha=question.alpha,
            filters=question.filters, model=attempt.model, state=state,
        )  # fmt: skip

    async def _lookup(self, attempt: _Attempt, key: Key) -> CacheLookup | None:
        if not self._policy.enabled or not attempt.question.write_cache:
            return None
        try:
            return await self._cache.lookup(attempt.question.tenant, key.digest)
        except CacheUnavailableError as error:
            self._cache_is_away(attempt, error)
            return None

    def _decode(self, lookup: CacheLookup | None, key: Key) -> Answer | None:
        if lookup is None or lookup.answer is None:
            return None
        entry = answer_codec.open_entry(lookup.answer.value, key.digest)
        if entry is None:
            self._telemetry.cache_errors.labels("corrupt").inc()
            self._telemetry.log.warning("cache_entry_corrupt", key=key.digest)
            return None
        self._telemetry.cache_hits.labels(self._policy.level, "exact").inc()
        age = entry.age + lookup.answer.age_seconds
        return Answer(entry, CacheReport("hit", self._policy.level, "exact", age, validated="fence"))

    async def _store_answer(self, attempt: _Attempt, key: Key, value: bytes, fence: Fence) -> None:
        if len(value) > self._policy.max_bytes:
            self._telemetry.cache_errors.labels("oversized").inc()
            return
        ttl = int(self._policy.classes.of(attempt.text).seconds)
        try:
            await self._cache.store(attempt.question.tenant, key.digest, value, fence, ttl)
        except CacheUnavailableError as error:
            self._cache_is_away(attempt, error)

    async def _generate(self, attempt: _Attempt, key: Key) -> tuple[bytes, bool]:
        started = time.perf_counter()
        passages = evidence.by_rank(await self._retrieve(attempt))
        self._telemetry.retrieval.observe(time.perf_counter() - started)
        generation = await self._written(attempt, passages)
        value = answer_codec.encode(
            generation,
            digest=key.digest,
            evidence=evidence.digest(passages),
            documents=evidence.documents(passages),
            ttl_class=self._policy.classes.of(attempt.text).name,
            seconds=time.perf_counter() - started,
        )
        return value, generation.complete

    async def _written(self, attempt: _Attempt, passages: Sequence[Passage]) -> Generation:
        if self._fallback is None:
            return await self._ask(self._answerer, attempt, passages, attempt.remaining())
        reserve = self._timeout * _FALLBACK_RESERVE
        try:
            return await self._ask(self._answerer, attempt, passages, attempt.remaining() - reserve)
        except LLMUnavailableError as error:
            self._telemetry.log.warning(
                "llm_call", outcome="unavailable", cause=str(error.__cause__ or error)
            )
            attempt.degraded.append("llm-unavailable")
            return await self._ask(self._fallback, attempt, passages, attempt.remaining())

    async def _retrieve(self, attempt: _Attempt) -> Sequence[Passage]:
        question = attempt.question
        alpha = question.alpha
        try:
            vector = await self._embedder.embed_query(attempt.text)
        except EmbedderUnavailableError as error:
            if alpha == 1:
                raise
            self._telemetry.log.warning("embedder_unavailable", cause=str(error.__cause__ or error))
            attempt.degraded.append("embedder-unavailable")
            alpha, vector = 0.0, self._no_vector()
        query = SearchQuery(
            text=attempt.text, vector=vector, k=question.k, alpha=alpha, filters=question.filters
        )
        return await self._store.search(question.tenant, query)

    def _no_vector(self) -> Vectors:
        return np.zeros(self._embedder.dimensions, dtype=np.float32)

    async def _ask(
        self, answerer: Answerer, attempt: _Attempt, passages: Sequence[Passage], seconds: float
    ) -> Generation:
        # Only a model that differs from the answerer's own is passed on, and the fallback has none.
        model = attempt.model if answerer is self._answerer else None
        started = time.perf_counter()
        try:
            generation = await answerer.answer(
                attempt.text, passages, model=model, timeout_seconds=max(seconds, 0.001)
            )
        except LLMUnavailableError:
            self._telemetry.llm_calls.labels(model or "", "unavailable").inc()
            raise
        if generation.answerer == "llm":
            self._record_call(generation, time.perf_counter() - started)
        return generation

    def _record_call(self, generation: Generation, seconds: float) -> None:
        telemetry, model, usage = self._telemetry, generation.model or "", generation.usage
        outcome = "ok" if generation.complete else "incomplete"
        telemetry.llm_calls.labels(model, outcome).inc()
        telemetry.llm_tokens.labels(model, "input").inc(usage.input_tokens)
        telemetry.llm_tokens.labels(model, "output").inc(usage.output_tokens)
        telemetry.llm_cost.labels(model).inc(generation.cost_usd)
        telemetry.log.info(
            "llm_call", model=model, outcome=outcome, input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens, cost_usd=generation.cost_usd,
            latency_ms=round(seconds * 1000, 1),
        )  # fmt: skip

    def _cache_is_away(self, attempt: _Attempt, error: CacheUnavailableError) -> None:
        self._telemetry.cache_errors.labels("unavailable").inc()
        self._telemetry.log.warning("cache_unavailable", cause=str(error.__cause__ or error))
        if "cache-unavailable" not in attempt.degraded:
            attempt.degraded.append("cache-unavailable")


@dataclass(slots=True)
class _Attempt:
    """One question on its way, and what turned out to be missing."""

    question: Question
    text: str
    model: str | None
    ends: float
    degraded: list[str] = field(default_factory=list)

    def remaining(self) -> float:
        return self.ends - time.monotonic()
