"""Pure: what was observed becomes the status of a RagDeployment, and the events that explain its changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Status = dict[str, Any]

_MESSAGE_LIMIT = 1024


class Reason(StrEnum):
    """Every reason that a condition can have; docs/status-conditions.md says what each one means."""

    # Ready
    ALL_PARTS_READY = "AllPartsReady"
    # Reconciling
    UP_TO_DATE = "UpToDate"
    PROGRESSING = "Progressing"
    RETRYING = "Retrying"
    PAUSED = "Paused"
    # Stalled
    NO_PROBLEM = "NoProblem"
    INVALID_SPEC = "InvalidSpec"
    IMMUTABLE_FIELD = "ImmutableField"
    NAME_CONFLICT = "NameConflict"
    REFUSED = "Refused"
    # parts
    AVAILABLE = "Available"
    ROLLING_OUT = "RollingOut"
    ROLLOUT_FAILED = "RolloutFailed"
    HELD_BACK = "HeldBack"
    NOT_CREATED = "NotCreated"
    WAITING_FOR_PODS = "WaitingForPods"
    PODS_READY = "PodsReady"
    FORMING_CLUSTER = "FormingCluster"
    HEALING_CLUSTER = "HealingCluster"
    CLUSTER_FORMED = "ClusterFormed"
    DISABLED = "Disabled"
    REACHABLE = "Reachable"
    UNREACHABLE = "Unreachable"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    SECRETS_FOUND = "SecretsFound"
    SECRET_MISSING = "SecretMissing"  # noqa: S105  # a reason, no password
    VOLUME_MISSING = "VolumeMissing"
    SCALING = "Scaling"
    SCALING_ON_CPU = "ScalingOnCPU"
    AT_MAXIMUM = "AtMaximum"
    WAITING_FOR_METRICS = "WaitingForMetrics"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    SCALED_TO_ZERO = "ScaledToZero"
    ENGINE_MISSING = "EngineMissing"
    APPLIED = "Applied"
    KIND_MISSING = "KindMissing"
    NOT_SCRAPED = "NotScraped"


# reasons that somebody should look at: they become Warning events
TROUBLE = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.IMMUTABLE_FIELD,
        Reason.NAME_CONFLICT,
        Reason.REFUSED,
        Reason.ROLLOUT_FAILED,
        Reason.HEALING_CLUSTER,
        Reason.UNREACHABLE,
        Reason.AUTHENTICATION_FAILED,
        Reason.SECRET_MISSING,
        Reason.VOLUME_MISSING,
        Reason.SCALING_ON_CPU,
        Reason.AT_MAXIMUM,
        Reason.METRICS_UNAVAILABLE,
        Reason.SCALED_TO_ZERO,
        Reason.ENGINE_MISSING,
        Reason.KIND_MISSING,
        Reason.NOT_SCRAPED,
    }
)
_EVENT_NAMES = {
    ("CacheReady", Reason.CLUSTER_FORMED, Reason.HEALING_CLUSTER): "RedisClusterHealed",
    ("CacheReady", Reason.CLUSTER_FORMED, None): "RedisClusterFormed",
    ("CacheReady", Reason.HEALING_CLUSTER, None): "RedisClusterHealing",
    ("SecretsReady", Reason.SECRETS_FOUND, Reason.SECRET_MISSING): "SecretFound",
    ("Ready", Reason.ALL_PARTS_READY, None): "Ready",
}
PARTS = (
    "SecretsReady", "CacheReady", "VectorStoreReady", "APIReady", "SourcesReady", "ScalingReady", "MonitoringReady",
)  # fmt: skip
ADVISORY = frozenset({"ScalingReady", "MonitoringReady"})
"""Questions are answered without them: they are no reason to hold back a rollout that waits for Ready."""


@dataclass(frozen=True)
class Part:
    """The state of one part."""

    ready: bool
    reason: Reason
    message: str


@dataclass(frozen=True)
class Event:
    """Something worth telling the user; ``kind`` is Normal or Warning."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True)
class Facts:
    """What one pass found out."""

    generation: int
    parts: Mapping[str, Part] = field(default_factory=dict)
    stalled: Part | None = None
    paused: bool = False
    retrying: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def build(facts: Facts, previous: Mapping[str, Any], now: str) -> Status:
    """The new status; transition times of unchanged conditions are kept."""
    before = {item["type"]: item for item in previous.get("conditions") or []}
    conditions = [
        _condition(name, part, before.get(name), facts.generation, now)
        for name, part in _conditions(facts, previous)
    ]
    kept = {key: previous[key] for key in ("apiImage",) if key in previous}
    fields = {key: value for key, value in facts.fields.items() if value is not None}
    if not facts.fields:
        fields = {k: v for k, v in _told(previous).items() if k not in {"conditions", "observedGeneration"}}
    return {**kept, **fields, "observedGeneration": facts.generation, "conditions": conditions}


def differs(new: Mapping[str, Any], previous: Mapping[str, Any]) -> bool:
    """Whether writing the status would change anything."""
    return _told(new) != _told(previous)


def _told(status: Mapping[str, Any]) -> Status:
    """The schema fills in empty texts: they are no difference."""
    return {key: value for key, value in status.items() if value not in ("", None)}


