"""Alerts of one RagDeployment. Each is silent without traffic, and each has a section in docs/runbooks.md."""

from __future__ import annotations

from typing import Final

from ragkube_operator.render.rules.budgets import FEW, budgets, slow_text
from ragkube_operator.render.rules.model import Alert, Goals, Group
from ragkube_operator.render.rules.names import PER_DEPLOYMENT, WHERE, Record, Scope

UNAVAILABLE: Final = 'reason="unavailable"'


def alerts(scope: Scope, goals: Goals) -> list[Group]:
    """Every group of alerts of a RagDeployment."""
    name = f"ragkube.{scope.namespace}.{scope.name}"
    return [
        Group(f"{name}.slo-alerts", budgets(scope, goals)),
        Group(f"{name}.api-alerts", [_not_ready(scope), *_api(scope, goals), *_model(scope)]),
        Group(f"{name}.data-alerts", [*_redis(scope), *_weaviate(scope), *_ingestion(scope)]),
    ]


def _not_ready(scope: Scope) -> Alert:
    """By what the operator says; its own labels are those of the resource."""
    space, name = scope.namespace, scope.name
    return Alert(
        "RagkubeNotReady",
        f'max by (namespace, name) (ragkube_operator_resource_ready{{namespace="{space}",name="{name}"}}) == 0',
        "warning",
        f"RagDeployment {space}/{name} is not ready",
        f"`kubectl describe ragd {name} -n {space}` says what it lacks.",
        lasting="15m",
    )


def _api(scope: Scope, goals: Goals) -> list[Alert]:
    up = scope.metric("up")
    cost = [_cost(scope, goals.daily_cost)] if goals.daily_cost is not None else []
    return [
        Alert(
            "RagkubeApiDown",
            f"sum by ({PER_DEPLOYMENT}) ({up}) == 0 or absent({up})",
            "critical",
            f"No API pod of {scope.namespace}/{scope.name} answers",
            "Prometheus reaches none of its pods: nobody gets an answer.",
            lasting="1m",
        ),
        Alert(
            "RagkubeLocalLatencyHigh",
            # not LOCAL_P95, which is clamped for the autoscaler: a longer promise would never be broken
            f"{scope.recorded(Record.slow('5m'))} > {goals.slow_budget:g}",
            "warning",
            f"Requests to {WHERE} are slow without the model",
            f"{{{{ $value | humanizePercentage }}}} {slow_text(goals)}",
            lasting="10m",
        ),
        Alert(
            "RagkubeSaturated",
            f"avg by ({PER_DEPLOYMENT}) ({scope.recorded(Record.SATURATION)}) > 0.8",
            "warning",
            f"{WHERE} is close to refusing requests",
            "{{ $value | humanizePercentage }} of the requests that its pods take at a time are in use.",
            lasting="10m",
        ),
        Alert(
            "RagkubeDependencyDown",
            f"min by ({PER_DEPLOYMENT}, dependency) ({scope.metric('rag_dependency_up')}) == 0",
            "warning",
            f"The {{{{ $labels.dependency }}}} of {WHERE} does not answer",
            "Its pods go on with less, and say so in `degraded` of each answer.",
        ),
        Alert(
            "RagkubeCacheUnavailable",
            f"sum by ({PER_DEPLOYMENT}) ({scope.rate('rag_cache_errors_total', UNAVAILABLE)}) > 0",
            "warning",
            f"Questions to {WHERE} go past the cache",
            "{{ $value | humanize }} look-ups a second cannot reach it: answers are slower and cost more.",
            lasting="10m",
        ),
        *cost,
    ]


def _model(scope: Scope) -> list[Alert]:
    return [
        Alert(
            "RagkubeModelFails",
            f"{scope.recorded(Record.LLM_ERRORS)} > 0.1",
            "warning",
            f"Calls of the language model of {WHERE} fail",
            "{{ $value | humanizePercentage }} of the calls fail; answers are extractive meanwhile.",
            lasting="10m",
        ),
        Alert(
            "RagkubeAnswersDegraded",
            f"{scope.recorded(Record.DEGRADED)} > 0.05",
            "warning",
            f"Answers of {WHERE} lack a part",
            "{{ $value | humanizePercentage }} of the answers were given without a part that was away.",
            lasting="15m",
        ),
    ]


def _cost(scope: Scope, dollars: float) -> Alert:
    spent = f"sum by ({PER_DEPLOYMENT}) (increase({scope.metric('rag_llm_cost_dollars_total')}[1d]))"
    return Alert(
        "RagkubeCostHigh",
        f"{spent} > {dollars:g}",
        "warning",
        f"{WHERE} has cost more than {dollars:g} dollars in 24 hours",
        "{{ $value | humanize }} dollars for the model in the last 24 hours.",
    )


def _redis(scope: Scope) -> list[Alert]:
    up = scope.metric("redis_up", component="redis")
    return [
        Alert(
            "RagkubeRedisNodeDown",
            f"{up} == 0",
            "warning",
            f"Redis node {{{{ $labels.instance }}}} of {WHERE} does not answer",
            "Its replica takes over; when a whole shard is away, its part of the cache is.",
        ),
        Alert(
            "RagkubeRedisClusterBroken",
            f"min by ({PER_DEPLOYMENT}) ({scope.metric('redis_cluster_state', component='redis')}) == 0",
            "critical",
            f"The Redis Cluster of {WHERE} does not serve every slot",
            "Questions are answered without cache; writes of documents are refused.",
            lasting="2m",
        ),
        Alert(
            "RagkubeRedisEvicts",
            f"sum by ({PER_DEPLOYMENT}) "
            f"({scope.rate('redis_evicted_keys_total', component='redis', window='15m')}) > 1",
            "info",
            f"The cache of {WHERE} is too small",
            "{{ $value | humanize }} entries a second are thrown away before their time.",
            lasting="30m",
        ),
    ]


def _weaviate(scope: Scope) -> list[Alert]:
    return [
        Alert(
            "RagkubeWeaviateDown",
            f"min by ({PER_DEPLOYMENT}, pod) ({scope.metric('up', component='weaviate')}) == 0",
            "warning",
            f"Weaviate pod {{{{ $labels.pod }}}} of {WHERE} does not answer",
            "Without a second copy of its documents, only cached answers go on.",
        ),
    ]


def _ingestion(scope: Scope) -> list[Alert]:
    failed = _documents(scope, 'outcome="failed"')
    return [
        Alert(
            "RagkubeIngestionFails",
            f"{failed} > 0.1 * {_documents(scope)} and {failed} * 900 >= {FEW}",
            "warning",
            f"Documents of {WHERE} cannot be indexed",
            "{{ $value | humanize }} documents a second fail, more than one in ten.",
            lasting="15m",
        ),
    ]


def _documents(scope: Scope, *matchers: str) -> str:
    rate = scope.rate("rag_documents_indexed_total", *matchers, component="", window="15m")
    return f"sum by ({PER_DEPLOYMENT}) ({rate})"
