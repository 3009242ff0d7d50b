"""What `kubectl wait`, Helm, Argo CD and Flux make of a RagDeployment: the rules of kstatus, applied to our status."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from ragkube_operator import crd, status
from ragkube_operator.status import ADVISORY, Facts, Part, Reason

NOW = "2026-01-01T00:00:00Z"
Verdict = Literal["Current", "InProgress", "Failed", "Terminating"]
READY = {
    "SecretsReady": Part(True, Reason.SECRETS_FOUND, "all"),
    "CacheReady": Part(True, Reason.CLUSTER_FORMED, "3 shards"),
    "VectorStoreReady": Part(True, Reason.PODS_READY, "1 of 1"),
    "APIReady": Part(True, Reason.AVAILABLE, "2 of 2"),
}


def kstatus(resource: dict[str, Any]) -> Verdict:
    """The generic rules of cli-utils' pkg/kstatus/status (checkGenericProperties), then its rule for Ready."""
    meta, found = resource["metadata"], resource.get("status") or {}
    conditions = {item["type"]: item["status"] for item in found.get("conditions") or []}
    if meta.get("deletionTimestamp"):
        return "Terminating"
    if "observedGeneration" in found and found["observedGeneration"] != meta["generation"]:
        return "InProgress"
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    if conditions.get("Ready") in {"False", "Unknown"}:
        return "InProgress"
    return "Current"


def resource(found: dict[str, Any], generation: int = 1, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"generation": generation, **meta}, "status": found}


def built(parts: dict[str, Part], **facts: Any) -> dict[str, Any]:
    return status.build(Facts(1, parts, fields={"version": "0"}, **facts), {}, NOW)


@pytest.mark.proves("K4")
def test_one_that_no_operator_has_seen_is_in_progress() -> None:
    """Without a status kstatus would say Current, and `helm --wait` would return at once."""
    schema = crd.manifest()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert kstatus(resource(schema["default"])) == "InProgress"


@pytest.mark.proves("K4")
def test_ready_is_current_until_the_spec_changes_or_it_is_deleted() -> None:
    assert kstatus(resource(built(READY))) == "Current"
    assert kstatus(resource(built(READY), generation=2)) == "InProgress"
    assert kstatus(resource(built(READY), deletionTimestamp=NOW)) == "Terminating"


@pytest.mark.proves("K4")
@pytest.mark.parametrize("name", [*READY, "SourcesReady"])
def test_a_part_that_is_not_ready_is_in_progress(name: str) -> None:
    parts = {**READY, name: Part(False, Reason.ROLLING_OUT, "wait")}
    assert kstatus(resource(built(parts))) == "InProgress"


@pytest.mark.proves("K4")
@pytest.mark.parametrize("reason", ["InvalidSpec", "ImmutableField", "NameConflict", "Refused"])
def test_what_only_a_change_can_solve_has_failed(reason: str) -> None:
    assert kstatus(resource(built(READY, stalled=status.stalled(reason, "change it")))) == "Failed"


@pytest.mark.proves("K4")
@pytest.mark.parametrize("name", sorted(ADVISORY))
def test_what_answers_do_not_need_holds_no_rollout_back(name: str) -> None:
    parts = {**READY, name: Part(False, Reason.UNREACHABLE, "away")}
    assert kstatus(resource(built(parts))) == "Current"


@pytest.mark.proves("K4")
def test_a_paused_one_is_what_it_was() -> None:
    assert kstatus(resource(built(READY, paused=True))) == "Current"