def _conditions(facts: Facts, previous: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
    parts = dict(facts.parts) or _previous_parts(previous)
    yield "Ready", _ready(facts, parts)
    yield "Reconciling", _reconciling(facts, parts)
    yield "Stalled", facts.stalled or Part(False, Reason.NO_PROBLEM, "Nothing stands in the way")
    yield from ((name, parts[name]) for name in PARTS if name in parts)


def _previous_parts(previous: Mapping[str, Any]) -> dict[str, Part]:
    """A pass that could not look at the parts repeats what was seen last."""
    known = {reason.value for reason in Reason}
    return {
        item["type"]: Part(item["status"] == "True", Reason(item["reason"]), item["message"])
        for item in previous.get("conditions") or []
        if item["type"] in PARTS and item["reason"] in known
    }


def _ready(facts: Facts, parts: Mapping[str, Part]) -> Part:
    if facts.stalled:
        return Part(False, facts.stalled.reason, facts.stalled.message)
    for name in PARTS:
        part = parts.get(name)
        if part is not None and not part.ready and name not in ADVISORY:
            return Part(False, part.reason, f"{name}: {part.message}")
    if not parts:
        return Part(False, Reason.PROGRESSING, facts.retrying or "The first objects are being created")
    return Part(True, Reason.ALL_PARTS_READY, "Every part is ready")


def _reconciling(facts: Facts, parts: Mapping[str, Part]) -> Part:
    if facts.paused:
        return Part(False, Reason.PAUSED, "spec.paused is true: nothing is changed until it is false")
    if facts.stalled:
        return Part(False, facts.stalled.reason, "See the condition Stalled")
    if facts.retrying:
        return Part(True, Reason.RETRYING, facts.retrying)
    waiting = [name for name in PARTS if name in parts and not parts[name].ready and name not in ADVISORY]
    if waiting or not parts:
        return Part(True, Reason.PROGRESSING, f"Waiting for {', '.join(waiting) or 'the first objects'}")
    return Part(False, Reason.UP_TO_DATE, "Everything is as the spec says")


def _condition(
    name: str, part: Part, before: Mapping[str, Any] | None, generation: int, now: str
) -> dict[str, Any]:
    value = "True" if part.ready else "False"
    kept = before is not None and before["status"] == value
    return {
        "type": name,
        "status": value,
        "reason": part.reason.value,
        "message": part.message[:_MESSAGE_LIMIT],
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if before is not None and kept else now,
    }


def events(new: Mapping[str, Any], previous: Mapping[str, Any]) -> list[Event]:
    """What the change from one status to the next deserves to be told, once."""
    before = {item["type"]: item for item in previous.get("conditions") or []}
    told: list[Event] = []
    for item in new["conditions"]:
        event = _event(item, before.get(item["type"]))
        if event is not None and all(event.message != other.message for other in told):
            told.append(event)
    return told


def _event(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> Event | None:
    earlier = before["reason"] if before is not None else None
    reason = Reason(now["reason"])
    if now["type"] in {"Ready", "Reconciling"} and reason is not Reason.ALL_PARTS_READY:
        return None  # the part's own condition says it
    if reason == earlier:
        return None
    name = _EVENT_NAMES.get((now["type"], reason, earlier)) or _EVENT_NAMES.get((now["type"], reason, None))
    if reason in TROUBLE:
        return Event("Warning", name or reason.value, now["message"])
    if name == "SecretFound" or (name and earlier != reason):
        return Event("Normal", name, now["message"])
    recovered = earlier in {trouble.value for trouble in TROUBLE} and now["status"] == "True"
    return Event("Normal", reason.value, now["message"]) if recovered else None


def stalled(reason: str, message: str) -> Part:
    """The Stalled condition of an error that only a change can solve."""
    return Part(True, Reason(reason), message)


def first_trouble(pods: Sequence[Mapping[str, Any]]) -> str:
    """Why pods do not get ready, in the words of the kubelet or the scheduler; empty when nothing is known."""
    for pod in pods:
        text = _pod_trouble(pod.get("status") or {})
        if text:
            return f"pod {pod['metadata']['name']}: {text}"
    return ""


def _pod_trouble(status: Mapping[str, Any]) -> str:
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
            last = (container.get("lastState") or {}).get("terminated") or {}
            code = f" (exit code {last['exitCode']})" if "exitCode" in last else ""
            return f"{waiting['reason']}{code} {waiting.get('message', '')}".strip()
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return ""


def deployment_part(live: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]] = ()) -> Part:
    """The state of a Deployment."""
    if live is None:
        return Part(False, Reason.NOT_CREATED, "The Deployment does not exist yet")
    spec, status = live["spec"], live.get("status") or {}
    wanted = spec.get("replicas", 1)
    ready = status.get("availableReplicas", 0)
    current = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    settled = status.get("updatedReplicas", 0) == status.get("replicas", 0) == wanted
    if current and settled and ready == wanted:
        return Part(True, Reason.AVAILABLE, f"{ready} of {wanted} pods are ready")
    message = f"{ready} of {wanted} pods are ready"
    trouble = first_trouble(pods)
    if _deadline_exceeded(status):
        return Part(False, Reason.ROLLOUT_FAILED, f"{message}; {trouble or 'the rollout makes no progress'}")
    return Part(False, Reason.ROLLING_OUT, f"{message}; {trouble}" if trouble else message)


def _deadline_exceeded(status: Mapping[str, Any]) -> bool:
    return any(c.get("reason") == "ProgressDeadlineExceeded" for c in status.get("conditions") or [])


def stateful_set_part(live: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]] = ()) -> Part:
    """The state of a StatefulSet's pods."""
    if live is None:
        return Part(False, Reason.NOT_CREATED, "The StatefulSet does not exist yet")
    status = live.get("status") or {}
    wanted = live["spec"].get("replicas", 1)
    ready = status.get("readyReplicas", 0)
    current = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    rolled = status.get("currentRevision") == status.get("updateRevision")
    message = f"{ready} of {wanted} pods are ready"
    if current and rolled and ready == wanted:
        return Part(True, Reason.PODS_READY, message)
    trouble = first_trouble(pods)
    return Part(False, Reason.WAITING_FOR_PODS, f"{message}; {trouble}" if trouble else message)
