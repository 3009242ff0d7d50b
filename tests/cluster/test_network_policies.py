"""The rendered NetworkPolicies on a cluster that enforces them: who reaches the databases, and who does not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.testbed.base import Cluster
from cluster.testbed.client import Kubectl, KubectlError, Namespaces, wait_for
from cluster.testbed.own import OwnCluster
from cluster.testbed.paths import State
from ragkube_operator import crd, render
from ragkube_operator.render import names

pytestmark = [pytest.mark.level("nodes"), pytest.mark.proves("S6")]

NAME = "docs"
LISTENERS: dict[names.Component, int] = {
    "redis": 6379,
    "weaviate": 8080,
    "api": 8080,
    "prometheus": 9090,
    "alertmanager": 9093,
    "grafana": 3000,
    "redis-exporter": 9121,
}
FRIENDS = {"prometheus": "grafana", "alertmanager": "prometheus", "redis-exporter": "prometheus"}
"""Who may ask a part that the API has nothing to do with."""


@pytest.fixture(scope="module")
def enforcing(cluster: Cluster) -> Iterator[Cluster]:
    """Our own cluster enforces policies only when it is asked to: then a small one of its own; kind always does."""
    if cluster.kind != "own":
        yield cluster
        return
    second = OwnCluster(State.named(f"policies-{int(time.time())}"), size=1)
    try:
        second.up(["network-policies"])
        second.bring(["redis"])
        yield second
    finally:
        second.down()
        shutil.rmtree(second.state.root, ignore_errors=True)  # only logs are left


@pytest.fixture(scope="module")
def place(enforcing: Cluster) -> Iterator[tuple[Kubectl, str, str]]:
    """kubectl, the namespace of the platform, and another one."""
    kubectl = Kubectl(enforcing.kubectl_command())
    namespaces = Namespaces(enforcing, kubectl)
    ours, other = namespaces.create("policies"), namespaces.create("others")
    manifest = {
        "apiVersion": crd.API_VERSION,
        "kind": crd.KIND,
        "metadata": {"name": NAME, "namespace": ours},
        "spec": {
            "documents": {"sources": [{"name": "docs", "directory": {}}]},
            "monitoring": {"type": "Managed"},
        },
    }
    context = render.Context(api_image="ragkube/api:1", operator_version="1")
    objects = render.render(crd.parse(manifest), context)
    kubectl.apply(*(entry for entry in objects if entry["kind"] == "NetworkPolicy"))
    listeners = [
        _pod(component, names.labels(NAME, component), ["redis-server", "--port", str(port), *_OPEN])
        for component, port in LISTENERS.items()
    ]
    kubectl.apply(
        *listeners, _client("worker", names.labels(NAME, "worker")), _client("stranger", {}), namespace=ours
    )
    pretender = names.labels(NAME, "api")
    kubectl.apply(
        _client("operator", names.OPERATOR_LABELS), _client("pretender", pretender), namespace=other
    )
    for space in (ours, other):
        kubectl("-n", space, "wait", "pods", "--all", "--for=condition=Ready", "--timeout=90s")
    yield kubectl, ours, other
    namespaces.delete_all()


_OPEN = ["--protected-mode", "no", "--save", "", "--dir", "/tmp"]
_LOCKED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def _pod(name: str, labels: dict[str, str], command: list[str]) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "redis:8.0",
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "securityContext": _LOCKED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    security = {"runAsNonRoot": True, "runAsUser": 999, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "securityContext": security,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def _client(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return _pod(name, labels, ["redis-server", "--port", "7777", *_OPEN])


def _reaches(kubectl: Kubectl, namespace: str, client: str, address: str, port: int) -> bool:
    command = ("redis-cli", "-t", "2", "-h", address, "-p", str(port), "ping")
    try:
        return "PONG" in kubectl("-n", namespace, "exec", client, "--", *command)
    except KubectlError:
        return False


Asked = Callable[[str, str, names.Component], bool]


@pytest.fixture(scope="module")
def asked(place: tuple[Kubectl, str, str]) -> Asked:
    """``asked("ours", "stranger", "redis")``: whether that pod of that namespace gets an answer from that part."""
    kubectl, ours, other = place

    def ask(where: str, client: str, component: names.Component) -> bool:
        address = kubectl("-n", ours, "get", "pod", component, "-o", "jsonpath={.status.podIP}")
        return _reaches(kubectl, ours if where == "ours" else other, client, address, LISTENERS[component])

    return ask


@pytest.mark.parametrize(
    ("where", "client", "component"),
    [
        ("ours", "api", "redis"),
        ("ours", "api", "weaviate"),
        ("ours", "worker", "redis"),
        ("ours", "worker", "weaviate"),
        ("others", "operator", "redis"),
        ("ours", "stranger", "api"),
        ("others", "pretender", "api"),
        ("ours", "redis-exporter", "redis"),
        ("ours", "prometheus", "redis-exporter"),
        ("ours", "prometheus", "alertmanager"),
        ("ours", "grafana", "prometheus"),
        ("ours", "stranger", "grafana"),
    ],
)
def test_who_needs_a_part_reaches_it(
    asked: Asked, where: str, client: str, component: names.Component
) -> None:
    wait_for(lambda: asked(where, client, component), 20, what="an answer")


@pytest.mark.parametrize(
    ("where", "client", "component"),
    [
        ("ours", "stranger", "redis"),
        ("ours", "stranger", "weaviate"),
        ("others", "pretender", "redis"),
        ("others", "operator", "weaviate"),
        ("ours", "redis", "weaviate"),
        ("ours", "weaviate", "redis"),
        ("ours", "prometheus", "redis"),
        ("ours", "api", "prometheus"),
        ("others", "pretender", "prometheus"),
        ("others", "operator", "prometheus"),
        ("ours", "stranger", "alertmanager"),
        ("ours", "stranger", "redis-exporter"),
    ],
)
def test_nobody_else_reaches_a_database(
    asked: Asked, where: str, client: str, component: names.Component
) -> None:
    # Where the policies are known to be in force, a refusal cannot be luck.
    friend = FRIENDS.get(component, "api")
    wait_for(lambda: asked("ours", friend, component), 20, what="the part to answer those who may ask")
    assert not asked(where, client, component)
