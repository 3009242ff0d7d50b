"""Helm against a real API server and, with pods, against a real cluster: nothing hangs, nothing is lost."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.testbed.base import Cluster
from cluster.testbed.client import Http, Kubectl, Namespaces, wait_for
from support.control_plane import ControlPlane, OperatorProcess
from support.docs_commands import reader
from support.helm import CASES, CHART, NAMESPACE, Values, helm
from support.platforms import OPERATOR, resource
from support.processes import tool
from support.processes import wait_for as until

CRD = "crd/ragdeployments.ragkube.dev"
DOCS_CHART = "helm {} docs charts/ragkube-deployment -n team-a"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server without kubelets: objects are checked and kept, pods never run."""
    found = ControlPlane(tmp_path_factory.mktemp("helm"))
    try:
        found.start(controllers=False)
        for name in (NAMESPACE, "team-a", "team-b"):
            found.kubectl("create", "namespace", name)
        yield found
    finally:
        found.stop()


@pytest.mark.proves("K11")
def test_what_every_value_makes_is_accepted_without_an_unknown_field(plane: ControlPlane) -> None:
    """By the API server itself, with strict validation: its own schemas, nothing older."""
    plane.kubectl("apply", "--server-side", "-f", str(CHART / "files" / "crd.yaml"))
    plane.kubectl("wait", CRD, "--for=condition=Established", "--timeout=30s")
    for name in ("ragkube-operator", "other", "mine"):  # a pod is refused without its account
        plane.kubectl("create", "serviceaccount", name, "-n", NAMESPACE)
    lines = {path: accepted_kinds(path, values) for path, values in CASES.items()}
    options = ("--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts")
    plane.kubectl("apply", *options, "-f", "-", stdin="\n---\n".join(lines.values()))
    plane.kubectl("delete", CRD)
    plane.kubectl("delete", "serviceaccount", "ragkube-operator", "-n", NAMESPACE)


def accepted_kinds(path: str, values: Values) -> str:
    """What one case renders, without kinds that this API server has not, or that never differ."""
    skipped = {"ServiceMonitor"} | ({"CustomResourceDefinition"} if not path.startswith("crds") else set())
    text = helm("template", "ragkube", CHART, "-n", NAMESPACE, values=values)
    objects = [item for item in yaml.safe_load_all(text) if item and item["kind"] not in skipped]
    return "\n---\n".join(json.dumps(item) for item in objects)


@pytest.mark.proves("K4")
def test_kubectl_explain_knows_every_field(plane: ControlPlane) -> None:
    plane.kubectl("apply", "--server-side", "-f", str(CHART / "files" / "crd.yaml"))
    plane.kubectl("wait", CRD, "--for=condition=Established", "--timeout=30s")
    schema = yaml.safe_load((CHART / "files" / "crd.yaml").read_text())["spec"]["versions"][0]["schema"]
    fields = list(paths(schema["openAPIV3Schema"]))
    listed = explained(plane, "ragd", "--recursive")
    names = re.findall(r"^ +(\w+)\t<", listed, re.MULTILINE)
    assert {path.rpartition(".")[2] for path in fields} <= set(names)
    assert len(names) > 100
    for path in ("spec", "spec.api.replicas", "spec.cache.redis.managed", "status.conditions.reason"):
        described = explained(plane, f"ragd.{path}").split("DESCRIPTION:")[1].split("FIELDS:")[0]
        assert "<empty>" not in described
    plane.kubectl("delete", CRD)


def explained(plane: ControlPlane, *what: str) -> str:
    """The API server publishes its schemas late, and those of a CRD that is gone as well."""
    return until("explain knows it", lambda: plane.kubectl("explain", *what))


