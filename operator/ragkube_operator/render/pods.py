"""What all pods have in common: how they are secured, spread and disrupted."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.common import Placement, Resources
from ragkube_operator.render import names

Manifest = dict[str, Any]

LOCKED_DOWN: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""The securityContext of every container (Pod Security "restricted", and a read-only root)."""


def metadata(deployment: RagDeployment, name: str, component: names.Component) -> Manifest:
    """Metadata of an object of a part."""
    return {
        "name": name,
        "namespace": deployment.namespace,
        "labels": names.labels(deployment.name, component),
    }


def config_map(
    deployment: RagDeployment, name: str, component: names.Component, data: dict[str, str]
) -> Manifest:
    """A ConfigMap of a part."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(deployment, name, component),
        "data": data,
    }


def template(
    deployment: RagDeployment,
    component: names.Component,
    *,
    placement: Placement,
    user: int,
    annotations: dict[str, str],
    spec: Manifest,
) -> Manifest:
    """A pod template: ``spec`` has the containers, volumes and grace period."""
    selector = names.selector(deployment.name, component)
    pull_secrets = [{"name": secret.name} for secret in deployment.spec.image_pull_secrets]
    optional: Manifest = {
        "nodeSelector": dict(placement.node_selector),
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True) for t in placement.tolerations],
        "imagePullSecrets": pull_secrets,
    }
    return {
        "metadata": {
            "labels": names.labels(deployment.name, component),
            **({"annotations": annotations} if annotations else {}),
        },
        "spec": {
            "serviceAccountName": names.service_account(deployment.name),
            "automountServiceAccountToken": False,
            # A Service called "weaviate" would otherwise become WEAVIATE_* in every environment.
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": user,
                "fsGroup": user,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": [spread(selector)],
            **{key: value for key, value in optional.items() if value},
            **spec,
        },
    }


def spread(selector: dict[str, str]) -> Manifest:
    """Over nodes where possible; a pod is rather placed unevenly than not at all."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector},
    }


def disruption_budget(deployment: RagDeployment, name: str, component: names.Component) -> Manifest:
    """One pod of a part at a time may be evicted; one that is broken already always."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(deployment, name, component),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector(deployment.name, component)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def resources(wanted: Resources) -> Manifest:
    """The resources of a container, without empty parts."""
    return {key: dict(value) for key, value in wanted.model_dump().items() if value}


def claim_templates(size: str, storage_class: str | None) -> list[Manifest]:
    """One volume ``data`` for each pod of a StatefulSet."""
    spec: Manifest = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return [{"metadata": {"name": "data"}, "spec": spec}]


def claim_retention(deployment: RagDeployment) -> Manifest:
    """What happens to the volumes: as ``spec.deletionPolicy`` says, and never lost by scaling."""
    return {"whenDeleted": deployment.spec.deletion_policy, "whenScaled": "Retain"}


def field_env(name: str, path: str) -> Manifest:
    """An environment variable with a field of the pod itself."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def http_probe(path: str, port: str, **numbers: int) -> Manifest:
    """A probe by HTTP."""
    return {"httpGet": {"path": path, "port": port}, **numbers}


def digest(value: Any) -> str:
    """A short hash of a value, equal for equal values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
