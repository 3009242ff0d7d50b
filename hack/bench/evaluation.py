"""Measures of retrieval and of answers through the ports: the same figures for every store."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bench.datasets import Collection, Quoted, Text
from ragkube_api.domain import Document, DocumentWrite, Passage, SearchQuery
from ragkube_api.ports import Answerer, Embedder, VectorStore
from ragkube_api.services import evidence
from ragkube_api.text import chunking, parsing

_WRITERS = 16
_DEPTH = 30


@dataclass(frozen=True, slots=True)
class Bench:
    """A store with documents of one tenant, and how it is asked."""

    store: VectorStore
    embedder: Embedder
    tenant: str = "default"
    alpha: float = 0.5
    chunk_characters: int = 1000

    async def search(self, question: str, k: int) -> Sequence[Passage]:
        """The ``k`` best passages."""
        vector = await self.embedder.embed_query(question)
        return await self.store.search(self.tenant, SearchQuery(question, vector, k, self.alpha))


@dataclass(frozen=True, slots=True)
class Ingested:
    """How much was indexed, and how long it took, parsing to search."""

    documents: int
    chunks: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Hits:
    """Share of questions whose document, and whose quoted passage, is among the first."""

    document_1: float
    document_5: float
    passage_1: float
    passage_5: float


@dataclass(frozen=True, slots=True)
class Cited:
    """``wrong`` citations are those whose span, cut out of the stored text, is not the quote."""

    questions: int
    answered: int
    citations: int
    wrong: int
    with_answer: int


async def ingest(bench: Bench, texts: Sequence[Text]) -> Ingested:
    """Parse, cut, embed and store, as the service does."""
    started = time.perf_counter()
    limit = asyncio.Semaphore(_WRITERS)

    async def one(text: Text) -> int:
        async with limit:
            write = await _prepared(bench, text)
            await bench.store.put(write)
            return len(write.chunks)

    chunks = await asyncio.gather(*map(one, texts))
    return Ingested(len(texts), sum(chunks), time.perf_counter() - started)


async def _prepared(bench: Bench, text: Text) -> DocumentWrite:
    body = text.body.encode()
    extracted = await asyncio.to_thread(parsing.parse, body, text.content_type)
    title = text.title or extracted.title or text.id
    chunks = await asyncio.to_thread(
        chunking.split, extracted.text, content_type=text.content_type, max_characters=bench.chunk_characters
    )
    vectors = await bench.embedder.embed_documents([chunking.index_text(title, chunk) for chunk in chunks])
    digest = hashlib.sha256(body).hexdigest()
    now = datetime.now(UTC)
    document = Document(
        tenant=bench.tenant, id=text.id, version=digest[:16], sha256=digest, fingerprint=digest,
        content_type=text.content_type, title=title, metadata={}, source=None, size=len(body),
        characters=len(extracted.text), chunks=len(chunks), created=now, updated=now,
    )  # fmt: skip
    return DocumentWrite(document, extracted.text, chunks, vectors)


async def ndcg_at_10(bench: Bench, collection: Collection) -> float:
    """Mean over the questions that have a relevant document; a document ranks where its best passage does."""
    scores = []
    for judged in collection.questions:
        if judged.gains:
            passages = await bench.search(judged.question, _DEPTH)
            scores.append(_ndcg([passage.document for passage in passages], judged.gains))
    return sum(scores) / len(scores)


def _ndcg(ranked: Iterable[str], gains: Mapping[str, float]) -> float:
    def discounted(values: Iterable[float]) -> float:
        return sum(value / math.log2(rank + 2) for rank, value in enumerate(values))

    distinct = list(dict.fromkeys(ranked))[:10]
    ideal = sorted(gains.values(), reverse=True)[:10]
    return discounted(gains.get(document, 0.0) for document in distinct) / discounted(ideal)


Retrieve = Callable[[str, int], Awaitable[Sequence[Passage]]]


async def hits(retrieve: Retrieve, texts: Mapping[str, str], asked: Iterable[tuple[str, Quoted]]) -> Hits:
    """Document and passage hits; a passage hits when it holds at least half of the quote."""
    rows = []
    for question, quoted in asked:
        passages = await retrieve(question, 5)
        start = texts[quoted.document].index(quoted.quote)
        documents = [passage.document == quoted.document for passage in passages]
        cuts = [same and _holds(p, start, quoted.quote) for same, p in zip(documents, passages, strict=True)]
        rows.append((any(documents[:1]), any(documents), any(cuts[:1]), any(cuts)))
    return Hits(*(sum(column) / len(rows) for column in zip(*rows, strict=True)))


def _holds(passage: Passage, start: int, quote: str) -> bool:
    overlap = min(passage.chunk.end, start + len(quote)) - max(passage.chunk.start, start)
    return overlap * 2 >= len(quote)


def direct(questions: Iterable[Quoted]) -> list[tuple[str, Quoted]]:
    """Each question as it was written beside its passage."""
    return [(quoted.question, quoted) for quoted in questions]


def paraphrased(questions: Iterable[Quoted]) -> list[tuple[str, Quoted]]:
    """Each question in words that the passage does not use."""
    return [(paraphrase, quoted) for quoted in questions for paraphrase in quoted.paraphrases]


async def citations(
    bench: Bench, answerer: Answerer, questions: Iterable[tuple[str, Sequence[str]]], *, k: int = 5
) -> Cited:
    """Answer every question; check each citation; count the answers that contain one of those expected."""
    asked = answered = cited = wrong = right = 0
    stored: dict[str, str] = {}
    for question, answers in questions:
        passages = await bench.search(question, k)
        ranked = evidence.by_rank(passages)  # as the service hands them over
        generation = await answerer.answer(question, ranked, model=None, timeout_seconds=10)
        asked += 1
        answered += bool(generation.citations)
        right += any(_folded(answer) in _folded(generation.text) for answer in answers)
        for citation in generation.citations:
            if citation.document not in stored:
                found = await bench.store.text(bench.tenant, citation.document)
                stored[citation.document] = found[1] if found else ""
            cited += 1
            wrong += stored[citation.document][citation.start : citation.end] != citation.quote
    return Cited(asked, answered, cited, wrong, right)


def _folded(text: str) -> str:
    return " ".join(text.lower().split())