def paths(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every field of a schema; each must say what it is."""
    inner = schema.get("items", schema)
    for name, child in inner.get("properties", {}).items():
        path = f"{prefix}.{name}"
        assert child.get("description") or path in {".metadata", ".metadata.name"}, path
        yield path
        yield from paths(child, path)


def release(plane: ControlPlane, *arguments: str | Path, values: Values | None = None) -> str:
    return helm(*arguments, "-n", NAMESPACE, values=values, kubeconfig=plane.kubeconfig)


def older_chart(folder: Path) -> Path:
    """The chart as it was before a field was added to the CRD."""
    copy = shutil.copytree(CHART, folder / "older")
    crd = yaml.safe_load((copy / "files" / "crd.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["paused"], spec["default"]["paused"]
    (copy / "files" / "crd.yaml").write_text(yaml.safe_dump(crd, sort_keys=False))
    return copy


def knows_paused(plane: ControlPlane) -> bool:
    versions = plane.get(CRD)["spec"]["versions"]
    return "paused" in versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]


@pytest.mark.proves("K11")
def test_the_crd_is_upgraded_rolled_back_and_kept_with_everything_in_it(
    plane: ControlPlane, tmp_path: Path
) -> None:
    release(plane, "install", "ragkube", older_chart(tmp_path))
    assert not knows_paused(plane)
    plane.kubectl("wait", CRD, "--for=condition=Established", "--timeout=30s")
    plane.apply(resource("live", "team-a"))
    uid = plane.get("ragd", "live", "-n", "team-a")["metadata"]["uid"]
    release(plane, "upgrade", "ragkube", CHART, values={"sample": {"enabled": True}})
    assert knows_paused(plane)
    sample = plane.get("ragd", "sample", "-n", NAMESPACE)["metadata"]["uid"]
    # created once: neither an upgrade nor a rollback replaces it
    release(plane, "upgrade", "ragkube", CHART, values={"sample": {"enabled": True}, "logLevel": "debug"})
    release(plane, "rollback", "ragkube", "1")
    assert not knows_paused(plane)
    release(plane, "rollback", "ragkube", "2")
    assert plane.get("ragd", "sample", "-n", NAMESPACE)["metadata"]["uid"] == sample
    release(plane, "uninstall", "ragkube")
    assert "ragkube-operator" not in plane.kubectl("get", "deployments", "-n", NAMESPACE, "-o", "name")
    assert plane.get("ragd", "live", "-n", "team-a")["metadata"]["uid"] == uid
    release(plane, "install", "ragkube", CHART)
    assert plane.get("ragd", "live", "-n", "team-a")["metadata"]["uid"] == uid
    release(plane, "upgrade", "ragkube", CHART, values={"crds": {"keep": False}})
    release(plane, "uninstall", "ragkube")
    until(
        "everything goes when it was asked for",
        lambda: CRD.split("/")[1] not in plane.kubectl("get", "crd", "-o", "name"),
    )


@pytest.mark.proves("K11", "K12")
def test_what_kubectl_applied_is_taken_over_and_all_of_it_goes(plane: ControlPlane, tmp_path: Path) -> None:
    user = reader(tmp_path, plane.kubeconfig, "team-a", {})
    plane.install()
    plane.apply(resource("before", "team-a"))
    uid = plane.get("ragd", "before", "-n", "team-a")["metadata"]["uid"]
    user.types(f"helm install ragkube charts/ragkube -n {NAMESPACE} --take-ownership --force-conflicts")
    assert plane.get("ragd", "before", "-n", "team-a")["metadata"]["uid"] == uid
    user.types("kubectl delete ragd --all --all-namespaces")
    user.types(f"helm uninstall ragkube -n {NAMESPACE}")
    user.types("kubectl delete crd ragdeployments.ragkube.dev")


@pytest.mark.proves("K11", "S6")
def test_without_cluster_rights_the_operator_serves_its_namespaces(
    plane: ControlPlane, tmp_path: Path
) -> None:
    """Installed by somebody who is admin of two namespaces and nothing else; the operator has only its Roles."""
    user = reader(tmp_path, plane.kubeconfig, "team-a", {})
    user.types("kubectl apply --server-side -f manifests/crd/ragkube.dev_ragdeployments.yaml")
    plane.kubectl("wait", CRD, "--for=condition=Established", "--timeout=30s")
    plane.kubectl("create", "serviceaccount", "installer", "-n", "team-a")
    for space in ("team-a", "team-b"):
        plane.kubectl(
            "create", "rolebinding", "installer", "-n", space, "--clusterrole=cluster-admin",
            "--serviceaccount=team-a:installer",
        )  # fmt: skip
    installer = user.env["KUBECONFIG"] = str(account(plane, "installer"))
    namespaced = "--set rbac.scope=Namespaced --set crds.enabled=false"
    both = ("--set", "'watchNamespaces={team-a,team-b}'")
    user.types(f"helm install ragkube charts/ragkube -n team-a {namespaced}", *both)
    rights = account(plane, "ragkube-operator")
    options = {
        "RAGKUBE_LEASE": "team-a/ragkube-operator", "RAGKUBE_POD_NAME": "one", "RAGKUBE_NAMESPACES": "team-a,team-b",
    }  # fmt: skip
    operator = OperatorProcess(rights, tmp_path, options)
    operator.start()
    for space in ("team-a", "team-b", "default"):
        plane.apply(resource("mine", space))
    for space in ("team-a", "team-b"):
        until(f"{space} is served", partial(plane.get, "deployment", "mine-api", "-n", space))
    assert plane.get("ragd", "mine", "-n", "default")["status"] == {"observedGeneration": -1}
    assert "Forbidden" not in operator.log()
    operator.kill()
    helm("uninstall", "ragkube", "-n", "team-a", kubeconfig=Path(installer))


def account(plane: ControlPlane, name: str) -> Path:
    token = plane.kubectl("create", "token", name, "-n", "team-a").strip()
    return plane.write_kubeconfig(name, token)


# -- with pods ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rights(cluster: Cluster) -> Path:
    return cluster.kubeconfig()


Helm = Callable[..., str]


@pytest.fixture(scope="module")
def run(rights: Path, images: dict[str, str], kubectl: Kubectl) -> Iterator[Helm]:
    """`run("upgrade", "ragkube", CHART, values=…)` in the operator's namespace; nothing of it is left."""
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", timeout=140)
    for kind in ("clusterrole", "clusterrolebinding"):
        kubectl("delete", kind, "-l", "app.kubernetes.io/part-of=ragkube")
    kubectl("delete", CRD, "--ignore-not-found")

    def one(*arguments: str | Path, values: Values | None = None) -> str:
        return helm(*arguments, "-n", NAMESPACE, values=values, kubeconfig=rights)

    yield one
    releases = json.loads(one("list", "-o", "json"))
    for each in releases:
        one("uninstall", each["name"], "--wait", "--timeout", "120s")
    kubectl("delete", CRD, "--ignore-not-found", "--timeout=120s", timeout=140)
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", timeout=140)


def pods(kubectl: Kubectl, namespace: str) -> dict[str, tuple[str, int]]:
    """uid and restarts of every pod by name."""
    found = kubectl.json("get", "pods", "-n", namespace)["items"]
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            sum(state["restartCount"] for state in pod["status"].get("containerStatuses", ())),
        )
        for pod in found
    }


