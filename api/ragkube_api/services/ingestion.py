"""From an uploaded file to indexed chunks: idempotent, atomic per document, fenced against the answer cache."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal
from uuid import uuid4

import orjson

from ragkube_api.domain import Chunk, Document, DocumentWrite, ExtractedText, Metadata
from ragkube_api.errors import (
    ConflictError,
    DocumentError,
    DocumentTooLargeError,
    EmptyDocumentError,
    NotFoundError,
)
from ragkube_api.ports import Embedder, FencedCache, VectorStore
from ragkube_api.services.deadline import Deadline
from ragkube_api.telemetry import Telemetry
from ragkube_api.text import REVISION, chunking, parsing


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to index. An empty ``content_type`` is told from the id's suffix; ``source`` names the configured source that keeps it, None for an upload by request."""

    tenant: str
    id: str
    body: bytes
    content_type: str
    metadata: Metadata = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of an upload."""

    document: Document
    outcome: Literal["created", "replaced", "unchanged"]


class Ingestion:
    """The only way documents are written."""

    def __init__(
        self,
        *,
        store: VectorStore,
        embedder: Embedder,
        cache: FencedCache,
        executor: Executor,
        max_bytes: int,
        chunk_characters: int,
        sources: frozenset[str],
        timeout_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._cache = cache
        self._executor = executor
        self._chunk_characters = chunk_characters
        self._sources = sources
        self._timeout = timeout_seconds
        self._telemetry = telemetry
        self._locks = _Locks()
        self._running: set[asyncio.Task[Any]] = set()
        self.max_bytes = max_bytes

    @property
    def text_revision(self) -> str:
        """Changes when the same file would be cut differently."""
        return f"{REVISION}/{self._chunk_characters}"

    def fingerprint(self, upload: Upload) -> str:
        """Equal to the stored one when there is nothing to do."""
        parameters = upload.content_type.partition(";")[2].replace(" ", "").lower()
        parts = [
            hashlib.sha256(upload.body).hexdigest(), _media_type(upload),
            "" if parameters == "charset=utf-8" else parameters, sorted(upload.metadata.items()),
            upload.source, self.text_revision, self._embedder.name,
        ]  # fmt: skip
        return hashlib.sha256(orjson.dumps(parts)).hexdigest()

    async def put(self, upload: Upload) -> Stored:
        """Add or replace a document; a caller that is cancelled leaves a write that has begun to finish."""
        try:
            if len(upload.body) > self.max_bytes:
                raise too_large(self.max_bytes)
            stored = await self._put(upload)
        except DocumentError:
            self._telemetry.documents_indexed.labels("failed").inc()
            raise
        self._telemetry.documents_indexed.labels(stored.outcome).inc()
        return stored

    async def delete(self, tenant: str, document_id: str, *, source: str | None = None) -> None:
        """Remove a document; raises ``NotFoundError``."""
        await self._delete(tenant, document_id, source)
        self._telemetry.documents_indexed.labels("deleted").inc()
        self._telemetry.log.info("document_deleted", tenant=tenant, document=document_id)

    async def finish(self) -> None:
        """Wait for writes that have begun."""
        while self._running:
            await asyncio.wait(self._running)

    async def _unbroken(self, work: Coroutine[Any, Any, None]) -> None:
        """A caller that is cancelled waits: a fence that opens before its write has ended would let stale answers in."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise

    async def _commit(self, write: DocumentWrite) -> None:
        async with self._cache.writing(write.document.tenant):
            await self._store.put(write)

    async def _remove(self, tenant: str, document_id: str) -> None:
        async with self._cache.writing(tenant):
            await self._store.delete(tenant, document_id)

    async def _put(self, upload: Upload) -> Stored:
        started = time.perf_counter()
        async with self._locks.hold((upload.tenant, upload.id)):
            fingerprint = self.fingerprint(upload)
            existing = await self._store.get(upload.tenant, upload.id)
            if existing is not None:
                self._check_owner(existing, upload.source)
                if existing.fingerprint == fingerprint:
                    return Stored(existing, "unchanged")
            async with Deadline(self._timeout):
                write = await self._prepare(upload, fingerprint, existing)
            await self._unbroken(self._commit(write))
        document = write.document
        self._telemetry.log.info(
            "document_indexed", tenant=document.tenant, document=document.id, version=document.version,
            chunks=document.chunks, latency_ms=round((time.perf_counter() - started) * 1000, 1),
        )  # fmt: skip
        return Stored(document, "created" if existing is None else "replaced")

    async def _delete(self, tenant: str, document_id: str, source: str | None) -> None:
        async with self._locks.hold((tenant, document_id)):
            existing = await self._store.get(tenant, document_id)
            if existing is None:
                raise no_document(document_id)
            self._check_owner(existing, source)
            await self._unbroken(self._remove(tenant, document_id))

    def _check_owner(self, existing: Document, source: str | None) -> None:
        """A document that a configured source keeps is changed there; what a request uploaded, by request."""
        if existing.source == source:
            return
        if existing.source in self._sources:
            raise ConflictError(f"The source '{existing.source}' keeps this document; change it there.")
        if existing.source is None and source is not None:
            raise ConflictError("A document with this id was uploaded by request; it is left as it is.")

    async def _prepare(self, upload: Upload, fingerprint: str, existing: Document | None) -> DocumentWrite:
        loop = asyncio.get_running_loop()
        extracted, chunks = await loop.run_in_executor(self._executor, self._cut, upload)
        title = extracted.title or PurePosixPath(upload.id).name
        texts = await loop.run_in_executor(self._executor, _index_texts, title, chunks)
        vectors = await self._embedder.embed_documents(texts)
        document = _describe(upload, fingerprint, extracted.text, title, len(chunks))
        if existing is not None:
            document = replace(document, created=existing.created)
        return DocumentWrite(document=document, text=extracted.text, chunks=chunks, vectors=vectors)

    def _cut(self, upload: Upload) -> tuple[ExtractedText, Sequence[Chunk]]:
        if not upload.body:
            raise EmptyDocumentError("The file is empty.")
        extracted = parsing.parse(upload.body, upload.content_type, filename=PurePosixPath(upload.id).name)
        chunks = chunking.split(
            extracted.text, content_type=_media_type(upload), max_characters=self._chunk_characters
        )
        if not chunks:
            raise EmptyDocumentError("There is no text in the file.")
        return extracted, chunks


