"""Vectors of questions: from the cache, or from the embedder."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ragkube_api.domain import Vectors
from ragkube_api.ports import Embedder, ValueCache
from ragkube_api.services.answer_keys import embedding_digest
from ragkube_api.services.sealed import seal, unseal
from ragkube_api.telemetry import Telemetry


class Found(NamedTuple):
    """A question's vector, shape (dimensions,), and where it came from: a level, or the embedder with or without having looked there."""

    vector: Vectors
    origin: Literal["l1", "redis", "missed", "made"]


class QuestionVectors:
    """Embeds questions. ``near``: in this process, which is faster than asking another one for the vector."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        local: ValueCache | None,
        shared: ValueCache | None,
        near: bool,
        ttl_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self._embedder = embedder
        levels: tuple[tuple[Literal["l1", "redis"], ValueCache | None], ...] = (
            ("l1", local),
            ("redis", None if near else shared),
        )
        self._levels = [(name, level) for name, level in levels if level is not None]
        self._near = near
        self._ttl = ttl_seconds
        self._telemetry = telemetry

    @property
    def name(self) -> str:
        """Model and dimensions."""
        return self._embedder.name

    @property
    def near(self) -> bool:
        """Whether nobody else is asked for a vector."""
        return self._near

    @property
    def none(self) -> Vectors:
        """What stands for a vector that cannot be had."""
        return np.zeros(self._embedder.dimensions, dtype=np.float32)

    async def find(self, tenant: str, text: str, *, read: bool = True, write: bool = True) -> Found:
        """``read`` and ``write`` allow the cache; nothing is counted yet. Raises ``EmbedderUnavailableError``."""
        digest = embedding_digest(text, self._embedder.name)
        found = await self._cached(tenant, digest) if read and self._levels else None
        if found is not None:
            return found
        vector = await self._embedder.embed_query(text)
        if write:
            await self._keep(tenant, digest, vector, len(self._levels))
        return Found(vector, "missed" if read and self._levels else "made")

    def use(self, found: Found) -> Vectors:
        """Its vector: now it counts where it came from."""
        if found.origin == "missed":
            self._telemetry.cache_misses.labels("embedding").inc()
        elif found.origin != "made":
            self._telemetry.cache_hits.labels(found.origin, "embedding").inc()
        return found.vector

    async def _cached(self, tenant: str, digest: str) -> Found | None:
        for number, (name, level) in enumerate(self._levels):
            value = await level.get(tenant, digest)
            vector = None if value is None else self._decoded(value, digest)
            if vector is not None:
                await self._keep(tenant, digest, vector, number)
                return Found(vector, name)
        return None

    async def _keep(self, tenant: str, digest: str, vector: Vectors, levels: int) -> None:
        value = seal(vector.astype("<f4").tobytes(), digest)
        for _, level in self._levels[:levels]:
            await level.put(tenant, digest, value, self._ttl)

    def _decoded(self, value: bytes, digest: str) -> Vectors | None:
        payload = unseal(value, digest)
        if payload is None or len(payload) != 4 * self._embedder.dimensions:
            self._telemetry.cache_errors.labels("corrupt").inc()
            return None
        return np.frombuffer(payload, dtype="<f4").astype(np.float32)
