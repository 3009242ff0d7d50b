"""Vectors of questions: from the cache, or from the embedder."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ragkube_api.domain import Vectors
from ragkube_api.ports import Embedder, ValueCache
from ragkube_api.services.answer_keys import embedding_digest
from ragkube_api.services.sealed import seal, unseal
from ragkube_api.telemetry import Telemetry


class QuestionVectors:
    """Embeds questions. ``shared`` is None where asking another process costs more than the embedding."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        local: ValueCache | None,
        shared: ValueCache | None,
        ttl_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self._embedder = embedder
        levels: tuple[tuple[Literal["l1", "redis"], ValueCache | None], ...] = (
            ("l1", local),
            ("redis", shared),
        )
        self._levels = [(name, level) for name, level in levels if level is not None]
        self._ttl = ttl_seconds
        self._telemetry = telemetry

    @property
    def name(self) -> str:
        """Model and dimensions."""
        return self._embedder.name

    @property
    def none(self) -> Vectors:
        """What stands for a vector that cannot be had."""
        return np.zeros(self._embedder.dimensions, dtype=np.float32)

    async def of(self, tenant: str, text: str, *, read: bool = True, write: bool = True) -> Vectors:
        """Shape (dimensions,); ``read`` and ``write`` allow the cache. Raises ``EmbedderUnavailableError``."""
        digest = embedding_digest(text, self._embedder.name)
        found = await self._cached(tenant, digest) if read else None
        if found is not None:
            return found
        vector = await self._embedder.embed_query(text)
        if write:
            await self._keep(tenant, digest, vector, len(self._levels))
        return vector

    async def _cached(self, tenant: str, digest: str) -> Vectors | None:
        for number, (name, level) in enumerate(self._levels):
            value = await level.get(tenant, digest)
            vector = None if value is None else self._decoded(value, digest)
            if vector is not None:
                self._telemetry.cache_hits.labels(name, "embedding").inc()
                await self._keep(tenant, digest, vector, number)
                return vector
        if self._levels:
            self._telemetry.cache_misses.labels("embedding").inc()
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
