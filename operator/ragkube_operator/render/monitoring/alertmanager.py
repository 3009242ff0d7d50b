"""The managed Alertmanager: one pod; silences live as long as the pod."""

from __future__ import annotations

from typing import Final

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.monitoring import Alertmanager
from ragkube_operator.render import names, pods
from ragkube_operator.render.context import Context
from ragkube_operator.render.monitoring.common import port, service, single, text
from ragkube_operator.render.pods import Manifest

USER = 65534
DIRECTORY = "/etc/alertmanager"
FILE = "alertmanager.yml"
DATA = "/alertmanager"

NOBODY: Final = {
    "route": {
        "receiver": "nobody",
        "group_by": ["alertname", "namespace", "ragkube_deployment"],
        "group_wait": "10s",
    },
    "receivers": [{"name": "nobody"}],
}
"""Without a configuration alerts are grouped and shown, and nobody is told."""


def objects(deployment: RagDeployment, context: Context) -> list[Manifest]:
    """Everything that Alertmanager needs, or nothing."""
    alertmanager, name = deployment.spec.monitoring.stack.alertmanager, names.alertmanager(deployment.name)
    if not alertmanager.enabled:
        return []
    own = alertmanager.config_secret_ref is None
    files = {FILE: text(NOBODY)}
    return [
        *([pods.config_map(deployment, name, "alertmanager", files)] if own else []),
        service(deployment, name, "alertmanager", names.ALERTMANAGER_PORT),
        single(
            deployment,
            name,
            "alertmanager",
            placement=alertmanager,
            user=USER,
            container=_container(alertmanager, context),
            volumes=[_config(alertmanager, name), {"name": "data", "emptyDir": {"sizeLimit": "256Mi"}}],
            annotations={},
        ),
    ]


def _config(alertmanager: Alertmanager, name: str) -> Manifest:
    reference = alertmanager.config_secret_ref
    if reference is None:
        return {"name": "config", "configMap": {"name": name}}
    items = [{"key": reference.key, "path": FILE}]
    return {"name": "config", "secret": {"secretName": reference.name, "defaultMode": 0o440, "items": items}}


def _container(alertmanager: Alertmanager, context: Context) -> Manifest:
    return {
        "name": "alertmanager",
        "image": alertmanager.image or context.alertmanager_image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            f"--config.file={DIRECTORY}/{FILE}",
            f"--storage.path={DATA}",
            # one pod has no peers
            "--cluster.listen-address=",
        ],
        "ports": [port("http", names.ALERTMANAGER_PORT)],
        "readinessProbe": pods.http_probe(
            "/-/ready", "http", periodSeconds=5, timeoutSeconds=3, failureThreshold=3
        ),
        "livenessProbe": pods.http_probe(
            "/-/healthy", "http", periodSeconds=15, timeoutSeconds=5, failureThreshold=6
        ),
        "resources": pods.resources(alertmanager.resources),
        "securityContext": pods.LOCKED_DOWN,
        "volumeMounts": [
            {"name": "config", "mountPath": DIRECTORY, "readOnly": True},
            {"name": "data", "mountPath": DATA},
        ],
    }
