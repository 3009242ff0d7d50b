"""Does the operator keep up? Its resources, passes and requests."""

from __future__ import annotations

from dashboards.panels import Board, graph, number, query, states, zero

CURRENT = "[$__rate_interval]"
REQUESTS = "ragkube_operator_kube_requests_total"
SECONDS = "ragkube_operator_reconcile_seconds_bucket"
READY = "max by (namespace, name) (ragkube_operator_resource_ready)"


def board() -> Board:
    """The dashboard."""
    found = Board("operator", "Operator", "The operator and every RagDeployment that it looks after.")
    found.row("Now", *_now())
    found.row("Passes", *_passes())
    found.row("API server", *_requests())
    return found


def _now() -> list[object]:
    failed = 'sum(rate(ragkube_operator_reconciles_total{outcome!="ok"}[10m])) or on () vector(0)'
    memory = 'max(process_resident_memory_bytes{job=~".*ragkube-operator.*"})'
    return [
        number("Leaders", "sum(ragkube_operator_leader)", "none", "One is right.", (1, "green"), below="red"),
        number("Not ready", f"count({READY} == 0) or on () vector(0)", "none", "RagDeployments.", (1, "red")),
        number("Failed passes", failed, "ops", "Over ten minutes.", (0.1, "red")),
        number("Queue", "sum(ragkube_operator_queue_depth)", "none", "RagDeployments that wait."),
        number("RagDeployments", "max(ragkube_operator_resources)", "none", "That it looks after."),
        number("Memory", memory, "bytes", "Resident."),
    ]


def _passes() -> list[object]:
    by_outcome = f"sum by (outcome) (rate(ragkube_operator_reconciles_total{CURRENT}))"
    quantile = f"histogram_quantile(0.95, sum by (le) (rate({SECONDS}{CURRENT})))"
    return [
        graph("Passes", "short", "A second, by outcome.", query(by_outcome, "{{outcome}}"), stacked=True),
        graph("Duration", "s", "Of a pass, p95.", query(quantile, "p95")),
        states("Ready", READY, "{{namespace}}/{{name}}", "Up: the RagDeployment is Ready."),
    ]


def _requests() -> list[object]:
    steps = f"sum by (step) (rate(ragkube_operator_redis_steps_total{CURRENT})) {zero('step')}"
    return [
        graph(
            "Requests by verb",
            "reqps",
            "A second, to the API server.",
            query(f"sum by (verb) (rate({REQUESTS}{CURRENT}))", "{{verb}}"),
            stacked=True,
        ),
        graph(
            "Requests by status",
            "reqps",
            "A second; 0: no answer.",
            query(f"sum by (code) (rate({REQUESTS}{CURRENT}))", "{{code}}"),
            stacked=True,
        ),
        graph(
            "Steps of Redis Clusters", "short", "A second, to form or heal them.", query(steps, "{{step}}")
        ),
    ]
