"""Recording rules. What the autoscaler reads is never NaN and never absent while a pod is scraped."""

from __future__ import annotations

from typing import Final

from ragkube_operator.render.rules.model import Group, Recording
from ragkube_operator.render.rules.names import PER_DEPLOYMENT, PER_POD, SLO_WINDOWS, Record, Scope

LATENCY_CLAMP: Final = 10
"""Seconds; a slow model or one stuck request must not look like endless load."""
BUSY_SHARE: Final = 0.5
"""Of the requests that a pod may work on at a time: from here on it counts as busy."""
V1: Final = 'route=~"/v1/.*"'
QUERY: Final = 'route="/v1/query"'
ANSWERS: Final = 'kind=~"exact|semantic"'
"""Kinds of cache look-ups that stand for a question."""
OUTCOME_FAILED: Final = 'outcome="unavailable"'


LATENCY_BOUNDS: Final = (1, 2, 5, 10, 20, 30, 60)
"""Seconds at which the API counts how many requests were faster; no promise can be shorter."""


def recordings(scope: Scope, local_latency: float) -> list[Group]:
    """Every recording rule of a RagDeployment; ``local_latency``: seconds after which a question is slow."""
    name = f"ragkube.{scope.namespace}.{scope.name}"
    return [
        Group(f"{name}.scaling", _scaling(scope), interval="15s"),
        Group(f"{name}.use", _use(scope)),
        Group(f"{name}.slo", [_errors(scope, window) for window in SLO_WINDOWS]),
        Group(f"{name}.slo-latency", [_slow(scope, local_latency, window) for window in SLO_WINDOWS]),
    ]


def _scaling(scope: Scope) -> list[Recording]:
    """``or 0 * …``: a counter or a bucket that nothing has touched yet has no series, which would read as unknown."""
    misses = scope.rate("rag_cache_misses_total", ANSWERS, window="1m")
    buckets = scope.rate("rag_local_latency_seconds_bucket", window="2m")
    busy = scope.metric("rag_requests_in_flight")
    p95 = f"histogram_quantile(0.95, sum by ({PER_DEPLOYMENT}, le) ({buckets}))"
    return [
        Recording(Record.INFLIGHT, f"sum by ({PER_POD}) ({busy})"),
        Recording(Record.MISSES, f"sum by ({PER_POD}) ({misses}) or 0 * sum by ({PER_POD}) ({busy})"),
        Recording(
            Record.LOCAL_P95,
            f"clamp_max({p95} >= 0, {LATENCY_CLAMP}) or 0 * sum by ({PER_DEPLOYMENT}) ({busy})",
        ),
        Recording(Record.SCALING_P95, _busy_p95(scope)),
    ]


def _busy_p95(scope: Scope) -> str:
    """Where pods are idle and yet slow, a database is: pods added against that would never end."""
    work = f"avg by ({PER_DEPLOYMENT}) ({scope.recorded(Record.INFLIGHT)})"
    limit = f"avg by ({PER_DEPLOYMENT}) ({scope.metric('rag_requests_limit')})"
    busy = f"{work} >= bool on ({PER_DEPLOYMENT}) {BUSY_SHARE} * {limit}"
    return f"{scope.recorded(Record.LOCAL_P95)} * on ({PER_DEPLOYMENT}) ({busy})"


