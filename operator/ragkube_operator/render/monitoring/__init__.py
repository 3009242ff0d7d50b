"""Monitoring: a stack of the deployment's own, or what an existing one needs."""

from __future__ import annotations

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.base import seconds
from ragkube_operator.render import rules
from ragkube_operator.render.context import Context
from ragkube_operator.render.monitoring import alertmanager, exporter, external, grafana, prometheus
from ragkube_operator.render.pods import Manifest

__all__ = ["objects", "rule_file"]


def objects(deployment: RagDeployment, context: Context) -> list[Manifest]:
    """Every object of monitoring, or nothing."""
    kind = deployment.spec.monitoring.type
    if kind == "None":
        return []
    shared = exporter.objects(deployment, context)
    if kind == "External":
        return [*shared, *external.objects(deployment, rule_file(deployment))]
    return [
        *shared,
        *prometheus.objects(deployment, context, rule_file(deployment)),
        *alertmanager.objects(deployment, context),
        *grafana.objects(deployment, context),
    ]


def rule_file(deployment: RagDeployment) -> dict[str, object]:
    """Recording rules and alerts of a deployment, and those of the operator."""
    monitoring = deployment.spec.monitoring
    goals = rules.Goals(
        availability=monitoring.objectives.availability_percent / 100,
        local_latency=seconds(monitoring.objectives.local_latency),
        daily_cost=monitoring.objectives.daily_cost_dollars,
    )
    groups = rules.groups(rules.Scope(deployment.namespace, deployment.name), goals)
    return rules.rule_file([*groups, *rules.operator_groups(scraped=monitoring.type == "Managed")])
