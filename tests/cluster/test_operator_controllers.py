"""The operator as a process against a real API server: writes are counted there, rights are its own."""

from __future__ import annotations

import http.server
import json
import random
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support import platforms
from support.control_plane import ControlPlane, OperatorProcess
from support.processes import wait_for

NAMESPACE = "shop"
LABEL = "app.kubernetes.io/managed-by=ragkube"
KINDS = "deployments,statefulsets,services,configmaps,serviceaccounts,poddisruptionbudgets,networkpolicies,secrets"


def resource(name: str, **spec: Any) -> dict[str, Any]:
    return platforms.resource(name, NAMESPACE, **spec)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    found = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        found.start()
        found.operator_config = found.install()  # type: ignore[attr-defined]
        found.kubectl("create", "namespace", NAMESPACE)
        yield found
    finally:
        found.stop()


@pytest.fixture
def operator(plane: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    found = OperatorProcess(plane.operator_config, tmp_path)  # type: ignore[attr-defined]
    found.start()
    yield found
    found.kill()


@pytest.fixture
def names(plane: ControlPlane) -> Iterator[Callable[[], str]]:
    """Names of resources that are deleted at the end."""
    made: list[str] = []

    def name() -> str:
        made.append(f"t{time.monotonic_ns() % 10**9}")
        return made[-1]

    yield name
    for each in made:
        plane.kubectl("delete", "ragd", each, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")
    wait_for("everything is collected", lambda: not objects(plane))


def objects(plane: ControlPlane, name: str = "") -> dict[str, dict[str, Any]]:
    selector = f"{LABEL},app.kubernetes.io/instance={name}" if name else LABEL
    items = plane.get(KINDS, "-n", NAMESPACE, "-l", selector)["items"]
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in items}


def versions(plane: ControlPlane, name: str) -> dict[str, str]:
    return {key: item["metadata"]["resourceVersion"] for key, item in objects(plane, name).items()}


def stalled(plane: ControlPlane, name: str) -> str:
    found = conditions(plane, name).get("Stalled") or {}
    return f"{found['reason']}: {found['message']}" if found.get("status") == "True" else ""


def conditions(plane: ControlPlane, name: str) -> dict[str, dict[str, Any]]:
    found = plane.get("ragd", name, "-n", NAMESPACE).get("status") or {}
    return {item["type"]: item for item in found.get("conditions") or []}


def settled(plane: ControlPlane, name: str, generation: int = 1) -> dict[str, dict[str, Any]]:
    """The conditions once the operator has seen this generation and has written all objects."""

    def seen() -> dict[str, dict[str, Any]]:
        found = conditions(plane, name)
        ready = found.get("Ready") or {}
        return found if ready.get("observedGeneration", 0) >= generation and len(found) > 3 else {}

    return wait_for(f"{name} is reconciled", seen)


def at_rest(plane: ControlPlane, operator: OperatorProcess, resources: int = 1) -> int:
    """The number of writes, once all resources have been looked at again without one."""
    last, since = -1, 0.0

    def still() -> bool:
        nonlocal last, since
        now = len(plane.operator_requests(writes=True))
        passes = operator.metric("ragkube_operator_reconciles_total")
        if now != last:
            last, since = now, passes
        return passes > since + resources

    wait_for("the operator is at rest", still)
    return last


@pytest.mark.proves("K3")
def test_drift_is_repaired_options_are_pruned_and_nothing_is_written_at_rest(
    plane: ControlPlane, operator: OperatorProcess, names: Callable[[], str]
) -> None:
    name = names()
    plane.apply(resource(name))
    settled(plane, name)
    count, before = at_rest(plane, operator), versions(plane, name)
    reads = len(plane.operator_requests(writes=False))
    wait_for("some more passes", lambda: len(plane.operator_requests(writes=False)) > reads + 30)
    assert len(plane.operator_requests(writes=True)) == count
    assert versions(plane, name) == before

    window = json.dumps({"spec": {"progressDeadlineSeconds": 7}})
    plane.kubectl("patch", f"deployment/{name}-api", "-n", NAMESPACE, "-p", window)
    plane.kubectl("delete", "configmap", f"{name}-settings", "-n", NAMESPACE)
    plane.kubectl("label", "service", name, "-n", NAMESPACE, "app.kubernetes.io/managed-by-")
    patch = {"spec": {"ports": [{"port": 80, "targetPort": 9999}]}}
    plane.kubectl("patch", "service", name, "-n", NAMESPACE, "-p", json.dumps(patch))

    def repaired() -> bool:
        found = objects(plane, name)
        same = found.keys() == before.keys()
        return same and found[f"Deployment/{name}-api"]["spec"]["progressDeadlineSeconds"] == 300

    wait_for("drift is repaired", repaired)
    port = objects(plane, name)[f"Service/{name}"]["spec"]["ports"][0]
    assert port["targetPort"] == "http" or port["targetPort"] == 8080

    plane.apply(resource(name, cache={"enabled": False}, network={"policy": "Disabled"}))
    settled(plane, name, generation=2)

    def pruned() -> bool:
        left = objects(plane, name)
        return not [
            key for key in left if key.startswith("NetworkPolicy") or key == f"StatefulSet/{name}-redis"
        ]

    wait_for("removed options are pruned", pruned)
    assert f"StatefulSet/{name}-weaviate" in objects(plane, name)


@pytest.mark.proves("K3")
def test_an_operator_killed_at_any_point_goes_on_and_doubles_nothing(
    plane: ControlPlane, names: Callable[[], str], tmp_path: Path
) -> None:
    chance = random.Random(7)
    expected: set[str] = set()
    for attempt in range(6):
        name = names()
        operator = OperatorProcess(plane.operator_config, tmp_path)  # type: ignore[attr-defined]
        operator.start()
        wait_for("the operator watches", partial(operator.metric, "ragkube_operator_kube_requests_total"))
        target = len(plane.operator_requests(writes=True)) + chance.randint(1, 20)
        plane.apply(resource(name))
        deadline = time.monotonic() + 5
        while len(plane.operator_requests(writes=True)) < target and time.monotonic() < deadline:
            time.sleep(0.002)
        operator.kill()
        passwords = secrets(plane, name)
        operator.start()
        settled(plane, name)
        at_rest(plane, operator, attempt + 1)
        operator.kill()
        found = {key.replace(name, "NAME") for key in objects(plane, name)}
        assert found == (expected or found), f"attempt {attempt}"
        expected = found
        assert passwords.items() <= secrets(plane, name).items()
    assert len(expected) > 15


def secrets(plane: ControlPlane, name: str) -> dict[str, Any]:
    return {key: item["data"] for key, item in objects(plane, name).items() if key.startswith("Secret/")}


@pytest.mark.proves("K4")
def test_a_missing_secret_holds_the_api_back_and_heals(
    plane: ControlPlane, operator: OperatorProcess, names: Callable[[], str]
) -> None:
    name = names()
    llm = {
        "type": "Anthropic",
        "anthropic": {"model": "m", "apiKeySecretRef": {"name": f"{name}-llm", "key": "k"}},
    }
    plane.apply(resource(name, llm=llm))
    found = settled(plane, name)
    assert found["SecretsReady"]["reason"] == "SecretMissing"
    assert f"{name}-llm" in found["SecretsReady"]["message"]
    assert "kubectl create secret" in found["SecretsReady"]["message"]
    assert found["APIReady"]["reason"] == "HeldBack"
    assert f"Deployment/{name}-api" not in objects(plane, name)
    assert f"StatefulSet/{name}-redis" in objects(plane, name)
    plane.kubectl("create", "secret", "generic", f"{name}-llm", "-n", NAMESPACE, "--from-literal=k=v")
    wait_for("the API is started", lambda: f"Deployment/{name}-api" in objects(plane, name))
    wait_for("it is told", lambda: conditions(plane, name)["SecretsReady"]["status"] == "True")
    told = plane.get("events", "-n", NAMESPACE, "--field-selector", f"involvedObject.name={name}")["items"]
    reasons = [event["reason"] for event in told]
    assert reasons.count("SecretMissing") == 1
    assert reasons.count("SecretFound") == 1


@pytest.mark.proves("K4")
def test_objects_of_somebody_else_stall_it_with_a_sentence(
    plane: ControlPlane, operator: OperatorProcess, names: Callable[[], str]
) -> None:
    name = names()
    plane.kubectl("create", "service", "clusterip", name, "-n", NAMESPACE, "--tcp=80")
    plane.apply(resource(name))
    told = wait_for("the conflict is told", lambda: stalled(plane, name))
    assert told.startswith(f"NameConflict: Service {NAMESPACE}/{name} exists")
    plane.kubectl("delete", "service", name, "-n", NAMESPACE)
    plane.kubectl("annotate", "ragd", name, "-n", NAMESPACE, "try=again")
    wait_for("it goes on", lambda: conditions(plane, name)["Stalled"]["status"] == "False")


@pytest.mark.proves("K3")
def test_a_deleted_workload_is_created_again(
    plane: ControlPlane, operator: OperatorProcess, names: Callable[[], str]
) -> None:
    name = names()
    plane.apply(resource(name))
    settled(plane, name)
    plane.kubectl("delete", "statefulset", f"{name}-weaviate", "-n", NAMESPACE, "--cascade=orphan")
    wait_for("it is created again", lambda: f"StatefulSet/{name}-weaviate" in objects(plane, name))
    live = objects(plane, name)[f"StatefulSet/{name}-weaviate"]
    assert live["metadata"]["ownerReferences"][0]["name"] == name


@pytest.mark.proves("K3")
def test_an_immutable_difference_stalls_it_and_the_hinted_command_helps(
    plane: ControlPlane, operator: OperatorProcess, names: Callable[[], str]
) -> None:
    """As after an upgrade that changes the volume template of a StatefulSet."""
    name = names()
    plane.apply(resource(name))
    settled(plane, name)
    operator.kill()
    live = objects(plane, name)[f"StatefulSet/{name}-weaviate"]
    plane.kubectl("delete", "statefulset", f"{name}-weaviate", "-n", NAMESPACE, "--cascade=orphan")
    live["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] = "1Gi"
    for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"):
        live["metadata"].pop(field, None)
    plane.kubectl("create", "-f", "-", stdin=json.dumps(live))
    operator.start()
    told = wait_for("the difference is told", lambda: stalled(plane, name))
    assert told.startswith(
        f"ImmutableField: StatefulSet {NAMESPACE}/{name}-weaviate cannot be changed in place"
    )
    hint = told.split("`")[1].split()
    assert hint[0] == "kubectl"
    plane.kubectl(*hint[1:])

    def wanted() -> bool:
        found = objects(plane, name).get(f"StatefulSet/{name}-weaviate")
        claims = found["spec"]["volumeClaimTemplates"] if found else []
        return [claim["spec"]["resources"]["requests"]["storage"] for claim in claims] == ["10Gi"]

    wait_for("it is made anew", wanted)
    wait_for("it goes on", lambda: not stalled(plane, name))


@pytest.mark.proves("K3")
def test_deleted_and_created_again_at_once(
    plane: ControlPlane, operator: OperatorProcess, names: Callable[[], str]
) -> None:
    """The new resource waits until the objects of the old one are collected."""
    name = names()
    plane.apply(resource(name))
    settled(plane, name)
    old = plane.get("ragd", name, "-n", NAMESPACE)["metadata"]["uid"]
    plane.kubectl("delete", "ragd", name, "-n", NAMESPACE)
    plane.apply(resource(name))
    new = plane.get("ragd", name, "-n", NAMESPACE)["metadata"]["uid"]
    assert new != old

    def all_new() -> bool:
        found = objects(plane, name)
        owners = {item["metadata"]["ownerReferences"][0]["uid"] for item in found.values()}
        return f"Deployment/{name}-api" in found and owners == {new}

    # the garbage collector may need half a minute to know a kind that was just installed
    wait_for("everything belongs to the new one", all_new, seconds=150)
    assert not stalled(plane, name)


@pytest.mark.proves("K3")
def test_the_api_server_may_go_away_for_a_while(
    plane: ControlPlane, operator: OperatorProcess, names: Callable[[], str]
) -> None:
    name = names()
    plane.apply(resource(name))
    settled(plane, name)
    plane.api.kill()
    try:
        wait_for("the operator notices", lambda: "pass_failed" in operator.log())
    finally:
        plane.start_api()
    assert "Unreachable" in operator.log()
    plane.kubectl("delete", "configmap", f"{name}-settings", "-n", NAMESPACE)
    wait_for("drift is repaired again", lambda: f"ConfigMap/{name}-settings" in objects(plane, name))


def test_only_the_named_namespaces_are_served(
    plane: ControlPlane, names: Callable[[], str], tmp_path: Path
) -> None:
    config: Path = plane.operator_config  # type: ignore[attr-defined]
    operator = OperatorProcess(config, tmp_path, {"RAGKUBE_NAMESPACES": NAMESPACE})
    operator.start()
    name = names()
    plane.apply({**resource("other"), "metadata": {"name": "other", "namespace": "default"}}, resource(name))
    settled(plane, name)
    assert plane.get("ragd", "other", "-n", "default")["status"] == {"observedGeneration": -1}
    plane.kubectl("delete", "ragd", "other", "-n", "default")
    operator.kill()


@pytest.mark.proves("K3")
def test_paused_means_hands_off(
    plane: ControlPlane, operator: OperatorProcess, names: Callable[[], str]
) -> None:
    name = names()
    plane.apply(resource(name, paused=True))
    found = settled(plane, name)
    assert found["Reconciling"]["reason"] == "Paused"
    assert objects(plane, name) == {}
    plane.apply(resource(name, paused=False))
    wait_for("everything is created", lambda: f"Deployment/{name}-api" in objects(plane, name))


class Weaviate(http.server.BaseHTTPRequestHandler):
    """Says that it lives: what a probe needs."""

    def do_GET(self) -> None:
        self.send_response(200 if self.headers.get("Authorization") == "Bearer right" else 401)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


def external(port: int, grpc: int, secret: str) -> dict[str, Any]:
    server: dict[str, Any] = {"httpHost": "127.0.0.1", "httpPort": port, "grpcPort": grpc}
    server["apiKeySecretRef"] = {"name": secret, "key": "key"}
    return {
        "cache": {"enabled": False},
        "vectorStore": {"weaviate": {"type": "External", "external": server}},
        "auth": {"mode": "None"},
    }


@pytest.fixture
def weaviate() -> Iterator[tuple[int, int]]:
    """A port that answers like Weaviate's REST API, and one that accepts like its gRPC API."""
    servers = [
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Weaviate),
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler),
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers[0].server_address[1], servers[1].server_address[1]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.proves("K4")
def test_an_external_service_is_asked_and_heals(
    plane: ControlPlane, operator: OperatorProcess, names: Callable[[], str], weaviate: tuple[int, int]
) -> None:
    name = names()
    plane.kubectl("create", "secret", "generic", f"{name}-w", "-n", NAMESPACE, "--from-literal=key=wrong")
    plane.apply(resource(name, **external(1, weaviate[1], f"{name}-w")))
    found = settled(plane, name)["VectorStoreReady"]
    assert found["reason"] == "Unreachable"
    assert "127.0.0.1:1" in found["message"]
    plane.apply(resource(name, **external(*weaviate, f"{name}-w")))
    wait_for("it is refused", lambda: reason(plane, name, "VectorStoreReady") == "AuthenticationFailed")
    plane.kubectl("delete", "secret", f"{name}-w", "-n", NAMESPACE)
    plane.kubectl("create", "secret", "generic", f"{name}-w", "-n", NAMESPACE, "--from-literal=key=right")
    wait_for("it heals", lambda: reason(plane, name, "VectorStoreReady") == "Reachable")
    assert reason(plane, name, "CacheReady") == "Disabled"


def reason(plane: ControlPlane, name: str, condition: str) -> str:
    return str((conditions(plane, name).get(condition) or {}).get("reason"))


@pytest.mark.proves("K3")
def test_fifty_resources_side_by_side_rest_without_a_write(
    plane: ControlPlane, operator: OperatorProcess, names: Callable[[], str], weaviate: tuple[int, int]
) -> None:
    plane.kubectl("create", "secret", "generic", "fifty", "-n", NAMESPACE, "--from-literal=key=right")
    made = [names() for _ in range(50)]
    spec = external(*weaviate, "fifty") | {"api": {"replicas": 1}}
    started = time.monotonic()
    plane.apply(*(resource(name, **spec) for name in made))

    def ready() -> bool:
        plane.run_pods(NAMESPACE)
        items = plane.get("ragd", "-n", NAMESPACE)["items"]
        states = {item["metadata"]["name"]: item.get("status", {}).get("conditions", []) for item in items}
        return all(any(c["type"] == "Ready" and c["status"] == "True" for c in states[name]) for name in made)

    wait_for("all fifty are ready", ready, seconds=200)
    took = time.monotonic() - started
    count = at_rest(plane, operator, len(made))
    reads = len(plane.operator_requests(writes=False))
    wait_for(
        "every resource is looked at again", lambda: len(plane.operator_requests(writes=False)) > reads + 300
    )
    assert len(plane.operator_requests(writes=True)) == count
    assert operator.metric("ragkube_operator_resources") >= 50
    memory = operator.metric("process_resident_memory_bytes") / 2**20
    assert memory < 120
    print(
        f"fifty resources ready in {took:.0f} s; the operator has {memory:.0f} MiB and writes nothing at rest"
    )
