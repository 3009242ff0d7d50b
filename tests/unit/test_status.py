"""From what was observed to conditions, events and documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ragkube_operator import status
from ragkube_operator.crd.status import RagDeploymentStatus
from ragkube_operator.explanations import EVENTS
from ragkube_operator.status import PARTS, TROUBLE, Facts, Part, Reason

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
READY = {
    "SecretsReady": Part(True, Reason.SECRETS_FOUND, "all"),
    "CacheReady": Part(True, Reason.CLUSTER_FORMED, "3 shards"),
    "VectorStoreReady": Part(True, Reason.PODS_READY, "1 of 1"),
    "APIReady": Part(True, Reason.AVAILABLE, "2 of 2"),
}
FIELDS = {"url": "http://demo.shop.svc", "version": "0.1.0", "apiImage": "ragkube/api:0.1.0"}


def conditions(found: status.Status) -> dict[str, dict[str, Any]]:
    return {item["type"]: item for item in found["conditions"]}


@pytest.mark.proves("K4")
def test_ready_means_that_every_part_is() -> None:
    found = conditions(status.build(Facts(3, READY, fields=FIELDS), {}, NOW))
    assert [found[name]["status"] for name in ("Ready", "Reconciling", "Stalled")] == [
        "True",
        "False",
        "False",
    ]
    assert {item["observedGeneration"] for item in found.values()} == {3}


@pytest.mark.proves("K4")
@pytest.mark.parametrize("broken", list(READY))
def test_a_part_that_is_not_ready_says_why_in_ready_too(broken: str) -> None:
    parts = {**READY, broken: Part(False, Reason.UNREACHABLE, "check the network")}
    found = conditions(status.build(Facts(1, parts, fields=FIELDS), {}, NOW))
    assert found["Ready"]["status"] == "False"
    assert found["Ready"]["reason"] == "Unreachable"
    assert found["Ready"]["message"] == f"{broken}: check the network"
    assert found["Reconciling"]["status"] == "True"


def test_the_first_pass_has_all_three_conditions_of_kstatus() -> None:
    found = conditions(status.build(Facts(1, retrying="the API server is away"), {}, NOW))
    assert list(found) == ["Ready", "Reconciling", "Stalled"]
    assert found["Ready"]["status"] == "False"


def test_a_stall_is_no_progress_and_keeps_what_was_seen() -> None:
    before = status.build(Facts(1, READY, fields=FIELDS), {}, NOW)
    problem = status.stalled("ImmutableField", "undo it")
    after = status.build(Facts(2, stalled=problem), before, LATER)
    found = conditions(after)
    assert [found[name]["status"] for name in ("Ready", "Reconciling", "Stalled")] == [
        "False",
        "False",
        "True",
    ]
    assert found["Stalled"]["message"] == "undo it"
    assert found["CacheReady"]["status"] == "True"
    assert after["url"] == FIELDS["url"]


def test_paused_reports_what_it_sees_and_changes_nothing() -> None:
    found = conditions(status.build(Facts(1, READY, paused=True, fields=FIELDS), {}, NOW))
    assert found["Ready"]["status"] == "True"
    assert found["Reconciling"]["reason"] == "Paused"


def test_transition_times_move_only_with_the_status() -> None:
    before = status.build(Facts(1, READY, fields=FIELDS), {}, NOW)
    parts = {**READY, "APIReady": Part(False, Reason.ROLLING_OUT, "1 of 2")}
    found = conditions(status.build(Facts(2, parts, fields=FIELDS), before, LATER))
    assert found["APIReady"]["lastTransitionTime"] == LATER
    assert found["CacheReady"]["lastTransitionTime"] == NOW


def test_an_unchanged_status_is_not_written() -> None:
    before = status.build(Facts(1, READY, fields=FIELDS), {}, NOW)
    after = status.build(Facts(1, READY, fields=FIELDS), {**before, "apiImage": FIELDS["apiImage"]}, LATER)
    assert not status.differs(after, {**before, "someDefault": ""})
    assert status.differs(status.build(Facts(2, READY, fields=FIELDS), before, LATER), before)


def test_the_status_fits_the_schema() -> None:
    counts = {"replicas": 2, "ready": 2, "summary": "2/2"}
    fields = {**FIELDS, "api": counts, "vectorStore": counts, "cache": counts, "workers": counts}
    RagDeploymentStatus.model_validate(status.build(Facts(1, READY, fields=fields), {}, NOW))


def told(before: dict[str, Part], after: dict[str, Part]) -> list[tuple[str, str]]:
    old = status.build(Facts(1, before, fields=FIELDS), {}, NOW)
    new = status.build(Facts(1, after, fields=FIELDS), old, LATER)
    found = [(event.kind, event.reason) for event in status.events(new, old)]
    assert all(name in set(Reason) or EVENTS[name][0] == kind for kind, name in found)
    return found


@pytest.mark.proves("K4")
def test_events_tell_transitions_once() -> None:
    missing = {**READY, "SecretsReady": Part(False, Reason.SECRET_MISSING, "create it")}
    forming = {**READY, "CacheReady": Part(False, Reason.FORMING_CLUSTER, "0 of 6")}
    healing = {**READY, "CacheReady": Part(False, Reason.HEALING_CLUSTER, "5 of 6")}
    assert told(forming, READY) == [("Normal", "Ready"), ("Normal", "RedisClusterFormed")]
    assert told(READY, healing) == [("Warning", "RedisClusterHealing")]
    assert ("Normal", "RedisClusterHealed") in told(healing, READY)
    assert told(READY, missing) == [("Warning", "SecretMissing")]
    assert ("Normal", "SecretFound") in told(missing, READY)
    assert told(READY, READY) == told(healing, healing) == []


def test_an_unreachable_service_that_comes_back_is_told() -> None:
    away = {**READY, "VectorStoreReady": Part(False, Reason.UNREACHABLE, "no route")}
    back = {**READY, "VectorStoreReady": Part(True, Reason.REACHABLE, "answers")}
    assert told(READY, away) == [("Warning", "Unreachable")]
    assert ("Normal", "Reachable") in told(away, back)


def workload(**fields: Any) -> dict[str, Any]:
    return {
        "metadata": {"generation": 2},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 2, **fields},
    }


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, Reason.AVAILABLE),
        ({"replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}, Reason.ROLLING_OUT),
        ({"replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}, Reason.ROLLING_OUT),
        (
            {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "observedGeneration": 1},
            Reason.ROLLING_OUT,
        ),
        (
            {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]},
            Reason.ROLLOUT_FAILED,
        ),
        ({}, Reason.ROLLING_OUT),
    ],
)
def test_a_deployment_is_available_when_all_pods_run_the_current_spec(
    fields: dict[str, Any], reason: Reason
) -> None:
    assert status.deployment_part(workload(**fields)).reason is reason


def test_a_pod_in_trouble_is_named_with_the_kubelets_words() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    pods = [{"metadata": {"name": "demo-api-1"}, "status": {"containerStatuses": [{"state": waiting}]}}]
    part = status.deployment_part(workload(), pods)
    assert "pod demo-api-1: ImagePullBackOff no such image" in part.message
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    pending = [{"metadata": {"name": "demo-redis-0"}, "status": {"conditions": [condition]}}]
    assert "Unschedulable: 0/3 nodes" in status.stateful_set_part(workload(), pending).message


@pytest.mark.proves("K4")
def test_every_reason_and_condition_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "status-conditions.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", text.split("## Reasons")[1].split("## Other")[0], flags=re.MULTILINE)
    assert sorted(rows) == sorted(reason.value for reason in Reason)
    for name in ("Ready", "Reconciling", "Stalled", *PARTS):
        assert f"| `{name}` |" in text


def test_trouble_is_never_a_good_reason() -> None:
    good = {
        Reason.ALL_PARTS_READY,
        Reason.AVAILABLE,
        Reason.PODS_READY,
        Reason.CLUSTER_FORMED,
        Reason.REACHABLE,
    }
    assert not TROUBLE & good