def _use(scope: Scope) -> list[Recording]:
    requests = f"sum by ({PER_DEPLOYMENT}) ({scope.rate('rag_requests_total', V1)})"
    cost = f"sum by ({PER_DEPLOYMENT}) ({scope.rate('rag_llm_cost_dollars_total')})"
    idle = f"0 * sum by ({PER_DEPLOYMENT}) ({scope.metric('rag_requests_in_flight')})"
    saturation = (
        f"sum by ({PER_POD}) ({scope.metric('rag_requests_in_flight')})"
        f" / sum by ({PER_POD}) ({scope.metric('rag_requests_limit')})"
    )
    return [
        Recording(Record.SATURATION, saturation),
        Recording(Record.REQUESTS, f"{requests} or {idle}"),
        *(
            Recording(record, _quantile(scope, share))
            for record, share in (
                (Record.LATENCY_P50, 0.5),
                (Record.LATENCY_P95, 0.95),
                (Record.LATENCY_P99, 0.99),
            )
        ),
        *_cache(scope, idle),
        Recording(Record.COST, f"3600 * ({cost} or {idle})"),
        Recording(Record.LLM_ERRORS, _llm_errors(scope)),
        Recording(Record.DEGRADED, _degraded(scope)),
    ]


def _quantile(scope: Scope, share: float) -> str:
    buckets = scope.rate("rag_request_latency_seconds_bucket", QUERY)
    return f"histogram_quantile({share}, sum by ({PER_DEPLOYMENT}, le) ({buckets})) >= 0"


def share(part: str, whole: str) -> str:
    """``part`` over ``whole``: 0 where the part has no series, no series where the whole is 0."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def _cache(scope: Scope, idle: str) -> list[Recording]:
    hits, misses = scope.recorded(Record.HITS), scope.recorded(Record.MISSES_ALL)
    counters = ((Record.HITS, "rag_cache_hits_total"), (Record.MISSES_ALL, "rag_cache_misses_total"))
    return [
        *(
            Recording(record, f"sum by ({PER_DEPLOYMENT}) ({scope.rate(counter, ANSWERS)}) or {idle}")
            for record, counter in counters
        ),
        Recording(Record.HIT_RATIO, f"{hits} / ({hits} + {misses} > 0)"),
    ]


def _llm_errors(scope: Scope) -> str:
    failed = f"sum by ({PER_DEPLOYMENT}) ({scope.rate('rag_llm_calls_total', OUTCOME_FAILED)})"
    calls = f"sum by ({PER_DEPLOYMENT}) ({scope.rate('rag_llm_calls_total')})"
    return share(failed, calls)


def _degraded(scope: Scope) -> str:
    degraded = f"sum by ({PER_DEPLOYMENT}) ({scope.rate('rag_degraded_answers_total')})"
    asked = f"sum by ({PER_DEPLOYMENT}) ({scope.rate('rag_requests_total', QUERY)})"
    return share(degraded, asked)


def failures(scope: Scope) -> str:
    """Requests to /v1 that failed by our fault, of every series."""
    return scope.metric("rag_requests_total", V1, 'status=~"5.."')


def _errors(scope: Scope, window: str) -> Recording:
    failed = f"sum by ({PER_DEPLOYMENT}) (rate({failures(scope)}[{window}]))"
    every = f"sum by ({PER_DEPLOYMENT}) ({scope.rate('rag_requests_total', V1, window=window)})"
    return Recording(Record.errors(window), share(failed, every))


def limit_of_slowness(promised: float) -> float:
    """Seconds: what is promised, rounded up to where the API counts; a minute at most."""
    return next((bound for bound in LATENCY_BOUNDS if bound >= promised), LATENCY_BOUNDS[-1])


def fast_and_all(scope: Scope, promised: float, function: str, window: str) -> tuple[str, str]:
    """Questions that kept the promise, and all of them; ``function`` is ``rate`` or ``increase``."""
    matcher = f'le="{float(limit_of_slowness(promised))}"'
    fast = scope.metric("rag_local_latency_seconds_bucket", matcher, window=window)
    every = scope.metric("rag_local_latency_seconds_count", window=window)
    first, second = (f"sum by ({PER_DEPLOYMENT}) ({function}({each}))" for each in (fast, every))
    return first, second


def _slow(scope: Scope, promised: float, window: str) -> Recording:
    fast, every = fast_and_all(scope, promised, "rate", window)
    return Recording(Record.slow(window), f"clamp_min(1 - {fast} / ({every} > 0), 0)")
