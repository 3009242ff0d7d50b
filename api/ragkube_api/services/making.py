"""Making an answer: retrieval, generation by one asker of all, and what goes into the cache of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import orjson

from ragkube_api import model_time
from ragkube_api.domain import About, Cached, Fill, Filters, Generation, Key, Lifetime, Lookup
from ragkube_api.errors import RagkubeError
from ragkube_api.ports import FencedCache, Flights
from ragkube_api.services import answer_codec, answer_keys, evidence, flight_results
from ragkube_api.services.answer_codec import Entry
from ragkube_api.services.deadline import Deadline
from ragkube_api.services.embeddings import Found
from ragkube_api.services.flight_results import Landed
from ragkube_api.services.retrieval import Retrieval, Retrieved, Wanted
from ragkube_api.services.tags import tags_of
from ragkube_api.services.ttl_classes import TtlClasses
from ragkube_api.services.writing import Writer
from ragkube_api.telemetry import Telemetry

# Keys of questions that need not be made again: of short ones, as it is their number that is bounded.
_MOST_KNOWN_KEYS, _KNOWN_CHARACTERS = 4096, 200


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
class CachePolicy:
    """How answers are cached."""

    classes: TtlClasses
    stale_seconds: float
    max_bytes: int


class Attempt(NamedTuple):
    """One question on its way. ``key`` is its answer's, ``search`` its passages'; ``vector`` is there if it was prepared."""

    question: Question
    text: str
    model: str | None
    key: Key
    search: Key
    began: float
    vector: Found | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What an answer is made from. ``wanted.fence`` was read before the passages were, at ``looked_at`` (``Lookup.at``)."""

    attempt: Attempt
    wanted: Wanted
    retrieved: Retrieved
    looked_at: int | None

    @property
    def name(self) -> str:
        """The flight: everything that the answer is a function of, so that no result is from before a write."""
        degraded = ",".join(self.retrieved.degraded)
        return f"{self.attempt.key.digest}:{self.retrieved.evidence.hex()}:{degraded}"


