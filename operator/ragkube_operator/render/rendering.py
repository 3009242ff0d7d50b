"""All parts together, in the order in which they are applied."""

from __future__ import annotations

from ragkube_operator.crd import RagDeployment
from ragkube_operator.render import api, autoscaling, monitoring, network, redis, weaviate, worker
from ragkube_operator.render.context import Context
from ragkube_operator.render.pods import Manifest

RANK = [
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Service",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "StatefulSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "ScaledObject",
    "PodMonitor",
    "ServiceMonitor",
    "PrometheusRule",
]
"""What a pod needs comes before it; pruning walks it backwards."""


def render(deployment: RagDeployment, context: Context) -> list[Manifest]:
    """Every object that belongs to a resource, besides the generated Secrets, in apply order."""
    found = [
        *api.objects(deployment, context),
        *redis.objects(deployment, context),
        *weaviate.objects(deployment, context),
        *worker.objects(deployment, context),
        *monitoring.objects(deployment, context),
        *network.objects(deployment),
        *autoscaling.objects(deployment, context),
    ]
    return sorted(found, key=lambda manifest: RANK.index(manifest["kind"]))
