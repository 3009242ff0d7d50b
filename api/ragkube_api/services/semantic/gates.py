"""The gates that a cached answer passes before it is proposed for another wording of its question. Pure.

In order: ``guards`` (text/guards.py), ``content`` (every word with a meaning has its match on the other side), ``score``
(a small forest over the alignment), ``evidence`` (retrieval agrees). What a gate does not understand, it refuses.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

from ragkube_api.domain import Passage
from ragkube_api.text.alignment import FEATURES, Aligner, Laid, TokenModel
from ragkube_api.text.content import surplus, unmatched
from ragkube_api.text.forest import Forest
from ragkube_api.text.guards import first_conflict
from ragkube_api.text.wording import wording

LEAST_SCORE: Final = 0.5
"""Of real pairs that the scorer finds more likely the same than not; chosen on the ``tune`` part of both benchmarks."""

_LAID: Final = 2_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which gates were passed, which one refused (None: none), and the scorer's probability if it was asked."""

    passed: tuple[str, ...]
    refused: str | None = None
    score: float | None = None


@lru_cache(maxsize=1)
def scorer() -> Forest:
    """The forest that ``hack/bench/semantic_fit.py`` trained; part of the package."""
    document = json.loads(files("ragkube_api.text").joinpath("paraphrase_forest.json").read_text())
    if tuple(document["features_in_order"]) != FEATURES:
        msg = "the scorer was trained on other features: run python -m bench.semantic_fit"
        raise ValueError(msg)
    return Forest.from_json(document)


class Gates:
    """Judges two wordings. Remembers how the last questions were laid out."""

    def __init__(self, model: TokenModel, *, least_score: float = LEAST_SCORE) -> None:
        self._aligner = Aligner(model)
        self._least = least_score
        self._laid: OrderedDict[str, Laid] = OrderedDict()

    def judge(self, asked: str, cached: str) -> Judgement:
        """By the wording alone; tens of microseconds when a guard refuses, about a millisecond when none does."""
        left, right = wording(asked), wording(cached)
        conflict = first_conflict(left, right)
        if conflict is not None:
            return Judgement((), conflict)
        if (
            unmatched(left, right)
            or unmatched(right, left)
            or (surplus(left, right) and surplus(right, left))
        ):
            return Judgement(("guards",), "content")
        score = self.score(asked, cached)
        if score < self._least:
            return Judgement(("guards", "content"), "score", score)
        return Judgement(("guards", "content", "score"), None, score)

    def score(self, asked: str, cached: str) -> float:
        """The probability that both ask the same, as the scorer sees it."""
        features = self._aligner.features(self._lay(asked), self._lay(cached))
        return scorer().probability(features)

    def _lay(self, question: str) -> Laid:
        laid = self._laid.get(question)
        if laid is None:
            laid = self._laid[question] = self._aligner.lay(wording(question))
            if len(self._laid) > _LAID:
                self._laid.popitem(last=False)
        else:
            self._laid.move_to_end(question)
        return laid


def evidence_agrees(
    passages: Sequence[Passage],
    *,
    citations: Collection[tuple[str, str, int]],
    documents: Sequence[tuple[str, str]],
    same_evidence: bool,
) -> bool:
    """Whether what is retrieved for the new question supports the cached answer.

    Every cited passage (document, version, chunk) is among them, and the best one is of the same version of the same
    document as the cached question's best. An answer that cites nothing needs the very same passages.
    """
    if same_evidence:
        return True
    if not (citations and documents and passages):
        return False
    found = {(passage.document, passage.version, passage.chunk.ordinal) for passage in passages}
    best = (passages[0].document, passages[0].version)
    return found.issuperset(citations) and best == documents[0]


def cited(contents: dict[str, Any]) -> tuple[set[tuple[str, str, int]], list[tuple[str, str]]]:
    """The passages that a response cites and the documents that it rests on, best first."""
    citations = {(c["document"], c["version"], c["chunk"]) for c in contents["citations"]}
    return citations, [(d["id"], d["version"]) for d in contents["cache"]["documents"]]
