"""Exact vector search in memory: one matrix a tenant, readers see snapshots that never change."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragkube_api.domain import Vectors

_FIRST_CAPACITY = 256


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows as they were at one moment: chunk, document and vector of each, and which are current. Chunks ascend."""

    chunks: NDArray[np.int64]
    documents: NDArray[np.int64]
    vectors: Vectors
    current: NDArray[np.bool_]

    def nearest(
        self,
        vector: NDArray[np.float32],
        limit: int,
        *,
        documents: NDArray[np.int64] | None = None,
        besides: Collection[int] = (),
    ) -> dict[int, float]:
        """The best current chunks by cosine, of ``documents`` only when given, and those named ``besides``."""
        if not len(self.chunks):
            return {}
        scores = self.vectors @ vector
        wanted = self.current if documents is None else self.current & np.isin(self.documents, documents)
        limit = min(limit, int(np.count_nonzero(wanted)))
        best = np.argpartition(np.where(wanted, -scores, np.inf), limit - 1)[:limit] if limit else self._none
        named = np.fromiter(besides, dtype=np.int64, count=len(besides))
        rows = np.minimum(
            np.searchsorted(self.chunks, named), len(self.chunks) - 1
        )  # chunks only ever ascend
        rows = rows[(self.chunks[rows] == named) & wanted[rows]]
        chosen = np.union1d(best, rows)
        return dict(zip(self.chunks[chosen].tolist(), scores[chosen].tolist(), strict=True))

    @property
    def _none(self) -> NDArray[np.int64]:
        return np.empty(0, dtype=np.int64)


class TenantVectors:
    """Grows by doubling; removed rows stay until they are half of all. One writer at a time."""

    def __init__(self, dimensions: int) -> None:
        self._size = 0
        self._removed = 0
        self._chunks = np.empty(_FIRST_CAPACITY, dtype=np.int64)
        self._documents = np.empty(_FIRST_CAPACITY, dtype=np.int64)
        self._vectors: Vectors = np.empty((_FIRST_CAPACITY, dimensions), dtype=np.float32)
        self._current = np.zeros(0, dtype=np.bool_)

    def add(self, document: int, chunks: NDArray[np.int64], vectors: Vectors) -> None:
        """Append a document's rows; older snapshots do not see them."""
        end = self._size + len(chunks)
        if end > len(self._chunks):
            self._resize(max(end, 2 * len(self._chunks)))
        self._chunks[self._size : end] = chunks
        self._documents[self._size : end] = document
        self._vectors[self._size : end] = vectors
        self._current = np.concatenate([self._current, np.ones(len(chunks), dtype=np.bool_)])
        self._size = end

    def remove(self, document: int) -> None:
        """Take a document's rows out; older snapshots keep them."""
        mine = self._documents[: self._size] == document
        self._removed += int(np.count_nonzero(mine & self._current))
        self._current = self._current & ~mine
        if self._removed > max(_FIRST_CAPACITY, self._size // 2):
            self._compact()

    def snapshot(self) -> Snapshot:
        """What a reader may use for as long as it likes."""
        n = self._size
        return Snapshot(self._chunks[:n], self._documents[:n], self._vectors[:n], self._current)

    def _resize(self, capacity: int) -> None:
        n = self._size
        chunks, documents = np.empty(capacity, dtype=np.int64), np.empty(capacity, dtype=np.int64)
        vectors = np.empty((capacity, self._vectors.shape[1]), dtype=np.float32)
        chunks[:n], documents[:n], vectors[:n] = self._chunks[:n], self._documents[:n], self._vectors[:n]
        self._chunks, self._documents, self._vectors = chunks, documents, vectors

    def _compact(self) -> None:
        keep = self._current
        n = self._size
        self._chunks, self._documents = self._chunks[:n][keep], self._documents[:n][keep]
        self._vectors = self._vectors[:n][keep]
        self._size = len(self._chunks)
        self._removed = 0
        self._current = np.ones(self._size, dtype=np.bool_)
