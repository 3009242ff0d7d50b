"""What the managed Prometheus asks, and the labels that every series gets."""

from __future__ import annotations

from ragkube_operator.crd import RagDeployment
from ragkube_operator.render import names, redis_targets
from ragkube_operator.render.context import Context
from ragkube_operator.render.pods import Manifest
from ragkube_operator.render.rules.names import COMPONENT_LABEL, DEPLOYMENT_LABEL

SECONDS = 15
COMPONENT = "app_kubernetes_io_component"
_META = "__meta_kubernetes_pod"


def config(deployment: RagDeployment, context: Context, rule_file: str) -> Manifest:
    """prometheus.yml."""
    found: Manifest = {
        "global": {
            "scrape_interval": f"{SECONDS}s",
            "scrape_timeout": "10s",
            "evaluation_interval": f"{SECONDS}s",
        },
        "rule_files": [rule_file],
    }
    if deployment.spec.monitoring.stack.alertmanager.enabled:
        target = f"{names.alertmanager(deployment.name)}:{names.ALERTMANAGER_PORT}"
        found["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [target]}]}]}
    return {**found, "scrape_configs": _jobs(deployment, context)}


def _jobs(deployment: RagDeployment, context: Context) -> list[Manifest]:
    jobs = [_pods(deployment, "ragkube", "http", "api", "worker")]
    if deployment.spec.vector_store.weaviate.type == "Managed":
        jobs.append(_pods(deployment, "weaviate", "metrics", "weaviate"))
    if redis_targets.exporter_runs(deployment):
        jobs.append(_redis(deployment))
    return [*jobs, _operator(deployment, context), _itself()]


def _pods(deployment: RagDeployment, job: str, port: str, *components: names.Component) -> Manifest:
    """Pods that run, at the port of that name."""
    name = f"app.kubernetes.io/name=ragkube,app.kubernetes.io/instance={deployment.name}"
    selector = f"{name},app.kubernetes.io/component in ({','.join(components)})"
    return {
        "job_name": job,
        "kubernetes_sd_configs": [
            {
                "role": "pod",
                "namespaces": {"names": [deployment.namespace]},
                "selectors": [{"role": "pod", "label": selector}],
            }
        ],
        "relabel_configs": [
            {"source_labels": [f"{_META}_container_port_name"], "regex": port, "action": "keep"},
            {"source_labels": [f"{_META}_phase"], "regex": "Succeeded|Failed", "action": "drop"},
            _label("namespace", "__meta_kubernetes_namespace"),
            _label("pod", f"{_META}_name"),
            _label(DEPLOYMENT_LABEL, f"{_META}_label_app_kubernetes_io_instance"),
            _label(COMPONENT_LABEL, f"{_META}_label_{COMPONENT}"),
        ],
    }


def _label(target: str, source: str) -> Manifest:
    return {"source_labels": [source], "target_label": target}


def _redis(deployment: RagDeployment) -> Manifest:
    """One target for each Redis pod, all asked by way of the exporter."""
    own = {
        "namespace": deployment.namespace,
        DEPLOYMENT_LABEL: deployment.name,
        COMPONENT_LABEL: "redis",
    }
    return {
        "job_name": "redis",
        "metrics_path": "/scrape",
        "static_configs": [{"targets": redis_targets.targets(deployment), "labels": own}],
        "relabel_configs": [
            _label("__param_target", "__address__"),
            {"source_labels": ["__address__"], "regex": "redis://([^.]+)\\..*", "target_label": "pod"},
            _label("instance", "pod"),
            {"target_label": "__address__", "replacement": redis_targets.address(deployment)},
        ],
    }


def _operator(deployment: RagDeployment, context: Context) -> Manifest:
    """Whatever pods the Service has; of what they say about resources only what concerns this one is kept."""
    ready = f"ragkube_operator_resource_ready;{deployment.namespace};{deployment.name}"
    return {
        "job_name": "ragkube-operator",
        "honor_labels": True,
        "dns_sd_configs": [
            {"names": [context.operator_metrics], "type": "A", "port": names.OPERATOR_METRICS_PORT}
        ],
        "metric_relabel_configs": [
            {"source_labels": ["__name__", "namespace", "name"], "regex": f"{ready}|.*;;", "action": "keep"}
        ],
    }


def _itself() -> Manifest:
    return {
        "job_name": "prometheus",
        "static_configs": [{"targets": [f"localhost:{names.PROMETHEUS_PORT}"]}],
    }
