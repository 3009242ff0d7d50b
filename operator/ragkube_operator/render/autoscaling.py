"""What scales the API: a HorizontalPodAutoscaler, or a ScaledObject where KEDA does it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from ragkube_operator.crd import API_VERSION, KIND, RagDeployment
from ragkube_operator.crd.autoscaling import Behavior, milliseconds, window_seconds
from ragkube_operator.crd.base import amount
from ragkube_operator.render import names, pods
from ragkube_operator.render.context import Context, Scaling
from ragkube_operator.render.pods import Manifest
from ragkube_operator.render.rules import Record, Scope
from ragkube_operator.render.rules.names import DEPLOYMENT_LABEL

SCALED_OBJECT_API: Final = "keda.sh/v1alpha1"
SCALED_OBJECT_KIND: Final = "ScaledObject"
_UP_SECONDS: Final = 15
_DOWN_SECONDS: Final = 30

SIGNALS: Final = (Record.INFLIGHT, Record.MISSES, Record.SCALING_P95)
"""Recorded series that engines KEDA and Metrics scale by."""


def objects(deployment: RagDeployment, context: Context) -> list[Manifest]:
    """The autoscaler of the API, or nothing."""
    scaling = context.scaling
    if not deployment.spec.autoscaling.enabled or scaling is None:
        return []
    if scaling.engine == "KEDA":
        return [_scaled_object(deployment, scaling)]
    return [_horizontal(deployment, scaling)]


def in_flight_target(deployment: RagDeployment) -> int:
    """Requests a pod works on at the same time: room is left for what comes while another pod starts."""
    wanted = deployment.spec.autoscaling.targets.in_flight
    return wanted if wanted is not None else max(1, deployment.spec.api.max_concurrency // 2)


def quantity(value: Decimal) -> str:
    """A Kubernetes quantity in whole units, or in thousandths."""
    return str(int(value)) if value == value.to_integral_value() else f"{int(value * 1000)}m"


def _targets(deployment: RagDeployment) -> list[tuple[Record, str, Decimal]]:
    """Each signal with how it is compared (averaged over the pods, or as it is) and its target."""
    targets = deployment.spec.autoscaling.targets
    values = (
        Decimal(in_flight_target(deployment)),
        amount(targets.misses_per_second),
        Decimal(milliseconds(targets.local_latency_p95)) / 1000,
    )
    return list(zip(SIGNALS, ("AverageValue", "AverageValue", "Value"), values, strict=True))


def _horizontal(deployment: RagDeployment, scaling: Scaling) -> Manifest:
    autoscaling, name = deployment.spec.autoscaling, names.api(deployment.name)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": pods.metadata(deployment, name, "api"),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "behavior": _behavior(autoscaling.behavior),
            "metrics": _metrics(deployment, scaling),
        },
    }


def _metrics(deployment: RagDeployment, scaling: Scaling) -> list[Manifest]:
    found = [_metric(deployment, scaling, *target) for target in _targets(deployment)] if scaling.api else []
    if scaling.cpu or not found:
        value = quantity(amount(deployment.spec.autoscaling.targets.cpu))
        target = {"type": "AverageValue", "averageValue": value}
        found.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    return found


def _metric(
    deployment: RagDeployment, scaling: Scaling, record: Record, comparison: str, value: Decimal
) -> Manifest:
    key = "averageValue" if comparison == "AverageValue" else "value"
    target = {"type": comparison, key: quantity(value)}
    if scaling.api == "custom.metrics.k8s.io":
        described = {"apiVersion": API_VERSION, "kind": KIND, "name": deployment.name}
        metric = {"describedObject": described, "metric": {"name": str(record)}, "target": target}
        return {"type": "Object", "object": metric}
    selector = {"matchLabels": {DEPLOYMENT_LABEL: deployment.name}}
    return {
        "type": "External",
        "external": {"metric": {"name": str(record), "selector": selector}, "target": target},
    }


def _behavior(behavior: Behavior) -> Manifest:
    """Up as fast as pods can start, at most double at a time; down by half, so that a mistake costs half."""
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": window_seconds(behavior.scale_up_window),
            "selectPolicy": "Max",
            "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": _UP_SECONDS},
                {"type": "Pods", "value": 2, "periodSeconds": _UP_SECONDS},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": window_seconds(behavior.scale_down_window),
            "selectPolicy": "Max",
            "policies": [
                {"type": "Percent", "value": 50, "periodSeconds": _DOWN_SECONDS},
                {"type": "Pods", "value": 1, "periodSeconds": _DOWN_SECONDS},
            ],
        },
    }


def _scaled_object(deployment: RagDeployment, scaling: Scaling) -> Manifest:
    autoscaling, name = deployment.spec.autoscaling, names.api(deployment.name)
    return {
        "apiVersion": SCALED_OBJECT_API,
        "kind": SCALED_OBJECT_KIND,
        "metadata": pods.metadata(deployment, name, "api"),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicaCount": autoscaling.min_replicas,
            "maxReplicaCount": autoscaling.max_replicas,
            "advanced": {
                "restoreToOriginalReplicaCount": False,
                "horizontalPodAutoscalerConfig": {"behavior": _behavior(autoscaling.behavior)},
            },
            "triggers": _triggers(deployment, scaling),
        },
    }


def _triggers(deployment: RagDeployment, scaling: Scaling) -> list[Manifest]:
    scope = Scope(deployment.namespace, deployment.name)
    found = [_trigger(scope, scaling, *target) for target in _targets(deployment)]
    if scaling.cpu:
        value = quantity(amount(deployment.spec.autoscaling.targets.cpu))
        found.append(
            {"type": "cpu", "name": "cpu", "metricType": "AverageValue", "metadata": {"value": value}}
        )
    return found


def _trigger(
    scope: Scope, scaling: Scaling, record: Record, comparison: str, value: Decimal
) -> dict[str, Any]:
    return {
        "type": "prometheus",
        "name": record.name.lower().replace("_", "-"),
        "metricType": comparison,
        "metadata": {
            "serverAddress": scaling.prometheus or "",
            "query": f"sum({scope.recorded(record)})",
            "threshold": format(value.normalize(), "f"),
            # no series means that nobody measures: the number of pods must hold, not fall
            "ignoreNullValues": "false",
        },
    }
