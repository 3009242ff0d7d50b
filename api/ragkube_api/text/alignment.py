"""Two questions laid beside each other word by word, as numbers that a scorer can weigh. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ragkube_api.text.content import unmatched
from ragkube_api.text.wording import Word, Wording

FEATURES: Final = (
    "cosine", "interaction_low", "interaction_high", "residual_share", "residual_most", "grammar_words", "residual_cosine",
    "bigrams", "jaccard", "length", "length_difference", "last_differs", "inversions", "unmatched_low", "unmatched_high",
    "grammar_weight", "first_differs",
)  # fmt: skip
"""What ``features`` gives, in order; the forest is trained on exactly these."""

_CACHED_WORDS = 20_000


class TokenModel(Protocol):
    """Static token vectors; a vector's length is the token's weight, frequent tokens are short."""

    def tokens(self, texts: Sequence[str]) -> list[NDArray[np.uint16]]:
        """The tokens of each text."""

    def total(self, tokens: NDArray[np.uint16]) -> NDArray[np.float32]:
        """The sum of their vectors."""

    def interaction(
        self, question: NDArray[np.uint16], texts: Sequence[NDArray[np.uint16]]
    ) -> NDArray[np.float32]:
        """How well each text answers to the question's tokens, 0..1."""


@dataclass(frozen=True, slots=True)
class Laid:
    """A question ready to be compared: words with their vectors (unit rows) and weights, tokens, sum."""

    wording: Wording
    vectors: NDArray[np.float32]
    weights: NDArray[np.float32]
    tokens: NDArray[np.uint16]
    total: NDArray[np.float32]


class Aligner:
    """Lays questions out with one token model; remembers the vectors of words."""

    def __init__(self, model: TokenModel) -> None:
        self._model = model
        self._words: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def lay(self, wording: Wording) -> Laid:
        """What of a question does not depend on the other one."""
        (tokens,) = self._model.tokens([wording.text])
        total = self._model.total(tokens)
        raw = np.stack([self._vector(word.text) for word in wording.words] or [np.zeros_like(total)])
        weights = np.linalg.norm(raw, axis=1)
        vectors = raw / np.maximum(weights, 1e-9)[:, None]
        return Laid(wording, vectors, weights, tokens, total)

    def _vector(self, word: str) -> NDArray[np.float32]:
        known = self._words.get(word)
        if known is None:
            (tokens,) = self._model.tokens([word])
            known = self._words[word] = self._model.total(tokens)
            if len(self._words) > _CACHED_WORDS:
                self._words.popitem(last=False)
        return known

    def features(self, left: Laid, right: Laid) -> NDArray[np.float32]:
        """In the order of ``FEATURES``; it does not matter which question is left."""
        there, back = self._interactions(left, right)
        ours, theirs = _side(left, right), _side(right, left)
        a, b = left.wording, right.wording
        lost = sorted((ours.unmatched, theirs.unmatched))
        lengths = (len(a.words), len(b.words))
        return np.array(
            [
                _cosine(left.total, right.total), min(there, back), max(there, back),
                max(ours.share, theirs.share), max(ours.most, theirs.most), max(ours.grammar, theirs.grammar),
                _residual_cosine(ours.rest, theirs.rest), _bigrams(a, b),
                len(a.lemmas & b.lemmas) / max(1, len(a.lemmas | b.lemmas)), min(lengths), abs(lengths[0] - lengths[1]),
                _lemmas(a)[-1:] != _lemmas(b)[-1:], _inversions(a, b), lost[0], lost[1],
                max(ours.grammar_weight, theirs.grammar_weight), _lemmas(a)[:1] != _lemmas(b)[:1],
            ],
            dtype=np.float32,
        )  # fmt: skip

    def _interactions(self, left: Laid, right: Laid) -> tuple[float, float]:
        there = self._model.interaction(left.tokens, [right.tokens])[0]
        back = self._model.interaction(right.tokens, [left.tokens])[0]
        return float(there), float(back)


@dataclass(frozen=True, slots=True)
class _Side:
    """What one question has that the other has not."""

    share: float
    most: float
    grammar: int
    grammar_weight: float
    unmatched: int
    rest: NDArray[np.float32]


def _side(side: Laid, other: Laid) -> _Side:
    words = side.wording.words
    missing = [n for n, word in enumerate(words) if word.lemma not in other.wording.lemmas]
    content = [n for n in missing if words[n].content]
    grammar = [n for n in missing if not words[n].content]
    best = (side.vectors[content] @ other.vectors.T).max(axis=1, initial=0)
    residual = side.weights[content] * (1 - best)
    total = float(side.weights.sum()) or 1.0
    rest = side.weights[missing] @ side.vectors[missing]
    return _Side(
        share=float(residual.sum()) / total,
        most=float(residual.max(initial=0)),
        grammar=len(grammar),
        grammar_weight=float(side.weights[grammar].sum()),
        unmatched=len(unmatched(side.wording, other.wording)),
        rest=rest,
    )


def _cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    lengths = float(np.linalg.norm(left)) * float(np.linalg.norm(right))
    return float(left @ right) / lengths if lengths > 0 else 0.0


def _residual_cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Of what each has that the other has not: 1 when neither has anything, 0 when only one has."""
    ours, theirs = bool(left.any()), bool(right.any())
    return _cosine(left, right) if ours and theirs else float(ours == theirs)


def _lemmas(wording: Wording) -> list[str]:
    return [word.lemma for word in wording.words]


def _bigrams(left: Wording, right: Wording) -> float:
    ours, theirs = (set(zip(_lemmas(w), _lemmas(w)[1:], strict=False)) for w in (left, right))
    return len(ours & theirs) / max(1, min(len(ours), len(theirs)))


def _inversions(left: Wording, right: Wording) -> float:
    """Share of pairs of common words whose order differs."""
    places: dict[str, int] = {}
    for number, word in enumerate(right.words):
        places.setdefault(word.lemma, number)
    order = [places[lemma] for lemma in dict.fromkeys(_contents(left.words)) if lemma in places]
    pairs = [(a, b) for n, a in enumerate(order) for b in order[n + 1 :]]
    return sum(a > b for a, b in pairs) / max(1, len(pairs))


def _contents(words: Sequence[Word]) -> list[str]:
    return [word.lemma for word in words if word.content]
