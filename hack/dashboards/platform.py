"""Is the platform well? Promises, load, latency, saturation."""

from __future__ import annotations

from dashboards.panels import SCOPE, Board, buckets, graph, number, query, states, zero
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
    """What somebody who was woken looks at."""
    firing = SCOPE.metric("ALERTS", 'alertstate="firing"', 'severity!="info"', component="")
    away = f"count(min by (dependency) ({SCOPE.metric('rag_dependency_up')}) == 0)"
    failed, slow = (SCOPE.recorded(record("1h")) for record in (Record.errors, Record.slow))
    busy, p95 = SCOPE.recorded(Record.SATURATION), SCOPE.recorded(Record.LATENCY_P95)
    quiet = "no traffic"
    return [
        number("Alerts", f"count({firing}) or on () vector(0)", "none", "That fire now.", (1, "red")),
        number("Failed requests, 1 h", failed, "percentunit", "By our fault.", (0.001, "red"), nothing=quiet),
        number(
            "Slow questions, 1 h", slow, "percentunit", "Without the model.", (0.05, "red"), nothing=quiet
        ),
        number("Parts away", f"{away} or on () vector(0)", "none", "Database, cache, model.", (1, "red")),
        number(
            "Pods",
            f"sum({SCOPE.metric('up')})",
            "none",
            "Of the API, that answer.",
            (1, "green"),
            below="red",
        ),
        number(
            "Saturation", f"max({busy})", "percentunit", "Of the busiest pod.", (0.8, "orange"), (0.95, "red")
        ),
        number("Requests", SCOPE.recorded(Record.REQUESTS), "reqps", "To /v1."),
        number("p95 of a question", p95, "s", "With the model.", nothing=quiet),
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
    slow = [query(SCOPE.recorded(Record.slow(w)), w) for w in ("5m", "1h", "6h")]
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
            "p95, at most 10 s; the autoscaler looks at it.",
            query(SCOPE.recorded(Record.LOCAL_P95), "p95"),
        ),
        graph("Slow questions", "percentunit", "Over all, by what we do ourselves.", *slow),
        buckets(
            "Questions by latency", f"sum by (le) (increase({series}{CURRENT}))", "How many took how long."
        ),
    ]


def _pods() -> list[object]:
    cpu = f"rate({SCOPE.metric('process_cpu_seconds_total')}{CURRENT})"
    return [
        graph(
            "In flight",
            "none",
            "Requests being answered, by pod.",
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
        states(
            "Parts that answer",
            f"min by (dependency) ({up})",
            "{{dependency}}",
            "Up: every pod reaches it.",
        ),
        graph(
            "Degraded answers",
            "reqps",
            "A second, by what was away.",
            query(f"{reasons} {zero('reason')}", "{{reason}}"),
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
