"""What rendering knows besides the resource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REDIS_IMAGE = "redis:8.0"
VALKEY_IMAGE = "valkey/valkey:8.1"
WEAVIATE_IMAGE = "semitechnologies/weaviate:1.39.0"
PROMETHEUS_IMAGE = "prom/prometheus:v3.14.0"
ALERTMANAGER_IMAGE = "prom/alertmanager:v0.31.1"
GRAFANA_IMAGE = "grafana/grafana:12.2.1"
REDIS_EXPORTER_IMAGE = "oliver006/redis_exporter:v1.88.0"
OPERATOR_METRICS = "ragkube-operator.ragkube-system.svc"


@dataclass(frozen=True, slots=True)
class Scaling:
    """The autoscaler that the cluster offers.

    ``api`` serves the metrics to engine Metrics, ``prometheus`` is where KEDA asks, ``cpu``: CPU is measured.
    """

    engine: Literal["KEDA", "Metrics", "CPU"]
    api: Literal["external.metrics.k8s.io", "custom.metrics.k8s.io"] | None = None
    prometheus: str | None = None
    cpu: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """Where and by whom a resource is rendered.

    ``api_image`` is used where the resource names none. Nothing but it may depend on the operator's version,
    so that an upgrade of the operator replaces no pod. ``scaling`` is found out in the cluster; without one,
    it is what every cluster can have. None: nothing can scale.
    """

    api_image: str
    operator_version: str
    redis_image: str = REDIS_IMAGE
    valkey_image: str = VALKEY_IMAGE
    weaviate_image: str = WEAVIATE_IMAGE
    scaling: Scaling | None = Scaling("CPU", cpu=True)
    prometheus_image: str = PROMETHEUS_IMAGE
    alertmanager_image: str = ALERTMANAGER_IMAGE
    grafana_image: str = GRAFANA_IMAGE
    redis_exporter_image: str = REDIS_EXPORTER_IMAGE
    operator_metrics: str = OPERATOR_METRICS