class Maker:
    """Makes answers and stores them. Every dependency is a port or a service over ports."""

    def __init__(
        self,
        *,
        cache: FencedCache,
        flights: Flights,
        retrieval: Retrieval,
        writer: Writer,
        policy: CachePolicy,
        state: str,
        timeout_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        """``state`` names the revisions of everything that an answer depends on besides question and documents."""
        self._cache = cache
        self._flights = flights
        self.retrieval = retrieval
        self._writer = writer
        self._policy = policy
        self._state = state
        self._timeout = timeout_seconds
        self._telemetry = telemetry
        self._unfiltered = lru_cache(_MOST_KNOWN_KEYS)(self._keys)

    def attempt(
        self, question: Question, *, ago_seconds: float = 0.0, vector: Found | None = None
    ) -> Attempt:
        """The question ready to be answered; raises ``InvalidRequestError`` for a model that is not allowed."""
        model, filters = self._writer.model(question.model), question.filters
        if filters or len(question.text) > _KNOWN_CHARACTERS:
            text, key, search = self._keys(question.text, question.k, question.alpha, model, filters)
        else:
            text, key, search = self._unfiltered(question.text, question.k, question.alpha, model)
        return Attempt(question, text, model, key, search, time.monotonic() - ago_seconds, vector)

    def _keys(
        self, question: str, k: int, alpha: float, model: str | None, filters: Filters = MappingProxyType({})
    ) -> tuple[str, Key, Key]:
        """The normalised text, and what its answer and its passages are cached under."""
        text = answer_keys.normalise(question)
        key = answer_keys.answer_key(
            question=text, k=k, alpha=alpha, filters=filters, model=model, state=self._state
        )
        return text, key, self.retrieval.key(text=text, k=k, alpha=alpha, filters=filters)

    async def work(self, attempt: Attempt, lookup: Lookup | None) -> Work:
        """Retrieve; without a look-up nothing is read from the cache or stored there."""
        question = attempt.question
        wanted = Wanted(
            question.tenant, attempt.text, question.k, question.alpha, question.filters,
            read=lookup is not None and question.read_cache, write=lookup is not None,
            fence=lookup.fence if lookup else None, cached=lookup.beside if lookup else None,
            vector=attempt.vector,
        )  # fmt: skip
        passages = await self.retrieval.passages(wanted)
        return Work(attempt, wanted, passages, lookup.at if lookup else None)

    async def flown(self, work: Work, name: str, looked_seconds: float) -> tuple[Landed, bool]:
        """One asker of all makes the answer; the others get it, or the error that kept it from being made."""
        made: list[Landed | RagkubeError] = []

        async def compute() -> bytes:
            made.clear()  # of what was prepared in vain
            try:
                async with Deadline(self._timeout):
                    landed = await self.generated(work)
            except RagkubeError as error:
                made.append(error)
                return flight_results.encode_error(error)
            made.append(landed)
            return flight_results.encode(landed)

        async def settle() -> None:
            if made and isinstance(made[0], Landed):
                async with self._cache.afterwards(tenant, work.attempt.key):
                    await self.keep(work, made[0])

        tenant = work.attempt.question.tenant
        joined = time.perf_counter()
        result, ours = await self._flights.once(
            tenant, name, compute, settle=settle, looked_seconds=looked_seconds, looked_at=work.looked_at
        )
        if not ours:
            model_time.waited(time.perf_counter() - joined)
        self._telemetry.cache_flights.labels("led" if ours else "joined").inc()
        if ours and made:
            if isinstance(made[0], RagkubeError):
                raise made[0]  # with its cause, for the log
            return made[0], True
        landed = flight_results.decode(result)
        if landed is None:
            self._telemetry.cache_errors.labels("corrupt").inc()
            landed, ours = await self.generated(work), True
            await self.keep(work, landed)
        return landed, ours

    async def generated(self, work: Work) -> Landed:
        """Call the answerer."""
        attempt, retrieved = work.attempt, work.retrieved
        started = time.monotonic()
        generation, missing = await self._writer.write(
            attempt.text, retrieved.passages, model=attempt.model, ends=started + self._timeout
        )
        value = self._encoded(work, generation, time.monotonic() - started)
        return Landed(value, retrieved.degraded + missing, generation.complete)

    async def keep(self, work: Work, landed: Landed) -> None:
        """Store what was made of the passages, and them."""
        await self._store(work, self._fill(work, landed), self.retrieval.fill(work.wanted, work.retrieved))

    async def store(self, work: Work, landed: Landed) -> None:
        """Store a whole answer under the fence of its work, unless it is degraded or too large."""
        await self._store(work, self._fill(work, landed))

    def _encoded(self, work: Work, generation: Generation, seconds: float) -> bytes:
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

    def _fill(self, work: Work, landed: Landed) -> Fill | None:
        if not work.wanted.write or landed.degraded or not landed.complete:
            return None
        if len(landed.value) > self._policy.max_bytes:
            self._telemetry.cache_errors.labels("oversized").inc()
            return None
        ttl = self._policy.classes.of(work.attempt.text)
        return self._filled(work, landed.value, Lifetime(ttl.seconds, self._policy.stale_seconds))

    async def restamp(self, work: Work, cached: Cached, entry: Entry) -> None:
        """The same answer under the fence of now: the next asker need not search. It lives no longer for that."""
        if work.wanted.fence is None or cached.fresh_seconds <= 0:
            return
        age = entry.age + cached.age_seconds
        value = answer_codec.again(entry, age=age, tags=work.attempt.question.tags)
        lifetime = Lifetime(cached.fresh_seconds, self._policy.stale_seconds)
        await self._store(work, self._filled(work, value, lifetime))

    async def _store(self, work: Work, *fills: Fill | None) -> None:
        wanted = [fill for fill in fills if fill is not None]
        if wanted:
            await self._cache.store(work.attempt.question.tenant, *wanted, fence=work.wanted.fence)

    def _filled(self, work: Work, value: bytes, lifetime: Lifetime) -> Fill:
        attempt, entry = work.attempt, answer_codec.opened(value)
        question = attempt.question
        about = About(
            question=attempt.text,
            request=answer_keys.request_of(
                question=attempt.text, k=question.k, alpha=question.alpha, filters=question.filters,
                model=attempt.model,
            ),
            partition=self.partition(attempt),
            ttl_class=self._policy.classes.of(attempt.text).name,
            documents=tuple(name for name, _ in evidence.documents(work.retrieved.passages)),
            tags=tuple(orjson.loads(entry.tags)),
            mark=entry.mark,
        )  # fmt: skip
        return Fill(attempt.key, value, lifetime, about)

    def partition(self, attempt: Attempt) -> str:
        """Everything of its key but the question."""
        question = attempt.question
        return answer_keys.partition(
            k=question.k, alpha=question.alpha, filters=question.filters, model=attempt.model,
            state=self._state,
        )  # fmt: skip
