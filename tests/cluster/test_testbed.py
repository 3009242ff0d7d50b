"""The test cluster itself does what tests rely on."""

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.testbed import cli
from cluster.testbed.base import Cluster
from cluster.testbed.client import Http, Kubectl, KubectlError, wait_for
from cluster.testbed.own import OwnCluster, marked_processes
from cluster.testbed.paths import State, TestbedError

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod(name: str, image: str, command: list[str], **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": image, "command": command, "securityContext": RESTRICTED}
    mounts = spec.pop("mounts", [])
    security = {
        "runAsNonRoot": True,
        "runAsUser": 999,
        "fsGroup": 999,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "containers": [{**container, "volumeMounts": mounts}],
            "securityContext": security,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            **spec,
        },
    }


def finished(kubectl: Kubectl, namespace: str, name: str, timeout: float = 150) -> str:
    """The log of a pod that ran to its end, which must be a success."""

    def phase() -> str:
        found = str(kubectl("-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.phase}"))
        return found if found in ("Succeeded", "Failed") else ""

    ended = wait_for(phase, timeout, what=f"pod {name} to end")
    log = kubectl("-n", namespace, "logs", name)
    assert ended == "Succeeded", log
    return log


@pytest.mark.level("nodes")
def test_every_node_is_ready(cluster: Cluster, kubectl: Kubectl) -> None:
    listed = kubectl.json("get", "nodes")["items"]
    ready = [
        node["metadata"]["name"]
        for node in listed
        if {"type": "Ready", "status": "True"}.items()
        <= {
            key: value
            for c in node["status"]["conditions"]
            if c["type"] == "Ready"
            for key, value in c.items()
        }.items()
    ]
    assert set(cluster.nodes()) <= set(ready)


@pytest.mark.level("nodes")
def test_a_pod_resolves_a_service_and_reaches_it(
    images: dict[str, str], kubectl: Kubectl, namespace: Callable[..., str]
) -> None:
    space = namespace("dns")
    server = pod(
        "store",
        images["redis"],
        ["redis-server", "--protected-mode", "no", "--save", ""],
        restartPolicy="Always",
    )
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "store"},
        "spec": {"selector": {"app": "store"}, "ports": [{"port": 6379}]},
    }
    kubectl.apply(server, service, namespace=space)
    kubectl("-n", space, "wait", "--for=condition=Ready", "pod/store", "--timeout=150s")
    script = "for i in 1 2 3 4 5; do redis-cli -h store ping && exit 0; sleep 1; done; exit 1"  # DNS needs a moment
    kubectl.apply(pod("client", images["redis"], ["sh", "-c", script]), namespace=space)
    assert finished(kubectl, space, "client").strip().endswith("PONG")


@pytest.mark.level("nodes")
def test_http_reaches_a_service_by_name_from_the_host(
    images: dict[str, str], kubectl: Kubectl, namespace: Callable[..., str], http: Http
) -> None:
    space = namespace("web")
    program = (
        "import http.server as h\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        body = self.rfile.read(int(self.headers['content-length']))\n"
        "        self.send_response(201 if self.headers['x-a'] == 'b' else 400); self.end_headers()\n"
        "        self.wfile.write(self.path.encode() + body)\n"
        "h.ThreadingHTTPServer(('', 8080), H).serve_forever()\n"
    )
    server = pod("web", images["api"], ["python", "-c", program], restartPolicy="Always")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    kubectl.apply(server, service, namespace=space)
    kubectl("-n", space, "wait", "--for=condition=Ready", "pod/web", "--timeout=150s")
    url = f"http://web.{space}/path?q=1"

    def answered() -> object:
        answer = http("POST", url, json={"x": 1}, headers={"x-a": "b"})
        return answer if answer.status == 201 else None

    answer = wait_for(answered, 20, what="the Service to answer", ignore=(OSError,))
    assert answer
    assert http("POST", url, json={"x": 1}, headers={"x-a": "b"}).body == b'/path?q=1{"x": 1}'
    assert http("POST", url, content=b"").status == 400