class _Locks:
    """One lock per key, kept only while somebody needs it."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._users: Counter[tuple[str, str]] = Counter()

    @asynccontextmanager
    async def hold(self, key: tuple[str, str]) -> AsyncIterator[None]:
        self._users[key] += 1
        try:
            async with self._locks.setdefault(key, asyncio.Lock()):
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]


def too_large(limit: int) -> DocumentTooLargeError:
    """The one sentence for every place that enforces the limit."""
    return DocumentTooLargeError(f"A document may have at most {limit:,} bytes.")


def no_document(document_id: str) -> NotFoundError:
    """The one sentence for every place that looks for a document."""
    return NotFoundError(f"There is no document '{document_id}'.")


def _media_type(upload: Upload) -> str:
    return parsing.canonical_type(upload.content_type, filename=PurePosixPath(upload.id).name)


def _index_texts(title: str, chunks: Sequence[Chunk]) -> list[str]:
    return [chunking.index_text(title, chunk) for chunk in chunks]


def _describe(upload: Upload, fingerprint: str, text: str, title: str, chunks: int) -> Document:
    now = datetime.now(UTC)
    return Document(
        tenant=upload.tenant,
        id=upload.id,
        version=uuid4().hex,
        sha256=hashlib.sha256(upload.body).hexdigest(),
        fingerprint=fingerprint,
        content_type=_media_type(upload),
        title=title,
        metadata=upload.metadata,
        source=upload.source,
        size=len(upload.body),
        characters=len(text),
        chunks=chunks,
        created=now,
        updated=now,
    )
