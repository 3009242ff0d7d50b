"""Rules as Prometheus' own test program sees them: what fires, what stays silent, and what the autoscaler reads."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragkube_api.telemetry import Telemetry
from ragkube_operator.render.rules import Alert, Goals, Record, Scope, groups, operator_groups, rule_file
from ragkube_operator.render.rules.recording import LATENCY_BOUNDS
from support.processes import tool

SCOPE = Scope("team", "x")
SEVEN_HOURS = 7 * 60
Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """Series (a value each minute), and the alerts that fire after so many minutes."""

    id: str
    series: Series
    minutes: int
    firing: tuple[str, ...] = ()
    samples: dict[str, float | None] = field(default_factory=dict)


def api(metric: str, *matchers: str, pod: str = "a") -> str:
    return SCOPE.metric(metric, *matchers, f'pod="{pod}"')


def requests(status: str) -> str:
    return api("rag_requests_total", 'route="/v1/query"', 'method="POST"', f'status="{status}"')


def traffic(good: str, bad: str) -> Series:
    """Questions a minute that end well and those that fail, in promtool's notation."""
    return {requests("200"): good, requests("503"): bad, api("up"): "1x500"}


def redis(metric: str) -> str:
    return SCOPE.metric(metric, 'instance="x-redis-0"', 'pod="x-redis-0"', component="redis")


UP: Series = {api("up"): "1x500"}
LATENCY = "rag_local_latency_seconds"
FAST, SLOW = "RagkubeErrorBudgetBurnsFast", "RagkubeErrorBudgetBurns"
LATE_FAST, LATE, LATE_NOW = (
    "RagkubeLatencyBudgetBurnsFast", "RagkubeLatencyBudgetBurns", "RagkubeLocalLatencyHigh",
)  # fmt: skip


def questions(fast: str, every: str, limit: str = "1.0") -> Series:
    """Questions a minute that were answered within the limit, and all of them."""
    return {
        api(f"{LATENCY}_bucket", f'le="{limit}"'): fast,
        api(f"{LATENCY}_bucket", 'le="+Inf"'): every,
        api(f"{LATENCY}_count"): every,
        **UP,
    }


