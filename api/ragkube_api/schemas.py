"""The HTTP API's bodies. Requests are strict: a wrong type or an unknown field is refused by its name."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from ragkube_api.services.answer_keys import normalise
from ragkube_api.services.tags import AUTOMATIC, MAX_TAGS

QUESTION_MIN, QUESTION_MAX = 3, 1000
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
MAX_FILTERS, _MAX_ALTERNATIVES, MAX_FILTER_CHARACTERS = 16, 100, 1024

_SCALAR_SCHEMA = [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]
_FILTER_SCHEMA = {"anyOf": [*_SCALAR_SCHEMA, {"type": "array", "items": {"anyOf": _SCALAR_SCHEMA}}]}


def _question(text: str) -> str:
    text = normalise(text)
    if not QUESTION_MIN <= len(text) <= QUESTION_MAX:
        message = (
            "must have {least} to {most} characters, not counting white space around and repeated within it"
        )
        raise PydanticCustomError("question_length", message, {"least": QUESTION_MIN, "most": QUESTION_MAX})
    return text


def _filter(value: Any) -> Any:
    if isinstance(value, list):
        if not 1 <= len(value) <= _MAX_ALTERNATIVES:
            raise PydanticCustomError(
                "filter", "a list must have 1 to {most} values", {"most": _MAX_ALTERNATIVES}
            )
        return [_scalar(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> str | int | float | bool:
    if isinstance(value, str) and len(value) <= MAX_FILTER_CHARACTERS:
        return value
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    message = "must be a text of at most {most} characters, a number, true or false, or a list of these"
    raise PydanticCustomError("filter", message, {"most": MAX_FILTER_CHARACTERS})


def is_tag(text: str) -> bool:
    """Whether a client may set it."""
    return _TAG.fullmatch(text) is not None and not text.startswith(AUTOMATIC)


def _tag(text: str) -> str:
    if not _TAG.fullmatch(text):
        raise PydanticCustomError(
            "tag", "a tag has 1 to 64 letters, digits and . _ : / - and begins with a letter or digit"
        )
    if text.startswith(AUTOMATIC):
        raise PydanticCustomError("tag", "{names} are set by ragkube itself", {"names": ", ".join(AUTOMATIC)})
    return text


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Response(BaseModel):
    model_config = ConfigDict(extra="forbid")


class QueryRequest(_Request):
    """A question about the tenant's documents."""

    question: Annotated[
        str,
        AfterValidator(_question),
        WithJsonSchema({"type": "string", "minLength": QUESTION_MIN, "maxLength": QUESTION_MAX}),
    ] = Field(description="Unicode is normalised (NFC) and white space folded before anything else.")
    k: int | None = Field(
        default=None, ge=1, le=20, description="How many passages to use; without it as the deployment says."
    )
    alpha: float | None = Field(
        default=None, ge=0, le=1, allow_inf_nan=False,
        description="1 searches by meaning only, 0 by words only; without it as the deployment says.",
    )  # fmt: skip
    filters: dict[
        Annotated[str, Field(min_length=1, max_length=64)],
        Annotated[Any, BeforeValidator(_filter), WithJsonSchema(_FILTER_SCHEMA)],
    ] = Field(
        default_factory=dict, max_length=MAX_FILTERS,
        description="Only documents whose metadata has each of these; a list matches any of its values.",
    )  # fmt: skip
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="One of the models the deployment allows."
    )
    tags: Annotated[list[Annotated[str, AfterValidator(_tag)]], Field(max_length=MAX_TAGS)] = Field(
        default_factory=list,
        description="The cached answer can be cleared by them; they do not change what is answered.",
    )


class CitationBody(_Response):
    """``quote`` is the stored text from ``start`` to ``end``, counted in Unicode code points."""

    document: str
    version: str
    chunk: int
    start: int
    end: int
    quote: str
    score: float = Field(description="How well the passage ranks, 0 to 1; comparable within one answer.")


