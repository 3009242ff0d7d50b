"""Fixtures for tests on a real cluster; hack/cluster/README.md says which one is picked and how to keep it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from cluster.testbed import cli
from cluster.testbed.base import LEVELS, Cluster
from cluster.testbed.client import Http, Kubectl, Namespaces
from cluster.testbed.paths import UnavailableError
from support.platforms import OPERATOR

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Clusters run under no other test; the chart's come last: they remove the operator that the others share."""
    for item in items:
        if _uses_the_cluster(item) and item.get_closest_marker("level") is None:
            # two sessions share the machine, and only the one that selects ``level`` owns the cluster
            raise pytest.UsageError(f"{item.nodeid} uses the cluster: mark it with the level that it needs")
    items.sort(key=lambda item: (HERE in item.path.parents) + (item.path.name == "test_helm.py"))


def _uses_the_cluster(item: pytest.Item) -> bool:
    return HERE in item.path.parents and isinstance(item, pytest.Function) and "cluster" in item.fixturenames


def _lacking(reason: str) -> NoReturn:
    """Skip; in CI a missing cluster is a failure, or nobody would notice."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _level(cluster: Cluster) -> str:
    return "multinode" if len(cluster.nodes()) > 1 else "nodes"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster: the one that is up already, or a fresh one that ends with the session."""
    found = cli.choose()
    started = not found.running()
    if started:
        try:
            found.up()
        except UnavailableError as error:
            _lacking(f"no cluster on this machine: {error}")
    yield found
    if started and os.environ.get("RAGKUBE_KEEP_CLUSTER") != "1":
        found.down()


@pytest.fixture(autouse=True)
def _enough(request: pytest.FixtureRequest) -> None:
    """Skip a test whose level the cluster does not reach."""
    marker = request.node.get_closest_marker("level")
    if marker is None:
        return
    wanted = str(marker.args[0])
    reached = _level(request.getfixturevalue("cluster"))
    if LEVELS.index(wanted) > LEVELS.index(reached):
        _lacking(f"needs a cluster of level {wanted}, this one is {reached}")


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> dict[str, str]:
    """All images, built from this checkout and on every node: short name -> reference."""
    return cli.bring_images(cluster)


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Kubectl:
    """`kubectl(*arguments, input=None) -> str`."""
    return Kubectl(cluster.kubectl_command())


@pytest.fixture(scope="session")
def http(cluster: Cluster) -> Http:
    """`http(method, "http://service.namespace:port/path", json=…) -> Response`."""
    return Http(cluster.proxy)


@pytest.fixture(scope="session")
def proxy(cluster: Cluster) -> str:
    """The URL of an HTTP proxy into the cluster, for clients of your own."""
    return cluster.proxy()


@pytest.fixture(scope="session")
def namespaces(cluster: Cluster, kubectl: Kubectl) -> Iterator[Namespaces]:
    """Makes and deletes namespaces, for fixtures with a scope of their own."""
    made = Namespaces(cluster, kubectl)
    yield made
    made.delete_all()


@pytest.fixture
def namespace(cluster: Cluster, kubectl: Kubectl) -> Iterator[Callable[..., str]]:
    """`namespace(prefix="t", enforce="restricted") -> str`: a fresh namespace, deleted after the test."""
    made = Namespaces(cluster, kubectl)
    yield made.create
    made.delete_all()


@pytest.fixture(scope="session")
def operator(kubectl: Kubectl, images: dict[str, str], repository: Path) -> None:
    """`kubectl apply -k manifests/`, with the image of this checkout."""
    kubectl("apply", "-k", str(repository / "manifests"))
    # an operator of an earlier run has the same tag but other code
    kubectl("delete", "pod", "-n", "ragkube-system", "-l", OPERATOR, "--wait=true", "--grace-period=2")
    kubectl("rollout", "status", "deployment/ragkube-operator", "-n", "ragkube-system", "--timeout=120s")
