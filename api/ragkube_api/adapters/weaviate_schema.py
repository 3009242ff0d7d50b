"""How documents lie in Weaviate: three multi-tenant collections, their objects and identifiers.

* ``…Document``: one small object a document. Writing it is the commit: it names the current version.
* ``…Text``: the stored text, one object a version.
* ``…Chunk``: the passages with their vectors, of every version that has not been removed yet.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from weaviate.classes.config import Configure, DataType, Property, Tokenization, VectorDistances
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter
from weaviate.collections.classes.filters import _Filters as Condition

from ragkube_api.domain import Chunk, Document, DocumentWrite, Filters, Scalar
from ragkube_api.text.analysis import terms
from ragkube_api.text.chunking import index_text

SCHEMA = 1
_NAMESPACE = uuid.UUID("6c9d7c0e-5f0a-5d57-9d0f-3a7c1c0a5a11")
_STORED = ("docId", "version", "sha256", "fingerprint", "contentType", "title", "metadata", "source")
_COUNTED = ("size", "characters", "chunks")
DOCUMENT_PROPERTIES = [*_STORED, *_COUNTED, "created", "updated"]
VERSION_PROPERTIES = ["docId", "version", "title", "committed"]
PASSAGE_PROPERTIES = ["document", "edition", "ordinal", "start", "end", "text", "heading"]


def document_uuid(tenant: str, document_id: str) -> uuid.UUID:
    """The identifier of a document's object."""
    return _identifier("document", tenant, document_id)


def edition_of(tenant: str, document_id: str, version: str) -> uuid.UUID:
    """The identifier of one version of one document: of its text, and the mark on its chunks."""
    return _identifier("edition", tenant, document_id, version)


def _identifier(*parts: str) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, json.dumps(parts))


def now_ms() -> int:
    """Milliseconds of the wall clock, as stored on chunks and documents."""
    return time.time_ns() // 1_000_000


def order_key(document_id: str) -> str:
    """Sorts as the identifier does by code point, whatever the server's collation and trimming."""
    return document_id.encode("utf-8", "surrogatepass").hex()


def definitions(prefix: str, dimensions: int, replication_factor: int) -> list[dict[str, Any]]:
    """Arguments for creating the three collections."""
    common: dict[str, Any] = {
        "multi_tenancy_config": Configure.multi_tenancy(enabled=True, auto_tenant_creation=True),
        "replication_config": Configure.replication(factor=replication_factor),
    }
    plain: dict[str, Any] = {**common, "vector_config": Configure.Vectors.self_provided()}
    hnsw = Configure.VectorIndex.hnsw(distance_metric=VectorDistances.COSINE)
    vectors = Configure.Vectors.self_provided(
        vector_index_config=hnsw, quantizer=Configure.VectorIndex.Quantizer.none()
    )
    return [
        {"name": f"{prefix}Document", "description": description(None), "properties": _of_documents(), **plain},
        {"name": f"{prefix}Text", "description": description(None), "properties": _of_texts(), **plain},
        {
            "name": f"{prefix}Chunk", "description": description(dimensions), "properties": _of_chunks(),
            "vector_config": vectors, "inverted_index_config": Configure.inverted_index(bm25_b=0.75, bm25_k1=1.2),
            **common,
        },
    ]  # fmt: skip


def description(dimensions: int | None) -> str:
    """Says in the collection what it was made for; compared at every start."""
    vectors = "no vectors" if dimensions is None else f"vectors of {dimensions} dimensions"
    return f"ragkube schema {SCHEMA}, {vectors}"


def _of_documents() -> list[Property]:
    return [
        _key("order"), _key("source"), *(_payload(name) for name in _STORED if name != "source"),
        *(_payload(name, DataType.INT) for name in (*_COUNTED, "committed")),
        _payload("created"), _payload("updated"),
    ]  # fmt: skip


def _of_texts() -> list[Property]:
    return [_payload("text"), _moment("written")]


def _of_chunks() -> list[Property]:
    words = Property(
        name="terms", data_type=DataType.TEXT, tokenization=Tokenization.WHITESPACE,
        index_searchable=True, index_filterable=False,
    )  # fmt: skip
    labels = Property(
        name="labels", data_type=DataType.TEXT_ARRAY, tokenization=Tokenization.FIELD,
        index_searchable=False, index_filterable=True,
    )  # fmt: skip
    return [
        _key("document"), _key("edition"), words, labels, _moment("written"), _payload("text"),
        _payload("heading", DataType.TEXT_ARRAY), *(_payload(n, DataType.INT) for n in ("ordinal", "start", "end")),
    ]  # fmt: skip


