"""Names and labels of everything that belongs to a RagDeployment."""

from __future__ import annotations

from typing import Literal

Component = Literal[
    "alertmanager", "api", "grafana", "prometheus", "redis", "redis-exporter", "weaviate", "worker"
]

API_PORT = 8080
REDIS_PORT = 6379
REDIS_BUS_PORT = 16379
WEAVIATE_HTTP_PORT = 8080
WEAVIATE_GRPC_PORT = 50051
WEAVIATE_METRICS_PORT = 2112
PROMETHEUS_PORT = 9090
ALERTMANAGER_PORT = 9093
GRAFANA_PORT = 3000
REDIS_EXPORTER_PORT = 9121
OPERATOR_METRICS_PORT = 9090

OPERATOR_LABELS = {"app.kubernetes.io/name": "ragkube-operator"}
"""Labels of the operator's own pods: they may speak to Redis."""

SETTINGS_HASH = "ragkube.dev/settings-hash"
CONFIG_HASH = "ragkube.dev/config-hash"


def selector(name: str, component: Component) -> dict[str, str]:
    """The labels that pods of a part are selected by; they never change."""
    return {
        "app.kubernetes.io/name": "ragkube",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": component,
    }


def labels(name: str, component: Component) -> dict[str, str]:
    """The labels of an object of a part."""
    return {
        **selector(name, component),
        "app.kubernetes.io/managed-by": "ragkube",
        "app.kubernetes.io/part-of": "ragkube",
    }


def service_account(name: str) -> str:
    """ServiceAccount of every pod; it has no rights and no token is mounted."""
    return name


def service(name: str) -> str:
    """Service of the API."""
    return name


def url(name: str, namespace: str) -> str:
    """Address of the API inside the cluster."""
    return f"http://{service(name)}.{namespace}.svc"


def settings(name: str) -> str:
    """ConfigMap with the settings file of API and worker."""
    return f"{name}-settings"


def api(name: str) -> str:
    """Deployment of the API."""
    return f"{name}-api"


def worker(name: str) -> str:
    """Deployment of the worker."""
    return f"{name}-worker"


def redis(name: str) -> str:
    """StatefulSet, headless Service and ConfigMap of the managed Redis Cluster."""
    return f"{name}-redis"


def weaviate(name: str) -> str:
    """StatefulSet and Service of the managed Weaviate."""
    return f"{name}-weaviate"


def weaviate_headless(name: str) -> str:
    """Headless Service through which Weaviate's nodes find each other."""
    return f"{name}-weaviate-headless"


def admin_key(name: str) -> str:
    """Generated Secret with the administrator's key."""
    return f"{name}-admin-key"


def redis_auth(name: str) -> str:
    """Generated Secret with the password of the managed Redis Cluster."""
    return f"{name}-redis-auth"


def weaviate_auth(name: str) -> str:
    """Generated Secret with the API key of the managed Weaviate."""
    return f"{name}-weaviate-auth"


def prometheus(name: str) -> str:
    """StatefulSet, Service, ServiceAccount and Role of the managed Prometheus."""
    return f"{name}-prometheus"


def prometheus_url(name: str, namespace: str) -> str:
    """Address of the managed Prometheus inside the cluster."""
    return f"http://{prometheus(name)}.{namespace}.svc:{PROMETHEUS_PORT}"


def alertmanager(name: str) -> str:
    """Deployment and Service of the managed Alertmanager."""
    return f"{name}-alertmanager"


def grafana(name: str) -> str:
    """Deployment and Service of the managed Grafana, and its provisioning."""
    return f"{name}-grafana"


def grafana_admin(name: str) -> str:
    """Generated Secret with the password of Grafana's administrator."""
    return f"{name}-grafana-admin"


def redis_exporter(name: str) -> str:
    """Deployment and Service of the Redis exporter."""
    return f"{name}-redis-exporter"


def dashboard(name: str, board: str) -> str:
    """ConfigMap of a dashboard."""
    return f"{name}-dashboard-{board}"


def metrics(name: str) -> str:
    """PodMonitor of API and worker, and PrometheusRule."""
    return f"{name}-metrics"
