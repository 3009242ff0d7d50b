"""Nodes that are drained or die under a client that counts: what is lost is what was in flight on a dead node, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.testbed.base import Cluster
from cluster.testbed.client import Http, Kubectl, KubectlError, Namespaces, wait_for
from support.loaded import Loaded

pytestmark = [pytest.mark.level("multinode"), pytest.mark.proves("K5", "R5")]

WORKERS = 8


@pytest.fixture(scope="module")
def platform(
    operator: None, cluster: Cluster, kubectl: Kubectl, http: Http, namespaces: Namespaces, repository: Path
) -> Iterator[Loaded]:
    """Two API pods on two nodes, a cache and a Weaviate."""
    space = namespaces.create("drained")
    found = Loaded(cluster, kubectl, http, space)
    found.start(repository, llm={"type": "Extractive"}, cache={"redis": {"managed": {"replicasPerShard": 1}}})
    found.ready()
    yield found
    namespaces.delete(space)


def places(platform: Loaded, component: str) -> list[str]:
    """The nodes of a part's pods that are ready."""
    label = f"app.kubernetes.io/component={component}"
    pods: list[dict[str, Any]] = platform.kubectl.json("get", "pods", "-n", platform.space, "-l", label)[
        "items"
    ]
    return [pod["spec"]["nodeName"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def node_to_lose(platform: Loaded) -> str:
    """One with an API pod; not the one with the only Weaviate, without which there is no answer."""
    return next(node for node in places(platform, "api") if node not in places(platform, "weaviate"))


def test_a_drained_node_costs_no_request(platform: Loaded, kubectl: Kubectl) -> None:
    node = node_to_lose(platform)
    with platform.load("--workers", str(WORKERS), "--unique") as counted:
        started = time.monotonic()
        options = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=150s")
        try:
            kubectl("drain", node, *options, timeout=170)
            print(f"\ndrained after {time.monotonic() - started:.0f} s")
            wait_for(lambda: platform.ready_pods == 2, 90, what="two API pods elsewhere")
            assert node not in places(platform, "api")
        finally:
            kubectl("uncordon", node)
    print(f"{counted.total} answers, the slowest after {counted.slowest} s")
    assert counted.failures == []
    assert counted.total > 100


@pytest.mark.soak
def test_a_node_that_dies_costs_only_what_was_in_flight_on_it(
    platform: Loaded, cluster: Cluster, kubectl: Kubectl
) -> None:
    wait_for(
        lambda: len(set(places(platform, "api"))) == 2 or _spread(platform), 120, what="API pods on two nodes"
    )
    platform.ready()
    node = node_to_lose(platform)
    with platform.load("--workers", str(WORKERS), "--patience", "15") as counted:
        cluster.node("kill", node)
        try:
            wait_for(lambda: "True" not in _ready(kubectl, node), 60, what="the node to be lost", pause=1)
            wait_for(
                lambda: platform.ready_pods == 2,
                120,
                what="an API pod elsewhere",
                ignore=(KubectlError,),
                pause=1,
            )
        finally:
            cluster.node("start", node)
    print(f"\n{counted.total} answers, {len(counted.failures)} lost, the slowest after {counted.slowest} s")
    assert len(counted.failures) <= WORKERS
    assert counted.total > 100
    wait_for(lambda: "True" in _ready(kubectl, node), 60, what="the node to come back", pause=1)


def _ready(kubectl: Kubectl, node: str) -> str:
    path = '{.status.conditions[?(@.type=="Ready")].status}'
    return kubectl("get", "node", node, "-o", f"jsonpath={path}")


def _spread(platform: Loaded) -> bool:
    """After a drain both pods may share a node: one of them is placed anew."""
    label = "app.kubernetes.io/component=api"
    pods = platform.kubectl.json("get", "pods", "-n", platform.space, "-l", label)["items"]
    if len(pods) == 2 and len({pod["spec"]["nodeName"] for pod in pods}) == 1:
        name = pods[0]["metadata"]["name"]
        platform.kubectl("delete", "pod", name, "-n", platform.space, "--wait=false")
    return False