def _key(name: str) -> Property:
    return Property(
        name=name, data_type=DataType.TEXT, tokenization=Tokenization.FIELD,
        index_filterable=True, index_searchable=False,
    )  # fmt: skip


def _payload(name: str, data_type: DataType = DataType.TEXT) -> Property:
    searchable = False if data_type in {DataType.TEXT, DataType.TEXT_ARRAY} else None
    return Property(name=name, data_type=data_type, index_filterable=False, index_searchable=searchable)


def _moment(name: str) -> Property:
    return Property(name=name, data_type=DataType.INT, index_filterable=False, index_range_filters=True)


def label(name: str, value: Scalar) -> str:
    """One spelling for equal values: 1 and 1.0 are equal; 1, true and "1" are not. Hashed: of bounded length."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
    return sha256(json.dumps([name, kind, str(value)]).encode()).hexdigest()[:32]


def condition(filters: Filters) -> Condition | None:
    """All keys must match; a list matches by any of its values."""
    parts: list[Condition] = []
    for name, wanted in filters.items():
        options: Sequence[Scalar] = [wanted] if isinstance(wanted, str | int | float) else list(wanted)
        # an empty list matches nothing: no label is empty
        labels = [label(name, value) for value in options] or [""]
        parts.append(Filter.by_property("labels").contains_any(labels))
    return Filter.all_of(parts) if parts else None


def document_object(document: Document) -> DataObject[Any, Any]:
    """The object whose writing commits the version."""
    properties: dict[str, Any] = {
        "docId": document.id, "version": document.version, "sha256": document.sha256,
        "fingerprint": document.fingerprint, "contentType": document.content_type, "title": document.title,
        "metadata": json.dumps(dict(document.metadata), ensure_ascii=False), "source": document.source,
        "size": document.size, "characters": document.characters, "chunks": document.chunks,
        "created": document.created.isoformat(), "updated": document.updated.isoformat(),
        "order": order_key(document.id), "committed": now_ms(),
    }  # fmt: skip
    return DataObject(properties=properties, uuid=document_uuid(document.tenant, document.id))


def document_from(tenant: str, properties: Mapping[str, Any]) -> Document:
    """The description that was stored."""
    return Document(
        tenant=tenant, id=properties["docId"], version=properties["version"], sha256=properties["sha256"],
        fingerprint=properties["fingerprint"], content_type=properties["contentType"],
        title=properties["title"], metadata=json.loads(properties["metadata"]), source=properties.get("source"),
        size=int(properties["size"]), characters=int(properties["characters"]),
        chunks=int(properties["chunks"]), created=datetime.fromisoformat(properties["created"]),
        updated=datetime.fromisoformat(properties["updated"]),
    )  # fmt: skip


def text_object(write: DocumentWrite) -> DataObject[Any, Any]:
    """The stored text of one version."""
    document = write.document
    edition = edition_of(document.tenant, document.id, document.version)
    return DataObject(properties={"text": write.text, "written": now_ms()}, uuid=edition)


def chunk_objects(write: DocumentWrite) -> list[DataObject[Any, Any]]:
    """The passages of one version, each under an identifier of its own."""
    document = write.document
    edition = edition_of(document.tenant, document.id, document.version)
    common = {
        "document": str(document_uuid(document.tenant, document.id)), "edition": str(edition),
        "labels": [label(name, value) for name, value in document.metadata.items()], "written": now_ms(),
    }  # fmt: skip
    return [
        DataObject(
            properties={**common, **_passage(document.title, chunk)},
            uuid=uuid.uuid5(edition, str(chunk.ordinal)),
            vector=write.vectors[number].tolist(),
        )
        for number, chunk in enumerate(write.chunks)
    ]


def _passage(title: str, chunk: Chunk) -> dict[str, Any]:
    return {
        "ordinal": chunk.ordinal, "start": chunk.start, "end": chunk.end, "text": chunk.text,
        "heading": list(chunk.heading), "terms": " ".join(terms(index_text(title, chunk))),
    }  # fmt: skip


def chunk_from(properties: Mapping[str, Any]) -> Chunk:
    """The passage that was stored."""
    return Chunk(
        ordinal=int(properties["ordinal"]), start=int(properties["start"]), end=int(properties["end"]),
        text=properties["text"], heading=tuple(properties.get("heading") or ()),
    )  # fmt: skip
