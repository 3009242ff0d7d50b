"""Alerts of the operator itself: the same for every RagDeployment, so Alertmanager takes equal ones for one."""

from __future__ import annotations

from ragkube_operator.render.rules.model import Alert, Group


def operator_alerts(*, scraped: bool) -> Group:
    """``scraped``: its series must be there."""
    return Group("ragkube.operator", [*([_down()] if scraped else []), *_alerts()])


def _down() -> Alert:
    return Alert(
        "RagkubeOperatorDown",
        'absent(ragkube_operator_resources) or sum(up{job=~".*ragkube-operator.*"}) == 0',
        "warning",
        "The ragkube operator does not run",
        "What runs goes on; nothing is changed, repaired or healed.",
    )


def _alerts() -> list[Alert]:
    return [
        Alert(
            "RagkubeOperatorFails",
            'sum(rate(ragkube_operator_reconciles_total{outcome!="ok"}[10m]))'
            " > 0.1 * sum(rate(ragkube_operator_reconciles_total[10m]))",
            "warning",
            "Passes of the ragkube operator fail",
            "{{ $value | humanize }} passes a second end with an error.",
            lasting="15m",
        ),
        Alert(
            "RagkubeOperatorWritesAtRest",
            'sum(rate(ragkube_operator_kube_requests_total{verb=~"apply|patch|create|delete"}[15m])) > 1',
            "info",
            "The ragkube operator writes without end",
            "{{ $value | humanize }} writes a second for a quarter of an hour: somebody else changes the same objects.",
            lasting="30m",
        ),
    ]
