"""Monitoring on a real cluster: a stack of our own that scrapes, evaluates and alerts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from cluster.testbed import cli
from cluster.testbed.base import Cluster
from cluster.testbed.client import Http, Kubectl, Namespaces, wait_for
from ragkube_operator import crd
from ragkube_operator.render import dashboards
from support.platforms import admin_key, condition, ready, resource

pytestmark = [pytest.mark.level("nodes"), pytest.mark.proves("K8")]

NAME = "watched"
STORED = {"storage": {"size": "1Gi"}}
SMALL = {
    "api": {"replicas": 1},
    "cache": {"redis": {"managed": {"replicasPerShard": 0}}},
}
GRAFANA = "Grafana: "


class Watched:
    """A platform with monitoring, and its Prometheus."""

    def __init__(self, kubectl: Kubectl, http: Http, namespace: str) -> None:
        self.kubectl, self.http, self.namespace = kubectl, http, namespace

    def prometheus(self, path: str) -> Any:
        url = f"http://{NAME}-prometheus.{self.namespace}:9090/api/v1/{path}"
        answer = self.http("GET", url)
        assert answer.status == 200, answer
        return answer.json()["data"]

    def values(self, expr: str) -> list[float]:
        return [float(item["value"][1]) for item in self.prometheus(f"query?query={quote(expr)}")["result"]]

    def condition(self) -> dict[str, Any]:
        return condition(self.kubectl, self.namespace, "MonitoringReady", NAME)


@pytest.fixture(scope="module")
def watched(
    operator: None, cluster: Cluster, kubectl: Kubectl, http: Http, namespaces: Namespaces
) -> Iterator[Watched]:
    cli.bring_images(cluster, ["prometheus", "alertmanager", "redis-exporter"])
    namespace = namespaces.create("monitoring")
    monitoring = {"type": "Managed", "managed": {"prometheus": STORED}}
    kubectl.apply(resource(NAME, **SMALL, monitoring=monitoring), namespace=namespace)
    ready(kubectl, namespace, NAME)
    yield Watched(kubectl, http, namespace)
    namespaces.delete(namespace)


def test_everything_runs_but_what_has_no_image(watched: Watched) -> None:
    """Grafana's image cannot be made here: the condition says so, and questions are answered all the same."""

    def settled() -> dict[str, Any]:
        found = watched.condition()
        stuck = found.get("message", "").startswith(GRAFANA) and "Pull" in found["message"]
        return found if found.get("status") == "True" or stuck else {}

    found = wait_for(settled, 120, what="Prometheus, Alertmanager and the exporter")
    if found["status"] == "True":
        answer = watched.http("GET", f"http://{NAME}-grafana.{watched.namespace}:3000/api/health")
        assert answer.status == 200
    assert condition(watched.kubectl, watched.namespace, "Ready", NAME)["status"] == "True"


def test_every_target_is_up_and_every_rule_is_healthy(watched: Watched) -> None:
    wanted = {"ragkube": 1, "weaviate": 1, "redis": 3, "ragkube-operator": 1, "prometheus": 1}

    def up() -> bool:
        found: dict[str, int] = {}
        for target in watched.prometheus("targets")["activeTargets"]:
            if target["health"] == "up":
                job = target["labels"]["job"]
                found[job] = found.get(job, 0) + 1
        return all(found.get(job, 0) >= count for job, count in wanted.items())

    wait_for(up, 90, what="every target")

    def healthy() -> bool:
        rules = [rule for group in watched.prometheus("rules")["groups"] for rule in group["rules"]]
        assert not [rule for rule in rules if rule["health"] == "err"]
        return bool(rules) and all(rule["health"] == "ok" for rule in rules)

    wait_for(healthy, 60, what="every rule to be evaluated")
    wait_for(
        lambda: watched.values("sum(redis_up)") == [3.0], 60, what="Redis nodes that let the exporter in"
    )


def test_every_panel_of_every_dashboard_shows_something(watched: Watched) -> None:
    manifest = resource(NAME, **SMALL)
    manifest["metadata"]["namespace"] = watched.namespace
    deployment = crd.parse(manifest)
    headers = {"Authorization": f"Bearer {admin_key(watched.kubectl, watched.namespace, NAME)}"}
    url = f"http://{NAME}.{watched.namespace}/v1"

    text = {**headers, "content-type": "text/plain"}
    ports = itertools.cycle(("Bergen", "Oslo"))

    def empty() -> list[str]:
        ship = f"The ship sails to {next(ports)}.".encode()
        watched.http("PUT", f"{url}/documents/ship.txt", content=ship, headers=text)
        question = {"question": "Where does the ship sail?"}
        for _ in range(2):  # a miss and a hit
            watched.http("POST", f"{url}/query", json=question, headers=headers)
        found = []
        for board in set(dashboards.NAMES) - {"cost"}:  # nothing costs anything without a model
            for panel in json.loads(dashboards.content(deployment, board))["panels"]:
                for target in panel.get("targets", ()):
                    expr = target["expr"].replace("$__rate_interval", "1m").replace("$__range", "5m")
                    if not watched.values(expr):
                        found.append(f"{board}: {panel['title']}: {expr}")
        return found

    last: list[str] = []

    def full() -> bool:
        last[:] = empty()
        return not last

    try:
        wait_for(full, 120, what="panels", pause=3)
    except AssertionError:
        raise AssertionError("\n".join(last)) from None


def test_an_alert_reaches_alertmanager_and_new_rules_need_no_restart(watched: Watched) -> None:
    """No API pod is left, and the operator is told to leave it so."""
    kubectl, namespace = watched.kubectl, watched.namespace

    def patch(**spec: Any) -> None:
        text = json.dumps({"spec": spec})
        kubectl("patch", "ragd", NAME, "-n", namespace, "--type=merge", "-p", text)

    def pod() -> str:
        return str(kubectl.json("get", "pod", f"{NAME}-prometheus-0", "-n", namespace)["metadata"]["uid"])

    before = pod()
    patch(monitoring={"objectives": {"dailyCostDollars": 7}})
    files = ("get", "configmap", f"{NAME}-prometheus", "-n", namespace)
    wait_for(lambda: "RagkubeCostHigh" in kubectl(*files, "-o", "yaml"), 30, what="the new rule")
    patch(paused=True)
    wait_for(lambda: condition(kubectl, namespace, "Reconciling", NAME)["reason"] == "Paused", 30)
    kubectl("scale", "deployment", f"{NAME}-api", "-n", namespace, "--replicas=0")
    url = f"http://{NAME}-alertmanager.{namespace}:9093/api/v2/alerts"

    def told() -> bool:
        found = {alert["labels"]["alertname"]: alert for alert in watched.http("GET", url).json()}
        down = found.get("RagkubeApiDown", {"labels": {}, "annotations": {}})
        return bool(down["annotations"].get("runbook_url", "").endswith("#ragkubeapidown"))

    wait_for(told, 240, what="Alertmanager to hear of it", pause=1)
    names = [rule["name"] for group in watched.prometheus("rules")["groups"] for rule in group["rules"]]
    assert "RagkubeCostHigh" in names
    assert pod() == before
    patch(paused=False)
    ready(kubectl, namespace, NAME)
