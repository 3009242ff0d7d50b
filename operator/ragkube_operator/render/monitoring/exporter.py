"""The Redis exporter: it may ask only the pods of the managed Redis, because only for them it has a password."""

from __future__ import annotations

from ragkube_operator.crd import RagDeployment
from ragkube_operator.render import names, pods, redis_targets
from ragkube_operator.render.context import Context
from ragkube_operator.render.monitoring.common import port, service, single
from ragkube_operator.render.pods import Manifest

USER = 59000
DIRECTORY = "/etc/redis-exporter"
FILE = "passwords.json"


def objects(deployment: RagDeployment, context: Context) -> list[Manifest]:
    """Deployment and Service, where there is a managed Redis."""
    if not redis_targets.exporter_runs(deployment):
        return []
    name, exporter = names.redis_exporter(deployment.name), deployment.spec.monitoring.redis_exporter
    item = {"key": redis_targets.password_key(deployment), "path": FILE}
    secret = {"secretName": names.redis_auth(deployment.name), "defaultMode": 0o440, "items": [item]}
    return [
        service(deployment, name, "redis-exporter", names.REDIS_EXPORTER_PORT),
        single(
            deployment,
            name,
            "redis-exporter",
            placement=exporter,
            user=USER,
            container=_container(deployment, context),
            volumes=[{"name": "passwords", "secret": secret}],
            annotations={},
        ),
    ]


def _container(deployment: RagDeployment, context: Context) -> Manifest:
    exporter = deployment.spec.monitoring.redis_exporter
    return {
        "name": "redis-exporter",
        "image": exporter.image or context.redis_exporter_image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            # empty: it asks nobody by itself
            "--redis.addr=",
            f"--redis.password-file={DIRECTORY}/{FILE}",
            f"--web.listen-address=:{names.REDIS_EXPORTER_PORT}",
            "--config-command=-",
            "--connection-timeout=3s",
        ],
        "ports": [port("http", names.REDIS_EXPORTER_PORT)],
        "readinessProbe": pods.http_probe(
            "/health", "http", periodSeconds=5, timeoutSeconds=2, failureThreshold=3
        ),
        "livenessProbe": pods.http_probe(
            "/health", "http", periodSeconds=20, timeoutSeconds=5, failureThreshold=3
        ),
        "resources": pods.resources(exporter.resources),
        "securityContext": pods.LOCKED_DOWN,
        "volumeMounts": [{"name": "passwords", "mountPath": DIRECTORY, "readOnly": True}],
    }
