"""The managed Prometheus: one pod with a volume that sees the pods of its own namespace and nothing else."""

from __future__ import annotations

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.base import amount
from ragkube_operator.crd.monitoring import Prometheus
from ragkube_operator.render import names, pods
from ragkube_operator.render.context import Context
from ragkube_operator.render.monitoring import scraping
from ragkube_operator.render.monitoring.common import port, service, text
from ragkube_operator.render.pods import Manifest

USER = 65534
CONFIG_DIRECTORY = "/etc/prometheus"
DATA = "/prometheus"
CONFIG_FILE = "prometheus.yml"
RULE_FILE = "rules.yml"


def objects(deployment: RagDeployment, context: Context, rule_file: dict[str, object]) -> list[Manifest]:
    """Everything that Prometheus needs."""
    name = names.prometheus(deployment.name)
    files = {CONFIG_FILE: text(scraping.config(deployment, context, RULE_FILE)), RULE_FILE: text(rule_file)}
    return [
        *_account(deployment, name),
        pods.config_map(deployment, name, "prometheus", files),
        service(deployment, name, "prometheus", names.PROMETHEUS_PORT),
        _stateful_set(deployment, deployment.spec.monitoring.stack.prometheus, context),
    ]


def _account(deployment: RagDeployment, name: str) -> list[Manifest]:
    """The right to find pods, in this namespace only: service discovery needs it."""
    api, meta = "rbac.authorization.k8s.io", pods.metadata(deployment, name, "prometheus")
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": meta,
            "automountServiceAccountToken": False,
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "Role",
            "metadata": meta,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": deployment.namespace}],
        },
    ]


def _stateful_set(deployment: RagDeployment, prometheus: Prometheus, context: Context) -> Manifest:
    name, storage = names.prometheus(deployment.name), prometheus.storage
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": pods.metadata(deployment, name, "prometheus"),
        "spec": {
            "replicas": 1,
            "serviceName": name,
            "revisionHistoryLimit": 3,
            "persistentVolumeClaimRetentionPolicy": pods.claim_retention(deployment),
            "selector": {"matchLabels": names.selector(deployment.name, "prometheus")},
            "template": pods.template(
                deployment,
                "prometheus",
                placement=prometheus,
                user=USER,
                annotations={},
                spec={
                    "serviceAccountName": name,
                    "automountServiceAccountToken": True,
                    "terminationGracePeriodSeconds": 120,
                    "containers": [_container(prometheus, context)],
                    "volumes": [{"name": "config", "configMap": {"name": name}}],
                },
            ),
            "volumeClaimTemplates": pods.claim_templates(storage.size, storage.storage_class_name),
        },
    }


def _container(prometheus: Prometheus, context: Context) -> Manifest:
    return {
        "name": "prometheus",
        "image": prometheus.image or context.prometheus_image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            f"--config.file={CONFIG_DIRECTORY}/{CONFIG_FILE}",
            f"--storage.tsdb.path={DATA}",
            f"--storage.tsdb.retention.time={prometheus.retention}",
            f"--storage.tsdb.retention.size={_room(prometheus)}",
            # a changed ConfigMap needs no restart
            "--enable-feature=auto-reload-config",
            "--config.auto-reload-interval=15s",
        ],
        "ports": [port("http", names.PROMETHEUS_PORT)],
        "startupProbe": pods.http_probe(
            "/-/ready", "http", periodSeconds=2, timeoutSeconds=3, failureThreshold=300
        ),
        "readinessProbe": pods.http_probe(
            "/-/ready", "http", periodSeconds=5, timeoutSeconds=3, failureThreshold=3
        ),
        "livenessProbe": pods.http_probe(
            "/-/healthy", "http", periodSeconds=15, timeoutSeconds=5, failureThreshold=6
        ),
        "resources": pods.resources(prometheus.resources),
        "securityContext": pods.LOCKED_DOWN,
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_DIRECTORY, "readOnly": True},
            {"name": "data", "mountPath": DATA},
        ],
    }


def _room(prometheus: Prometheus) -> str:
    """Four fifths of the volume: the rest is for the write-ahead log and compaction."""
    return f"{max(int(amount(prometheus.storage.size)) * 8 // 10 // (1024 * 1024), 64)}MB"
