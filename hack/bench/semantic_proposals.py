"""Our own paraphrases and near misses over the proposals, with documents: every gate counts."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import datasets, semantic_verifier
from bench.evaluation import Bench, ingest
from bench.retrieval import opened
from bench.semantic_pairs import Pair, free, own
from bench.semantic_quora import cosines
from ragkube_api.adapters.extractive_answerer import ExtractiveAnswerer
from ragkube_api.adapters.wordllama_model import load_model
from ragkube_api.domain import Passage
from ragkube_api.services import evidence
from ragkube_api.services.semantic.gates import Gates, Judgement, evidence_agrees
from ragkube_api.settings import RetrievalSettings

THRESHOLDS = (0.80, 0.90, 0.95)
_K = 5


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair, what the gates of wording say, and whether retrieval agrees."""

    pair: Pair
    cosine: float
    wording: Judgement
    evidence: bool

    @property
    def served(self) -> bool:
        """Through every built-in gate."""
        return self.wording.refused is None and self.evidence


class _Evidence:
    """Passages and citations of questions, each asked once."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._answerer = ExtractiveAnswerer()
        self._passages: dict[str, Sequence[Passage]] = {}
        self._citations: dict[str, set[tuple[str, str, int]]] = {}

    async def agrees(self, pair: Pair) -> bool:
        """As the service judges it."""
        asked, cached = await self._of(pair.asked), await self._of(pair.cached)
        return evidence_agrees(
            asked,
            citations=await self._cited(pair.cached),
            documents=evidence.documents(cached),
            same_evidence=evidence.digest(asked) == evidence.digest(cached),
        )

    async def _of(self, question: str) -> Sequence[Passage]:
        if question not in self._passages:
            self._passages[question] = evidence.by_rank(await self._bench.search(question, _K))
        return self._passages[question]

    async def _cited(self, question: str) -> set[tuple[str, str, int]]:
        if question not in self._citations:
            passages = await self._of(question)
            answer = await self._answerer.answer(question, passages, model=None, timeout_seconds=10)
            self._citations[question] = {(c.document, c.version, c.chunk) for c in answer.citations}
        return self._citations[question]


async def judged(bench: Bench, pairs: Sequence[Pair]) -> list[Judged]:
    """Every gate on every pair."""
    gates, found = Gates(load_model()), _Evidence(bench)
    near = cosines(pairs)
    return [
        Judged(pair, float(cosine), gates.judge(pair.asked, pair.cached), await found.agrees(pair))
        for pair, cosine in zip(pairs, near, strict=True)
    ]


async def report(data: Path, split: str) -> None:
    """Index the proposals and print the table."""
    with tempfile.TemporaryDirectory(prefix="ragkube-bench-") as directory:
        async with AsyncExitStack() as stack:
            bench = await opened(stack, Path(directory) / "proposals", RetrievalSettings())
            await ingest(bench, datasets.proposals(data).texts)
            results = await judged(bench, [pair for pair in own() if pair.split == split])
            _print(results, split)
            await _verified(results)
            loose = await judged(bench, [pair for pair in free() if pair.split == split])
            share = np.mean([one.served for one in loose])
            print(
                f"  paraphrases that avoid the question's words (tests/data/keps): {share:.1%} of {len(loose)} served"
            )


def _print(results: Sequence[Judged], split: str) -> None:
    same = [one for one in results if one.pair.same]
    other = [one for one in results if not one.pair.same]
    print(f"Proposals, split {split}: {len(same)} paraphrases, {len(other)} near misses; served")

    def line(name: str, serves: Callable[[Judged], bool]) -> None:
        right, wrong = sum(map(serves, same)), sum(map(serves, other))
        print(
            f"  {name:<34} paraphrases {right:>4} = {right / len(same):>6.1%}   near misses {wrong:>4} = {wrong / len(other):>6.2%}",
            flush=True,
        )

    for threshold in THRESHOLDS:
        line(f"cosine threshold {threshold:.2f} alone", lambda one, t=threshold: one.cosine >= t)  # type: ignore[misc]
    for gate in ("guards", "content", "score"):
        line(f"+ {gate}", lambda one, g=gate: g in one.wording.passed)  # type: ignore[misc]
    line("+ evidence: what is served", lambda one: one.served)
    refused = Counter(one.wording.refused for one in other if one.wording.refused)
    print(
        "  near misses refused by: " + ", ".join(f"{gate} {count}" for gate, count in refused.most_common())
    )
    wrong = Counter(one.pair.change for one in other if one.served)
    if wrong:
        print("  near misses served: " + ", ".join(f"{change} {count}" for change, count in wrong.items()))


async def _verified(results: Sequence[Judged]) -> None:
    """What a verifier adds: one that is never wrong, and a cross-encoder when there is one to ask."""
    best = sum(one.served for one in results if one.pair.same)
    print(f"  bound: a verifier that is never wrong    paraphrases {best:>4}             near misses    0")
    async with AsyncExitStack() as stack:
        found = await semantic_verifier.named(stack)
        if found is None:
            print(f"  + verifier: quality not measured ({semantic_verifier.HOW})")
            return
        name, verifier = found
        asked = [one for one in results if "guards" in one.wording.passed and one.evidence]
        same = [one for one in asked if await verifier.same(one.pair.asked, one.pair.cached)]
    for line, kept in (
        (f"+ {name}", [one for one in same if one.served]),
        ("guards + evidence without it", asked),
        ("guards + evidence + verifier", same),
    ):
        count = Counter(one.pair.same for one in kept)
        print(f"  {line:<34} paraphrases {count[True]:>4}             near misses {count[False]:>4}")
