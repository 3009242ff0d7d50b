"""The managed Grafana: data source and dashboards are provisioned; what is changed by hand ends with the pod."""

from __future__ import annotations

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.monitoring import Grafana
from ragkube_operator.render import dashboards, names, pods
from ragkube_operator.render.context import Context
from ragkube_operator.render.monitoring.common import port, service, single, text
from ragkube_operator.render.pods import Manifest

USER = 472
PROVISIONING = "/etc/grafana/provisioning"
BOARDS = "/var/lib/ragkube/dashboards"
SECRETS = "/etc/grafana/secrets"
DATA = "/var/lib/grafana"


def objects(deployment: RagDeployment, context: Context) -> list[Manifest]:
    """Everything that Grafana needs, or nothing."""
    grafana, name = deployment.spec.monitoring.stack.grafana, names.grafana(deployment.name)
    if not grafana.enabled:
        return []
    files = {"datasources.yml": text(_sources(deployment)), "dashboards.yml": text(_provider())}
    boards = dashboards.config_maps(deployment, {})
    return [
        pods.config_map(deployment, name, "grafana", files),
        *boards,
        service(deployment, name, "grafana", names.GRAFANA_PORT),
        single(
            deployment,
            name,
            "grafana",
            placement=grafana,
            user=USER,
            container=_container(grafana, context),
            volumes=_volumes(deployment, name, boards),
            # Grafana reads provisioned files once
            annotations={names.CONFIG_HASH: pods.digest(files)},
        ),
    ]


def _sources(deployment: RagDeployment) -> Manifest:
    source = {
        "name": "Prometheus",
        "uid": "prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": names.prometheus_url(deployment.name, deployment.namespace),
        "isDefault": True,
        "jsonData": {"timeInterval": "15s"},
    }
    return {"apiVersion": 1, "datasources": [source]}


def _provider() -> Manifest:
    provider = {"name": "ragkube", "type": "file", "folder": "ragkube", "options": {"path": BOARDS}}
    return {"apiVersion": 1, "providers": [provider]}


def _volumes(deployment: RagDeployment, name: str, boards: list[Manifest]) -> list[Manifest]:
    sources = [{"configMap": {"name": board["metadata"]["name"]}} for board in boards]
    admin = {"secretName": names.grafana_admin(deployment.name), "defaultMode": 0o440}
    return [
        {"name": "provisioning", "configMap": {"name": name}},
        {"name": "dashboards", "projected": {"sources": sources}},
        {"name": "admin", "secret": admin},
        {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
    ]


def _container(grafana: Grafana, context: Context) -> Manifest:
    values = {
        "GF_SECURITY_ADMIN_PASSWORD__FILE": f"{SECRETS}/password",
        "GF_USERS_ALLOW_SIGN_UP": "false",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_LOG_MODE": "console",
    }
    probe = {"timeoutSeconds": 3, "failureThreshold": 6}
    return {
        "name": "grafana",
        "image": grafana.image or context.grafana_image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": name, "value": value} for name, value in values.items()],
        "ports": [port("http", names.GRAFANA_PORT)],
        "startupProbe": pods.http_probe(
            "/api/health", "http", periodSeconds=2, timeoutSeconds=3, failureThreshold=60
        ),
        "readinessProbe": pods.http_probe("/api/health", "http", periodSeconds=5, **probe),
        "livenessProbe": pods.http_probe("/api/health", "http", periodSeconds=20, **probe),
        "resources": pods.resources(grafana.resources),
        "securityContext": pods.LOCKED_DOWN,
        "volumeMounts": [
            *_provisioned("datasources", "dashboards"),
            {"name": "dashboards", "mountPath": BOARDS, "readOnly": True},
            {"name": "admin", "mountPath": SECRETS, "readOnly": True},
            {"name": "data", "mountPath": DATA},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod
        ],
    }


def _provisioned(*kinds: str) -> list[Manifest]:
    return [
        {
            "name": "provisioning",
            "mountPath": f"{PROVISIONING}/{kind}/ragkube.yml",
            "subPath": f"{kind}.yml",
            "readOnly": True,
        }
        for kind in kinds
    ]
