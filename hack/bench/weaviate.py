"""Retrieval through Weaviate: quality, exactness of citations, time of ingestion and of a search.

python -m bench.weaviate [--collections xquad cranfield proposals]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from bench import datasets, evaluation
from bench.evaluation import Bench
from bench.retrieval import citations, latency, row
from ragkube_api.adapters.reranked_store import RerankedStore
from ragkube_api.adapters.weaviate_store import open_weaviate_store
from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder
from ragkube_api.settings import RetrievalSettings

sys.path.insert(0, str(datasets.REPOSITORY / "tests"))

from support.weaviate import WeaviateServer, start_weaviate

NAMES = ("proposals", "xquad", "cranfield")


async def _opened(stack: AsyncExitStack, server: WeaviateServer, prefix: str) -> Bench:
    settings = RetrievalSettings()
    embedder = WordllamaEmbedder.load()
    store = await stack.enter_async_context(
        open_weaviate_store(server.settings(prefix=prefix), dimensions=embedder.dimensions)
    )
    await store.ping()
    return Bench(
        RerankedStore(store), embedder, alpha=settings.alpha, chunk_characters=settings.chunk_characters
    )


async def _collection(server: WeaviateServer, name: str, data: Path) -> None:
    collection, wanted = {
        "xquad": (datasets.xquad, 0.96),
        "cranfield": (datasets.cranfield, 0.37),
    }[name]
    loaded = collection(data)
    async with AsyncExitStack() as stack:
        bench = await _opened(stack, server, name.capitalize())
        texts = [text for text in loaded.texts if text.body]  # Cranfield has an abstract without text
        done = await evaluation.ingest(bench, texts)
        value = await evaluation.ndcg_at_10(bench, loaded)
        print(
            f"{loaded.name} in Weaviate: nDCG@10 {value:.4f} (wanted {wanted});"
            f" {done.chunks} passages in {done.seconds:.1f} s",
            flush=True,
        )


async def _proposals(server: WeaviateServer, data: Path) -> None:
    collection = datasets.proposals(data)
    questions = datasets.proposal_questions("report")
    texts = {text.id: text.body for text in collection.texts}
    async with AsyncExitStack() as stack:
        bench = await _opened(stack, server, "Proposals")
        done = await evaluation.ingest(bench, collection.texts)
        print(
            f"proposals in Weaviate: {done.documents} documents, {done.chunks} passages in {done.seconds:.1f} s"
            " (wanted < 180)",
            flush=True,
        )
        for name, asked in (
            ("questions", evaluation.direct(questions)),
            ("paraphrases", evaluation.paraphrased(questions)),
        ):
            print(row(name, await evaluation.hits(bench.search, texts, asked)), flush=True)
        await citations(bench, [(question, [q.quote]) for question, q in evaluation.direct(questions)])
        await latency(bench, [question for question, _ in evaluation.direct(questions)])


async def main(names: list[str]) -> None:
    """Print everything."""
    data = datasets.data_directory()
    if not data.is_dir():
        sys.exit(f"no test data at {data}: set RAGKUBE_TEST_DATA")
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="ragkube-bench-") as directory:
        server = start_weaviate(Path(directory))
        try:
            for name in names:
                await (_proposals(server, data) if name == "proposals" else _collection(server, name, data))
        finally:
            server.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", choices=NAMES, default=list(NAMES))
    asyncio.run(main(parser.parse_args().collections))
