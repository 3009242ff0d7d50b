"""Is the platform well? Promises, load, latency, saturation."""

from __future__ import annotations

from dashboards.panels import SCOPE, Board, buckets, graph, number, query
from ragkube_operator.render.rules import Record
from ragkube_operator.render.rules.names import PER_DEPLOYMENT
from ragkube_operator.render.rules.recording import QUERY, V1

CURRENT = "[$__rate_interval]"


def board() -> Board:
    """The dashboard."""
    found = Board("platform", "Platform", "Promises, load, latency and saturation of the API.")
    found.row("Now", *_now())
    found.row("Load", *_load())
    found.row("Latency", *_latency())
    found.row("Pods", *_pods())
    found.row("Parts", *_parts())
    return found


def _now() -> list[object]:
    busy, ratio = SCOPE.recorded(Record.INFLIGHT), SCOPE.recorded(Record.errors("1h"))
    return [
        number("Failed requests, 1 h", ratio, "percentunit", "By our fault, over all.", (0.001, "red")),
        number("Requests", SCOPE.recorded(Record.REQUESTS), "reqps", "A second, to /v1."),
        number("p95 of a question", SCOPE.recorded(Record.LATENCY_P95), "s", "To the end of the response."),
        number("p95 without the model", SCOPE.recorded(Record.LOCAL_P95), "s", "What we do ourselves."),
        number("In flight", f"sum({busy})", "short", "Being answered and waiting."),
        number("Pods", f"sum({SCOPE.metric('up')})", "short", "API pods that answer Prometheus."),
    ]


def _load() -> list[object]:
    requests = SCOPE.metric("rag_requests_total", V1)
    windows = [query(SCOPE.recorded(Record.errors(w)), w) for w in ("5m", "1h", "6h")]
    return [
        graph(
            "Requests by status",
            "reqps",
            "A second, to /v1.",
            query(f"sum by (status) (rate({requests}{CURRENT}))", "{{status}}"),
            stacked=True,
        ),
        graph(
            "Requests by route",
            "reqps",
            "A second, to /v1.",
            query(f"sum by (route) (rate({requests}{CURRENT}))", "{{route}}"),
            stacked=True,
        ),
        graph("Failed requests", "percentunit", "Over all requests, by our fault.", *windows),
    ]


def _latency() -> list[object]:
    series = SCOPE.metric("rag_request_latency_seconds_bucket", QUERY)
    lines = ((Record.LATENCY_P50, "p50"), (Record.LATENCY_P95, "p95"), (Record.LATENCY_P99, "p99"))
    return [
        graph(
            "Questions",
            "s",
            "To the end of the response, with the model.",
            *(query(SCOPE.recorded(r), n) for r, n in lines),
        ),
        graph(
            "Without the model",
            "s",
            "p95; the autoscaler looks at it.",
            query(SCOPE.recorded(Record.LOCAL_P95), "p95"),
        ),
        buckets(
            "Questions by latency", f"sum by (le) (increase({series}{CURRENT}))", "How many took how long."
        ),
    ]


def _pods() -> list[object]:
    cpu = f"rate({SCOPE.metric('process_cpu_seconds_total')}{CURRENT})"
    return [
        graph(
            "In flight",
            "short",
            "Being answered and waiting, by pod.",
            query(SCOPE.recorded(Record.INFLIGHT), "{{pod}}"),
        ),
        graph(
            "Saturation",
            "percentunit",
            "Requests being answered over the limit, by pod.",
            query(SCOPE.recorded(Record.SATURATION), "{{pod}}"),
        ),
        graph("CPU", "short", "Cores, by pod.", query(f"sum by (pod) ({cpu})", "{{pod}}")),
        graph(
            "Memory",
            "bytes",
            "Resident, by pod.",
            query(SCOPE.metric("process_resident_memory_bytes"), "{{pod}}"),
        ),
    ]


def _parts() -> list[object]:
    up = SCOPE.metric("rag_dependency_up")
    reasons = f"sum by (reason) (rate({SCOPE.metric('rag_degraded_answers_total')}{CURRENT}))"
    retrieval = SCOPE.metric("rag_retrieval_seconds_bucket")
    return [
        graph(
            "Parts that answer",
            "short",
            "1: every pod reaches it.",
            query(f"min by (dependency) ({up})", "{{dependency}}"),
        ),
        graph(
            "Degraded answers",
            "reqps",
            "A second, by what was away.",
            query(f"{reasons} or on () vector(0)", "{{reason}}"),
        ),
        graph(
            "Retrieval",
            "s",
            "Embedding of the question and search, p95.",
            query(
                f"histogram_quantile(0.95, sum by ({PER_DEPLOYMENT}, le) (rate({retrieval}{CURRENT})))", "p95"
            ),
        ),
    ]
