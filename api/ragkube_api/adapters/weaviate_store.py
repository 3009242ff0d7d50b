"""``VectorStore`` on Weaviate.

A write puts the new version's text and chunks beside the old ones, then replaces the document's object (the commit),
then removes what the old version left. A search drops hits whose version is not current: so it sees all of the old
chunks or all of the new ones, and a crash in between leaves the old document or the new one. What a crashed writer
left behind is removed by the next write of that document and by a sweep (at start and every hour or so); chunks
younger than ``GRACE_SECONDS`` are left alone, they may belong to a write under way.

Consistency: writes go to ALL replicas and documents are read from a QUORUM, because Weaviate answers a search from
one replica: a finished write is seen by every later search. While a replica is away, writes are refused and queries
go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from weaviate.classes.config import ConsistencyLevel
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter, HybridFusion, MetadataQuery, Sort
from weaviate.collections.classes.filters import _Filters as Condition
from weaviate.collections.collection.async_ import CollectionAsync

from ragkube_api.adapters import weaviate_schema as schema
from ragkube_api.adapters.weaviate_client import (
    Collections,
    RefusedError,
    TenantUnknownError,
    WeaviateConnection,
    open_connection,
)
from ragkube_api.domain import Document, DocumentPage, DocumentWrite, Passage, SearchQuery
from ragkube_api.errors import StoreUnavailableError
from ragkube_api.settings import WeaviateStore as WeaviateSettings
from ragkube_api.text.analysis import query_terms

log = structlog.get_logger(__name__)

GRACE_SECONDS = 3600.0
SWEEP_SECONDS = 3600.0
_BATCH = 200
_PAGE = 1000
_MOST_HITS = 2000
_ROUNDS = 8
_SETTLED_MS = 30_000
_DELETED_AT_ONCE = 10_000


@asynccontextmanager
async def open_weaviate_store(
    settings: WeaviateSettings, *, dimensions: int, sweep_seconds: float = SWEEP_SECONDS
) -> AsyncIterator[WeaviateVectorStore]:
    """A store that starts whether or not Weaviate is there, and heals by itself."""
    async with open_connection(settings, dimensions) as connection:
        store = WeaviateVectorStore(connection, dimensions)
        sweeper = asyncio.create_task(_sweep_forever(store, sweep_seconds), name="weaviate-sweep")
        try:
            yield store
        finally:
            sweeper.cancel()
            await asyncio.gather(sweeper, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Hit:
    document: str
    edition: str
    properties: Any
    score: float


@dataclass(frozen=True, slots=True)
class _Current:
    id: str
    version: str
    title: str
    edition: str
    committed: int


class WeaviateVectorStore:
    """Documents, their texts and their chunks in three multi-tenant collections."""

    def __init__(self, connection: WeaviateConnection, dimensions: int) -> None:
        self._connection = connection
        self._dimensions = dimensions

    async def put(self, write: DocumentWrite) -> None:
        """Add or replace a document; its object is written last."""
        if write.vectors.shape != (len(write.chunks), self._dimensions):
            shape = f"{len(write.chunks)} vectors of {self._dimensions} dimensions"
            raise ValueError(f"expected {shape}, got {write.vectors.shape}")
        document = write.document
        previous = await self.get(document.tenant, document.id)
        async with self._connection.using() as collections:
            objects = await asyncio.to_thread(schema.chunk_objects, write)
            chunks = _whole(collections.chunks(document.tenant))
            texts = _whole(collections.texts(document.tenant))
            for start in range(0, len(objects), _BATCH):
                await _insert(chunks, objects[start : start + _BATCH])
            await _insert(texts, [schema.text_object(write)])
            await _insert(_whole(collections.documents(document.tenant)), [schema.document_object(document)])
            await self._remove_others(collections, document, previous)

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """The document's description, or None."""
        try:
            async with self._connection.using() as collections:
                found: Any = await _read(collections.documents(tenant)).query.fetch_object_by_id(
                    schema.document_uuid(tenant, document_id), return_properties=schema.DOCUMENT_PROPERTIES
                )
        except TenantUnknownError:
            return None
        return schema.document_from(tenant, found.properties) if found else None

    async def text(self, tenant: str, document_id: str) -> tuple[Document, str] | None:
        """The document with its stored text, or None."""
        for _ in range(_ROUNDS):
            document = await self.get(tenant, document_id)
            if document is None:
                return None
            edition = schema.edition_of(tenant, document_id, document.version)
            async with self._connection.using() as collections:
                found: Any = await _read(collections.texts(tenant)).query.fetch_object_by_id(edition)
            if found:
                return document, str(found.properties["text"])
        raise StoreUnavailableError("The document is being replaced; try again.", retry_after=1)

    async def delete(self, tenant: str, document_id: str) -> bool:
        """Remove it; its object goes first, so that a search never sees a part."""
        document = await self.get(tenant, document_id)
        if document is None:
            return False
        async with self._connection.using() as collections:
            key = schema.document_uuid(tenant, document_id)
            if not await _whole(collections.documents(tenant)).data.delete_by_id(key):
                return False
            edition = schema.edition_of(tenant, document_id, document.version)
            await _whole(collections.texts(tenant)).data.delete_by_id(edition)
            left = _is("edition", edition) | (_is("document", key) & _older_than(GRACE_SECONDS))
            await _delete(collections.chunks(tenant), left)
        return True

    async def list(
        self, tenant: str, *, cursor: str | None, limit: int, source: str | None = None
    ) -> DocumentPage:
        """Documents in the order of their ids; the cursor is the last id of the page before."""
        conditions = []
        if cursor is not None:
            conditions.append(Filter.by_property("order").greater_than(schema.order_key(cursor)))
        if source is not None:
            conditions.append(Filter.by_property("source").equal(source))
        try:
            async with self._connection.using() as collections:
                found = await _read(collections.documents(tenant)).query.fetch_objects(
                    limit=limit + 1,
                    filters=Filter.all_of(conditions) if conditions else None,
                    sort=Sort.by_property("order"),
                    return_properties=schema.DOCUMENT_PROPERTIES,
                )
        except TenantUnknownError:
            return DocumentPage([], None)
        documents = [schema.document_from(tenant, each.properties) for each in found.objects]
        more = len(documents) > limit
        return DocumentPage(documents[:limit], documents[limit - 1].id if more else None)

    async def count(self, tenant: str) -> int:
        """Number of documents."""
        try:
            async with self._connection.using() as collections:
                found = await collections.documents(tenant).aggregate.over_all(total_count=True)
        except TenantUnknownError:
            return 0
        return int(found.total_count or 0)

    async def search(self, tenant: str, query: SearchQuery) -> Sequence[Passage]:
        """The best passages by BM25 and cosine, fused by the server with relative scores."""
        try:
            return await self._search(tenant, query)
        except TenantUnknownError:
            return []

    async def ping(self) -> None:
        """Raise when the server is away (by HTTP or gRPC) or its collections are of another configuration."""
        async with self._connection.using() as collections:
            if not await collections.client.is_ready():
                raise StoreUnavailableError("The document store is not ready.", retry_after=2)
        with suppress(TenantUnknownError):
            async with self._connection.using() as collections:
                await collections.documents("ping").query.fetch_object_by_id(UUID(int=0))

    async def sweep(self, *, grace_seconds: float = GRACE_SECONDS) -> int:
        """Remove what crashed writers left behind, in every tenant; the number of versions removed."""
        async with self._connection.using() as collections:
            tenants = await collections.tenants()
        removed = 0
        for tenant in tenants:
            try:
                removed += await self._sweep(tenant, grace_seconds)
            except TenantUnknownError:  # a first write crashed before its document
                continue
        return removed

    async def _search(self, tenant: str, query: SearchQuery) -> Sequence[Passage]:
        limit = query.k + max(10, query.k // 4)  # room for hits that are not current
        known: dict[str, _Current] = {}
        passages: list[Passage] = []
        for _ in range(_ROUNDS):
            began = schema.now_ms()
            hits = await self._hits(tenant, query, limit)
            current = await self._current(tenant, {hit.document for hit in hits})
            passages = _passages(hits, current)
            exhausted = len(hits) < limit or limit >= _MOST_HITS
            if _settled(current, known, began) and (len(passages) >= query.k or exhausted):
                break
            if len(passages) < query.k and not exhausted:
                limit = min(_MOST_HITS, 4 * limit)
            known = current
        return passages[: query.k]

    async def _hits(self, tenant: str, query: SearchQuery, limit: int) -> Sequence[_Hit]:
        words = " ".join(query_terms(query.text))
        alpha = query.alpha if words else 1.0
        async with self._connection.using() as collections:
            found = await collections.chunks(tenant).query.hybrid(
                words or None,
                vector=query.vector.tolist(),
                alpha=alpha,
                query_properties=["terms"],
                fusion_type=HybridFusion.RELATIVE_SCORE,
                filters=schema.condition(query.filters),
                limit=limit,
                return_properties=schema.PASSAGE_PROPERTIES,
                return_metadata=MetadataQuery(score=True),
            )
        return [
            _Hit(
                each.properties["document"],
                each.properties["edition"],
                each.properties,
                each.metadata.score or 0,
            )
            for each in found.objects
        ]

    async def _current(self, tenant: str, documents: set[str]) -> dict[str, _Current]:
        """What is current of these documents, by the identifier of their object; one call."""
        if not documents:
            return {}
        async with self._connection.using() as collections:
            found = await _read(collections.documents(tenant)).query.fetch_objects_by_ids(
                sorted(documents), limit=len(documents), return_properties=schema.VERSION_PROPERTIES
            )
        return {str(each.uuid): _current_of(tenant, each.properties) for each in found.objects}

    async def _remove_others(
        self, collections: Collections, document: Document, previous: Document | None
    ) -> None:
        tenant, key = document.tenant, schema.document_uuid(document.tenant, document.id)
        edition = schema.edition_of(tenant, document.id, document.version)
        stale = _older_than(GRACE_SECONDS)
        if previous is not None and previous.version != document.version:
            replaced = schema.edition_of(tenant, document.id, previous.version)
            await _whole(collections.texts(tenant)).data.delete_by_id(replaced)
            stale = stale | _is("edition", replaced)
        others = _is("document", key) & Filter.by_property("edition").not_equal(str(edition)) & stale
        await _delete(collections.chunks(tenant), others)

    async def _sweep(self, tenant: str, grace_seconds: float) -> int:
        oldest = schema.now_ms() - int(grace_seconds * 1000)
        async with self._connection.using() as collections:
            chunks, texts = collections.chunks(tenant), collections.texts(tenant)
            found = {
                str(each.properties["edition"])
                async for each in _all(chunks, ["edition", "written"])
                if int(each.properties["written"]) <= oldest
            }
            found |= {
                str(each.uuid)
                async for each in _all(texts, ["written"])
                if int(each.properties["written"]) <= oldest
            }
            # what is current is read after what there is: a version committed meanwhile is kept
            current = {
                str(schema.edition_of(tenant, each.properties["docId"], each.properties["version"]))
                async for each in _all(_read(collections.documents(tenant)), ["docId", "version"])
            }
            orphans = sorted(found - current)
            for edition in orphans:
                await _delete(chunks, _is("edition", edition))
                await _whole(texts).data.delete_by_id(UUID(edition))
        return len(orphans)


def _settled(current: dict[str, _Current], known: dict[str, _Current], began: int) -> bool:
    """Whether every version was complete when the search began.

    A version that was committed about then may have been found in part: once its commit is known, a second search
    sees all of it. Commits are dated by the writer's clock, hence the margin.
    """
    return all(
        each.committed < began - _SETTLED_MS or (key in known and known[key].edition == each.edition)
        for key, each in current.items()
    )


def _passages(hits: Sequence[_Hit], current: dict[str, _Current]) -> list[Passage]:
    passages = []
    for hit in hits:
        document = current.get(hit.document)
        if document is not None and document.edition == hit.edition:
            chunk = schema.chunk_from(hit.properties)
            score = min(1.0, max(0.0, hit.score))
            passages.append(Passage(document.id, document.version, document.title, chunk, score))
    # the server sorts with more digits than it sends
    return sorted(passages, key=lambda passage: -passage.score)


def _current_of(tenant: str, properties: Any) -> _Current:
    edition = schema.edition_of(tenant, properties["docId"], properties["version"])
    return _Current(
        properties["docId"],
        properties["version"],
        properties["title"],
        str(edition),
        int(properties["committed"]),
    )


def _whole(collection: CollectionAsync[Any, Any]) -> CollectionAsync[Any, Any]:
    return collection.with_consistency_level(ConsistencyLevel.ALL)


def _read(collection: CollectionAsync[Any, Any]) -> CollectionAsync[Any, Any]:
    return collection.with_consistency_level(ConsistencyLevel.QUORUM)


async def _insert(collection: CollectionAsync[Any, Any], objects: Sequence[DataObject[Any, Any]]) -> None:
    result = await collection.data.insert_many(objects)
    if result.has_errors:
        first = next(iter(result.errors.values()))
        raise RefusedError(f"{len(result.errors)} of {len(objects)} objects refused: {first.message}")


async def _delete(collection: CollectionAsync[Any, Any], where: Condition) -> None:
    while True:
        result = await _whole(collection).data.delete_many(where=where)
        if result.failed:
            raise RefusedError(f"{result.failed} of {result.matches} objects not deleted")
        if result.matches < _DELETED_AT_ONCE:
            return


def _is(name: str, value: UUID | str) -> Condition:
    return Filter.by_property(name).equal(str(value))


def _older_than(seconds: float) -> Condition:
    return Filter.by_property("written").less_than(schema.now_ms() - int(seconds * 1000))


async def _all(collection: CollectionAsync[Any, Any], properties: list[str]) -> AsyncIterator[Any]:
    after = None
    while True:
        page = await collection.query.fetch_objects(limit=_PAGE, after=after, return_properties=properties)
        for each in page.objects:
            yield each
        if len(page.objects) < _PAGE:
            return
        after = page.objects[-1].uuid


async def _sweep_forever(store: WeaviateVectorStore, period: float) -> None:
    pause = min(60.0, period)
    while True:
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  replicas take turns
        pause = period
        try:
            removed = await store.sweep()
        except StoreUnavailableError:
            continue
        if removed:
            log.info("store.swept", versions=removed)
