"""Pure: what the autoscaler says of itself becomes the condition ``ScalingReady``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.autoscaling import Autoscaling
from ragkube_operator.engine import POD_AUTOSCALER, SCALED_OBJECT, Outcome
from ragkube_operator.kube import Manifest
from ragkube_operator.render import names
from ragkube_operator.scaling import Decision
from ragkube_operator.status import Part, Reason

_HINTS = {
    "KEDA": "check spec.autoscaling.prometheusUrl, that Prometheus is up, and that it scrapes this deployment",
    "Metrics": "check that Prometheus is up and scrapes this deployment, and the rules of the metrics adapter",
    "CPU": "check metrics-server (kubectl top pods), and that the pods request cpu",
}


def part(deployment: RagDeployment, decision: Decision, outcome: Outcome) -> Part:
    """The state of the autoscaler."""
    if decision.scaling is None:
        hold = "the number of pods stays as it is"
        return Part(
            False, Reason.ENGINE_MISSING, f"Nothing can scale the API, {hold}: {'; '.join(decision.missing)}"
        )
    engine = decision.scaling.engine
    kind = SCALED_OBJECT if engine == "KEDA" else POD_AUTOSCALER
    found = outcome.find(kind, names.api(deployment.name))
    if found is None:
        return Part(False, Reason.NOT_CREATED, f"The {kind.kind} does not exist yet")
    trouble = _keda_trouble(found) if engine == "KEDA" else None
    scaler = _keda_scaler(outcome, found) if engine == "KEDA" else found
    trouble = trouble or _trouble(scaler)
    if trouble is not None:
        reason, text = trouble
        if reason is Reason.WAITING_FOR_METRICS or reason is Reason.SCALED_TO_ZERO:
            return Part(False, reason, text)
        return Part(False, reason, f"{text}; the number of pods stays as it is: {_hint(engine, text)}")
    return _working(deployment.spec.autoscaling, decision, scaler)


def _hint(engine: str, trouble: str) -> str:
    """What to check: every engine may look at CPU besides, and that is measured by somebody else."""
    of_cpu = trouble.startswith("FailedGetResourceMetric:") or trouble == "no value of cpu"
    return _HINTS["CPU" if of_cpu else engine]


def _working(autoscaling: Autoscaling, decision: Decision, scaler: Mapping[str, Any]) -> Part:
    scaling = decision.scaling
    assert scaling is not None  # noqa: S101  # narrowed by the caller
    by = f"{scaling.engine} on {scaling.api}" if scaling.api else scaling.engine
    text = f"{by} keeps between {autoscaling.min_replicas} and {autoscaling.max_replicas} pods"
    passed_over = [lacks for lacks in decision.missing if scaling.engine == "CPU"]
    if passed_over:
        text += f". CPU alone sees neither waiting for the model nor cache misses: {'; '.join(passed_over)}"
    limited = _conditions(scaler).get("ScalingLimited", {})
    if limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas":
        return Part(True, Reason.AT_MAXIMUM, f"{text}; it wants more: raise spec.autoscaling.maxReplicas")
    return Part(True, Reason.SCALING_ON_CPU if passed_over else Reason.SCALING, text)


def _trouble(scaler: Mapping[str, Any]) -> tuple[Reason, str] | None:
    """Why a HorizontalPodAutoscaler does not work, in its own words."""
    conditions = _conditions(scaler)
    if not conditions:
        return Reason.WAITING_FOR_METRICS, "The HorizontalPodAutoscaler has not looked at the pods yet"
    active, able = conditions.get("ScalingActive", {}), conditions.get("AbleToScale", {})
    if active.get("status") == "False" and active.get("reason") == "ScalingDisabled":
        text = "The Deployment was scaled to 0 by hand: scale it to 1 or more and the autoscaler goes on"
        return Reason.SCALED_TO_ZERO, text
    for condition in (able, active):
        if condition.get("status") == "False":
            return (
                Reason.METRICS_UNAVAILABLE,
                f"{condition.get('reason', '')}: {condition.get('message', '')}",
            )
    if not active:
        # it only keeps the number between the limits so far
        return Reason.WAITING_FOR_METRICS, "The HorizontalPodAutoscaler has not looked at the metrics yet"
    lost = sorted(set(_wanted(scaler)) - set(_measured(scaler)))
    if lost:
        return Reason.METRICS_UNAVAILABLE, f"no value of {', '.join(lost)}"
    return None


def _keda_trouble(scaled: Mapping[str, Any]) -> tuple[Reason, str] | None:
    ready = _conditions(scaled).get("Ready")
    if ready is None or ready.get("status") == "Unknown":
        return Reason.WAITING_FOR_METRICS, "KEDA has not looked at the ScaledObject yet"
    if ready["status"] == "False":
        return Reason.METRICS_UNAVAILABLE, f"KEDA: {ready.get('reason', '')}: {ready.get('message', '')}"
    return None


def _keda_scaler(outcome: Outcome, scaled: Mapping[str, Any]) -> Manifest:
    """The HorizontalPodAutoscaler that KEDA made: it carries the labels of the ScaledObject."""
    name = (scaled.get("status") or {}).get("hpaName") or f"keda-hpa-{scaled['metadata']['name']}"
    return outcome.find(POD_AUTOSCALER, name) or {}


def _conditions(live: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {item["type"]: item for item in (live.get("status") or {}).get("conditions") or []}


def _wanted(scaler: Mapping[str, Any]) -> Iterator[str]:
    return _metric_names((scaler.get("spec") or {}).get("metrics") or [])


def _measured(scaler: Mapping[str, Any]) -> Iterator[str]:
    return _metric_names((scaler.get("status") or {}).get("currentMetrics") or [])


def _metric_names(metrics: list[Mapping[str, Any]]) -> Iterator[str]:
    for metric in metrics:
        source = metric.get(str(metric.get("type", "")).lower()) or {}
        name = source.get("name") or (source.get("metric") or {}).get("name")
        if name:
            yield name
