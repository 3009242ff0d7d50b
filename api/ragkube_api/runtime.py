"""Composition root: settings in, a running application out. Adapters are imported only when they are used."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import NamedTuple, assert_never

from ragkube_api import settings as s
from ragkube_api.auth import Authenticator, authenticator
from ragkube_api.context import Backends, Runtime
from ragkube_api.ports import (
    Answerer,
    AuditBook,
    CountBoard,
    Embedder,
    FencedCache,
    Flights,
    Proposals,
    SourceBoard,
    ValueCache,
    VectorStore,
    Verifier,
)
from ragkube_api.services import ttl_classes
from ragkube_api.services.answering import Answering
from ragkube_api.services.asked import AskedQuestions
from ragkube_api.services.cache_operations import CacheOperations
from ragkube_api.services.document_cards import DocumentCards
from ragkube_api.services.embeddings import QuestionVectors
from ragkube_api.services.health import Dependency, Health
from ragkube_api.services.ingestion import Ingestion
from ragkube_api.services.limits import Limiter, Reservations
from ragkube_api.services.making import CachePolicy, Maker
from ragkube_api.services.retrieval import Retrieval
from ragkube_api.services.semantic.budget import ErrorBudget
from ragkube_api.services.semantic.gates import Gates
from ragkube_api.services.semantic.index import QuestionIndex
from ragkube_api.services.semantic.proposer import Proposer
from ragkube_api.services.sources import SourceSync
from ragkube_api.services.totals import DeploymentCounts
from ragkube_api.services.writing import Writer
from ragkube_api.telemetry import Telemetry

__all__ = ["Backends", "Runtime", "assemble", "build"]

_PARSER_THREADS = 2
# What the process keeps of embedded questions: a cached answer needs none of it.
_VECTORS, _VECTOR_BYTES = 1_000, 2 * 1024 * 1024
# Raise it when passages are ranked in another way: answers in a shared cache outlive this process.
_RANKING = "reranked-2"


async def build(settings: s.Settings, stack: AsyncExitStack) -> Runtime:
    """Open everything the settings name; the stack closes it in reverse order.

    Raises:
        StartupError: something local cannot be used (a locked or read-only directory).
    """
    embedder = await _embedder(settings.embedding, stack)
    store = _reranked(await _store(settings.store, embedder, stack), stack)
    telemetry = Telemetry()
    caches = await _caches(settings, telemetry, stack)
    answerer, fallback = await _answerers(settings.llm, stack)
    verifier = await _verifier(settings, telemetry, stack)
    backends = Backends(store, embedder, answerer, fallback, *caches, verifier, telemetry=telemetry)
    return assemble(settings, backends, stack)


def assemble(settings: s.Settings, backends: Backends, stack: AsyncExitStack) -> Runtime:
    """Build the services over adapters that are open."""
    telemetry = backends.telemetry
    auth = authenticator(settings, telemetry)
    ingestion = _ingestion(settings, backends, telemetry, stack)
    answering = _answering(settings, backends, ingestion.text_revision, telemetry, stack)
    sources = SourceSync(
        settings.documents.sources, store=backends.store, ingestion=ingestion, board=backends.board,
        telemetry=telemetry,
    )  # fmt: skip
    return Runtime(
        settings=settings,
        backends=backends,
        telemetry=telemetry,
        authenticator=auth,
        answering=answering,
        asked=AskedQuestions(backends.cache, settings.retrieval),
        cache_operations=CacheOperations(backends.cache, answering, telemetry),
        counts=DeploymentCounts(backends.counts, telemetry),
        cards=DocumentCards(
            backends.store,
            backends.cache if settings.cache.enabled else None,
            ttl_seconds=settings.cache.document_ttl_seconds,
            telemetry=telemetry,
        ),
        ingestion=ingestion,
        sources=sources,
        health=Health(_dependencies(settings, backends, auth), telemetry),
        limiter=_limiter(backends, stack),
    )


def _limiter(backends: Backends, stack: AsyncExitStack) -> Limiter:
    limiter = Limiter(backends.reservations)
    stack.push_async_callback(limiter.close)
    return limiter


def _ingestion(
    settings: s.Settings, backends: Backends, telemetry: Telemetry, stack: AsyncExitStack
) -> Ingestion:
    executor = ThreadPoolExecutor(_PARSER_THREADS, thread_name_prefix="parse")
    stack.callback(executor.shutdown, wait=False, cancel_futures=True)
    ingestion = Ingestion(
        store=backends.store,
        embedder=backends.embedder,
        cache=backends.cache,
        executor=executor,
        max_bytes=settings.documents.max_bytes,
        chunk_characters=settings.retrieval.chunk_characters,
        sources=frozenset(source.name for source in settings.documents.sources),
        timeout_seconds=settings.server.request_timeout_seconds,
        telemetry=telemetry,
    )
    stack.push_async_callback(ingestion.finish)
    return ingestion


def _answering(
    settings: s.Settings,
    backends: Backends,
    text_revision: str,
    telemetry: Telemetry,
    stack: AsyncExitStack,
) -> Answering:
    cache, timeout = settings.cache, settings.server.request_timeout_seconds
    retrieval = _retrieval(settings, backends, f"{text_revision}|{_RANKING}", telemetry)
    writer = Writer(backends.answerer, backends.fallback, timeout_seconds=timeout, telemetry=telemetry)
    maker = Maker(
        cache=backends.cache,
        flights=backends.flights,
        retrieval=retrieval,
        writer=writer,
        policy=CachePolicy(
            classes=ttl_classes.compiled(cache.classes, cache.answer_ttl_seconds),
            stale_seconds=cache.stale_while_revalidate_seconds,
            max_bytes=cache.max_answer_bytes,
        ),
        state=f"{writer.revision}|{retrieval.state}",
        timeout_seconds=timeout,
        telemetry=telemetry,
    )
    answering = Answering(
        cache=backends.cache,
        cached=cache.enabled,
        maker=maker,
        proposals=_proposals(cache, backends, telemetry, stack),
        timeout_seconds=timeout,
        telemetry=telemetry,
    )
    stack.push_async_callback(answering.close)
    return answering


def _proposals(
    cache: s.CacheSettings, backends: Backends, telemetry: Telemetry, stack: AsyncExitStack
) -> Proposals | None:
    semantic = cache.semantic
    if semantic is None or not cache.enabled:
        return None
    from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder
    from ragkube_api.adapters.wordllama_model import load_model

    model = load_model()
    proposer = Proposer(
        cache=backends.cache,
        index=QuestionIndex(backends.cache, WordllamaEmbedder(model, model.dimensions).embed),
        gates=Gates(model),
        budget=ErrorBudget(semantic.max_error_rate, backends.audits, telemetry),
        model=model,
        verifier=backends.verifier,
        audit_rate=semantic.audit_rate,
        telemetry=telemetry,
    )
    stack.push_async_callback(proposer.close)
    return proposer


async def _verifier(settings: s.Settings, telemetry: Telemetry, stack: AsyncExitStack) -> Verifier | None:
    semantic, llm = settings.cache.semantic, settings.llm
    if semantic is not None and semantic.verifier_model is not None and isinstance(llm, s.AnthropicLLM):
        from ragkube_api.adapters.anthropic_verifier import open_model_verifier

        telemetry.expect_model(semantic.verifier_model)
        return await stack.enter_async_context(
            open_model_verifier(llm, semantic.verifier_model, telemetry.model_called)
        )
    if semantic is None or semantic.verifier_url is None:
        return None
    from ragkube_api.adapters.http_verifier import open_http_verifier

    opening = open_http_verifier(semantic.verifier_url, semantic.verifier_threshold)
    return await stack.enter_async_context(opening)


def _retrieval(settings: s.Settings, backends: Backends, revision: str, telemetry: Telemetry) -> Retrieval:
    cache = settings.cache
    vectors = QuestionVectors(
        backends.embedder,
        local=backends.values if cache.enabled else None,
        shared=backends.shared_values if cache.enabled else None,
        near=isinstance(settings.embedding, s.WordllamaEmbedding),
        ttl_seconds=cache.embedding_ttl_seconds,
        telemetry=telemetry,
    )
    return Retrieval(
        store=backends.store,
        vectors=vectors,
        revision=revision,
        ttl_seconds=cache.retrieval_ttl_seconds,
        telemetry=telemetry,
    )


def _dependencies(settings: s.Settings, backends: Backends, auth: Authenticator) -> tuple[Dependency, ...]:
    async def check_auth() -> None:
        auth.check()

    async def check_keys() -> None:
        auth.check_keys()

    llm: Callable[[], Awaitable[None]] = backends.answerer.ping
    hashed = isinstance(settings.auth, s.ApiKeyAuth) and settings.auth.keys_file is not None
    return (
        Dependency("store", backends.store.ping, to_start=True),
        Dependency("cache", backends.cache.ping),
        Dependency("embedder", backends.embedder.ping),
        Dependency("llm", llm),
        Dependency("auth", check_auth, required=True),
        *((Dependency("api-keys", check_keys),) if hashed else ()),
    )


async def _embedder(settings: s.EmbeddingSettings, stack: AsyncExitStack) -> Embedder:
    match settings:
        case s.WordllamaEmbedding():
            from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder

            return WordllamaEmbedder.load(settings.dimensions)
        case s.OpenAIEmbedding():
            from ragkube_api.adapters.openai_embedder import open_openai_embedder

            return await stack.enter_async_context(open_openai_embedder(settings))
        case _ as never:
            assert_never(never)


async def _store(settings: s.StoreSettings, embedder: Embedder, stack: AsyncExitStack) -> VectorStore:
    dimensions = embedder.dimensions
    match settings:
        case s.EmbeddedStore():
            from ragkube_api.adapters.embedded_store import open_embedded_store

            opening = open_embedded_store(settings.path, dimensions=dimensions, embedder=embedder.name)
            return await stack.enter_async_context(opening)
        case s.WeaviateStore():
            from ragkube_api.adapters.weaviate_store import open_weaviate_store

            return await stack.enter_async_context(open_weaviate_store(settings, dimensions=dimensions))
        case _ as never:
            assert_never(never)


def _reranked(store: VectorStore, stack: AsyncExitStack) -> VectorStore:
    from ragkube_api.adapters.reranked_store import RerankedStore

    reranked = RerankedStore(store)
    stack.callback(reranked.close)
    return reranked


class _Caches(NamedTuple):
    """What one kind of cache gives, in the order of ``Backends``."""

    cache: FencedCache
    values: ValueCache
    shared_values: ValueCache | None
    flights: Flights
    board: SourceBoard
    audits: AuditBook
    counts: CountBoard
    reservations: Reservations | None


async def _caches(settings: s.Settings, telemetry: Telemetry, stack: AsyncExitStack) -> _Caches:
    from ragkube_api.adapters.local_level import MemoryValueCache
    from ragkube_api.adapters.memory_audits import MemoryAuditBook
    from ragkube_api.adapters.memory_cache import MemoryCache, MemorySourceBoard
    from ragkube_api.adapters.memory_counts import MemoryCountBoard
    from ragkube_api.adapters.memory_flights import MemoryFlights

    local = settings.cache.local
    values = MemoryValueCache(max_entries=_VECTORS, max_bytes=_VECTOR_BYTES, clock=time.monotonic)
    match settings.cache.backend:
        case s.MemoryCacheBackend():
            cache = MemoryCache(max_entries=local.max_entries, max_bytes=local.max_bytes)
            return _Caches(
                cache, values, None, MemoryFlights(), MemorySourceBoard(), MemoryAuditBook(),
                MemoryCountBoard(), None,
            )  # fmt: skip
        case s.RedisCacheBackend() as backend:
            from ragkube_api.adapters.redis_cache import open_redis

            opening = open_redis(
                backend, local=local, flight_seconds=settings.cache.flight_lease_seconds,
                damaged=telemetry.cache_errors.labels("corrupt").inc,
            )  # fmt: skip
            redis = await stack.enter_async_context(opening)
            return _Caches(
                redis.cache, values, redis.values, redis.flights, redis.sources, redis.audits, redis.counts,
                redis.reservations,
            )  # fmt: skip
        case _ as never:
            assert_never(never)


async def _answerers(settings: s.LLMSettings, stack: AsyncExitStack) -> tuple[Answerer, Answerer | None]:
    from ragkube_api.adapters.extractive_answerer import ExtractiveAnswerer

    extractive = ExtractiveAnswerer()
    match settings:
        case s.ExtractiveLLM():
            return extractive, None
        case s.AnthropicLLM():
            from ragkube_api.adapters.anthropic_answerer import open_anthropic_answerer

            return await stack.enter_async_context(open_anthropic_answerer(settings)), extractive
        case _ as never:
            assert_never(never)