class Platform:
    """A RagDeployment of the second chart, with a document in it."""

    def __init__(self, kubectl: Kubectl, http: Http, namespace: str) -> None:
        self._http, self._url, self.namespace = http, f"http://docs.{namespace}", namespace
        secret = kubectl.json("get", "secret", "docs-admin-key", "-n", namespace)
        key = base64.b64decode(secret["data"]["key"]).decode()
        self._headers = {"Authorization": f"Bearer {key}"}

    def upload(self) -> None:
        headers = {**self._headers, "Content-Type": "text/markdown"}
        body = b"# Release train\n\nThe release train leaves every second Tuesday at nine."
        url = f"{self._url}/v1/documents/train.md"
        assert self._http("PUT", url, content=body, headers=headers).status == 201

    def answers(self) -> bool:
        question = {"question": "When does the release train leave?"}
        answer = self._http("POST", f"{self._url}/v1/query", json=question, headers=self._headers)
        return answer.status == 200 and "Tuesday" in answer.json()["answer"]


def look_and_feel(kubeconfig: Path, namespace: str) -> None:
    """`kubectl ragkube …` against real pods."""
    program = Path(sys.executable).parent / "kubectl-ragkube"
    env = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "PATH": f"{tool('kubectl').parent}:{os.environ['PATH']}",
    }

    def run(*arguments: str) -> str:
        command = [str(program), *arguments, "-n", namespace]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    assert f"docs in {namespace} is ready" in run("status")
    assert "second Tuesday" in run("ask", "docs", "When does the release train leave?")
    figures = json.loads(run("top", "docs", "--json", "--seconds", "1"))
    assert len(figures) == 3
    assert all(each["trouble"] is None and each["memory_bytes"] > 10**7 for each in figures)
    assert sum(each["misses_per_second"] or 0 for each in figures) >= 0
    lines = run("logs", "docs", "--component", "api", "--tail", "-1").splitlines()
    assert any("/v1/query" in line and "status=200" in line for line in lines)
    stamps = [line.split()[0] for line in lines if re.match(r"\d\d:\d\d:", line)]
    assert stamps == sorted(stamps)


