"""The one source of metric names, recording rules and alerts: autoscaler, alerts and dashboards all read it."""

from __future__ import annotations

from ragkube_operator.render.rules.alerts import alerts
from ragkube_operator.render.rules.model import Alert, Goals, Group, Recording
from ragkube_operator.render.rules.names import Record, Scope
from ragkube_operator.render.rules.operator_alerts import operator_alerts
from ragkube_operator.render.rules.recording import recordings

__all__ = [
    "Alert",
    "Goals",
    "Group",
    "Record",
    "Recording",
    "Scope",
    "groups",
    "operator_groups",
    "rule_file",
]


def groups(scope: Scope, goals: Goals) -> list[Group]:
    """Every group of one RagDeployment; all of its series carry the labels of the scope."""
    return [*recordings(scope, goals.local_latency), *alerts(scope, goals)]


def operator_groups(*, scraped: bool = True) -> list[Group]:
    """The alerts of the operator itself; where it may not be ``scraped``, its silence is no alarm.

    Several deployments may bring them to one Prometheus: equal alerts are one alert to Alertmanager.
    """
    return [operator_alerts(scraped=scraped)]


def rule_file(found: list[Group]) -> dict[str, object]:
    """The content of a Prometheus rule file, and the spec of a PrometheusRule."""
    return {"groups": [group.manifest() for group in found]}
