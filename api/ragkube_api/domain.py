"""Value types of the data plane. Offsets are Unicode code points into a document's stored text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Scalar: TypeAlias = str | int | float | bool
Metadata: TypeAlias = Mapping[str, Scalar]
Filters: TypeAlias = Mapping[str, Scalar | Sequence[Scalar]]
"""Every key must match the document's metadata; a list matches any of its values."""
Vectors: TypeAlias = NDArray[np.float32]
"""Shape (n, dimensions), rows of unit length."""


@dataclass(frozen=True, slots=True)
class ExtractedText:
    """What a parser makes of a file: the text that is stored, cited and cut, and its title (or None)."""

    text: str
    title: str | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: ``text == stored_text[start:end]``; ``heading`` is the path of headings above it."""

    ordinal: int
    start: int
    end: int
    text: str
    heading: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """What is known of a stored document. ``version`` is opaque, new with every write that changes it.

    ``fingerprint`` covers the content, its type, the metadata and the indexing settings: an equal one means
    that nothing has to be done. ``sha256`` covers the uploaded bytes.
    """

    tenant: str
    id: str
    version: str
    sha256: str
    fingerprint: str
    content_type: str
    title: str
    metadata: Metadata
    source: str | None
    size: int
    characters: int
    chunks: int
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class DocumentWrite:
    """One document with everything that is indexed of it; ``vectors[i]`` belongs to ``chunks[i]``."""

    document: Document
    text: str
    chunks: Sequence[Chunk]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """One page of a listing; ``next_cursor`` is None on the last."""

    documents: Sequence[Document]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """``alpha`` weighs vectors (1) against BM25 (0); both scores are min-max normalised before they are fused."""

    text: str
    vector: NDArray[np.float32]
    k: int
    alpha: float
    filters: Filters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved chunk. ``score`` is the fused one, 0..1."""

    document: str
    version: str
    title: str
    chunk: Chunk
    score: float


@dataclass(frozen=True, slots=True)
class Citation:
    """``quote == stored_text[start:end]`` of that document's version."""

    document: str
    version: str
    chunk: int
    start: int
    end: int
    quote: str
    score: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer. Only a ``complete`` one may be cached; ``model`` is None when no model was called."""

    text: str
    citations: Sequence[Citation]
    answerer: Literal["extractive", "llm"]
    model: str | None
    usage: Usage
    cost_usd: float
    complete: bool


@dataclass(frozen=True, slots=True)
class Fence:
    """State of a tenant's documents as the cache saw it; opaque, compared for equality by the cache only."""

    token: str


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A valid entry: the stored bytes and their age."""

    value: bytes
    age_seconds: float


@dataclass(frozen=True, slots=True)
class CacheLookup:
    """What a lookup found, and the fence under which a fill for it may be stored."""

    fence: Fence
    answer: CachedAnswer | None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. ``tenant`` is None when the identity may choose it (``X-Ragkube-Tenant``)."""

    subject: str
    role: Literal["reader", "writer", "admin"]
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """Progress of one source; ``failures`` maps a path to an error code and a sentence."""

    name: str
    state: Literal["pending", "syncing", "synced", "failed"]
    total: int = 0
    done: int = 0
    indexed: int = 0
    unchanged: int = 0
    deleted: int = 0
    failures: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    detail: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain types, as the HTTP API shows them."""
        failures = [{"path": p, "code": c, "detail": d} for p, (c, d) in sorted(self.failures.items())]
        return {
            "name": self.name, "state": self.state, "total": self.total, "done": self.done,
            "indexed": self.indexed, "unchanged": self.unchanged, "deleted": self.deleted,
            "failures": failures, "detail": self.detail,
        }  # fmt: skip
