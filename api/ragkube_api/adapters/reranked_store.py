"""Any store, its best passages put in a better order by comparing them with the question token by token.

BM25 and one vector a passage find the right documents; which of their passages holds the answer shows only
when each word of the question looks for its match. See docs/adr/0003-retrieval.md for what it brings.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from ragkube_api.adapters.wordllama_model import StaticModel, Tokens, load_model
from ragkube_api.domain import Document, DocumentPage, DocumentWrite, Passage, SearchQuery
from ragkube_api.ports import VectorStore
from ragkube_api.text import fusion
from ragkube_api.text.chunking import index_text

POOL = 30
WEIGHT = 0.35
_CACHED = 30_000
_THREADS = 2
"""Each keeps some megabytes; more would only take turns."""


class RerankedStore:
    """A ``VectorStore`` around another one; only ``search`` differs."""

    def __init__(
        self,
        store: VectorStore,
        *,
        model: StaticModel | None = None,
        pool: int = POOL,
        weight: float = WEIGHT,
    ) -> None:
        self._store = store
        self._model = model or load_model()
        self._pool = pool
        self._weight = weight
        self._known: OrderedDict[tuple[str, str, str, int], Tokens] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="rerank")

    async def put(self, write: DocumentWrite) -> None:
        """As the store does."""
        await self._store.put(write)

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """As the store does."""
        return await self._store.get(tenant, document_id)

    async def text(self, tenant: str, document_id: str) -> tuple[Document, str] | None:
        """As the store does."""
        return await self._store.text(tenant, document_id)

    async def delete(self, tenant: str, document_id: str) -> bool:
        """As the store does."""
        return await self._store.delete(tenant, document_id)

    async def list(
        self, tenant: str, *, cursor: str | None, limit: int, source: str | None = None
    ) -> DocumentPage:
        """As the store does."""
        return await self._store.list(tenant, cursor=cursor, limit=limit, source=source)

    async def count(self, tenant: str) -> int:
        """As the store does."""
        return await self._store.count(tenant)

    async def ping(self) -> None:
        """As the store does."""
        await self._store.ping()

    async def search(self, tenant: str, query: SearchQuery) -> Sequence[Passage]:
        """The best ``k`` of a larger pool, in the order of both scores."""
        pool = await self._store.search(tenant, replace(query, k=max(self._pool, 2 * query.k)))
        if len(pool) < 2:
            return pool[: query.k]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._reranked, tenant, query, pool)

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _reranked(self, tenant: str, query: SearchQuery, pool: Sequence[Passage]) -> Sequence[Passage]:
        (question,) = self._model.tokens([query.text])
        fits = self._model.interaction(question, self._tokens(tenant, pool)).tolist()
        first = {number: passage.score for number, passage in enumerate(pool)}
        best = fusion.fuse(first, dict(enumerate(fits)), alpha=self._weight, k=query.k)
        return [replace(pool[number], score=score) for number, score in best]

    def _tokens(self, tenant: str, pool: Sequence[Passage]) -> Sequence[Tokens]:
        keys = [(tenant, p.document, p.version, p.chunk.ordinal) for p in pool]
        with self._lock:
            known = {key: self._known[key] for key in keys if key in self._known}
        new = [(key, p) for key, p in zip(keys, pool, strict=True) if key not in known]
        texts = [index_text(passage.title, passage.chunk) for _, passage in new]
        distinct = (np.unique(tokens) for tokens in self._model.tokens(texts))
        known.update(zip((key for key, _ in new), distinct, strict=True))
        with self._lock:
            for key in keys:
                self._known[key] = known[key]
                self._known.move_to_end(key)
            while len(self._known) > _CACHED:
                self._known.popitem(last=False)
        return [known[key] for key in keys]