class RestsOnBody(_Response):
    """A document whose passages were used, in the version that was read."""

    id: str
    version: str


class SavedBody(_Response):
    """What this request did not spend: tokens and US dollars that the answer cost when it was generated."""

    input_tokens: int
    output_tokens: int
    cost_usd: float


class CacheBody(_Response):
    """The answer's receipt.

    `miss`: generated for this request, or for one that asked the same at the same moment (then `saved` says what
    that one paid). `stale`: past its TTL and served while it is made anew. `bypass`: the cache was not asked (by
    request, or switched off).
    """

    status: Literal["hit", "miss", "stale", "bypass"]
    level: Literal["l1", "redis"] | None = Field(
        description="Where it was found: in the process, or in Redis."
    )
    kind: Literal["exact", "semantic"] | None = Field(description="`semantic`: cached for a paraphrase.")
    age_s: float | None = Field(description="Seconds since it was generated.")
    similarity: float | None = Field(description="Of the paraphrase's embedding, 0 to 1.")
    validated: Literal["fence", "evidence"] | None = Field(
        description="Why it is not stale: no document was written since (`fence`), or the same passages are found now."
    )
    gates: list[str] = Field(description="What a paraphrase had to pass.")
    class_: str = Field(alias="class", description="The TTL class of the question.")
    documents: list[RestsOnBody] = Field(description="What the answer rests on.")
    saved: SavedBody


class UsageBody(_Response):
    """Tokens of this request: none when the answer came from the cache or no model was called."""

    input_tokens: int
    output_tokens: int


class QueryResponse(_Response):
    """An answer with the passages it rests on."""

    id: str = Field(description="Of the answer: the same for each request that gets it from the cache.")
    answer: str
    answerer: Literal["extractive", "llm"]
    citations: list[CitationBody]
    cache: CacheBody
    model: str | None
    usage: UsageBody
    cost_usd: float
    latency_ms: float
    trace_id: str
    degraded: list[str] = Field(description="What was missing: cache-, embedder- or llm-unavailable.")


class DocumentBody(_Response):
    """What is known of a stored document."""

    id: str
    version: str
    sha256: str
    chunks: int
    title: str
    content_type: str
    size: int
    characters: int
    metadata: dict[str, Any]
    source: str | None
    created: datetime
    updated: datetime


class StoredBody(DocumentBody):
    """A document after a write; ``unchanged`` when there was nothing to do."""

    unchanged: bool


class DocumentListBody(_Response):
    """One page; pass ``next_cursor`` as ``cursor`` for the next, null on the last."""

    documents: list[DocumentBody]
    next_cursor: str | None


class FieldBody(_Response):
    """A wrong field and what to change."""

    field: str
    message: str


class ProblemBody(BaseModel):
    """Every error, as ``application/problem+json`` (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldBody]
    trace_id: str


class UploadResultBody(_Response):
    """One file of a multipart upload: ``document`` when it is stored, ``error`` when not."""

    id: str | None
    status: int
    document: StoredBody | None
    error: ProblemBody | None


class UploadBody(_Response):
    """All files, in the order they came."""

    results: list[UploadResultBody]
    stored: int
    unchanged: int
    failed: int


class SourceFailureBody(_Response):
    """A file that is not in the index."""

    path: str
    code: str
    detail: str


class SourceBody(_Response):
    """Progress of one configured source."""

    name: str
    state: Literal["pending", "syncing", "synced", "failed"]
    total: int
    done: int
    indexed: int
    unchanged: int
    deleted: int
    failures: list[SourceFailureBody]
    detail: str | None


class SourcesBody(_Response):
    """All configured sources."""

    sources: list[SourceBody]


class DependencyBody(_Response):
    """One part and, when it is down, why."""

    up: bool
    required: bool
    detail: str | None


class ReadyBody(_Response):
    """Whether the process serves."""

    status: Literal["ready", "not-ready", "draining"]
    dependencies: dict[str, DependencyBody]


class AliveBody(_Response):
    """The process runs."""

    status: Literal["alive"]
