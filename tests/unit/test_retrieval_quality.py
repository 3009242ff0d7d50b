"""Figures that must not get worse. They are deterministic: the same documents, questions and vectors every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import datasets, evaluation
from bench.evaluation import Bench
from ragkube_api.adapters.embedded_store import open_embedded_store
from ragkube_api.adapters.extractive_answerer import ExtractiveAnswerer
from ragkube_api.adapters.reranked_store import RerankedStore
from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder
from ragkube_api.settings import RetrievalSettings


@pytest.mark.proves("Q7")
@pytest.mark.proves("Q11")
async def test_xquad(test_data: Path, tmp_path: Path) -> None:
    """Paragraphs are found, every citation is exact, and most answers hold what the question asks for.

    Every third question is answered here, all of them by ``make bench``.
    """
    collection = datasets.xquad(test_data)
    embedder = WordllamaEmbedder.load()
    async with open_embedded_store(tmp_path, dimensions=256, embedder=embedder.name) as store:
        bench = Bench(RerankedStore(store), embedder, alpha=RetrievalSettings().alpha)
        await evaluation.ingest(bench, collection.texts)
        assert await evaluation.ndcg_at_10(bench, collection) >= 0.975
        questions = [(judged.question, judged.answers) for judged in collection.questions[::3]]
        cited = await evaluation.citations(bench, ExtractiveAnswerer(), questions)
        assert cited.wrong == 0
        assert cited.citations >= cited.answered >= 0.98 * len(questions)
        assert cited.with_answer >= 0.8 * len(questions)


@pytest.mark.proves("Q7")
async def test_cranfield(test_data: Path, tmp_path: Path) -> None:
    collection = datasets.cranfield(test_data)
    assert (len(collection.texts), len(collection.questions)) == (1398, 225)
    embedder = WordllamaEmbedder.load()
    async with open_embedded_store(tmp_path, dimensions=256, embedder=embedder.name) as store:
        bench = Bench(RerankedStore(store), embedder, alpha=RetrievalSettings().alpha)
        await evaluation.ingest(bench, collection.texts)
        assert await evaluation.ndcg_at_10(bench, collection) >= 0.385


@pytest.mark.proves("Q11")
async def test_questions_that_nothing_answers(test_data: Path, tmp_path: Path) -> None:
    """Asked to documents about something else, it says that it does not know."""
    collection = datasets.xquad(test_data)
    embedder = WordllamaEmbedder.load()
    async with open_embedded_store(tmp_path, dimensions=256, embedder=embedder.name) as store:
        bench = Bench(RerankedStore(store), embedder)
        await evaluation.ingest(bench, collection.texts)
        foreign = [(quoted.question, ()) for quoted in datasets.proposal_questions()]
        cited = await evaluation.citations(bench, ExtractiveAnswerer(), foreign)
        assert cited.answered <= 0.15 * len(foreign)
