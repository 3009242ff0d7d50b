"""Documents for the suites of stores: small, with vectors that say what is near what."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ragkube_api.domain import Chunk, Document, DocumentWrite, Metadata, SearchQuery, Vectors

DIMENSIONS = 256
_versions = itertools.count(1)


def vector(text: str) -> NDArray[np.float32]:
    """Bag of words: texts with common words are near."""
    total = np.full(DIMENSIONS, 1e-3, dtype=np.float32)
    for word in text.lower().split():
        total[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % DIMENSIONS] += 1
    unit: NDArray[np.float32] = total / np.linalg.norm(total)
    return unit


def vectors(texts: Sequence[str]) -> Vectors:
    return np.stack([vector(text) for text in texts]) if texts else np.zeros((0, DIMENSIONS), np.float32)


def document(
    document_id: str,
    passages: Sequence[str],
    *,
    tenant: str = "acme",
    title: str = "A title",
    metadata: Metadata | None = None,
    source: str | None = None,
    version: str | None = None,
) -> DocumentWrite:
    """One chunk a passage."""
    text = "\n\n".join(passages)
    chunks, start = [], 0
    for ordinal, passage in enumerate(passages):
        chunks.append(Chunk(ordinal, start, start + len(passage), passage, ("Top", f"Part {ordinal}")))
        start += len(passage) + 2
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    description = Document(
        tenant=tenant, id=document_id, version=version or f"v{next(_versions)}", sha256=sha256,
        fingerprint=f"f-{sha256}", content_type="text/plain", title=title, metadata=metadata or {}, source=source,
        size=len(text.encode()), characters=len(text), chunks=len(chunks), created=moment, updated=moment,
    )  # fmt: skip
    return DocumentWrite(description, text, chunks, vectors(list(passages)))


def query(
    text: str, *, k: int = 5, alpha: float = 0.5, filters: dict[str, object] | None = None
) -> SearchQuery:
    return SearchQuery(text, vector(text), k, alpha, filters or {})  # type: ignore[arg-type]
