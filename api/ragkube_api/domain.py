"""Value types of the data plane. Offsets are Unicode code points into a document's stored text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

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
class ModelCall:
    """One call of a language model, for the metrics."""

    model: str
    outcome: Literal["ok", "incomplete", "unavailable"]
    usage: Usage
    cost_usd: float
    seconds: float


Kind: TypeAlias = Literal["answer", "retrieval", "document"]
"""What is cached under a fence; embeddings depend on no document and need none."""


class Key(NamedTuple):
    """``digest``: 32 hexadecimal digits over everything the value depends on besides tenant and documents."""

    kind: Kind
    digest: str


class Fence(NamedTuple):
    """State of a tenant's documents as the cache saw it; opaque, compared for equality by the cache only."""

    token: str


class Cached(NamedTuple):
    """A stored value.

    ``current``: no document was written since its fence, so it may be served as it is. Otherwise only its evidence
    can tell: it is valid when the same passages would be retrieved now. ``fresh_seconds`` is negative when the TTL is
    over and the value is kept for stale-while-revalidate.
    """

    value: bytes
    level: Literal["l1", "redis"]
    current: bool
    age_seconds: float
    fresh_seconds: float


class Lookup(NamedTuple):
    """What a look-up found, and the fence under which a value computed from now on may be stored.

    ``fence`` is None when the shared level is away: then ``found`` is from this process and never ``current``.
    ``beside`` is what was asked for beside it, at the same moment, where ``found`` is not current. ``at`` is that moment
    by the shared level's own clock, in milliseconds; None where it was not asked.
    """

    fence: Fence | None
    found: Cached | None
    beside: Cached | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The TTL, and how much longer the value may be served while it is made anew."""

    fresh_seconds: float
    stale_seconds: float = 0


@dataclass(frozen=True, slots=True)
class About:
    """What operations know of an answer: entries are found by it, cleared by it, and asked again from it."""

    question: str
    request: bytes = b""
    """The request as canonical JSON (question, k, alpha, filters, model): enough to ask it again."""
    partition: str = ""
    """Digest of everything but the question: a paraphrase may only be answered from the same one."""
    ttl_class: str = "default"
    documents: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    mark: str = ""
    """Digest of the answer's text: a disowned one is not stored again."""


class Fill(NamedTuple):
    """A value that is to be stored."""

    key: Key
    value: bytes
    lifetime: Lifetime
    about: About | None = None

    @property
    def mark(self) -> str:
        """What it is known by when it was disowned; empty for what nobody can disown."""
        return self.about.mark if self.about else ""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which entries to drop: all conditions that are given must hold; none given means every entry."""

    kind: Kind | None = None
    tag: str | None = None
    document: str | None = None
    question: str | None = None
    """A shell pattern (``*``, ``?``) on the normalised question, case does not matter."""


@dataclass(frozen=True, slots=True)
class EntryNote:
    """One stored answer as operations and the semantic index see it."""

    key: Key
    about: About
    stored: float
    """Seconds since 1970, by the cache's clock."""


@dataclass(frozen=True, slots=True)
class LevelStatistics:
    """One kind in one level. ``bytes`` counts values only; ``evictions`` since the process began."""

    level: Literal["l1", "redis"]
    kind: str
    entries: int
    bytes: int | None = None
    evictions: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all replicas since ``since`` (seconds since 1970), of those that have ended too.

    They lack at most what ``replicas`` of them, those that were heard of lately, counted in the last ``age_seconds``.
    """

    since: float
    replicas: int
    age_seconds: float
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that no exact entry answers, and what a paraphrase's answer may be judged by.

    ``key`` and ``partition`` are the question's own. ``passages`` are what is retrieved for it now, ``evidence`` their
    digest as values carry it. ``generate`` makes the value of an answer of its own from them (it calls the model), or None
    when that can tell nothing.
    """

    tenant: str
    text: str
    key: Key
    partition: str
    passages: Sequence[Passage]
    evidence: bytes
    generate: Callable[[], Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True)
class Proposal:
    """The value of an answer to a paraphrase that passed every gate and may be served.

    ``age_seconds`` as of the value's ``Cached``; ``validated`` says why it is not stale.
    """

    value: bytes
    level: Literal["l1", "redis"]
    age_seconds: float
    similarity: float
    gates: tuple[str, ...]
    validated: Literal["fence", "evidence"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. ``tenant`` is None when the identity may choose it (``X-Ragkube-Tenant``)."""

    subject: str
    role: Literal["reader", "writer", "admin"]
    tenant: str | None = None
    tier: str | None = None
    """Rate limit; None: the default tier, and no limit where that has none."""


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
