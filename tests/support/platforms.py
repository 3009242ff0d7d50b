"""What tests on a cluster ask of a RagDeployment that runs there."""

from __future__ import annotations

import base64
from typing import Any

from cluster.testbed.client import Kubectl

OPERATOR = "app.kubernetes.io/name=ragkube-operator"
"""Label of the operator's pods."""


def resource(name: str, namespace: str | None = None, /, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "ragkube.dev/v1alpha1", "kind": "RagDeployment", "metadata": metadata, "spec": spec}


def ready(kubectl: Kubectl, namespace: str, name: str = "minimal", seconds: int = 180) -> None:
    limit = f"--timeout={seconds}s"
    kubectl("wait", f"ragd/{name}", "-n", namespace, "--for=condition=Ready", limit, timeout=seconds + 20)


def condition(kubectl: Kubectl, namespace: str, kind: str, name: str = "minimal") -> dict[str, Any]:
    found = kubectl.json("get", "ragd", name, "-n", namespace).get("status", {}).get("conditions", [])
    return next((item for item in found if item["type"] == kind), {})


def admin_key(kubectl: Kubectl, namespace: str, name: str = "minimal") -> str:
    secret = kubectl.json("get", "secret", f"{name}-admin-key", "-n", namespace)
    return base64.b64decode(secret["data"]["key"]).decode()


def redis_pods(kubectl: Kubectl, namespace: str) -> list[dict[str, Any]]:
    label = "app.kubernetes.io/component=redis"
    found: list[dict[str, Any]] = kubectl.json("get", "pods", "-n", namespace, "-l", label)["items"]
    return found


def is_ready(pod: dict[str, Any]) -> bool:
    states = {item["type"]: item["status"] for item in pod["status"].get("conditions") or []}
    return states.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
