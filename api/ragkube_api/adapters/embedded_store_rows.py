"""The embedded store's SQL: documents in and out of rows. Every function works in the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkube_api.adapters.embedded_store_words import table_of
from ragkube_api.domain import Chunk, Document, DocumentWrite, Filters, Scalar, Vectors
from ragkube_api.text.analysis import terms
from ragkube_api.text.chunking import index_text

_COLUMNS = "id, version, sha256, fingerprint, content_type, title, metadata, source, size, characters, chunks, created, updated"


def tenant_id(connection: sqlite3.Connection, tenant: str) -> int | None:
    """The tenant's number, None when it has never had a document."""
    row = connection.execute("SELECT id FROM tenants WHERE name = ?", (tenant,)).fetchone()
    return int(row[0]) if row else None


def create_tenant(connection: sqlite3.Connection, tenant: str) -> int:
    """The tenant's number; its own full-text table, so that no other tenant's words weigh in its scores."""
    if (known := tenant_id(connection, tenant)) is not None:
        return known
    number = int(connection.execute("INSERT INTO tenants (name) VALUES (?)", (tenant,)).lastrowid or 0)
    # terms are folded and stemmed already: 'ascii' leaves them whole
    connection.execute(f"CREATE VIRTUAL TABLE {table_of(number)} USING fts5(terms, tokenize = 'ascii')")
    return number


def document_key(connection: sqlite3.Connection, tenant: int, document_id: str) -> int | None:
    """The number of a document's current version."""
    row = connection.execute(
        "SELECT key FROM documents WHERE tenant = ? AND id = ?", (tenant, document_id)
    ).fetchone()
    return int(row[0]) if row else None


def insert(
    connection: sqlite3.Connection, tenant: int, write: DocumentWrite, embedder: str
) -> tuple[int, NDArray[np.int64]]:
    """Write a document's rows; gives its number and those of its chunks."""
    d = write.document
    vectors = np.ascontiguousarray(write.vectors, dtype=np.float32)
    metadata = json.dumps(dict(d.metadata), ensure_ascii=False)
    cursor = connection.execute(
        f"INSERT INTO documents (tenant, {_COLUMNS}, embedder, dimensions, text, vectors)"  # noqa: S608  constants
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            tenant, d.id, d.version, d.sha256, d.fingerprint, d.content_type, d.title, metadata, d.source, d.size,
            d.characters, d.chunks, d.created.isoformat(), d.updated.isoformat(), embedder, vectors.shape[1],
            zlib.compress(write.text.encode(), 1), vectors.tobytes(),
        ),
    )  # fmt: skip
    key = int(cursor.lastrowid or 0)
    connection.executemany(
        "INSERT INTO attributes (document, name, value) VALUES (?, ?, ?)",
        [(key, name, canonical(value)) for name, value in d.metadata.items()],
    )
    return key, _insert_chunks(connection, tenant, key, d.title, write.chunks)


def _insert_chunks(
    connection: sqlite3.Connection, tenant: int, key: int, title: str, chunks: Sequence[Chunk]
) -> NDArray[np.int64]:
    first = int(connection.execute("SELECT coalesce(max(id), 0) + 1 FROM chunks").fetchone()[0])
    seen = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
    first = max(first, int(seen[0]) + 1 if seen else 1)
    numbers = range(first, first + len(chunks))
    connection.executemany(
        "INSERT INTO chunks (id, document, ordinal, start, stop, heading, text) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (number, key, c.ordinal, c.start, c.end, json.dumps(c.heading, ensure_ascii=False), c.text)
            for number, c in zip(numbers, chunks, strict=True)
        ],
    )
    connection.executemany(
        f"INSERT INTO {table_of(tenant)} (rowid, terms) VALUES (?, ?)",  # noqa: S608  a number
        [(n, " ".join(terms(index_text(title, c)))) for n, c in zip(numbers, chunks, strict=True)],
    )
    return np.array(numbers, dtype=np.int64)


def delete(connection: sqlite3.Connection, tenant: int, key: int) -> None:
    """Take a document's rows out."""
    connection.execute(
        f"DELETE FROM {table_of(tenant)} WHERE rowid IN (SELECT id FROM chunks WHERE document = ?)",  # noqa: S608
        (key,),
    )
    connection.execute("DELETE FROM chunks WHERE document = ?", (key,))
    connection.execute("DELETE FROM attributes WHERE document = ?", (key,))
    connection.execute("DELETE FROM documents WHERE key = ?", (key,))