@pytest.mark.level("nodes")
@pytest.mark.parametrize(("name", "module"), [("api", "ragkube_api"), ("operator", "ragkube_operator")])
def test_our_images_run_as_a_user_of_their_own_on_a_read_only_root(
    images: dict[str, str], kubectl: Kubectl, namespace: Callable[..., str], name: str, module: str
) -> None:
    space = namespace("image")
    program = f"import os, {module} as m; print(os.getuid(), os.getcwd(), os.path.dirname(m.__file__), *os.listdir('.'))"
    ours = pod("ours", images[name], ["python", "-W", "error", "-c", program])
    ours["spec"]["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    kubectl.apply(ours, namespace=space)
    uid, folder, package, *found = finished(kubectl, space, "ours").split()
    assert (uid, folder, package) == ("65532", "/opt/ragkube", f"/opt/ragkube/lib/{module}")
    assert ("docs" in found) == (name == "api")


@pytest.mark.level("controllers")
def test_restricted_pod_security_refuses_a_privileged_pod(
    kubectl: Kubectl, namespace: Callable[..., str]
) -> None:
    space = namespace("psa")
    bad = pod("bad", "redis:8.0", ["true"])
    bad["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        kubectl.apply(bad, namespace=space)


@pytest.mark.level("nodes")
def test_a_claim_is_writable_by_an_unprivileged_user_and_its_volume_comes_back(
    cluster: Cluster, images: dict[str, str], kubectl: Kubectl, namespace: Callable[..., str]
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    space = namespace("claim")
    script = "id -u && ls -A /data && echo written >/data/file && cat /data/file"
    mounts = [{"name": "data", "mountPath": "/data"}]
    writer = pod("writer", images["redis"], ["sh", "-c", script], volumes=volumes, mounts=mounts)
    kubectl.apply(claim, writer, namespace=space)
    assert finished(kubectl, space, "writer").split() == ["999", "written"]
    kubectl("-n", space, "delete", "pod/writer", "pvc/data")
    cluster.recycle()
    phases = {volume["status"]["phase"] for volume in kubectl.json("get", "pv")["items"]}
    assert "Released" not in phases


@pytest.mark.level("api")
def test_many_requests_at_once_go_through(kubectl: Kubectl) -> None:
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: kubectl("get", "--raw", "/api/v1/namespaces"), range(36)))
    assert all(json.loads(answer)["kind"] == "NamespaceList" for answer in answers)


@pytest.mark.level("multinode")
def test_a_node_that_is_killed_comes_back(cluster: Cluster, kubectl: Kubectl) -> None:
    if cluster.kind == "given":
        pytest.skip("nodes of a given cluster are not ours to fail")
    name = cluster.nodes()[-1]

    def status() -> str:
        return kubectl("get", "node", name, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')

    cluster.node("kill", name)
    wait_for(lambda: status() != "True", 60, what=f"{name} to be lost")
    cluster.node("start", name)
    wait_for(lambda: status() == "True", 60, what=f"{name} to be back")


def test_names_of_two_checkouts_do_not_collide(tmp_path: Path) -> None:
    one = State.named(checkout=Path("/a/ragkube"), cache=tmp_path)
    two = State.named(checkout=Path("/b/ragkube"), cache=tmp_path)
    assert one.root != two.root
    assert one.id != two.id
    assert State.named("same", cache=tmp_path / "x").id != State.named("same", cache=tmp_path / "y").id


@pytest.mark.parametrize("name", ["", "A", "../up", "a b", "-a", "a" * 41])
def test_a_name_that_could_leave_the_cache_is_refused(name: str) -> None:
    with pytest.raises(TestbedError, match="no cluster name"):
        State.named(name)


def test_a_kubeconfig_is_used_only_when_it_is_given_on_purpose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "mine"))
    monkeypatch.delenv("RAGKUBE_KUBECONFIG", raising=False)
    assert cli.choose().kind != "given"
    monkeypatch.setenv("RAGKUBE_KUBECONFIG", str(tmp_path / "test"))
    assert cli.choose().kubeconfig() == tmp_path / "test"


def leftovers(state: State) -> list[str]:
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{state.id}*")]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(state.root) in line]
    processes = [str(pid) for pid in marked_processes(state.marker)]
    return [*groups, *mounts, *processes]


@pytest.mark.level("nodes")
@pytest.mark.skipif(os.geteuid() != 0, reason="our own cluster needs root")
def test_down_leaves_nothing_also_after_a_crash(cluster: Cluster) -> None:
    if not isinstance(cluster, OwnCluster):
        pytest.skip("this cluster is not made of processes of this machine")
    second = OwnCluster(State.named(f"tiny-{int(time.time())}"), size=1)
    second.up()
    assert leftovers(second.state)
    assert second.kubectl("get", "nodes", "-o", "name").split() == ["node/n1"]
    second.node("freeze", "n1")  # frozen processes do not die until they are thawed
    (second.state.root / "init.pid").unlink()  # as if the driver had died while it started the cluster
    second.down()
    assert leftovers(second.state) == []
    assert not second.running()
    shutil.rmtree(second.state.root)  # only logs are left
    assert cluster.running()
