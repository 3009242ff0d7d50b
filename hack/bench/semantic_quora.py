"""Real pairs of questions without documents: the gates of wording beside a cosine threshold with the same embedder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.semantic_pairs import Pair, quora
from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder
from ragkube_api.adapters.wordllama_model import load_model
from ragkube_api.services.semantic.gates import Gates, Judgement

RECALLS = (0.05, 0.10, 0.15)
REFUSED = -1.0


@dataclass(frozen=True, slots=True)
class Served:
    """At a threshold that serves this share of the pairs that are the same."""

    recall: float
    hits: int
    wrong: int

    @property
    def share(self) -> float:
        """Of the hits that are wrong."""
        return self.wrong / self.hits


@dataclass(frozen=True, slots=True)
class Rankings:
    """Labels, and for each stage what the pairs are ranked by; ``REFUSED`` is never served."""

    same: NDArray[np.bool_]
    stages: dict[str, NDArray[np.float64]]


def cosines(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """The plain threshold's score."""
    embedder = WordllamaEmbedder.load()
    left, right = (embedder.embed([getattr(pair, side) for pair in pairs]) for side in ("cached", "asked"))
    return np.asarray((left * right).sum(axis=1), dtype=np.float64)


def rankings(pairs: Sequence[Pair]) -> Rankings:
    """The plain threshold, and the gates one by one."""
    gates = Gates(load_model(), least_score=0)
    judged = [gates.judge(pair.asked, pair.cached) for pair in pairs]
    plain = cosines(pairs)

    def passed(gate: str) -> NDArray[np.bool_]:
        return np.array([gate in judgement.passed for judgement in judged])

    return Rankings(
        same=np.array([pair.same for pair in pairs]),
        stages={
            "cosine threshold alone": plain,
            "+ guards": np.where(passed("guards"), plain, REFUSED),
            "+ guards, content": np.where(passed("content"), plain, REFUSED),
            "+ guards, content, score": np.array([_score(judgement) for judgement in judged]),
        },
    )


def _score(judgement: Judgement) -> float:
    return REFUSED if judgement.refused is not None or judgement.score is None else judgement.score


def served(scores: NDArray[np.float64], same: NDArray[np.bool_], recall: float) -> Served | None:
    """The hits at the highest threshold that reaches the recall; None when none does."""
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(same[order])
    place = int(np.searchsorted(right, math.ceil(recall * same.sum())))
    if place >= len(scores) or scores[order[place]] == REFUSED:
        return None
    return Served(recall, place + 1, int(place + 1 - right[place]))


def report(data: Path, split: str) -> None:
    """Print the table."""
    pairs = [pair for pair in quora(data) if pair.split == split]
    ranked = rankings(pairs)
    print(
        f"Quora, split {split}: {len(pairs)} pairs, {int(ranked.same.sum())} the same; wrong hits of all hits"
    )
    print(f"  {'':<28}" + "".join(f"{f'{recall:.0%} recall':>22}" for recall in RECALLS))
    for name, scores in ranked.stages.items():
        cells = [served(scores, ranked.same, recall) for recall in RECALLS]
        print(f"  {name:<28}" + "".join(f"{_cell(cell):>22}" for cell in cells), flush=True)


def _cell(found: Served | None) -> str:
    return "not reached" if found is None else f"{found.wrong}/{found.hits} = {found.share:.1%}"