OPERATOR: Series = {
    'ragkube_operator_resources{job="ragkube-operator"}': "1x500",
    'up{job="ragkube-operator"}': "1x500",
}
CASES = [
    # the error budget: 0.1 % may fail
    Case("two-percent-fail-for-an-hour", traffic("0+980x500", "0+20x500"), 90, (FAST, SLOW)),
    Case("everything-fails-now", traffic("0+1000x60 60000x60", "0x60 0+1000x60"), 80, (FAST, SLOW)),
    Case("a-quarter-percent-for-hours", traffic("0+9975x500", "0+25x500"), SEVEN_HOURS, (SLOW,)),
    Case("half-a-percent-for-a-day", traffic("0+995x500", "0+5x500"), SEVEN_HOURS, (SLOW,)),
    Case("within-the-budget", traffic("0+100000x500", "0+50x500"), SEVEN_HOURS),
    Case("a-minute-of-failures-is-over", traffic("0+1000x500", "0x30 0+30x1 30x500"), 60),
    Case("three-of-ten-at-night-are-no-outage", traffic("0x30 0+1x10 10x500", "0x30 0+1x3 3x500"), 60),
    Case("no-traffic", traffic("5000x500", "3x500"), 90),
    Case("nothing-was-ever-asked", UP, 90),
    Case("what-clients-do-wrong-is-not-ours", {requests("404"): "0+1000x500", **UP}, 90),
    # the API
    Case("api-away", {api("up"): "0x90", api("up", pod="b"): "0x90"}, 10, ("RagkubeApiDown",)),
    Case("api-gone", {"something": "1x90"}, 10, ("RagkubeApiDown",)),
    Case("one-pod-away", {api("up"): "1x90", api("up", pod="b"): "0x90"}, 10),
    # the budget of slow questions: 5 % may take longer than 1 s without the model
    Case("all-slow-for-an-hour", questions("0x90", "0+60x90"), 60, (LATE_FAST, LATE, LATE_NOW)),
    Case("all-slow-since-ten-minutes", questions("0+60x60 3600x20", "0+60x90"), 74, (LATE_NOW,)),
    Case("half-slow-for-hours", questions("0+30x500", "0+60x500"), SEVEN_HOURS, (LATE_FAST, LATE, LATE_NOW)),
    Case("a-tenth-slow-for-hours", questions("0+54x500", "0+60x500"), SEVEN_HOURS, (LATE, LATE_NOW)),
    Case("slow-within-the-budget", questions("0+58x500", "0+60x500"), SEVEN_HOURS),
    Case("a-minute-of-slowness-is-over", questions("0+60x30 1800 1860+60x60", "0+60x92"), 60),
    Case("four-slow-ones-at-night", questions("0x90", "0x30 0+1x4 4x60"), 40),
    Case("fast", questions("0+60x90", "0+60x90"), 60),
    Case("nobody-asks", questions("7x500", "9x500"), 90),
    Case(
        "saturated",
        {api("rag_requests_in_flight"): "60x90", api("rag_requests_limit"): "64x90", **UP},
        30,
        ("RagkubeSaturated",),
    ),
    Case("busy", {api("rag_requests_in_flight"): "40x90", api("rag_requests_limit"): "64x90", **UP}, 30),
    Case(
        "store-away",
        {api("rag_dependency_up", 'dependency="store"'): "0x90", **UP},
        30,
        ("RagkubeDependencyDown",),
    ),
    Case(
        "cache-away",
        {api("rag_cache_errors_total", 'reason="unavailable"'): "0+60x90", **UP},
        30,
        ("RagkubeCacheUnavailable",),
    ),
    Case("a-corrupt-entry", {api("rag_cache_errors_total", 'reason="corrupt"'): "0+60x90", **UP}, 30),
    Case(
        "model-fails",
        {
            api("rag_llm_calls_total", 'outcome="ok"', 'model="m"'): "0+80x90",
            api("rag_llm_calls_total", 'outcome="unavailable"', 'model="m"'): "0+20x90",
            **UP,
        },
        30,
        ("RagkubeModelFails",),
    ),
    Case(
        "degraded",
        {
            api("rag_degraded_answers_total", 'reason="llm-unavailable"'): "0+10x90",
            requests("200"): "0+100x90",
            **UP,
        },
        40,
        ("RagkubeAnswersDegraded",),
    ),
    Case(
        "dear", {api("rag_llm_cost_dollars_total", 'model="m"'): "0+1x300", **UP}, 60, ("RagkubeCostHigh",)
    ),
    Case("cheap", {api("rag_llm_cost_dollars_total", 'model="m"'): "0+0.01x300", **UP}, 60),
    # the data
    Case("redis-node-away", {redis("redis_up"): "0x90", **UP}, 30, ("RagkubeRedisNodeDown",)),
    Case("redis-broken", {redis("redis_cluster_state"): "0x90", **UP}, 30, ("RagkubeRedisClusterBroken",)),
    Case("redis-evicts", {redis("redis_evicted_keys_total"): "0+120x90", **UP}, 80, ("RagkubeRedisEvicts",)),
    Case(
        "weaviate-away",
        {SCOPE.metric("up", 'pod="x-weaviate-0"', component="weaviate"): "0x90", **UP},
        30,
        ("RagkubeWeaviateDown",),
    ),
    Case(
        "documents-fail",
        {
            api("rag_documents_indexed_total", 'outcome="failed"'): "0+5x90",
            api("rag_documents_indexed_total", 'outcome="created"'): "0+5x90",
            **UP,
        },
        60,
        ("RagkubeIngestionFails",),
    ),
    Case(
        "one-document-fails",
        {
            api("rag_documents_indexed_total", 'outcome="failed"'): "0x20 1x90",
            api("rag_documents_indexed_total", 'outcome="created"'): "0+50x90",
            **UP,
        },
        60,
    ),
    # what the autoscaler reads
    Case(
        "idle-pods-are-zero-not-unknown",
        {api("rag_requests_in_flight"): "0x90", **UP},
        10,
        samples={Record.INFLIGHT: 0, Record.MISSES: 0, Record.LOCAL_P95: 0, Record.HIT_RATIO: None},
    ),
    Case(
        "requests-in-flight-count",
        {api("rag_requests_in_flight"): "3x90", **UP},
        10,
        samples={Record.INFLIGHT: 3},
    ),
    Case(
        "an-idle-histogram-is-zero-not-nan",
        {
            api("rag_requests_in_flight"): "0x90",
            **{api(f"{LATENCY}_bucket", f'le="{le}"'): "7x90" for le in ("0.5", "1", "+Inf")},
            **UP,
        },
        10,
        samples={Record.LOCAL_P95: 0},
    ),
    Case(
        "a-stuck-request-is-clamped",
        {
            api("rag_requests_in_flight"): "1x90",
            api(f"{LATENCY}_bucket", 'le="60"'): "0x90",
            api(f"{LATENCY}_bucket", 'le="+Inf"'): "0+60x90",
            **UP,
        },
        5,
        samples={Record.LOCAL_P95: 10},
    ),
    Case(
        "hits-over-all",
        {
            api("rag_cache_hits_total", 'kind="exact"', 'level="redis"'): "0+30x90",
            api("rag_cache_misses_total", 'kind="exact"'): "0+10x90",
            api("rag_requests_in_flight"): "1x90",
            **UP,
        },
        20,
        samples={Record.HIT_RATIO: 0.75},
    ),
    Case(
        "not-ready",
        {**UP, 'ragkube_operator_resource_ready{namespace="team",name="x"}': "0x90"},
        30,
        ("RagkubeNotReady",),
    ),
    Case(
        "another-is-not-ready",
        {**UP, 'ragkube_operator_resource_ready{namespace="team",name="y"}': "0x90"},
        30,
        (),
    ),
]  # fmt: skip
OPERATOR_CASES = [
    Case("operator-well", OPERATOR, 30),
    Case("operator-gone", {"something": "1x90"}, 30, ("RagkubeOperatorDown",)),
    Case(
        "passes-fail",
        {**OPERATOR, 'ragkube_operator_reconciles_total{outcome="error"}': "0+30x90"},
        60,
        ("RagkubeOperatorFails",),
    ),
    Case(
        "writes-at-rest",
        {**OPERATOR, 'ragkube_operator_kube_requests_total{verb="apply"}': "0+120x90"},
        80,
        ("RagkubeOperatorWritesAtRest",),
    ),
]


