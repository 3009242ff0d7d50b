"""Names of recorded series, and the labels by which a RagDeployment's series are told apart.

The scrape configuration gives every target ``namespace``, ``pod``, ``ragkube_deployment`` (name of the RagDeployment) and
``ragkube_component`` (api, worker, redis, weaviate).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DEPLOYMENT_LABEL: Final = "ragkube_deployment"
COMPONENT_LABEL: Final = "ragkube_component"
PER_DEPLOYMENT: Final = "namespace, ragkube_deployment"
PER_POD: Final = "namespace, ragkube_deployment, pod"
WHERE: Final = "{{ $labels.namespace }}/{{ $labels.ragkube_deployment }}"
"""In the text of an alert."""

SLO_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


class Record(StrEnum):
    """Recorded series. The autoscaler averages the first two over pods and takes SCALING_P95 as it is."""

    INFLIGHT = "ragkube:inflight:sum"
    """Per pod: requests being answered; none waits in a queue, what is above the limit is refused."""
    MISSES = "ragkube:cache_misses:rate1m"
    """Per pod: questions a second that the cache did not answer."""
    LOCAL_P95 = "ragkube:local_latency_p95:clamped"
    """Per deployment: seconds of a request without the model; 0 without traffic, at most 10."""
    SCALING_P95 = "ragkube:local_latency_p95:busy"
    """Per deployment: the clamped local latency while its pods are busy, else 0: more pods cure slowness only where there is work."""
    SATURATION = "ragkube:saturation:ratio"
    """Per pod: requests being answered over the limit of requests at a time."""
    REQUESTS = "ragkube:requests:rate5m"
    """Per deployment: requests a second to /v1."""
    LATENCY_P50 = "ragkube:query_latency_p50:rate5m"
    """Per deployment: median seconds of /v1/query; no series without traffic."""
    LATENCY_P95 = "ragkube:query_latency_p95:rate5m"
    """Per deployment: as the median, 95th percentile."""
    LATENCY_P99 = "ragkube:query_latency_p99:rate5m"
    """Per deployment: as the median, 99th percentile."""
    HITS = "ragkube:cache_hits:rate5m"
    """Per deployment: questions a second that the cache answered."""
    MISSES_ALL = "ragkube:cache_misses:rate5m"
    """Per deployment: questions a second that it did not answer."""
    HIT_RATIO = "ragkube:cache_hits:ratio_rate5m"
    """Per deployment: questions that the cache answered over all it was asked; no series without traffic."""
    COST = "ragkube:llm_cost_dollars_per_hour:rate5m"
    """Per deployment: dollars an hour at the present rate."""
    LLM_ERRORS = "ragkube:llm_errors:ratio_rate5m"
    """Per deployment: failed calls of the model over all calls; no series without calls."""
    DEGRADED = "ragkube:degraded_answers:ratio_rate5m"
    """Per deployment: answers given without a part that was away over all questions."""

    @staticmethod
    def errors(window: str) -> str:
        """Per deployment: requests to /v1 that failed by our fault over all; no series without traffic."""
        return f"ragkube:slo_errors:ratio_rate{window}"

    @staticmethod
    def slow(window: str) -> str:
        """Per deployment: questions slower without the model than promised, over all; no series without traffic."""
        return f"ragkube:slo_slow_questions:ratio_rate{window}"


@dataclass(frozen=True, slots=True)
class Scope:
    """The series of one RagDeployment."""

    namespace: str
    name: str

    def metric(self, metric: str, *matchers: str, component: str = "api", window: str = "") -> str:
        """A selector, with ``window`` of a range."""
        own = [
            f'namespace="{self.namespace}"',
            f'{DEPLOYMENT_LABEL}="{self.name}"',
            *([f'{COMPONENT_LABEL}="{component}"'] if component else []),
        ]
        return f"{metric}{{{','.join([*own, *matchers])}}}" + (f"[{window}]" if window else "")

    def rate(self, metric: str, *matchers: str, component: str = "api", window: str = "5m") -> str:
        """Increase a second."""
        return f"rate({self.metric(metric, *matchers, component=component, window=window)})"

    def recorded(self, record: str) -> str:
        """A recorded series."""
        return self.metric(record, component="")
