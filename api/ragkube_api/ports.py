"""What the services need from the outside world. Adapters implement these; each port has one behaviour suite.

Every method may raise the ``DependencyUnavailableError`` of its port; nothing else crosses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ragkube_api.domain import (
    CacheLookup,
    Document,
    DocumentPage,
    DocumentWrite,
    Fence,
    Generation,
    Passage,
    SearchQuery,
    SourceStatus,
    Vectors,
)


class VectorStore(Protocol):
    """Documents, their text and their chunks, per tenant. Raises ``StoreUnavailableError``."""

    async def put(self, write: DocumentWrite) -> None:
        """Add or replace a document atomically: a search sees all of the old chunks or all of the new ones.

        On return every replica's later search sees it. A crash in the middle leaves the old document.
        Raises ``StorageFullError`` when there is no room.
        """

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """The document's description, or None."""

    async def text(self, tenant: str, document_id: str) -> tuple[Document, str] | None:
        """The document with the stored text that offsets refer to, or None."""

    async def delete(self, tenant: str, document_id: str) -> bool:
        """Remove it with its chunks; False when there was none."""

    async def list(
        self, tenant: str, *, cursor: str | None, limit: int, source: str | None = None
    ) -> DocumentPage:
        """Documents in order of their id, starting after ``cursor``; ``source`` keeps one source's only."""

    async def count(self, tenant: str) -> int:
        """Number of documents."""

    async def search(self, tenant: str, query: SearchQuery) -> Sequence[Passage]:
        """The ``k`` best passages, best first, only of current document versions; empty for an unknown tenant."""

    async def ping(self) -> None:
        """Return when it can serve, raise when it cannot."""


class Embedder(Protocol):
    """Text to unit vectors. Raises ``EmbedderUnavailableError``."""

    @property
    def name(self) -> str:
        """Model and dimensions: part of every fingerprint and cache key."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """One row a text."""

    async def embed_query(self, text: str) -> Vectors:
        """Shape (dimensions,)."""

    async def ping(self) -> None:
        """Return when it can serve, raise when it cannot."""


class Answerer(Protocol):
    """Writes the answer from passages. Raises ``LLMUnavailableError``."""

    @property
    def default_model(self) -> str | None:
        """The model used when the request names none; None when there is no model."""

    @property
    def allowed_models(self) -> frozenset[str]:
        """What a request may name."""

    @property
    def revision(self) -> str:
        """Changes when the prompt or the method changes: part of every cache key."""

    async def answer(
        self, question: str, passages: Sequence[Passage], *, model: str | None, timeout_seconds: float
    ) -> Generation:
        """Answer from these passages only; without passages it says that it does not know, with no citation."""

    async def ping(self) -> None:
        """Return when it can serve, raise when it cannot. Must cost nothing."""


class AnswerCache(Protocol):
    """Answers per tenant, fenced by document writes. Raises ``CacheUnavailableError``.

    The promise: an entry stored under a fence is returned only while no write of that tenant has begun since the
    fence was read.
    """

    async def lookup(self, tenant: str, key: str) -> CacheLookup:
        """The valid entry, if any, and the current fence; take it *before* retrieval."""

    async def store(self, tenant: str, key: str, value: bytes, fence: Fence, ttl_seconds: int) -> bool:
        """Store if the fence still holds; False when a write came between and nothing was stored."""

    def writing(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Hold this around a write of documents: entries from before, and fills that began before its end, die.

        Entering raises when the invalidation cannot be recorded; then the write must not happen. A holder that
        crashes is cleaned up after.
        """

    async def clear(self, tenant: str) -> None:
        """Drop the tenant's entries."""

    async def ping(self) -> None:
        """Return when it can serve, raise when it cannot."""


class SourceBoard(Protocol):
    """Progress of sources, visible to every replica. Raises ``CacheUnavailableError``."""

    async def publish(self, status: SourceStatus) -> None:
        """Replace what is known of that source."""

    async def read(self) -> Mapping[str, SourceStatus]:
        """By name."""