@pytest.mark.level("nodes")
@pytest.mark.proves("K4", "K11", "K13")
@pytest.mark.timeout(600)
def test_install_upgrade_rollback_uninstall_with_a_live_platform(
    run: Helm, rights: Path, kubectl: Kubectl, http: Http, namespaces: Namespaces, tmp_path: Path
) -> None:
    timed = ("--wait", "--timeout", "180s")
    space = namespaces.create("helm")
    user = reader(tmp_path, rights, space, {"team-a": space})
    started = time.monotonic()
    user.types(f"helm install ragkube charts/ragkube -n {NAMESPACE} --create-namespace --wait")
    print(f"\nhelm install --wait: {time.monotonic() - started:.1f} s")
    assert "Succeeded" in user.types(f"helm test ragkube -n {NAMESPACE}")
    nodes = {
        pod["spec"]["nodeName"]
        for pod in kubectl.json("get", "pods", "-n", NAMESPACE, "-l", OPERATOR)["items"]
    }
    assert len(nodes) == 2

    spec = ("--set", "spec.cache.enabled=false,spec.deletionPolicy=Retain")
    started = time.monotonic()
    # Helm 4 waits by kstatus: the conditions of the RagDeployment are what it understands
    user.types(f"{DOCS_CHART.format('install')} --set spec.api.replicas=3 --wait", *spec)
    user.types("kubectl wait ragd/docs -n team-a --for=condition=Ready --timeout=5m")
    ready = kubectl("get", "ragd", "docs", "-n", space, "-o", "jsonpath={.status.conditions[0].status}")
    assert ready == "True"
    print(f"helm install --wait of a RagDeployment: {time.monotonic() - started:.1f} s")
    platform = Platform(kubectl, http, space)
    platform.upload()
    assert platform.answers()
    before = pods(kubectl, space)

    look_and_feel(rights, space)
    changed = ("--set", "logLevel=debug", "--set", "apiImage.tag=9.9.9")
    for line, more in (
        (f"helm upgrade ragkube charts/ragkube -n {NAMESPACE} --wait", changed),
        (f"helm rollback ragkube -n {NAMESPACE} --wait", ()),
    ):
        started = time.monotonic()
        user.types(line, *more)
        print(f"{line}: {time.monotonic() - started:.1f} s")
        assert "Succeeded" in user.types(f"helm test ragkube -n {NAMESPACE}")
        assert platform.answers()
    # the operator that leads now has seen the resource
    user.types(f"{DOCS_CHART.format('upgrade')} --set spec.api.replicas=4", *spec)
    wait_for(lambda: len(pods(kubectl, space)) == len(before) + 1, 60, what="the fourth API pod")
    after = pods(kubectl, space)
    assert {name: after.get(name) for name in before} == before

    started = time.monotonic()
    user.types(f"helm uninstall ragkube -n {NAMESPACE}", *timed)
    print(f"helm uninstall --wait: {time.monotonic() - started:.1f} s")
    assert platform.answers()
    run("install", "ragkube", CHART, *timed)
    user.types("helm uninstall docs -n team-a", *timed)
    wait_for(lambda: not pods(kubectl, space), 90, what="the pods to go")
    claims = {item["status"]["phase"] for item in kubectl.json("get", "pvc", "-n", space)["items"]}
    assert claims == {"Bound"}


@pytest.mark.level("multinode")
@pytest.mark.proves("K13")
def test_a_lost_operator_pod_is_replaced_by_the_standby(
    run: Helm, kubectl: Kubectl, namespaces: Namespaces
) -> None:
    run("upgrade", "--install", "ragkube", CHART, "--create-namespace", "--wait", "--timeout", "180s")
    lease = ("get", "lease", "ragkube-operator", "-n", NAMESPACE, "-o", "jsonpath={.spec.holderIdentity}")
    # the Lease of an operator that was removed a moment ago may still be there
    leader = wait_for(
        lambda: kubectl(*lease) if kubectl(*lease) in pods(kubectl, NAMESPACE) else "", 40, what="a leader"
    )
    space = namespaces.create("standby")
    started = time.monotonic()
    kubectl("delete", "pod", leader, "-n", NAMESPACE, "--grace-period=0", "--force", "--wait=false")
    kubectl.apply(resource("late", space, cache={"enabled": False}, api={"replicas": 1}), namespace=space)
    wait_for(lambda: pods(kubectl, space), 40, what="the first pod")
    print(f"\nan operator pod lost, work goes on after {time.monotonic() - started:.1f} s")
    # a pod that is deleted by force works on for a moment
    wait_for(lambda: kubectl(*lease) not in {"", leader}, 40, what="the standby to lead")
    kubectl("delete", "ragd", "late", "-n", space)
