"""The operator on a real cluster: one file becomes a platform that answers, heals and goes without a trace."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.testbed.base import Cluster
from cluster.testbed.client import Http, Kubectl, KubectlError, Namespaces, wait_for
from support.docs_commands import ON_A_PLATFORM, reader
from support.platforms import OPERATOR, admin_key, condition, is_ready, ready, redis_pods, resource
from support.processes import free_ports

pytestmark = pytest.mark.level("nodes")
MINIMAL = "manifests/samples/minimal.yaml"
QUESTION = "When does the train leave?"


@pytest.fixture(scope="module")
def platform(
    operator: None, kubectl: Kubectl, namespaces: Namespaces, repository: Path
) -> Iterator[tuple[str, str]]:
    """The minimal sample, Ready; (namespace, name)."""
    namespace = namespaces.create("platform")
    started = time.monotonic()
    kubectl("apply", "-n", namespace, "-f", str(repository / MINIMAL))
    kubectl("wait", "ragd/minimal", "-n", namespace, "--for=condition=Ready", "--timeout=180s", timeout=200)
    print(f"\nkubectl apply of the minimal sample to Ready: {time.monotonic() - started:.1f} s")
    yield namespace, "minimal"
    namespaces.delete(namespace)


CLIENT = """
import json, os, urllib.request
base = os.environ["URL"]
def call(method, path, body, kind):
    request = urllib.request.Request(base + path, body, method=method, headers={
        "Authorization": "Bearer " + os.environ["KEY"], "Content-Type": kind})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, json.load(answer)
