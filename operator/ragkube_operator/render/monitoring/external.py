"""What an existing Prometheus Operator and Grafana pick up by themselves."""

from __future__ import annotations

from typing import Final

from ragkube_operator.crd import RagDeployment
from ragkube_operator.render import dashboards, names, pods, redis_targets
from ragkube_operator.render.pods import Manifest
from ragkube_operator.render.rules.names import COMPONENT_LABEL, DEPLOYMENT_LABEL

API: Final = "monitoring.coreos.com/v1"
KINDS: Final = ("PodMonitor", "ServiceMonitor", "PrometheusRule")


def objects(deployment: RagDeployment, rule_file: dict[str, object]) -> list[Manifest]:
    """Monitors, rules and dashboards."""
    outside, name = deployment.spec.monitoring.outside, names.metrics(deployment.name)
    found = [
        _pod_monitor(deployment, name, "http", "api", "worker"),
        _object(deployment, "PrometheusRule", name, "prometheus", rule_file),
    ]
    if deployment.spec.vector_store.weaviate.type == "Managed":
        found.append(_pod_monitor(deployment, names.weaviate(deployment.name), "metrics", "weaviate"))
    if redis_targets.exporter_runs(deployment):
        found.append(_service_monitor(deployment))
    return [
        *found,
        *(dashboards.config_maps(deployment, outside.dashboard_labels) if outside.dashboards else []),
    ]


def _object(
    deployment: RagDeployment, kind: str, name: str, component: names.Component, spec: dict[str, object]
) -> Manifest:
    meta = pods.metadata(deployment, name, component)
    meta["labels"] = {**deployment.spec.monitoring.outside.labels, **meta["labels"]}
    return {"apiVersion": API, "kind": kind, "metadata": meta, "spec": spec}


def _pod_monitor(deployment: RagDeployment, name: str, port: str, *components: names.Component) -> Manifest:
    interval = deployment.spec.monitoring.outside.scrape_interval
    labels = {
        DEPLOYMENT_LABEL: "__meta_kubernetes_pod_label_app_kubernetes_io_instance",
        COMPONENT_LABEL: "__meta_kubernetes_pod_label_app_kubernetes_io_component",
    }
    spec: dict[str, object] = {
        "selector": {
            "matchLabels": {
                "app.kubernetes.io/name": "ragkube",
                "app.kubernetes.io/instance": deployment.name,
            },
            "matchExpressions": [
                {"key": "app.kubernetes.io/component", "operator": "In", "values": list(components)}
            ],
        },
        "podMetricsEndpoints": [
            {
                "port": port,
                "path": "/metrics",
                "interval": interval,
                "relabelings": [
                    {"sourceLabels": [source], "targetLabel": target} for target, source in labels.items()
                ],
            }
        ],
    }
    return _object(deployment, "PodMonitor", name, components[0], spec)


def _service_monitor(deployment: RagDeployment) -> Manifest:
    """One endpoint for each Redis pod, all asked by way of the exporter."""
    interval = deployment.spec.monitoring.outside.scrape_interval
    endpoints = [
        {
            "port": "http",
            "path": "/scrape",
            "interval": interval,
            "params": {"target": [target]},
            "relabelings": [
                _replaced(label, value)
                for label, value in (
                    ("pod", target.removeprefix("redis://").partition(".")[0]),
                    ("instance", target.removeprefix("redis://").partition(".")[0]),
                    (DEPLOYMENT_LABEL, deployment.name),
                    (COMPONENT_LABEL, "redis"),
                )
            ],
        }
        for target in redis_targets.targets(deployment)
    ]
    selector = {"matchLabels": names.selector(deployment.name, "redis-exporter")}
    name = names.redis_exporter(deployment.name)
    spec: dict[str, object] = {"selector": selector, "endpoints": endpoints}
    return _object(deployment, "ServiceMonitor", name, "redis-exporter", spec)


def _replaced(label: str, value: str) -> Manifest:
    return {"targetLabel": label, "replacement": value}
