"""Whether every word of one question that carries meaning is answered by a word of the other."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from ragkube_api.text.analysis import stem
from ragkube_api.text.guards import heavy
from ragkube_api.text.lexicon import synonyms
from ragkube_api.text.wording import Word, Wording

_NOMINAL = frozenset({"ion", "ation", "ment", "ance", "ly"})


def unmatched(side: Wording, other: Wording) -> list[Word]:
    """Words of ``side`` with a meaning that ``other`` does not have, in order."""
    return [word for word in side.words if heavy(word) and not _matched(word, other)]


def _matched(word: Word, other: Wording) -> bool:
    if other.has(word):
        return True
    return not word.strict and any(_same(word, candidate) for candidate in other.words)


def _same(word: Word, other: Word) -> bool:
    return synonyms(word.lemma, other.lemma) or derived(word.lemma, other.lemma)


def surplus(side: Wording, other: Wording) -> list[str]:
    """Words with a meaning that occur more often in ``side`` than what may stand for them does in ``other``."""
    counted = Counter(word.lemma for word in side.words if heavy(word))
    return [
        lemma
        for lemma, count in counted.items()
        if count > 1 and count > sum(_stands_for(lemma, word) for word in other.words)
    ]


def _stands_for(lemma: str, word: Word) -> bool:
    return word.lemma == lemma or synonyms(word.lemma, lemma) or derived(word.lemma, lemma)


@lru_cache(maxsize=16384)
def derived(left: str, right: str) -> bool:
    """``validate`` and ``validation``, ``deploy`` and ``deployment``: one word as verb and as noun."""
    short, long = sorted((left, right), key=len)
    if len(short) >= 5 and long.startswith(short) and long[len(short) :] in _NOMINAL:
        return True
    root = stem(left)
    return len(root) >= 4 and root == stem(right) and len(root) * 2 > len(long)
