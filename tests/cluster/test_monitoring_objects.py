"""Monitoring against a real API server, with exactly the operator's rights: a Prometheus Operator may come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.testbed import programs
from support import platforms
from support.control_plane import ControlPlane, OperatorProcess
from support.processes import wait_for

pytestmark = pytest.mark.proves("K8")

NAMESPACE = "shop"
PROMETHEUS_OPERATOR = ("github.com/prometheus-operator/prometheus-operator", "v0.85.0")
KINDS = ("podmonitors", "servicemonitors", "prometheusrules")
# as `python -m ragkube_operator`, which looks for new kinds once a minute
CURIOUS = (
    "import sys; from ragkube_operator import __main__, kube, reconciler;"
    "kube._DISCOVERY_SECONDS = 4.0; reconciler.EXTERNAL_SECONDS = 2.0; sys.exit(__main__.main([]))"
)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Pod Security is enforced as in a namespace that an administrator locked down."""
    found = ControlPlane(tmp_path_factory.mktemp("plane"))
    operator = None
    try:
        found.start()
        folder = tmp_path_factory.mktemp("operator")
        operator = OperatorProcess(found.install(), folder, program=("-c", CURIOUS))
        found.kubectl("create", "namespace", NAMESPACE)
        found.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        operator.start()
        yield found
    finally:
        if operator is not None:
            operator.kill()
        found.stop()


def resource(name: str, **monitoring: Any) -> dict[str, Any]:
    return platforms.resource(name, NAMESPACE, monitoring=monitoring)


def condition(plane: ControlPlane, name: str) -> dict[str, Any]:
    found = plane.get("ragd", name, "-n", NAMESPACE).get("status", {}).get("conditions", [])
    return next((item for item in found if item["type"] == "MonitoringReady"), {})


def wait_for_reason(plane: ControlPlane, name: str, reason: str, seconds: float = 60) -> dict[str, Any]:
    def seen() -> dict[str, Any]:
        found = condition(plane, name)
        return found if found.get("reason") == reason else {}

    return wait_for(f"{name} says {reason}", seen, seconds=seconds)


def patch(plane: ControlPlane, name: str, **spec: Any) -> None:
    text = json.dumps({"spec": spec})
    plane.kubectl("patch", "ragd", name, "-n", NAMESPACE, "--type=merge", "-p", text)


def monitors(plane: ControlPlane) -> list[str]:
    return plane.kubectl("get", ",".join(KINDS), "-n", NAMESPACE, "-o", "name").split()


@pytest.fixture(scope="module")
def kinds() -> list[str]:
    """The CustomResourceDefinitions of the Prometheus Operator's own module."""
    folder = programs.module_source(*PROMETHEUS_OPERATOR) / "example" / "prometheus-operator-crd"
    return [str(folder / f"monitoring.coreos.com_{kind}.yaml") for kind in KINDS]


def test_a_prometheus_operator_may_come_later_and_go_again(plane: ControlPlane, kinds: list[str]) -> None:
    plane.apply(resource("outside", type="External", external={"labels": {"release": "stack"}}))
    found = wait_for_reason(plane, "outside", "KindMissing")
    assert "PodMonitor, PrometheusRule, ServiceMonitor" in found["message"]
    assert plane.get("deployment", "outside-api", "-n", NAMESPACE)["spec"]["replicas"] == 2

    for file in kinds:
        plane.kubectl("create", "-f", file)
    wait_for("the kinds are picked up", lambda: len(monitors(plane)) == 4, seconds=120)
    rule = plane.get("prometheusrule", "outside-metrics", "-n", NAMESPACE)
    assert rule["metadata"]["labels"]["release"] == "stack"

    # what somebody changes is put back with the next look
    plane.kubectl("delete", "podmonitor", "outside-metrics", "-n", NAMESPACE)
    patch(plane, "outside", api={"replicas": 3})
    wait_for("the deleted monitor is back", lambda: len(monitors(plane)) == 4)

    # what is switched off goes
    patch(plane, "outside", monitoring={"type": "None", "external": None})
    wait_for("what was switched off is gone", lambda: not monitors(plane))
    assert condition(plane, "outside") == {}

    # and when the kinds go, the rest goes on
    patch(plane, "outside", monitoring={"type": "External", "external": {}})
    wait_for("everything is back", lambda: len(monitors(plane)) == 4)
    for file in kinds:
        plane.kubectl("delete", "-f", file)
    wait_for_reason(plane, "outside", "KindMissing", 120)


def test_a_wrong_address_of_prometheus_is_reported_with_the_field(
    plane: ControlPlane, kinds: list[str]
) -> None:
    for file in kinds:
        plane.kubectl("apply", "--server-side", "-f", file)
    external = {"prometheusUrl": "http://127.0.0.1:9"}
    plane.apply(resource("astray", type="External", external=external))

    def settled() -> dict[str, Any]:
        plane.run_pods(NAMESPACE)
        found = condition(plane, "astray")
        return found if found.get("reason") == "Unreachable" else {}

    found = wait_for("the condition names the address", settled, seconds=120)
    assert "http://127.0.0.1:9" in found["message"]
    assert "spec.monitoring.external.prometheusUrl" in found["message"]


def test_the_managed_stack_is_admitted_and_told_of(plane: ControlPlane) -> None:
    """Its Role is granted, its pods pass Pod Security "restricted", and a missing Secret is named with the fix."""
    reference = {"name": "alertmanager", "key": "alertmanager.yml"}
    managed = {"alertmanager": {"configSecretRef": reference}}
    plane.apply(resource("inside", type="Managed", managed=managed))
    found = wait_for_reason(plane, "inside", "SecretMissing")
    assert "kubectl create secret generic alertmanager" in found["message"]
    role = plane.get("role", "inside-prometheus", "-n", NAMESPACE)
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]

    file = Path(plane.folder) / "alertmanager.yml"
    file.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    plane.kubectl("create", "secret", "generic", "alertmanager", "-n", NAMESPACE, f"--from-file={file}")

    def running() -> bool:
        plane.run_pods(NAMESPACE)
        return condition(plane, "inside").get("status") == "True"

    wait_for("the stack runs", running, seconds=120)
    labels = "app.kubernetes.io/instance=inside,app.kubernetes.io/component in "
    labels += "(prometheus,alertmanager,grafana,redis-exporter)"
    assert len(plane.get("pods", "-n", NAMESPACE, "-l", labels)["items"]) == 4
    assert "inside-grafana-admin" in condition(plane, "inside")["message"]
    secret = plane.get("secret", "inside-redis-auth", "-n", NAMESPACE)
    assert "exporter-6.json" in secret["data"]
