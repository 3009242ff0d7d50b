"""The API: ServiceAccount, settings, Deployment, Service and disruption budget."""

from __future__ import annotations

import json
from typing import Any

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.base import seconds
from ragkube_operator.crd.common import Resources
from ragkube_operator.render import names, pods, secrets
from ragkube_operator.render.context import Context
from ragkube_operator.render.pods import Manifest
from ragkube_operator.render.settings import DRAIN_SECONDS, settings

USER = 65532
SETTINGS_DIRECTORY = "/etc/ragkube/settings"
SETTINGS_FILE = "settings.json"


def objects(deployment: RagDeployment, context: Context) -> list[Manifest]:
    """Every object of the API."""
    return [
        _service_account(deployment),
        _settings(deployment),
        _service(deployment),
        _deployment(deployment, context),
        pods.disruption_budget(deployment, names.api(deployment.name), "api"),
    ]


def image(deployment: RagDeployment, context: Context) -> str:
    """The image of API and worker."""
    return deployment.spec.api.image or context.api_image


def _service_account(deployment: RagDeployment) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": pods.metadata(deployment, names.service_account(deployment.name), "api"),
        "automountServiceAccountToken": False,
    }


def _settings(deployment: RagDeployment) -> Manifest:
    text = json.dumps(settings(deployment), indent=2, ensure_ascii=False) + "\n"
    return pods.config_map(deployment, names.settings(deployment.name), "api", {SETTINGS_FILE: text})


def _service(deployment: RagDeployment) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.metadata(deployment, names.service(deployment.name), "api"),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector(deployment.name, "api"),
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}
            ],
        },
    }


def _deployment(deployment: RagDeployment, context: Context) -> Manifest:
    api = deployment.spec.api
    container = base_container(deployment, context, "api", api.resources)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": pods.metadata(deployment, names.api(deployment.name), "api"),
        "spec": {
            "replicas": api.replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": 300,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": names.selector(deployment.name, "api")},
            "template": pods.template(
                deployment,
                "api",
                placement=api,
                user=USER,
                annotations=settings_hash(deployment),
                spec={
                    "terminationGracePeriodSeconds": grace_period(deployment),
                    "containers": [container],
                    "volumes": base_volumes(deployment),
                },
            ),
        },
    }


def grace_period(deployment: RagDeployment) -> int:
    """Serve on, finish what is in flight, close: longer than the process itself takes for it."""
    return DRAIN_SECONDS + seconds(deployment.spec.api.request_timeout) + 5


def settings_hash(deployment: RagDeployment) -> dict[str, str]:
    """A hash of the settings: other settings replace the pods."""
    return {names.SETTINGS_HASH: pods.digest(settings(deployment))}


def base_container(deployment: RagDeployment, context: Context, name: str, resources: Resources) -> Manifest:
    """The container of API and worker: the same image, settings, secrets and probes."""
    mounts = [
        {"name": "settings", "mountPath": SETTINGS_DIRECTORY, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod
    ]
    if secrets.volume(deployment) is not None:
        mounts.append({"name": "secrets", "mountPath": secrets.DIRECTORY, "readOnly": True})
    return {
        "name": name,
        "image": image(deployment, context),
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "RAGKUBE_SETTINGS", "value": f"{SETTINGS_DIRECTORY}/{SETTINGS_FILE}"},
            {"name": "HOME", "value": "/tmp"},  # noqa: S108
            {"name": "MALLOC_ARENA_MAX", "value": "2"},  # more only keep what threads once needed
            pods.field_env("POD_NAME", "metadata.name"),
        ],
        "resources": pods.resources(resources),
        "ports": [{"name": "http", "containerPort": names.API_PORT, "protocol": "TCP"}],
        **_probes(),
        "securityContext": pods.LOCKED_DOWN,
        "volumeMounts": mounts,
    }


def _probes() -> Manifest:
    """Ready within a second of being up; out of the Service after two failures, restarted only when it hangs."""
    return {
        "startupProbe": pods.http_probe(
            "/healthz", "http", periodSeconds=1, timeoutSeconds=2, failureThreshold=120
        ),
        "readinessProbe": pods.http_probe(
            "/readyz", "http", periodSeconds=2, timeoutSeconds=2, failureThreshold=2
        ),
        "livenessProbe": pods.http_probe(
            "/healthz", "http", periodSeconds=10, timeoutSeconds=5, failureThreshold=3
        ),
    }


def base_volumes(deployment: RagDeployment) -> list[Manifest]:
    """The volumes that ``base_container`` mounts."""
    volumes: list[dict[str, Any]] = [
        {"name": "settings", "configMap": {"name": names.settings(deployment.name)}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    secret = secrets.volume(deployment)
    return [*volumes, secret] if secret is not None else volumes
