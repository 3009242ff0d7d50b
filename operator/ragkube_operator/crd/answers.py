"""What ``spec.cache`` says about values: how long they live, how much a pod keeps, and paraphrases."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from ragkube_operator.crd.base import DURATION_PATTERN, ModelName, Part, Quantity, Url, seconds
from ragkube_operator.crd.rules import Rule

LONGEST_DAYS = 30
PERCENT_PATTERN = r"^[0-9]{1,3}(\.[0-9]{1,4})?%$"
WORD_PATTERN = r"^\S(.*\S)?$"

Ttl = Annotated[str, StringConstraints(pattern=DURATION_PATTERN, max_length=7)]
Percent = Annotated[str, StringConstraints(pattern=PERCENT_PATTERN, max_length=9)]
Word = Annotated[str, StringConstraints(pattern=WORD_PATTERN, min_length=1, max_length=64)]


def share(percent: str) -> float:
    """The number that a text like ``1%`` stands for."""
    return round(float(percent.removesuffix("%")) / 100, 8)


def bounded(wire: str, attribute: str, days: int = LONGEST_DAYS) -> Rule:
    """A duration of at most so many days."""
    value = f"self.{wire}"
    last = f"{value}.size() - 1"
    unit = "{'s': 1, 'm': 60, 'h': 3600, 'd': 86400}"
    return Rule(
        cel=f"!has({value}) || int({value}.substring(0, {last})) * {unit}[{value}.substring({last})] <= {days * 86_400}",
        message=f"{wire} may be at most {days}d",
        holds=lambda self: (
            getattr(self, attribute) is None or seconds(getattr(self, attribute)) <= days * 86_400
        ),
        field=wire,
    )


class TtlClass(Part):
    """A category of questions with a TTL of its own."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$", max_length=40)]
    """Name of the class; answers carry it, in their receipt and as the tag `class:NAME`."""
    ttl: Ttl
    """How long its answers are kept at most."""
    words: Annotated[
        list[Word], Field(min_length=1, max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"})
    ]
    """A question with one of these words or phrases belongs to it; upper and lower case are the same."""

    rules: ClassVar[tuple[Rule, ...]] = (
        bounded("ttl", "ttl"),
        Rule(
            cel="self.name != 'default'",
            message="default is the class of questions that fit no other (its TTL is answers.ttl): "
            "choose another name",
            holds=lambda self: self.name != "default",
            field="name",
        ),
    )


DEFAULT_CLASSES: list[dict[str, Any]] = [
    {
        "name": "live-state",
        "ttl": "5m",
        "words": [
            "right now", "currently", "at the moment", "at present", "as of now", "today", "tonight", "this week",
            "still running", "is running", "are running", "is down", "are down", "is up", "are up",
            "status of", "current status", "current state", "in progress", "available now", "how many pods",
            "how many replicas", "uptime",
        ],
    },
    {
        "name": "troubleshooting",
        "ttl": "1h",
        "words": [
            "error", "errors", "fail", "fails", "failed", "failing", "failure", "crash", "crashes", "crashed",
            "crashing", "crashloopbackoff", "oomkilled", "broken", "stuck", "hang", "hangs", "exception",
            "not work", "not working", "doesn't work", "don't work", "not start", "won't start", "doesn't start",
            "timeout", "timed out", "times out", "refused", "denied", "unable to", "cannot", "can't",
            "problem", "problems", "troubleshoot", "troubleshooting", "debug", "fix", "diagnose",
        ],
    },
    {
        "name": "configuration",
        "ttl": "12h",
        "words": [
            "configure", "configured", "configuration", "config", "setting", "settings", "set up", "setup",
            "how to set", "how do i set", "enable", "enabled", "disable", "disabled", "turn on", "turn off",
            "install", "upgrade", "option", "options", "parameter", "flag", "flags", "feature gate",
            "default value", "defaults to", "environment variable", "yaml", "quota", "limit", "limits", "port",
        ],
    },
    {
        "name": "documentation",
        "ttl": "24h",
        "words": [
            "what is", "what are", "what does", "what's", "explain", "describe", "define", "definition",
            "meaning of", "difference between", "overview", "introduction", "how does", "how do", "how is",
            "why does", "why do", "why is", "documentation", "tutorial", "example", "examples",
        ],
    },
]  # fmt: skip
"""Tried on the questions of XQuAD, CLAPnq and Quora: of general questions fewer than 1 in 100 are taken for live state."""


class AnswerCache(Part):
    """Cached answers. An answer is never served after a document it depends on has changed."""

    ttl: Ttl = "24h"
    """How long an answer is kept at most, like `24h` or `30m`, where no class fits its question."""
    classes: Annotated[
        list[TtlClass],
        Field(
            max_length=32,
            json_schema_extra={
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "default": DEFAULT_CLASSES,
            },
        ),
    ] = Field(default_factory=lambda: [TtlClass.model_validate(one) for one in DEFAULT_CLASSES])  # fmt: skip
    """Categories of questions with a TTL of their own; the first one that fits decides. `[]`: none."""
    stale_while_revalidate: Ttl | None = None
    """Serve an answer so long after its TTL while it is made anew in the background, never one whose documents have
    changed; absent: not at all."""

    rules: ClassVar[tuple[Rule, ...]] = (
        bounded("ttl", "ttl"),
        bounded("staleWhileRevalidate", "stale_while_revalidate", days=7),
    )


class LocalLevel(Part):
    """The level in the memory of each API pod, above Redis: what was used least recently goes first."""

    max_entries: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """Cached values of one pod; 0: no level in the pod, every hit asks Redis."""
    max_memory: Quantity = "64Mi"
    """Memory that they may take in one pod."""


class EmbeddingCache(Part):
    """Cached vectors of questions."""

    ttl: Ttl = "24h"
    """How long they are kept at most."""

    rules: ClassVar[tuple[Rule, ...]] = (bounded("ttl", "ttl"),)


class RetrievalCache(Part):
    """Cached results of searches, dropped as soon as a document of the tenant changes."""

    ttl: Ttl = "45m"
    """How long they are kept at most."""

    rules: ClassVar[tuple[Rule, ...]] = (bounded("ttl", "ttl"),)


class DocumentCache(Part):
    """Cached descriptions of documents, dropped as soon as a document of the tenant changes."""

    ttl: Ttl = "1h"
    """How long they are kept at most."""

    rules: ClassVar[tuple[Rule, ...]] = (bounded("ttl", "ttl"),)


class Verifier(Part):
    """Has the last word on a paraphrase: a cross-encoder by HTTP, or a language model."""

    url: Url | None = None
    """Address of a cross-encoder as Text Embeddings Inference serves it: asked at `/rerank`, or as `/predict` when it
    ends so."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Least score of a cross-encoder with which the cached answer is served."""
    model: ModelName | None = None
    """A model of the server in `spec.llm.anthropic`, instead of a cross-encoder: one short call for each paraphrase
    that passed all other gates."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.url) != has(self.model)",
            message="a verifier has either a url (a cross-encoder) or a model (of spec.llm.anthropic)",
            holds=lambda self: (self.url is None) != (self.model is None),
            field="url",
        ),
    )


class Semantic(Part):
    """Answer paraphrases from the cache, within a budget for errors."""

    max_error_rate: Percent = "1%"
    """Share of the paraphrase hits that may be wrong, like `1%`. A tenant that goes past it gets exact hits only
    until audits show that it is kept again."""
    audit_rate: Percent = "5%"
    """Share of the paraphrase hits that are answered again in the background to measure how many are wrong."""
    verifier: Verifier | None = None
    """Asked last; absent: the built-in gates decide."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="double(self.maxErrorRate.substring(0, self.maxErrorRate.size() - 1)) > 0.0",
            message="maxErrorRate must be above 0%: without a budget for errors remove semantic, "
            "then only the same question is answered from the cache",
            holds=lambda self: share(self.max_error_rate) > 0,
            field="maxErrorRate",
        ),
        Rule(
            cel="double(self.maxErrorRate.substring(0, self.maxErrorRate.size() - 1)) <= 20.0",
            message="maxErrorRate may be at most 20%",
            holds=lambda self: share(self.max_error_rate) <= 0.2,
            field="maxErrorRate",
        ),
        Rule(
            cel="double(self.auditRate.substring(0, self.auditRate.size() - 1)) > 0.0 && "
            "double(self.auditRate.substring(0, self.auditRate.size() - 1)) <= 100.0",
            message="auditRate must be above 0% and at most 100%: without audits nobody knows how many hits are wrong",
            holds=lambda self: 0 < share(self.audit_rate) <= 1,
            field="auditRate",
        ),
    )