def _queries(case: Case) -> Iterator[dict[str, Any]]:
    found = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(case.firing)]
    yield {
        "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{case.minutes}m",
        "exp_samples": found,
    }
    for record, value in case.samples.items():
        samples = [] if value is None else [{"labels": "{}", "value": value}]
        expr = f"round(sum({SCOPE.recorded(record)}), 0.001)"
        yield {"expr": expr, "eval_time": f"{case.minutes}m", "exp_samples": samples}


def _run(folder: Path, rules: dict[str, object], cases: list[Case]) -> None:
    """Cases of many hours are evaluated less often: every rule counts in every step."""
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    for name, interval, some in (
        ("short", "1m", [case for case in cases if case.minutes < SEVEN_HOURS]),
        ("long", "2m", [case for case in cases if case.minutes >= SEVEN_HOURS]),
    ):
        file = folder / f"{name}.yml"
        file.write_text(yaml.safe_dump(_document(interval, some), width=10_000))
        command = [str(tool("promtool")), "test", "rules", str(file)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


def _document(interval: str, cases: list[Case]) -> dict[str, Any]:
    tests = [
        {
            "name": case.id,
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
            "promql_expr_test": list(_queries(case)),
        }
        for case in cases
    ]
    return {"rule_files": ["rules.yml"], "evaluation_interval": interval, "tests": tests}


@pytest.mark.proves("O4")
def test_alerts_fire_when_they_should_and_are_silent_when_they_should(tmp_path: Path) -> None:
    _run(tmp_path, rule_file(groups(SCOPE, Goals(daily_cost=20))), CASES)


@pytest.mark.proves("O4")
def test_alerts_of_the_operator(tmp_path: Path) -> None:
    _run(tmp_path, rule_file(operator_groups()), OPERATOR_CASES)


@pytest.mark.proves("O4")
def test_every_alert_has_a_case_in_which_it_fires_and_a_runbook(repository: Path) -> None:
    found = [*groups(SCOPE, Goals(daily_cost=20)), *operator_groups()]
    alerts = {rule.name for group in found for rule in group.rules if isinstance(rule, Alert)}
    assert {name for case in [*CASES, *OPERATOR_CASES] for name in case.firing} == alerts
    runbooks = (repository / "docs" / "runbooks.md").read_text()
    assert set(re.findall(r"^## (Ragkube\w+)$", runbooks, re.MULTILINE)) == alerts


@pytest.mark.proves("O4")
@pytest.mark.parametrize(("promised", "limit"), [(1, "1.0"), (3, "5.0"), (30, "30.0"), (3600, "60.0")])
def test_a_promised_latency_is_watched_where_the_api_counts(
    tmp_path: Path, promised: int, limit: str
) -> None:
    rules = rule_file(groups(SCOPE, Goals(local_latency=promised)))
    _run(
        tmp_path,
        rules,
        [
            Case("slow", questions("0x90", "0+60x90", limit), 60, (LATE_FAST, LATE, LATE_NOW)),
            Case("fast", questions("0+60x90", "0+60x90", limit), 60),
        ],
    )


def test_the_api_counts_at_every_latency_that_can_be_promised() -> None:
    telemetry = Telemetry()
    telemetry.local_latency.observe(0)
    (family,) = telemetry.local_latency.collect()
    found = {sample.labels["le"] for sample in family.samples if "le" in sample.labels}
    assert found >= {str(float(bound)) for bound in LATENCY_BOUNDS}


@pytest.mark.proves("O4")
def test_other_promises_are_other_limits(tmp_path: Path) -> None:
    """One percent may fail: two percent for an hour are a matter for working hours."""
    case = Case("lenient", traffic("0+980x500", "0+20x500"), 90, (SLOW,))
    _run(tmp_path, rule_file(groups(SCOPE, Goals(availability=0.99))), [case])
