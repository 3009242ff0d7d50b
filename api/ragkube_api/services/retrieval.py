"""Passages for a question: from the cache while no document was written, or from the store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ragkube_api.coalescing import SingleFlight
from ragkube_api.domain import (
    Cached,
    Chunk,
    Fence,
    Fill,
    Filters,
    Key,
    Lifetime,
    Passage,
    SearchQuery,
    Vectors,
)
from ragkube_api.errors import EmbedderUnavailableError
from ragkube_api.ports import VectorStore
from ragkube_api.services import evidence
from ragkube_api.services.answer_keys import retrieval_key
from ragkube_api.services.embeddings import Found, QuestionVectors
from ragkube_api.services.sealed import seal, unseal
from ragkube_api.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for; ``text`` is normalised. ``read`` and ``write`` allow the cache.

    ``fence`` is the one that the asker read: who reads the same one gets the same passages. ``cached`` is what the cache
    had for ``Retrieval.key`` at that moment, ``vector`` the question's if it was prepared.
    """

    tenant: str
    text: str
    k: int
    alpha: float
    filters: Filters = field(default_factory=dict)
    read: bool = True
    write: bool = True
    fence: Fence | None = None
    cached: Cached | None = None
    vector: Found | None = None


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Passages by rank, their evidence, and what was missing. ``storable``: under the fence that the asker read."""

    passages: Sequence[Passage]
    evidence: bytes
    degraded: tuple[str, ...] = ()
    storable: bool = False


class Retrieval:
    """Searches for questions."""

    def __init__(
        self,
        *,
        store: VectorStore,
        vectors: QuestionVectors,
        revision: str,
        ttl_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._vectors = vectors
        self._state = f"{vectors.name}|{revision}"
        self._lifetime = Lifetime(ttl_seconds)
        self._telemetry = telemetry
        self._running: SingleFlight[Retrieved] = SingleFlight()

    @property
    def state(self) -> str:
        """Changes when the same question would find other passages of the same documents."""
        return self._state

    async def prepared(self, tenant: str, text: str) -> Found | None:
        """The vector for ``Wanted``, which no write changes; None where somebody else has to be asked for it."""
        return await self._vectors.find(tenant, text) if self._vectors.near else None

    async def passages(self, wanted: Wanted) -> Retrieved:
        """The best passages now, or as of the fence that the asker read; raises the store's errors."""
        key = self._key_of(wanted)
        if not wanted.read or wanted.fence is None:
            return await self._found(wanted, key)
        # under one fence many askers are one: a cold question asked by everybody is searched for once
        place = wanted.tenant, key, wanted.fence
        return await self._running.run(place, lambda: self._found(wanted, key))

    def fill(self, wanted: Wanted, found: Retrieved) -> Fill | None:
        """What to store under ``wanted.fence`` for other models and other moments; None for what came from the cache."""
        if not (wanted.write and found.storable):
            return None
        key = self._key_of(wanted)
        value = seal(orjson.dumps([_written(passage) for passage in found.passages]), key.digest)
        return Fill(key, value, self._lifetime)

    def key(self, *, text: str, k: int, alpha: float, filters: Filters) -> Key:
        """What the passages are cached under."""
        return retrieval_key(question=text, k=k, alpha=alpha, filters=filters, state=self._state)

    def _key_of(self, wanted: Wanted) -> Key:
        return self.key(text=wanted.text, k=wanted.k, alpha=wanted.alpha, filters=wanted.filters)

    async def _found(self, wanted: Wanted, key: Key) -> Retrieved:
        fenced = wanted.read and wanted.fence is not None
        if fenced:
            cached = self._cached(key, wanted.cached)
            if cached is not None:
                return cached
        started = time.perf_counter()
        passages, degraded = await self._search(wanted)
        self._telemetry.retrieval.observe(time.perf_counter() - started)
        ranked = evidence.by_rank(passages)
        return Retrieved(ranked, evidence.digest(ranked), degraded, fenced and not degraded)

    def _cached(self, key: Key, found: Cached | None) -> Retrieved | None:
        if found is None or not found.current or found.fresh_seconds <= 0:
            self._telemetry.cache_misses.labels("retrieval").inc()
            return None
        passages = _read(found.value, key.digest)
        if passages is None:
            self._telemetry.cache_errors.labels("corrupt").inc()
            self._telemetry.cache_misses.labels("retrieval").inc()
            return None
        self._telemetry.cache_hits.labels(found.level, "retrieval").inc()
        return Retrieved(passages, evidence.digest(passages))

    async def _search(self, wanted: Wanted) -> tuple[Sequence[Passage], tuple[str, ...]]:
        alpha = wanted.alpha
        degraded: tuple[str, ...] = ()
        try:
            vector = await self._vector(wanted)
        except EmbedderUnavailableError as error:
            if alpha == 1:
                raise
            self._telemetry.log.warning("embedder_unavailable", cause=str(error.__cause__ or error))
            degraded, alpha, vector = ("embedder-unavailable",), 0.0, self._vectors.none
        query = SearchQuery(wanted.text, vector, wanted.k, alpha, wanted.filters)
        return await self._store.search(wanted.tenant, query), degraded

    async def _vector(self, wanted: Wanted) -> Vectors:
        found = wanted.vector
        if found is None:
            found = await self._vectors.find(wanted.tenant, wanted.text, read=wanted.read, write=wanted.write)
        return self._vectors.use(found)


def _written(passage: Passage) -> list[Any]:
    chunk = passage.chunk
    return [
        passage.document, passage.version, passage.title, passage.score,
        chunk.ordinal, chunk.start, chunk.end, chunk.text, chunk.heading,
    ]  # fmt: skip


def _read(value: bytes, digest: str) -> list[Passage] | None:
    payload = unseal(value, digest)
    return None if payload is None else [_passage(row) for row in orjson.loads(payload)]


def _passage(row: Sequence[Any]) -> Passage:
    document, version, title, score, ordinal, start, end, text, heading = row
    return Passage(document, version, title, Chunk(ordinal, start, end, text, tuple(heading)), score)
