"""The managed Weaviate: one unprivileged StatefulSet."""

from __future__ import annotations

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.base import amount
from ragkube_operator.crd.store import WEAVIATE_RESOURCES, ManagedWeaviate
from ragkube_operator.render import names, pods
from ragkube_operator.render.context import Context
from ragkube_operator.render.pods import Manifest

USER = 1000
DATA = "/data"
PEER_PORTS = {"gossip": 7100, "data": 7101, "raft": 8300, "raft-rpc": 8301}
"""Ports on which the nodes speak to each other; gossip also by UDP."""


def objects(deployment: RagDeployment, context: Context) -> list[Manifest]:
    """Every object of the managed Weaviate, or nothing."""
    weaviate = deployment.spec.vector_store.weaviate
    if weaviate.type != "Managed":
        return []
    return [
        _headless_service(deployment),
        _service(deployment),
        _stateful_set(deployment, weaviate.server, context),
        pods.disruption_budget(deployment, names.weaviate(deployment.name), "weaviate"),
    ]


def _headless_service(deployment: RagDeployment) -> Manifest:
    ports = [_port(name, number, "TCP") for name, number in PEER_PORTS.items()]
    ports.insert(1, _port("gossip-udp", PEER_PORTS["gossip"], "UDP"))
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.metadata(deployment, names.weaviate_headless(deployment.name), "weaviate"),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(deployment.name, "weaviate"),
            "ports": ports,
        },
    }


def _service(deployment: RagDeployment) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.metadata(deployment, names.weaviate(deployment.name), "weaviate"),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector(deployment.name, "weaviate"),
            "ports": [
                _port("http", names.WEAVIATE_HTTP_PORT, "TCP"),
                _port("grpc", names.WEAVIATE_GRPC_PORT, "TCP"),
            ],
        },
    }


def _port(name: str, number: int, protocol: str) -> Manifest:
    return {"name": name, "port": number, "targetPort": number, "protocol": protocol}


def _stateful_set(deployment: RagDeployment, weaviate: ManagedWeaviate, context: Context) -> Manifest:
    storage = weaviate.storage
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": pods.metadata(deployment, names.weaviate(deployment.name), "weaviate"),
        "spec": {
            "replicas": weaviate.replicas,
            "serviceName": names.weaviate_headless(deployment.name),
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 3,
            "persistentVolumeClaimRetentionPolicy": pods.claim_retention(deployment),
            "selector": {"matchLabels": names.selector(deployment.name, "weaviate")},
            "template": pods.template(
                deployment,
                "weaviate",
                placement=weaviate,
                user=USER,
                annotations={},
                spec={
                    "terminationGracePeriodSeconds": 60,
                    "containers": [_container(deployment, weaviate, context)],
                },
            ),
            "volumeClaimTemplates": pods.claim_templates(storage.size, storage.storage_class_name),
        },
    }


def _container(deployment: RagDeployment, weaviate: ManagedWeaviate, context: Context) -> Manifest:
    ready, live = "/v1/.well-known/ready", "/v1/.well-known/live"
    return {
        "name": "weaviate",
        "image": weaviate.image or context.weaviate_image,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(deployment, weaviate),
        "ports": [
            {"name": "http", "containerPort": names.WEAVIATE_HTTP_PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": names.WEAVIATE_GRPC_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": names.WEAVIATE_METRICS_PORT, "protocol": "TCP"},
        ],
        "startupProbe": pods.http_probe(
            live, "http", periodSeconds=1, timeoutSeconds=2, failureThreshold=600
        ),
        "readinessProbe": pods.http_probe(
            ready, "http", periodSeconds=2, timeoutSeconds=3, failureThreshold=3
        ),
        "livenessProbe": pods.http_probe(
            live, "http", periodSeconds=15, timeoutSeconds=5, failureThreshold=8
        ),
        "resources": pods.resources(weaviate.resources),
        "securityContext": pods.LOCKED_DOWN,
        "volumeMounts": [{"name": "data", "mountPath": DATA}],
    }


def _environment(deployment: RagDeployment, weaviate: ManagedWeaviate) -> list[Manifest]:
    secret = {"name": names.weaviate_auth(deployment.name), "key": "api-key"}
    values = {
        "PERSISTENCE_DATA_PATH": DATA,
        "DISABLE_TELEMETRY": "true",
        # always on: switching monitoring on must not restart a database
        "PROMETHEUS_MONITORING_ENABLED": "true",
        "PROMETHEUS_MONITORING_PORT": str(names.WEAVIATE_METRICS_PORT),
        "PROMETHEUS_MONITORING_GROUP": "true",
        "DEFAULT_VECTORIZER_MODULE": "none",
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
        "AUTHENTICATION_APIKEY_ENABLED": "true",
        "AUTHENTICATION_APIKEY_USERS": "ragkube",
        "AUTHORIZATION_ADMINLIST_ENABLED": "true",
        "AUTHORIZATION_ADMINLIST_USERS": "ragkube",
        "GOMEMLIMIT": _memory_goal(weaviate),
        "CLUSTER_GOSSIP_BIND_PORT": str(PEER_PORTS["gossip"]),
        "CLUSTER_DATA_BIND_PORT": str(PEER_PORTS["data"]),
        **_membership(deployment, weaviate),
    }
    return [
        pods.field_env("CLUSTER_HOSTNAME", "metadata.name"),
        {"name": "AUTHENTICATION_APIKEY_ALLOWED_KEYS", "valueFrom": {"secretKeyRef": secret}},
        *({"name": name, "value": value} for name, value in values.items()),
    ]


def _membership(deployment: RagDeployment, weaviate: ManagedWeaviate) -> dict[str, str]:
    """Who votes: three nodes at any size from three on, so that growing replaces no pod."""
    voters = 1 if weaviate.replicas == 1 else 3
    name = names.weaviate(deployment.name)
    values = {
        "RAFT_BOOTSTRAP_EXPECT": str(voters),
        "RAFT_JOIN": ",".join(f"{name}-{pod}" for pod in range(voters)),
    }
    if voters > 1:
        host = f"{names.weaviate_headless(deployment.name)}.{deployment.namespace}.svc"
        values["CLUSTER_JOIN"] = f"{host}:{PEER_PORTS['gossip']}"
    return values


def _memory_goal(weaviate: ManagedWeaviate) -> str:
    """Go collects garbage harder from here on; the rest is for memory-mapped files and C code."""
    limit = weaviate.resources.limits.get("memory") or WEAVIATE_RESOURCES["limits"]["memory"]
    return f"{max(int(amount(limit)) * 8 // 10 // (1024 * 1024), 64)}MiB"
