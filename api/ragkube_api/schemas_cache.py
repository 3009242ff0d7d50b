"""Bodies of ``/v1/cache``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_WARM, MAX_PARALLEL = 1000, 32


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LevelBody(_Body):
    """One kind of value in one level; the level ``l1`` is that of the replica that answered."""

    level: Literal["l1", "redis"]
    kind: str
    entries: int
    bytes: int | None = Field(description="Of the values; null where the level does not know.")
    evictions: int | None = Field(description="Values that had to make room, since the replica began.")


class CountBody(_Body):
    """A counter, by its labels as in the metrics."""

    labels: dict[str, str]
    count: int


class ReplicaBody(_Body):
    """What the replica that answered counted since it began, over all tenants."""

    name: str
    hits: list[CountBody]
    misses: list[CountBody]
    errors: list[CountBody]


class DeploymentBody(_Body):
    """What all replicas counted, those that have ended too, over all tenants."""

    replicas: int = Field(description="Those that were heard of in the last 30 seconds.")
    since: datetime = Field(description="Nothing earlier is in the sums.")
    age_s: float = Field(description="The sums lack at most what a replica counted in so many seconds.")
    hits: list[CountBody]
    misses: list[CountBody]
    errors: list[CountBody]


class CacheStatisticsBody(_Body):
    """What is cached for the tenant, and how often the cache helped."""

    enabled: bool
    tenant: str
    levels: list[LevelBody]
    deployment: DeploymentBody
    replica: ReplicaBody


class CachedAnswerBody(_Body):
    """A cached answer: ``id`` is the beginning of the answer's id."""

    id: str
    question: str
    ttl_class: str
    tags: list[str]
    documents: list[str]
    request: dict[str, Any] = Field(description="The body of the query that it answers.")
    stored: datetime


class CachedAnswersBody(_Body):
    """One page, oldest first; pass ``next_cursor`` as ``cursor`` for the next, null on the last."""

    answers: list[CachedAnswerBody]
    next_cursor: str | None


class CachedAnswerDetailBody(_Body):
    """A cached answer as it would be served now."""

    id: str
    answer: str
    citations: list[dict[str, Any]]
    model: str | None
    ttl_class: str
    documents: list[dict[str, str]]
    saved: dict[str, float]
    age_s: float
    fresh_s: float = Field(description="What its TTL has left; negative when it is over.")
    current: bool = Field(
        description="No document was written since; otherwise its evidence is checked before it is served."
    )


class ClearedBody(_Body):
    """How many values the shared level had that are gone now."""

    removed: int


class AskedBody(_Body):
    """A request and how often it came; the least asked ones are forgotten."""

    request: dict[str, Any]
    count: int


class AskedListBody(_Body):
    """Most asked first."""

    questions: list[AskedBody]


class WarmRequest(BaseModel):
    """What to answer ahead of time: questions, or the most asked ones."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    questions: list[str | dict[str, Any]] = Field(
        default_factory=list, max_length=MAX_WARM,
        description="Questions, or bodies of `POST /v1/query`.",
    )  # fmt: skip
    most_asked: Annotated[int, Field(ge=1, le=MAX_WARM)] | None = Field(
        default=None, description="So many of the most asked questions."
    )
    concurrency: int = Field(default=4, ge=1, le=MAX_PARALLEL, description="How many are answered at a time.")


class WarmLine(_Body):
    """One line of the response: what became of one question, and how far it is."""

    done: int
    total: int
    question: str
    outcome: Literal["warmed", "cached", "uncacheable", "failed"]
    code: str | None
    detail: str | None
