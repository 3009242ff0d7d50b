"""Retrieval with the embedded default: quality, exactness of citations, time and memory.

python -m bench.retrieval [--split tune|report]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench import datasets, evaluation
from bench.baseline import Bm25
from bench.datasets import Quoted
from bench.evaluation import Bench, Hits
from ragkube_api.adapters.embedded_store import open_embedded_store
from ragkube_api.adapters.extractive_answerer import ExtractiveAnswerer
from ragkube_api.adapters.reranked_store import RerankedStore
from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder
from ragkube_api.settings import RetrievalSettings


async def opened(stack: AsyncExitStack, directory: Path, settings: RetrievalSettings) -> Bench:
    """The embedded default, as the service has it."""
    embedder = WordllamaEmbedder.load()
    store = await stack.enter_async_context(
        open_embedded_store(directory, dimensions=embedder.dimensions, embedder=embedder.name)
    )
    return Bench(
        RerankedStore(store), embedder, alpha=settings.alpha, chunk_characters=settings.chunk_characters
    )


def row(name: str, hits: Hits) -> str:
    """One line of the table."""
    values = (hits.document_1, hits.document_5, hits.passage_1, hits.passage_5)
    return f"  {name:<34}" + "".join(f"{value:>10.3f}" for value in values)


async def collections(bench_root: Path, settings: RetrievalSettings, data: Path) -> None:
    """nDCG@10 on public collections, and the citations of all XQuAD questions."""
    for collection, wanted in ((datasets.xquad(data), 0.97), (datasets.cranfield(data), 0.385)):
        async with AsyncExitStack() as stack:
            bench = await opened(stack, bench_root / collection.name, settings)
            await evaluation.ingest(bench, collection.texts)
            value = await evaluation.ndcg_at_10(bench, collection)
            print(f"{collection.name}: nDCG@10 {value:.4f} (wanted {wanted})", flush=True)
            if collection.name == "XQuAD":
                await citations(bench, [(judged.question, judged.answers) for judged in collection.questions])


async def citations(bench: Bench, questions: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Exactness of citations, and how often the extractive answer holds the expected one."""
    cited = await evaluation.citations(bench, ExtractiveAnswerer(), questions)
    print(
        f"  {cited.questions} questions: {cited.answered} answered, {cited.citations} citations,"
        f" {cited.wrong} wrong spans, expected answer quoted in {cited.with_answer / cited.questions:.3f}",
        flush=True,
    )


async def proposals(bench_root: Path, settings: RetrievalSettings, data: Path, split: str) -> None:
    """Ingestion, hits beside BM25, citations and latency on the proposals."""
    collection = datasets.proposals(data)
    questions = datasets.proposal_questions(split)
    async with AsyncExitStack() as stack:
        bench = await opened(stack, bench_root / "proposals", settings)
        done = await evaluation.ingest(bench, collection.texts)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"proposals: {done.documents} documents, {done.chunks} passages in {done.seconds:.1f} s, peak {peak:.0f} MB"
        )
        await latency(bench, [question for question, _ in evaluation.direct(questions)])
        baseline = Bm25(collection.texts)
        texts = {text.id: text.body for text in collection.texts}
        for label, chosen in ((f"split {split}", questions), ("all", datasets.proposal_questions())):
            await beside_bm25(label, chosen, bench, baseline, texts)
        await citations(bench, [(question, [q.quote]) for question, q in evaluation.direct(questions)])
    await reopening(bench_root / "proposals", settings)


async def beside_bm25(
    label: str, questions: Sequence[Quoted], bench: Bench, baseline: Bm25, texts: Mapping[str, str]
) -> None:
    """Hit rates of both on the same questions and on their paraphrases."""
    print(f"  {'hit rate, ' + label:<34}{'doc@1':>10}{'doc@5':>10}{'pass@1':>10}{'pass@5':>10}")
    kinds = {"questions": evaluation.direct(questions), "paraphrases": evaluation.paraphrased(questions)}
    for name, asked in kinds.items():
        print(row(f"{name}, BM25 alone", await evaluation.hits(baseline.search, texts, asked)), flush=True)
        print(row(f"{name}, ragkube", await evaluation.hits(bench.search, texts, asked)), flush=True)


async def latency(bench: Bench, questions: Sequence[str]) -> None:
    """Embedding, search and extractive answer of questions that no cache knows; one after the other.

    The CPU time is what is left of it on a machine that does nothing else.
    """
    answerer = ExtractiveAnswerer()
    times: dict[str, list[tuple[float, float]]] = {"search": [], "search and answer": []}
    for question in questions:
        wall, cpu = time.perf_counter(), time.process_time()
        passages = await bench.search(question, 5)
        times["search"].append((time.perf_counter() - wall, time.process_time() - cpu))
        await answerer.answer(question, passages, model=None, timeout_seconds=10)
        times["search and answer"].append((time.perf_counter() - wall, time.process_time() - cpu))
    for name, pairs in times.items():
        walls, cpus = ([value * 1000 for value in column] for column in zip(*pairs, strict=True))
        p95 = statistics.quantiles(walls, n=20)[-1]
        print(
            f"  {name}: p50 {statistics.median(walls):.1f} ms, p95 {p95:.1f} ms, CPU {statistics.median(cpus):.1f} ms"
        )


async def reopening(directory: Path, settings: RetrievalSettings) -> None:
    """From a closed store to the first answer."""
    started = time.perf_counter()
    async with AsyncExitStack() as stack:
        bench = await opened(stack, directory, settings)
        await bench.search("How do I resize a running pod?", 5)
        print(f"  reopening to the first result: {time.perf_counter() - started:.2f} s")


async def main(split: str) -> None:
    """Print everything."""
    data = datasets.data_directory()
    if not data.is_dir():
        sys.exit(f"no test data at {data}: set RAGKUBE_TEST_DATA")
    settings = RetrievalSettings()
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {settings!r}")
    with tempfile.TemporaryDirectory(prefix="ragkube-bench-") as directory:
        await proposals(Path(directory), settings, data, split)
        await collections(Path(directory), settings, data)


def run(split: str = "report") -> None:
    """The section ``retrieval`` of ``python -m bench``."""
    asyncio.run(main(split))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=["tune", "report"], default="report")
    run(parser.parse_args().split)
