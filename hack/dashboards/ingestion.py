"""Do documents arrive? Writes, their latency, and the vector database."""

from __future__ import annotations

from dashboards.panels import SCOPE, Board, graph, number, query
from ragkube_operator.render.rules.names import PER_DEPLOYMENT

CURRENT = "[$__rate_interval]"
DOCUMENTS = SCOPE.metric("rag_documents_indexed_total", component="")
ROUTES = 'route=~"/v1/documents.*"'


def board() -> Board:
    """The dashboard."""
    found = Board("ingestion", "Ingestion", "Writes of documents, and the vector database.")
    found.row("Now", *_now())
    found.row("Documents", *_documents())
    found.row("Weaviate", *_weaviate())
    return found


def _now() -> list[object]:
    failed = SCOPE.metric("rag_documents_indexed_total", 'outcome="failed"', component="")
    failures = f"round(sum(increase({failed}[$__range]))) or on () vector(0)"
    weaviate = SCOPE.metric("up", component="weaviate")
    batches = f"sum(rate({_weaviate_metric('batch_durations_ms_count')}{CURRENT}))"
    return [
        number("Weaviate pods", f"sum({weaviate})", "none", "That answer.", (1, "green"), below="red"),
        number("Failed", failures, "short", "Since the left edge.", (1, "orange")),
        number("Writes a second", f"sum(rate({DOCUMENTS}{CURRENT}))", "short", "Of documents."),
        number("Writes", f"round(sum(increase({DOCUMENTS}[$__range])))", "short", "Since the left edge."),
        number("p95 of a write", f"{_latency()} >= 0", "s", "To the documents API.", nothing="no writes"),
        number("Batches a second", batches, "short", "Written by Weaviate."),
    ]


def _latency() -> str:
    latency = SCOPE.metric("rag_request_latency_seconds_bucket", ROUTES)
    return f"histogram_quantile(0.95, sum by ({PER_DEPLOYMENT}, le) (rate({latency}{CURRENT})))"


def _documents() -> list[object]:
    requests = SCOPE.metric("rag_requests_total", ROUTES)
    return [
        graph(
            "By outcome",
            "short",
            "Documents a second, of API and worker.",
            query(f"sum by (outcome) (rate({DOCUMENTS}{CURRENT}))", "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Requests",
            "reqps",
            "To the documents API, by method and status.",
            query(f"sum by (method, status) (rate({requests}{CURRENT}))", "{{method}} {{status}}"),
            stacked=True,
        ),
        graph(
            "Latency",
            "s",
            "Of the documents API, p95.",
            query(_latency(), "p95"),
        ),
    ]


def _weaviate_metric(name: str) -> str:
    return SCOPE.metric(name, component="weaviate")


def _weaviate() -> list[object]:
    cpu = f"rate({_weaviate_metric('process_cpu_seconds_total')}{CURRENT})"
    batches, queries = (
        _weaviate_metric(f"{name}") for name in ("batch_durations_ms_bucket", "queries_durations_ms_count")
    )
    return [
        graph(
            "Writing",
            "ms",
            "A batch of passages, p95 by step.",
            query(
                f"histogram_quantile(0.95, sum by (operation, le) (rate({batches}{CURRENT})))",
                "{{operation}}",
            ),
        ),
        graph(
            "Queries",
            "ops",
            "A second, by kind.",
            query(f"sum by (query_type) (rate({queries}{CURRENT}))", "{{query_type}}"),
        ),
        graph("CPU", "short", "Cores, by pod.", query(f"sum by (pod) ({cpu})", "{{pod}}")),
        graph(
            "Memory",
            "bytes",
            "Resident, by pod.",
            query(_weaviate_metric("process_resident_memory_bytes"), "{{pod}}"),
        ),
    ]
