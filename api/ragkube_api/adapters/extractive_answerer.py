"""Answers without a model: the sentences of the passages that fit the question best, quoted word for word."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ragkube_api.adapters.wordllama_model import StaticModel, load_model
from ragkube_api.domain import Citation, Generation, Passage, Usage
from ragkube_api.text.analysis import query_terms, terms
from ragkube_api.text.sentences import Sentence, sentences

UNKNOWN = "I don't know: the documents say nothing about it."
_REVISION = "extractive-2"

_LEAST_ECHO = 6
"""A sentence that holds a question of at least so many words asks it again and does not answer it."""
_MOST_COMPARED = 40
_MOST_QUOTED = 3
_CONTEXT_SHARE = 0.5
_NEXT_BEST = 0.8
_SAME = 0.9
_LEAST_CONFIDENCE = 0.34
"""Below it 1 % of XQuAD's questions lie, and 90 % of questions asked to documents about something else."""


@dataclass(slots=True)
class _Candidate:
    passage: Passage
    sentence: Sentence
    words: float
    """Weight of the question's terms that are in it, 0..1."""
    meaning: float = 0.0
    """Cosine with the question."""
    fit: float = 0.0
    """How well each token of the question finds its match in it, 0..1."""

    @property
    def score(self) -> float:
        """By which sentences are ranked."""
        return 0.5 * self.words + 0.5 * self.fit + 0.3 * self.passage.score

    @property
    def confidence(self) -> float:
        """How likely it is about the same thing, 0..1, comparable between questions."""
        return 0.2 * self.words + 0.5 * self.meaning + 0.3 * self.fit


class ExtractiveAnswerer:
    """An ``Answerer`` that calls no model. It compares with the static token vectors, whatever embedder is in
    use: the threshold below which it does not know is measured with them.
    """

    def __init__(self, model: StaticModel | None = None) -> None:
        self._model = model or load_model()

    @property
    def default_model(self) -> str | None:
        """There is none."""
        return None

    @property
    def allowed_models(self) -> frozenset[str]:
        """There are none."""
        return frozenset()

    @property
    def revision(self) -> str:
        """Changes with the method."""
        return _REVISION

    async def ping(self) -> None:
        """It can always serve."""

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        model: str | None,  # noqa: ARG002  the port's signature
        timeout_seconds: float,  # noqa: ARG002  it takes milliseconds
    ) -> Generation:
        """One to three quoted sentences, or that it does not know."""
        chosen = await asyncio.to_thread(self._quotes, question, passages) if passages else []
        text = " ".join(" ".join(candidate.sentence.text.split()) for candidate in chosen)
        return Generation(
            text=text or UNKNOWN,
            citations=[_citation(candidate) for candidate in chosen],
            answerer="extractive",
            model=None,
            usage=Usage(),
            cost_usd=0.0,
            complete=True,
        )

    def _quotes(self, question: str, passages: Sequence[Passage]) -> Sequence[_Candidate]:
        found = _candidates(query_terms(question), passages)
        candidates = [candidate for candidate in found if not _echoes(question, candidate)]
        candidates.sort(key=lambda c: -(c.words + c.passage.score))
        del candidates[_MOST_COMPARED:]
        if not candidates:
            return []
        self._compare(question, candidates)
        if max(candidate.confidence for candidate in candidates) < _LEAST_CONFIDENCE:
            return []
        return _chosen(sorted(candidates, key=lambda c: -c.score))

    def _compare(self, question: str, candidates: Sequence[_Candidate]) -> None:
        asked, *tokens = self._model.tokens([question, *(c.sentence.text for c in candidates)])
        fits = self._model.interaction(asked, tokens).tolist()
        direction = self._model.mean(asked)
        for candidate, own, fit in zip(candidates, tokens, fits, strict=True):
            candidate.meaning = max(0.0, float(self._model.mean(own) @ direction))
            candidate.fit = fit


def _echoes(question: str, candidate: _Candidate) -> bool:
    asked = _folded(question).rstrip("?!. ")
    return asked.count(" ") + 1 >= _LEAST_ECHO and asked in _folded(candidate.sentence.text)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _candidates(wanted: Sequence[str], passages: Sequence[Passage]) -> list[_Candidate]:
    found = [
        (passage, sentence, frozenset(terms(sentence.text)))
        for passage in passages
        for sentence in sentences(passage.chunk.text)
    ]
    weights = _weights(wanted, (words for _, _, words in found), len(found))
    around = {
        id(passage): frozenset(terms(" ".join((passage.title, *passage.chunk.heading))))
        for passage in passages
    }
    return [
        _Candidate(passage, sentence, _coverage(weights, words, around[id(passage)]))
        for passage, sentence, words in found
    ]


def _weights(wanted: Sequence[str], found: Iterable[frozenset[str]], count: int) -> dict[str, float]:
    """Rare terms tell more; the weights add up to 1."""
    frequency = Counter(term for words in found for term in words.intersection(wanted))
    raw = {term: math.log(1 + (count + 1) / (frequency[term] + 0.5)) for term in wanted}
    total = sum(raw.values()) or 1.0
    return {term: weight / total for term, weight in raw.items()}


def _coverage(weights: dict[str, float], words: frozenset[str], around: frozenset[str]) -> float:
    inside = sum(weight for term, weight in weights.items() if term in words)
    above = sum(weight for term, weight in weights.items() if term in around and term not in words)
    return inside + _CONTEXT_SHARE * above if inside else 0.0


def _chosen(ranked: Sequence[_Candidate]) -> list[_Candidate]:
    """The best, and what adds to it; in the order in which they stand when they are of one document."""
    chosen = [ranked[0]]
    for candidate in ranked[1:]:
        if len(chosen) == _MOST_QUOTED or candidate.score < _NEXT_BEST * ranked[0].score:
            break
        if not any(_repeats(candidate, other) for other in chosen):
            chosen.append(candidate)
    first = {(c.passage.document): index for index, c in reversed(list(enumerate(chosen)))}
    chosen.sort(key=lambda c: (first[c.passage.document], c.passage.chunk.start + c.sentence.start))
    return chosen


def _repeats(candidate: _Candidate, other: _Candidate) -> bool:
    mine, others = (set(terms(c.sentence.text)) for c in (candidate, other))
    return len(mine & others) >= _SAME * min(len(mine), len(others))


def _citation(candidate: _Candidate) -> Citation:
    passage, sentence = candidate.passage, candidate.sentence
    start = passage.chunk.start + sentence.start
    return Citation(
        document=passage.document,
        version=passage.version,
        chunk=passage.chunk.ordinal,
        start=start,
        end=start + len(sentence.text),
        quote=sentence.text,
        score=round(min(1.0, candidate.score / 1.3), 4),
    )
