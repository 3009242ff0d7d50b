"""Figures of the semantic cache that must not get worse; ``make bench`` prints all of them. Deterministic."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from bench import datasets, evaluation, semantic_pairs, semantic_proposals, semantic_quora
from bench.evaluation import Bench
from ragkube_api.adapters.embedded_store import open_embedded_store
from ragkube_api.adapters.reranked_store import RerankedStore
from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder


@pytest.mark.proves("C7")
def test_real_pairs_at_most_half_the_wrong_hits_of_a_cosine_threshold(test_data: Path) -> None:
    pairs = [pair for pair in semantic_pairs.quora(test_data) if pair.split == "report"]
    ranked = semantic_quora.rankings(pairs)
    *_, last = ranked.stages.values()
    for recall in semantic_quora.RECALLS:
        plain = semantic_quora.served(ranked.stages["cosine threshold alone"], ranked.same, recall)
        gated = semantic_quora.served(last, ranked.same, recall)
        assert plain is not None
        assert gated is not None
        assert gated.wrong <= plain.wrong / 2, recall


@pytest.mark.proves("C7")
async def test_own_pairs_with_documents(test_data: Path, tmp_path: Path) -> None:
    """On the proposals that the questions of the split are about; ``make bench`` has all 510."""
    pairs = [pair for pair in semantic_pairs.own() if pair.split == "report"]
    wanted = {q.document for q in datasets.proposal_questions("report")}
    texts = [text for text in datasets.proposals(test_data).texts if text.id in wanted]
    embedder = WordllamaEmbedder.load()
    async with open_embedded_store(tmp_path, dimensions=256, embedder=embedder.name) as store:
        bench = Bench(RerankedStore(store), embedder)
        await evaluation.ingest(bench, texts)
        results = await semantic_proposals.judged(bench, pairs)
    right = [one.served for one in results if one.pair.same]
    wrong = [one.served for one in results if not one.pair.same]
    assert len(right) >= 200
    assert len(wrong) >= 200
    assert sum(right) >= 0.4 * len(right)
    assert sum(wrong) <= 0.005 * len(wrong)


def test_the_set_keeps_its_rules() -> None:
    records = [json.loads(line) for line in semantic_pairs.OWN.read_text().splitlines()]
    base = {json.loads(line)["id"]: json.loads(line) for line in _base().read_text().splitlines()}
    assert sum(len(record["paraphrases"]) for record in records) >= 300
    assert sum(len(record["near_misses"]) for record in records) >= 300
    texts = [text for record in records for text in _texts(record)]
    assert len(texts) == len(set(texts))
    for record in records:
        assert record["question"] == base[record["id"]]["question"]
        tune = int(hashlib.sha256(record["id"].encode()).hexdigest(), 16) % 5 < 2
        assert record["split"] == ("tune" if tune else "report")


def _base() -> Path:
    return datasets.REPOSITORY / "tests" / "data" / "keps" / "questions.jsonl"


def _texts(record: dict[str, object]) -> list[str]:
    near = record["near_misses"]
    paraphrases = record["paraphrases"]
    assert isinstance(near, list)
    assert isinstance(paraphrases, list)
    return [str(record["question"]), *paraphrases, *(one["question"] for one in near)]
