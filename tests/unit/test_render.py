"""What is rendered: pure, stable over operator versions, restricted, and without any secret."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from ragkube_operator import crd, render
from ragkube_operator.crd.spec import RagDeployment
from ragkube_operator.render import names, redis_files
from ragkube_operator.render.rendering import RANK
from support.specs import deployments

Manifest = dict[str, Any]

CONTEXT = render.Context(api_image="ragkube/api:1", operator_version="1")
MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
SAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))


def parse(spec: Manifest | None = None, name: str = "docs") -> RagDeployment:
    metadata = {"name": name, "namespace": "search"}
    return crd.parse(
        {"apiVersion": crd.API_VERSION, "kind": crd.KIND, "metadata": metadata, "spec": spec or {}}
    )


def rendered(spec: Manifest | None = None, context: render.Context = CONTEXT) -> list[Manifest]:
    return render.render(parse(spec), context)


def kinds(manifests: list[Manifest]) -> set[tuple[str, str]]:
    return {(m["kind"], m["metadata"]["name"]) for m in manifests}


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


def templates(manifests: list[Manifest]) -> list[Manifest]:
    return [m["spec"]["template"] for m in manifests if "template" in m.get("spec", {})]


def containers(manifests: list[Manifest]) -> list[Manifest]:
    return [c for template in templates(manifests) for c in template["spec"]["containers"]]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    else:
        yield str(value)


def test_generated_files_are_up_to_date(repository: Path) -> None:
    command = [sys.executable, str(repository / "hack" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.proves("K1")
def test_ten_lines_give_a_whole_platform(repository: Path) -> None:
    minimal = yaml.safe_load((repository / "manifests" / "samples" / "minimal.yaml").read_text())
    found = kinds(render.render(crd.parse(minimal), CONTEXT))
    assert found >= {
        ("Deployment", "minimal-api"),
        ("Service", "minimal"),
        ("StatefulSet", "minimal-redis"),
        ("StatefulSet", "minimal-weaviate"),
    }


@pytest.mark.proves("K5")
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_an_operator_upgrade_replaces_no_pod(path: Path) -> None:
    deployment = crd.parse(yaml.safe_load(path.read_text()))
    before = render.render(deployment, render.Context(api_image="ragkube/api:1", operator_version="1"))
    after = render.render(deployment, render.Context(api_image="ragkube/api:1", operator_version="2"))
    assert json.dumps(templates(before)) == json.dumps(templates(after))


@MANY
@given(deployments())
def test_rendering_is_pure_and_names_are_valid_everywhere(deployment: RagDeployment) -> None:
    manifests = render.render(deployment, CONTEXT)
    assert json.dumps(manifests) == json.dumps(render.render(deployment, CONTEXT))
    assert len(kinds(manifests)) == len(manifests)
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        assert DNS_1035.fullmatch(name)
        assert manifest["metadata"]["namespace"] == deployment.namespace
        assert all(LABEL_VALUE.fullmatch(value) for value in manifest["metadata"]["labels"].values())
        # The label controller-revision-hash is made of the StatefulSet's name and ten characters more.
        assert manifest["kind"] != "StatefulSet" or len(name) <= 52
    ranks = [RANK.index(manifest["kind"]) for manifest in manifests]
    assert ranks == sorted(ranks)


@MANY
@given(deployments())
def test_references_inside_a_deployment_hold(deployment: RagDeployment) -> None:
    manifests = render.render(deployment, CONTEXT)
    known = kinds(manifests)
    own = {secret.name for secret in render.generated_secrets(deployment)}
    named = {ref.name for ref in render.referenced_secrets(deployment)}
    for template in templates(manifests):
        spec = template["spec"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in known
        volumes = {volume["name"] for volume in spec.get("volumes", [])} | {"data"}
        assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in volumes)
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        for volume in spec.get("volumes", []):
            for source in volume.get("projected", {}).get("sources", []):
                assert source["secret"]["name"] in own | named
    for manifest in manifests:
        if manifest["kind"] == "StatefulSet":
            assert ("Service", manifest["spec"]["serviceName"]) in known


@pytest.mark.proves("S6")
@MANY
@given(deployments())
def test_every_pod_is_restricted(deployment: RagDeployment) -> None:
    for template in templates(render.render(deployment, CONTEXT)):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert container["imagePullPolicy"] == "IfNotPresent"
            assert {"livenessProbe", "readinessProbe"} <= container.keys()


@pytest.mark.proves("S6")
def test_passwords_stand_in_no_argument_environment_or_config_map() -> None:
    for text in texts(rendered()):
        assert not re.search(r"(requirepass|masterauth|--pass|-a \$)", text)
    for container in containers(rendered()):
        for variable in container.get("env", []):
            if "KEY" in variable["name"] and variable["name"].endswith("KEYS"):
                assert "secretKeyRef" in variable["valueFrom"]


@pytest.mark.proves("S6")
def test_only_our_own_pods_reach_the_databases() -> None:
    manifests = rendered()
    redis = find(manifests, "NetworkPolicy", "docs-redis")["spec"]["ingress"]
    clients = {r["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for r in redis[0]["from"]}
    assert clients == {"ragkube", "ragkube-operator"}
    assert [port["port"] for port in redis[0]["ports"]] == [6379]
    weaviate = find(manifests, "NetworkPolicy", "docs-weaviate")["spec"]["ingress"]
    components = {
        r["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in weaviate
        for r in rule["from"]
    }
    assert components == {"api", "worker", "weaviate"}
    assert "from" not in find(manifests, "NetworkPolicy", "docs-api")["spec"]["ingress"][0]


def test_the_network_can_be_left_open() -> None:
    manifests = rendered({"network": {"policy": "Disabled"}})
    assert not [m for m in manifests if m["kind"] == "NetworkPolicy"]


def test_the_operator_carries_the_label_that_lets_it_into_redis(repository: Path) -> None:
    text = (repository / "manifests" / "operator" / "deployment.yaml").read_text()
    labels = yaml.safe_load(text)["spec"]["template"]["metadata"]["labels"]
    assert names.OPERATOR_LABELS.items() <= labels.items()


@pytest.mark.proves("K5", "R5")
def test_a_pod_has_the_time_that_its_process_takes_to_end() -> None:
    spec = {"api": {"requestTimeout": "90s"}}
    server = render.settings(parse(spec))["server"]
    pod = find(rendered(spec), "Deployment", "docs-api")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > server["drain_seconds"] + server["grace_seconds"]
    assert server["grace_seconds"] >= 90


@pytest.mark.proves("K5")
def test_a_rollout_takes_no_capacity_away_and_spreading_never_blocks_it() -> None:
    deployment = find(rendered(), "Deployment", "docs-api")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    for template in templates(rendered()):
        spread = template["spec"]["topologySpreadConstraints"]
        assert {constraint["whenUnsatisfiable"] for constraint in spread} == {"ScheduleAnyway"}
        assert "affinity" not in template["spec"]


@pytest.mark.proves("K5")
def test_evictions_go_one_by_one() -> None:
    budgets = [m for m in rendered() if m["kind"] == "PodDisruptionBudget"]
    assert {m["metadata"]["name"] for m in budgets} == {"docs-api", "docs-redis", "docs-weaviate"}
    assert {m["spec"]["maxUnavailable"] for m in budgets} == {1}


def test_other_settings_replace_the_pods_and_a_replica_count_does_not() -> None:
    def pod(spec: Manifest) -> Manifest:
        template: Manifest = find(rendered(spec), "Deployment", "docs-api")["spec"]["template"]
        return template

    assert pod({}) == pod({"api": {"replicas": 7}})
    assert pod({}) != pod({"retrieval": {"k": 9}})


@pytest.mark.proves("K3")
def test_an_option_that_is_switched_off_leaves_no_object() -> None:
    assert not [m for m in rendered({"cache": {"enabled": False}}) if "redis" in m["metadata"]["name"]]
    external = {"weaviate": {"type": "External", "external": {"httpHost": "w"}}}
    assert not [m for m in rendered({"vectorStore": external}) if "weaviate" in m["metadata"]["name"]]
    assert ("Deployment", "docs-worker") not in kinds(rendered())
    sources = {"documents": {"sources": [{"name": "a", "directory": {}}]}}
    assert ("Deployment", "docs-worker") in kinds(rendered(sources))


@pytest.mark.proves("K10")
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_volumes_go_as_the_deletion_policy_says_and_never_by_scaling(policy: str) -> None:
    spec = {"deletionPolicy": policy, "cache": {"redis": {"managed": {"storage": {"size": "1Gi"}}}}}
    manifests = rendered(spec)
    for name in ("docs-redis", "docs-weaviate"):
        stateful = find(manifests, "StatefulSet", name)["spec"]
        assert stateful["persistentVolumeClaimRetentionPolicy"] == {
            "whenDeleted": policy,
            "whenScaled": "Retain",
        }
        assert stateful["volumeClaimTemplates"]


def test_redis_evicts_answers_only_and_leaves_room_in_its_memory_limit() -> None:
    redis = parse({"cache": {"redis": {"managed": {"resources": {"limits": {"memory": "1Gi"}}}}}})
    server = redis.spec.cache.redis.server
    assert "maxmemory-policy volatile-lru" in redis_files.config(server)
    assert 512 <= redis_files.max_memory(server) <= 700


def test_valkey_is_run_by_its_own_programs() -> None:
    spec = {"cache": {"redis": {"managed": {"flavor": "Valkey"}}}}
    container = find(rendered(spec), "StatefulSet", "docs-redis")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "valkey/valkey:8.1"
    assert container["command"][0] == "valkey-server"
    assert "redis-cli" not in find(rendered(spec), "ConfigMap", "docs-redis")["data"]["ready.sh"]


def test_a_growing_weaviate_keeps_its_first_pods() -> None:
    def pod(replicas: int) -> Manifest:
        spec = {"vectorStore": {"weaviate": {"managed": {"replicas": replicas}}}}
        template: Manifest = find(rendered(spec), "StatefulSet", "docs-weaviate")["spec"]["template"]
        return template

    assert pod(3) == pod(5) == pod(30)


def test_a_generated_secret_is_made_once_and_completed_later() -> None:
    secret = {s.name: s for s in render.generated_secrets(parse())}["docs-redis-auth"]
    made = secret.missing({}, lambda: "p4ss")
    assert made == {"password": "p4ss", "auth.conf": "requirepass p4ss\nmasterauth p4ss\n"}
    assert secret.missing(made, lambda: "other") == {}
    assert secret.missing({"password": "old"}, lambda: "new") == {
        "auth.conf": "requirepass old\nmasterauth old\n"
    }


def test_generated_secrets_are_only_those_that_are_used() -> None:
    assert [s.name for s in render.generated_secrets(parse())] == [
        "docs-admin-key",
        "docs-redis-auth",
        "docs-weaviate-auth",
    ]
    spec = {"auth": {"adminKeySecretRef": {"name": "s", "key": "k"}}, "cache": {"enabled": False}}
    assert [s.name for s in render.generated_secrets(parse(spec))] == ["docs-weaviate-auth"]


def test_referenced_secrets_say_which_field_names_them(repository: Path) -> None:
    sample = yaml.safe_load((repository / "manifests" / "samples" / "external.yaml").read_text())
    found = {(ref.name, ref.key, ref.part): ref.path for ref in render.referenced_secrets(crd.parse(sample))}
    assert found["redis-ca", "ca.crt", "cache"] == "spec.cache.redis.external.caSecretRef"
    assert found["weaviate", "api-key", "vectorStore"] == "spec.vectorStore.weaviate.external.apiKeySecretRef"
