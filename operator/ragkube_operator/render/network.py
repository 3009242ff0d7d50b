"""NetworkPolicies: the API is open to the cluster, the databases only to those who need them."""

from __future__ import annotations

from ragkube_operator.crd import RagDeployment
from ragkube_operator.render import names, pods, redis_targets
from ragkube_operator.render.pods import Manifest
from ragkube_operator.render.weaviate import PEER_PORTS


def objects(deployment: RagDeployment) -> list[Manifest]:
    """One policy for each part that runs, or nothing."""
    spec = deployment.spec
    if spec.network.policy == "Disabled":
        return []
    everyone = [_rule(None, names.API_PORT)]
    monitoring = spec.monitoring.type
    found = [_policy(deployment, names.api(deployment.name), "api", everyone)]
    if spec.documents.sources:
        # The worker has nothing there but its health and metrics.
        found.append(_policy(deployment, names.worker(deployment.name), "worker", everyone))
    if spec.cache.enabled and spec.cache.redis.type == "Managed":
        found.append(_policy(deployment, names.redis(deployment.name), "redis", _redis(deployment)))
    if spec.vector_store.weaviate.type == "Managed":
        found.append(_policy(deployment, names.weaviate(deployment.name), "weaviate", _weaviate(deployment)))
    if redis_targets.exporter_runs(deployment):
        ingress = [_rule(_scrapers(deployment), names.REDIS_EXPORTER_PORT)]
        found.append(_policy(deployment, names.redis_exporter(deployment.name), "redis-exporter", ingress))
    return [*found, *(_stack(deployment) if monitoring == "Managed" else [])]


def _stack(deployment: RagDeployment) -> list[Manifest]:
    """Alertmanager has no log-in and is Prometheus' alone; Grafana has one."""
    name, stack = deployment.name, deployment.spec.monitoring.stack
    readers = [_pods(deployment, "grafana"), *_autoscalers()]
    found = [
        _policy(deployment, names.prometheus(name), "prometheus", [_rule(readers, names.PROMETHEUS_PORT)])
    ]
    if stack.alertmanager.enabled:
        ingress = [_rule([_pods(deployment, "prometheus")], names.ALERTMANAGER_PORT)]
        found.append(_policy(deployment, names.alertmanager(name), "alertmanager", ingress))
    if stack.grafana.enabled:
        ingress = [_rule(None, names.GRAFANA_PORT)]
        found.append(_policy(deployment, names.grafana(name), "grafana", ingress))
    return found


def _autoscalers() -> list[Manifest]:
    """KEDA and the Prometheus adapter, by the labels of their charts, in whatever namespace they run."""
    return [
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": name}}}
        for name in ("keda-operator", "prometheus-adapter")
    ]


def _scrapers(deployment: RagDeployment) -> list[Manifest] | None:
    """Who asks for metrics: our own Prometheus; of an existing one nothing is known (None: everyone)."""
    managed = deployment.spec.monitoring.type == "Managed"
    return [_pods(deployment, "prometheus")] if managed else None


def _redis(deployment: RagDeployment) -> list[Manifest]:
    clients = [_pods(deployment, "api"), _pods(deployment, "worker"), _operator()]
    if redis_targets.exporter_runs(deployment):
        clients.append(_pods(deployment, "redis-exporter"))
    return [
        _rule(clients, names.REDIS_PORT),
        _rule([_pods(deployment, "redis")], names.REDIS_PORT, names.REDIS_BUS_PORT),
    ]


def _weaviate(deployment: RagDeployment) -> list[Manifest]:
    clients = [_pods(deployment, "api"), _pods(deployment, "worker")]
    peers = _rule([_pods(deployment, "weaviate")], *PEER_PORTS.values(), names.WEAVIATE_HTTP_PORT)
    peers["ports"].append({"port": PEER_PORTS["gossip"], "protocol": "UDP"})
    found = [_rule(clients, names.WEAVIATE_HTTP_PORT, names.WEAVIATE_GRPC_PORT), peers]
    if deployment.spec.monitoring.type != "None":
        found.append(_rule(_scrapers(deployment), names.WEAVIATE_METRICS_PORT))
    return found


def _pods(deployment: RagDeployment, component: names.Component) -> Manifest:
    return {"podSelector": {"matchLabels": names.selector(deployment.name, component)}}


def _operator() -> Manifest:
    """The operator's pods in whatever namespace it runs."""
    return {"namespaceSelector": {}, "podSelector": {"matchLabels": names.OPERATOR_LABELS}}


def _rule(sources: list[Manifest] | None, *ports: int) -> Manifest:
    """Who may reach which ports; None: everyone."""
    rule: Manifest = {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}
    return rule if sources is None else {"from": sources, **rule}


def _policy(
    deployment: RagDeployment, name: str, component: names.Component, ingress: list[Manifest]
) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": pods.metadata(deployment, name, component),
        "spec": {
            "podSelector": {"matchLabels": names.selector(deployment.name, component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }
