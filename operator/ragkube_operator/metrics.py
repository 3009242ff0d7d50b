"""The operator's own metrics, in a registry of their own."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


@dataclass
class Metrics:
    """Counters of one operator process."""

    registry: CollectorRegistry = field(default_factory=_registry)

    def __post_init__(self) -> None:
        """Register every metric."""
        self._declare_requests()
        self._declare_resources()
        self._declare_passes()
        self._declare_leadership()

    def _declare_requests(self) -> None:
        self.requests = Counter(
            "ragkube_operator_kube_requests_total",
            "Requests to the API server",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "ragkube_operator_kube_request_seconds",
            "Duration of requests to the API server, watches not counted",
            ["verb"],
            registry=self.registry,
            buckets=(0.005, 0.02, 0.05, 0.1, 0.3, 1, 3, 10, 30),
        )
        self.watch_failures = Counter(
            "ragkube_operator_watch_failures_total",
            "How often watching had to start from nothing, because the API server failed for long",
            registry=self.registry,
        )

    def _declare_resources(self) -> None:
        self.resources = Gauge(
            "ragkube_operator_resources", "RagDeployments that a worker looks after", registry=self.registry
        )
        self.ready = Gauge(
            "ragkube_operator_resource_ready",
            "1 when the RagDeployment is Ready",
            ["namespace", "name"],
            registry=self.registry,
        )
        self.redis_steps = Counter(
            "ragkube_operator_redis_steps_total",
            "Steps taken to form or heal Redis Clusters",
            ["step"],
            registry=self.registry,
        )

    def _declare_passes(self) -> None:
        self.passes = Counter(
            "ragkube_operator_reconciles_total",
            "Reconcile passes by how they ended",
            ["outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "ragkube_operator_reconcile_seconds",
            "Duration of one reconcile pass",
            registry=self.registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
        )
        self.queue = Gauge(
            "ragkube_operator_queue_depth",
            "Resources that are due and wait for a pass",
            registry=self.registry,
        )
        self.waited = Histogram(
            "ragkube_operator_queue_seconds",
            "Time from being due to the start of the pass",
            registry=self.registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
        )

    def _declare_leadership(self) -> None:
        self.leader = Gauge(
            "ragkube_operator_leader",
            "1 in the instance that is active, 0 in those that stand by",
            registry=self.registry,
        )
        self.elections = Counter(
            "ragkube_operator_elections_total",
            "How often this instance became the leader",
            registry=self.registry,
        )

    def forget_resources(self) -> None:
        """An instance that stands by says nothing of resources."""
        self.ready.clear()
        self.resources.set(0)
        self.queue.set(0)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def writes(self) -> float:
        """How many requests could have changed something."""
        samples = [sample for metric in self.requests.collect() for sample in metric.samples]
        return sum(
            s.value for s in samples if s.name.endswith("_total") and s.labels["verb"] not in {"get", "list"}
        )
