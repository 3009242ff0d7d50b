"""The managed Redis Cluster: its pods. The operator forms the cluster over the protocol."""

from __future__ import annotations

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.cache import ManagedRedis
from ragkube_operator.render import names, pods, redis_files
from ragkube_operator.render.context import Context
from ragkube_operator.render.pods import Manifest

USER = 999


def objects(deployment: RagDeployment, context: Context) -> list[Manifest]:
    """Every object of the managed Redis Cluster, or nothing."""
    cache = deployment.spec.cache
    if not cache.enabled or cache.redis.type != "Managed":
        return []
    redis, name = cache.redis.server, names.redis(deployment.name)
    return [
        pods.config_map(deployment, name, "redis", redis_files.files(redis)),
        _service(deployment),
        _stateful_set(deployment, redis, context),
        pods.disruption_budget(deployment, name, "redis"),
    ]


def _service(deployment: RagDeployment) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.metadata(deployment, names.redis(deployment.name), "redis"),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(deployment.name, "redis"),
            "ports": [
                {"name": "redis", "port": names.REDIS_PORT, "targetPort": "redis", "protocol": "TCP"},
                {"name": "bus", "port": names.REDIS_BUS_PORT, "targetPort": "bus", "protocol": "TCP"},
            ],
        },
    }


def _stateful_set(deployment: RagDeployment, redis: ManagedRedis, context: Context) -> Manifest:
    spec: Manifest = {
        "replicas": redis.pod_count,
        "serviceName": names.redis(deployment.name),
        "podManagementPolicy": "Parallel",
        "revisionHistoryLimit": 3,
        "persistentVolumeClaimRetentionPolicy": pods.claim_retention(deployment),
        "selector": {"matchLabels": names.selector(deployment.name, "redis")},
        "template": _template(deployment, redis, context),
    }
    if redis.storage is not None:
        storage = redis.storage
        spec["volumeClaimTemplates"] = pods.claim_templates(storage.size, storage.storage_class_name)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": pods.metadata(deployment, names.redis(deployment.name), "redis"),
        "spec": spec,
    }


def _template(deployment: RagDeployment, redis: ManagedRedis, context: Context) -> Manifest:
    name = names.redis(deployment.name)
    secret = names.redis_auth(deployment.name)
    volumes: list[Manifest] = [
        {"name": "config", "configMap": {"name": name}},
        {"name": "auth", "secret": {"secretName": secret, "defaultMode": 0o440}},
    ]
    if redis.storage is None:
        volumes.append({"name": "data", "emptyDir": {}})
    return pods.template(
        deployment,
        "redis",
        placement=redis,
        user=USER,
        annotations={names.CONFIG_HASH: pods.digest(redis_files.config(redis))},
        spec={
            "terminationGracePeriodSeconds": 30,
            "containers": [_container(redis, context)],
            "volumes": volumes,
        },
    )


def _container(redis: ManagedRedis, context: Context) -> Manifest:
    default = context.valkey_image if redis.flavor == "Valkey" else context.redis_image
    return {
        "name": "redis",
        "image": redis.image or default,
        "imagePullPolicy": "IfNotPresent",
        "command": [
            f"{redis_files.binary(redis)}-server",
            f"{redis_files.DIRECTORY}/redis.conf",
            "--cluster-announce-ip",
            "$(POD_IP)",
        ],
        "env": [pods.field_env("POD_IP", "status.podIP")],
        "ports": [
            {"name": "redis", "containerPort": names.REDIS_PORT, "protocol": "TCP"},
            {"name": "bus", "containerPort": names.REDIS_BUS_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": _script("ready.sh", periodSeconds=2, timeoutSeconds=3, failureThreshold=2),
        "livenessProbe": _script(
            "alive.sh", initialDelaySeconds=20, periodSeconds=20, timeoutSeconds=10, failureThreshold=3
        ),
        "lifecycle": {"preStop": _script("hand-over.sh")},
        "resources": pods.resources(redis.resources),
        "securityContext": pods.LOCKED_DOWN,
        "volumeMounts": [
            {"name": "config", "mountPath": redis_files.DIRECTORY, "readOnly": True},
            {"name": "auth", "mountPath": redis_files.AUTH_DIRECTORY, "readOnly": True},
            {"name": "data", "mountPath": redis_files.DATA},
        ],
    }


def _script(name: str, **numbers: int) -> Manifest:
    return {"exec": {"command": ["sh", f"{redis_files.DIRECTORY}/{name}"]}, **numbers}