def select(connection: sqlite3.Connection, tenant: str, document_id: str) -> Document | None:
    """A document's description."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM documents"  # noqa: S608  constants
        " WHERE tenant = (SELECT id FROM tenants WHERE name = ?) AND id = ?",
        (tenant, document_id),
    ).fetchone()
    return _document(tenant, row) if row else None


def select_text(connection: sqlite3.Connection, tenant: str, document_id: str) -> tuple[Document, str] | None:
    """A document with its stored text."""
    row = connection.execute(
        f"SELECT {_COLUMNS}, text FROM documents"  # noqa: S608  constants
        " WHERE tenant = (SELECT id FROM tenants WHERE name = ?) AND id = ?",
        (tenant, document_id),
    ).fetchone()
    return (_document(tenant, row[:-1]), zlib.decompress(row[-1]).decode()) if row else None


def page(
    connection: sqlite3.Connection, tenant: str, *, after: str, limit: int, source: str | None
) -> list[Document]:
    """Documents in the order of their ids, those behind ``after``."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM documents"  # noqa: S608  constants
        " WHERE tenant = (SELECT id FROM tenants WHERE name = ?1) AND id > ?2"
        " AND (?3 IS NULL OR source = ?3) ORDER BY id LIMIT ?4",
        (tenant, after, source, limit),
    )
    return [_document(tenant, row) for row in rows]


def count(connection: sqlite3.Connection, tenant: str) -> int:
    """How many documents a tenant has."""
    sql = "SELECT count(*) FROM documents WHERE tenant = (SELECT id FROM tenants WHERE name = ?)"
    return int(connection.execute(sql, (tenant,)).fetchone()[0])


def _document(tenant: str, row: Sequence[Any]) -> Document:
    values = list(row)
    values[6] = json.loads(values[6])
    values[11], values[12] = datetime.fromisoformat(values[11]), datetime.fromisoformat(values[12])
    return Document(tenant, *values)


def canonical(value: Scalar) -> str:
    """One spelling for equal values: 1 and 1.0 are equal, 1, true and "1" are not."""
    if isinstance(value, bool):
        return f"b:{value}"
    if isinstance(value, str):
        return f"s:{value}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"n:{value!r}"


def matching(connection: sqlite3.Connection, tenant: int, filters: Filters) -> NDArray[np.int64]:
    """Numbers of the documents whose metadata match every filter."""
    clauses: list[str] = []
    values: list[str | int] = [tenant]
    for name, wanted in filters.items():
        options = [wanted] if isinstance(wanted, str | int | float) else list(wanted)
        marks = ", ".join("?" * len(options))
        clauses.append(f" AND key IN (SELECT document FROM attributes WHERE name = ? AND value IN ({marks}))")  # noqa: S608  marks
        values += [name, *map(canonical, options)]
    sql = "".join(["SELECT key FROM documents WHERE tenant = ?", *clauses])
    rows = connection.execute(sql, values)
    return np.fromiter((row[0] for row in rows), dtype=np.int64)


def passages(
    connection: sqlite3.Connection, chunks: Iterable[int]
) -> Mapping[int, tuple[str, str, str, Chunk]]:
    """Document, version, title and chunk by the chunk's number."""
    rows = connection.execute(
        "SELECT c.id, d.id, d.version, d.title, c.ordinal, c.start, c.stop, c.text, c.heading"
        " FROM chunks c JOIN documents d ON d.key = c.document WHERE c.id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(chunks)),),
    )
    return {
        number: (document, version, title, Chunk(ordinal, start, stop, text, tuple(json.loads(heading))))
        for number, document, version, title, ordinal, start, stop, text, heading in rows
    }


def stored_vectors(
    connection: sqlite3.Connection, embedder: str, dimensions: int
) -> Iterable[tuple[str, int, NDArray[np.int64], Vectors]]:
    """Tenant, document, chunks and vectors of all documents that this embedder has embedded."""
    numbers: dict[int, list[int]] = {}
    for document, chunk in connection.execute("SELECT document, id FROM chunks ORDER BY document, ordinal"):
        numbers.setdefault(document, []).append(chunk)
    rows = connection.execute(
        "SELECT t.name, d.key, d.vectors FROM documents d JOIN tenants t ON t.id = d.tenant"
        " WHERE d.embedder = ? AND d.dimensions = ? ORDER BY d.key",
        (embedder, dimensions),
    )
    for tenant, key, blob in rows:
        vectors = np.frombuffer(blob, dtype=np.float32).reshape(-1, dimensions)
        yield tenant, key, np.array(numbers.get(key, []), dtype=np.int64), vectors


def count_of_other_embedders(connection: sqlite3.Connection, embedder: str, dimensions: int) -> int:
    """How many documents have vectors that this embedder cannot search."""
    sql = "SELECT count(*) FROM documents WHERE chunks > 0 AND (embedder <> ? OR dimensions <> ?)"
    return int(connection.execute(sql, (embedder, dimensions)).fetchone()[0])