text = b"# Release train\\n\\nThe release train leaves every second Tuesday at nine. Late changes wait for the next one."
status, _ = call("PUT", "/v1/documents/train.md", text, "text/markdown")
assert status == 201, status
question = json.dumps({"question": "When does the release train leave?"}).encode()
first, _, third = (call("POST", "/v1/query", question, "application/json")[1] for _ in range(3))
quote = first["citations"][0]
stored = call("GET", "/v1/documents/train.md", None, "text/plain")[1]
print(json.dumps({"answer": first["answer"], "citation": quote, "stored": stored, "cache": third["cache"]}))
"""


def run_client(kubectl: Kubectl, namespace: str, name: str, url: str) -> dict[str, Any]:
    """A pod of the cluster that uploads and asks; the key comes from the Secret, as users do it."""
    key = {"secretKeyRef": {"name": f"{name}-admin-key", "key": "key"}}
    container = {
        "name": "client",
        "image": "ragkube/api:0.1.0",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", CLIENT],
        "env": [{"name": "URL", "value": url}, {"name": "KEY", "valueFrom": key}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": security, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": spec}
    kubectl.apply(pod, namespace=namespace)

    def ended() -> str:
        phase = str(kubectl("get", "pod", "client", "-n", namespace, "-o", "jsonpath={.status.phase}"))
        return phase if phase in {"Succeeded", "Failed"} else ""

    phase = wait_for(ended, 90, what="the client's end")
    log = kubectl("logs", "client", "-n", namespace)
    kubectl("delete", "pod", "client", "-n", namespace, "--wait=false")
    assert phase == "Succeeded", log
    found: dict[str, Any] = json.loads(log.splitlines()[-1])
    return found


@pytest.mark.proves("K1", "K7", "K12")
def test_a_pod_uploads_a_document_and_gets_a_cited_answer(
    platform: tuple[str, str], kubectl: Kubectl
) -> None:
    namespace, name = platform
    url = kubectl("get", "ragd", name, "-n", namespace, "-o", "jsonpath={.status.url}")
    found = run_client(kubectl, namespace, name, url)
    assert "second Tuesday" in found["answer"]
    assert found["citation"]["document"] == "train.md"
    assert "second Tuesday" in found["citation"]["quote"]
    assert found["cache"]["status"] == "hit"


@pytest.mark.proves("K4")
def test_kubectl_get_shows_what_matters(platform: tuple[str, str], kubectl: Kubectl) -> None:
    namespace, name = platform
    header, row = kubectl("get", "ragd", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "READY", "API", "STORE", "URL", "AGE"]
    assert row.split()[:6] == [name, "True", "2/2", "Weaviate", "1/1", f"http://{name}.{namespace}.svc"]


@pytest.mark.proves("S6")
def test_without_the_key_nothing_is_answered(platform: tuple[str, str], kubectl: Kubectl, http: Http) -> None:
    namespace, name = platform
    url = f"http://{name}.{namespace}/v1/query"
    assert http("POST", url, json={"question": "who?"}).status == 401
    headers = {"Authorization": f"Bearer {admin_key(kubectl, namespace)}"}
    assert http("POST", url, json={"question": "who?"}, headers=headers).status == 200


@pytest.mark.proves("K6")
@pytest.mark.parametrize("lost", ["one", "half", "all"])
def test_redis_pods_that_are_lost_are_replaced_and_the_cluster_heals(
    platform: tuple[str, str], kubectl: Kubectl, lost: str
) -> None:
    namespace, name = platform
    ready(kubectl, namespace)
    pods = [f"{name}-redis-{index}" for index in {"one": [0], "half": [0, 1, 2], "all": range(6)}[lost]]
    before = {
        pod["metadata"]["uid"] for pod in redis_pods(kubectl, namespace) if pod["metadata"]["name"] in pods
    }
    started = time.monotonic()
    kubectl("delete", "pod", *pods, "-n", namespace, "--grace-period=0", "--force", "--wait=false")

    def whole() -> bool:
        found = redis_pods(kubectl, namespace)
        fresh = not before & {pod["metadata"]["uid"] for pod in found}
        # the pods' own probes ask each Redis for cluster_state
        return fresh and sum(map(is_ready, found)) == 6

    wait_for(whole, 120, what="a whole Redis Cluster of new pods", ignore=(KubectlError,))
    print(f"\n{lost} of the Redis pods replaced and healed in {time.monotonic() - started:.1f} s")
    ready(kubectl, namespace)


@pytest.mark.proves("K3")
def test_the_operator_dies_while_a_platform_comes_up_and_nothing_is_doubled(
    operator: None, kubectl: Kubectl, namespace: Callable[..., str]
) -> None:
    """Formed by the second operator: three primaries, three replicas, one of each object."""
    space = namespace("killed")
    redis = {"type": "Managed", "managed": {"flavor": "Valkey"}}
    kubectl.apply(resource("v", cache={"redis": redis}, api={"replicas": 1}), namespace=space)
    for pause in (0.3, 0.6, 0.9):
        time.sleep(pause)
        wait_for(lambda: kubectl("get", "pod", "-n", "ragkube-system", "-l", OPERATOR, "-o", "name"), 30)
        options = ("--grace-period=0", "--force", "--wait=false")
        kubectl("delete", "pod", "-n", "ragkube-system", "-l", OPERATOR, *options)
    ready(kubectl, space, "v")
    sets = kubectl.json("get", "statefulsets", "-n", space)["items"]
    assert sorted(item["metadata"]["name"] for item in sets) == ["v-redis", "v-weaviate"]
    formed = kubectl.json("get", "events", "-n", space, "--field-selector", "involvedObject.name=v")["items"]
    assert [event["reason"] for event in formed].count("Ready") == 1


EVERYTHING = "all,configmaps,secrets,serviceaccounts,poddisruptionbudgets,networkpolicies"


def remains(kubectl: Kubectl, namespace: str, kinds: str = EVERYTHING) -> list[str]:
    label = "app.kubernetes.io/managed-by=ragkube"
    return sorted(kubectl("get", kinds, "-n", namespace, "-l", label, "-o", "name").split())


@pytest.mark.proves("K10")
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_deleting_it_removes_everything_and_data_only_as_the_policy_says(
    operator: None, kubectl: Kubectl, namespace: Callable[..., str], policy: str
) -> None:
    space = namespace("gone")
    small = {"deletionPolicy": policy, "cache": {"enabled": False}, "api": {"replicas": 1}}
    kubectl.apply(resource("gone", **small), namespace=space)
    ready(kubectl, space, "gone")
    assert claims(kubectl, space) == {"Bound"}
    assert remains(kubectl, space)
    kubectl("delete", "ragd", "gone", "-n", space, "--timeout=20s")
    wait_for(lambda: not remains(kubectl, space), 90, what="everything to be collected")
    if policy == "Retain":
        assert claims(kubectl, space) == {"Bound"}
    else:
        wait_for(lambda: not claims(kubectl, space), 60, what="the volume claim to go")


def claims(kubectl: Kubectl, namespace: str) -> set[str]:
    return {item["status"].get("phase", "") for item in kubectl.json("get", "pvc", "-n", namespace)["items"]}


@pytest.mark.proves("K4")
def test_an_external_redis_that_is_away_is_told_and_heals(
    operator: None, kubectl: Kubectl, namespace: Callable[..., str]
) -> None:
    """A resource uses the Redis of another one as its external Redis, before that exists."""
    space = namespace("external")
    node = f"late-redis-0.late-redis.{space}.svc:6379"
    secret = {"name": "late-redis-auth", "key": "password"}
    redis = {"type": "External", "external": {"nodes": [node], "passwordSecretRef": secret}}
    weaviate = {"weaviate": {"type": "External", "external": {"httpHost": f"late-weaviate.{space}.svc"}}}
    kubectl.apply(resource("user", cache={"redis": redis}, vectorStore=weaviate), namespace=space)
    wait_for(
        lambda: condition(kubectl, space, "CacheReady", "user").get("reason") == "Unreachable",
        30,
        what="the condition",
    )
    found = condition(kubectl, space, "CacheReady", "user")
    assert node in found["message"]
    assert "spec.cache.redis.external.nodes" in found["message"]
    assert condition(kubectl, space, "SecretsReady", "user")["reason"] == "SecretMissing"
    late = resource("late", api={"replicas": 1}, network={"policy": "Disabled"})
    kubectl.apply(late, namespace=space)
    wait_for(
        lambda: condition(kubectl, space, "CacheReady", "user").get("reason") == "Reachable",
        120,
        what="the external Redis",
    )


@pytest.mark.timeout(600)
def test_what_the_pages_tell_users_to_type_works(
    platform: tuple[str, str], cluster: Cluster, tmp_path: Path
) -> None:
    namespace, _ = platform
    port = str(free_ports(1)[0])
    own = {"NAME": "minimal", "NAMESPACE": namespace, "team-a": namespace, "QUESTION": QUESTION, "8080": port}
    user = reader(tmp_path, cluster.kubeconfig(), namespace, own)
    user.env["RAGKUBE_URL"] = f"http://127.0.0.1:{port}"
    (tmp_path / "runbooks").mkdir()
    (tmp_path / "runbooks" / "train.md").write_text(
        "# Trains\n\nThe train leaves every second Tuesday at nine."
    )
    (tmp_path / "alertmanager.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    endless = {"--follow": "/v1/query", "port-forward": "Forwarding from"}
    printed: dict[str, str] = {}
    try:
        for line in ON_A_PLATFORM:
            until = next((text for word, text in endless.items() if word in line), None)
            # nothing failed, so nothing is found
            more = ("||", '[ "${PIPESTATUS[*]}" = "0 1" ]') if "| grep" in line else ()
            printed[line] = user.starts(line, until) if until else user.types(line, *more)
    finally:
        user.leaves()
    assert "minimal" in printed["kubectl get ragd"]
    assert "second Tuesday" in printed['RAGKUBE_API_KEY=$KEY ragkube ask "QUESTION"']
    assert f"minimal in {namespace} is ready" in printed["kubectl ragkube status NAME"]


@pytest.mark.proves("K6")
def test_an_edit_rolls_the_redis_pods_one_by_one_and_leaves_the_others_alone(
    platform: tuple[str, str], kubectl: Kubectl, http: Http
) -> None:
    namespace, name = platform
    ready(kubectl, namespace)
    before = {pod["metadata"]["uid"] for pod in redis_pods(kubectl, namespace)}
    others = not_redis(kubectl, namespace)
    managed = {"resources": {"limits": {"memory": "192Mi"}, "requests": {"cpu": "20m", "memory": "64Mi"}}}
    change = {"spec": {"cache": {"redis": {"managed": managed}}}}
    kubectl("patch", "ragd", name, "-n", namespace, "--type=merge", "-p", json.dumps(change))
    headers = {"Authorization": f"Bearer {admin_key(kubectl, namespace)}"}
    answers: set[int] = set()

    def rolled() -> bool:
        answer = http(
            "POST", f"http://{name}.{namespace}/v1/query", json={"question": "who?"}, headers=headers
        )
        answers.add(answer.status)
        found = redis_pods(kubectl, namespace)
        fresh = not before & {pod["metadata"]["uid"] for pod in found}
        return fresh and sum(map(is_ready, found)) == 6

    wait_for(rolled, 240, what="six new Redis pods", ignore=(KubectlError,))
    assert answers == {200}
    ready(kubectl, namespace)
    assert not_redis(kubectl, namespace) == others


def not_redis(kubectl: Kubectl, namespace: str) -> set[str]:
    return set(pods_of(kubectl, namespace, "api", "weaviate"))


def pods_of(kubectl: Kubectl, namespace: str, *components: str) -> dict[str, bool]:
    """Whether each pod is ready, by uid; one that is about to end is there and is not."""
    label = f"app.kubernetes.io/component in ({','.join(components)})"
    pods = kubectl.json("get", "pods", "-n", namespace, "-l", label)["items"]
    return {pod["metadata"]["uid"]: is_ready(pod) for pod in pods}


@pytest.mark.proves("K5", "R5")
@pytest.mark.parametrize(
    ("api", "replicas"), [({"logLevel": "Warning"}, 2), ({"replicas": 3}, 3), ({"replicas": 1}, 1)]
)
def test_api_pods_are_rolled_added_and_removed_without_a_lost_request(
    platform: tuple[str, str], kubectl: Kubectl, http: Http, api: dict[str, Any], replicas: int
) -> None:
    namespace, name = platform
    ready(kubectl, namespace)
    before = pods_of(kubectl, namespace, "api")
    others = set(pods_of(kubectl, namespace, "redis", "weaviate"))
    change = json.dumps({"spec": {"api": api}})
    kubectl("patch", "ragd", name, "-n", namespace, "--type=merge", "-p", change)
    headers = {"Authorization": f"Bearer {admin_key(kubectl, namespace)}"}
    answers: list[int] = []

    def settled() -> bool:
        body = {"question": "When does the release train leave?"}
        answers.append(http("POST", f"http://{name}.{namespace}/v1/query", json=body, headers=headers).status)
        found = pods_of(kubectl, namespace, "api")
        rolled = "logLevel" not in api or not set(before) & set(found)
        return rolled and len(found) == replicas and all(found.values())

    wait_for(settled, 120, what="the API pods", ignore=(KubectlError,))
    assert set(answers) == {200}
    assert len(answers) > 3
    ready(kubectl, namespace)
    assert set(pods_of(kubectl, namespace, "redis", "weaviate")) == others


@pytest.mark.proves("K14", "I3")
def test_the_file_of_the_quickstart_runs_unchanged(
    operator: None, kubectl: Kubectl, http: Http, namespace: Callable[..., str], repository: Path
) -> None:
    space = namespace("quickstart")
    kubectl("apply", "-n", space, "-f", str(repository / "manifests/samples/quickstart.yaml"))
    ready(kubectl, space, "quickstart")
    url = f"http://quickstart.{space}"
    headers = {"Authorization": f"Bearer {admin_key(kubectl, space, 'quickstart')}"}

    def synced() -> bool:
        sources = http("GET", f"{url}/v1/sources", headers=headers).json()["sources"]
        return bool(sources) and all(source["state"] == "synced" for source in sources)

    wait_for(synced, 90, what="the worker to index the docs")
    question = {"question": "How do I rotate the admin key?"}
    answer = http("POST", f"{url}/v1/query", json=question, headers=headers).json()
    assert answer["citations"][0]["document"] == "security.md"
