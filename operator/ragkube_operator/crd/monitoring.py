"""``spec.monitoring``: who watches the platform, and what it promises."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ragkube_operator.crd.base import Duration, Image, Part, Url, amount, part
from ragkube_operator.crd.common import Labels, Placement, Resources, SecretKeyRef, Storage, sized
from ragkube_operator.crd.rules import Rule, UpdateRule, union

PROMETHEUS_RESOURCES = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
SMALL_RESOURCES = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}
GRAFANA_RESOURCES = {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


class Objectives(Part):
    """What the platform promises; alerts and dashboards compare with it."""

    availability_percent: Annotated[float, Field(ge=90, le=99.999)] = 99.9
    """Share of the requests that do not fail by our fault, over a month."""
    local_latency: Duration = "1s"
    """95th percentile of a request without the model."""
    daily_cost_dollars: Annotated[float, Field(ge=0)] | None = None
    """What the model may cost in 24 hours; absent: not watched."""


class Prometheus(Placement):
    """The Prometheus that the operator runs."""

    image: Image | None = None
    """Image; absent: `prom/prometheus:v3.14.0`."""
    retention: Duration = "15d"
    """How long samples are kept; less when the volume is full."""
    resources: Resources = sized(PROMETHEUS_RESOURCES)
    """Resources of the pod."""
    storage: Storage = part(Storage)
    """Its volume."""


class Alertmanager(Placement):
    """The Alertmanager that the operator runs."""

    enabled: bool = True
    """False: alerts stand in Prometheus only."""
    image: Image | None = None
    """Image; absent: `prom/alertmanager:v0.31.1`."""
    config_secret_ref: SecretKeyRef | None = None
    """The whole configuration with its receivers, as a file; absent: alerts are shown, nobody is told."""
    resources: Resources = sized(SMALL_RESOURCES)
    """Resources of the pod."""


class Grafana(Placement):
    """The Grafana that the operator runs, with the data source and the dashboards."""

    enabled: bool = True
    """False: no Grafana."""
    image: Image | None = None
    """Image; absent: `grafana/grafana:12.2.1`."""
    resources: Resources = sized(GRAFANA_RESOURCES)
    """Resources of the pod."""


class RedisExporter(Placement):
    """The exporter that asks the managed Redis; it runs unless monitoring is None."""

    image: Image | None = None
    """Image; absent: `oliver006/redis_exporter:v1.88.0`."""
    resources: Resources = sized(SMALL_RESOURCES)
    """Resources of the pod."""


class ManagedMonitoring(Part):
    """A monitoring stack of the deployment's own."""

    prometheus: Prometheus = part(Prometheus)
    """Collects the metrics and evaluates the rules."""
    alertmanager: Alertmanager = part(Alertmanager)
    """Tells people of alerts."""
    grafana: Grafana = part(Grafana)
    """Draws the dashboards."""


class ExternalMonitoring(Part):
    """An existing Prometheus Operator and Grafana."""

    labels: Labels = Field(default_factory=dict)
    """Labels of the PodMonitors, the ServiceMonitor and the PrometheusRule, so that your Prometheus selects them, like
    `{release: kube-prometheus-stack}`."""
    scrape_interval: Duration = "15s"
    """How often Prometheus asks; autoscaling needs 15s or less."""
    dashboards: bool = True
    """ConfigMaps with dashboards for Grafana's sidecar."""
    dashboard_labels: Labels = Field(
        default_factory=lambda: {"grafana_dashboard": "1"},
        json_schema_extra={"default": {"grafana_dashboard": "1"}},
    )
    """Labels by which Grafana's sidecar finds the dashboards."""
    prometheus_url: Url | None = None
    """Where that Prometheus answers, like `http://prometheus-operated.monitoring.svc:9090`: the operator checks that it
    has our series, and autoscaling may ask it."""


def _appears(here: str, there: str) -> str:
    """CEL: where only ``here`` has the managed stack, its volume is the default one."""
    storage = f"{here}.managed.prometheus.storage"
    return (
        f"!has({here}.managed) || has({there}.managed) || (!has({storage}.storageClassName) && "
        f"quantity(string({storage}.size)).compareTo(quantity('{Storage().size}')) == 0)"
    )


class Monitoring(Part):
    """Who watches the platform."""

    type: Literal["None", "Managed", "External"] = "None"
    """`None`: nobody (the metrics are there all the same). `Managed`: the operator runs Prometheus, Alertmanager,
    Grafana and a Redis exporter. `External`: an existing Prometheus Operator and Grafana get what they need."""
    objectives: Objectives = part(Objectives)
    """What the platform promises."""
    managed: ManagedMonitoring | None = None
    """How the operator runs it; absent with type Managed: all defaults."""
    external: ExternalMonitoring | None = None
    """What the existing one needs; absent with type External: all defaults."""
    redis_exporter: RedisExporter = part(RedisExporter)
    """The exporter that asks the managed Redis."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *union("type", managed=False, external=False),
        UpdateRule(
            cel="self.type != 'Managed' || oldSelf.type != 'Managed' || "
            f"({_appears('self', 'oldSelf')}) && ({_appears('oldSelf', 'self')})",
            message="the volume of a running Prometheus cannot be changed: "
            "set monitoring.type to None, wait until its pod is gone, then change it",
            holds=lambda new, old: not (new.type == old.type == "Managed") or _same_volume(new, old),
            field="managed",
        ),
    )

    @property
    def stack(self) -> ManagedMonitoring:
        """The managed stack with every default filled in."""
        return self.managed or ManagedMonitoring()

    @property
    def outside(self) -> ExternalMonitoring:
        """The external one with every default filled in."""
        return self.external or ExternalMonitoring()


def _same_volume(new: Monitoring, old: Monitoring) -> bool:
    """Where ``managed`` appears or goes; Storage's own rules compare what stands in both."""
    if (new.managed is None) == (old.managed is None):
        return True
    now, before = new.stack.prometheus.storage, old.stack.prometheus.storage
    return amount(now.size) == amount(before.size) and now.storage_class_name == before.storage_class_name
