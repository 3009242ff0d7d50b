"""One ranking out of BM25 scores and vector similarities."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def normalise(scores: Mapping[Key, float], *, floor: float | None = None) -> dict[Key, float]:
    """To 0..1 by the lowest (or ``floor``) and the highest; equal scores all become 1."""
    if not scores:
        return {}
    low = min(scores.values()) if floor is None else floor
    span = max(scores.values()) - low
    if span <= 0:
        return dict.fromkeys(scores, 1.0)
    return {key: (score - low) / span for key, score in scores.items()}


def fuse(
    keywords: Mapping[Key, float], vectors: Mapping[Key, float], *, alpha: float, k: int
) -> list[tuple[Key, float]]:
    """The ``k`` best by ``alpha * vector + (1 - alpha) * keyword``, each brought to 0..1; best first.

    BM25 is normalised from 0, which is what a text without any of the words has; similarities from the lowest.
    What is missing on one side counts 0 there. Ties keep the order of the keys.
    """
    left = normalise(keywords, floor=0.0)
    right = normalise(vectors)
    fused = {key: alpha * right.get(key, 0.0) + (1 - alpha) * left.get(key, 0.0) for key in {**left, **right}}
    return sorted(fused.items(), key=lambda item: -item[1])[:k]
