"""Rules against traces: what each costs, and how the count of pods moves."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ragkube_operator import crd, render
from ragkube_operator.render.context import Scaling
from ragkube_operator.render.rules.recording import BUSY_SHARE
from simulator.autoscaler import SYNC_SECONDS, Autoscaler
from simulator.platform_model import CONCURRENCY, Platform, Readings
from simulator.traces import TRACES, Trace

LAG_SECONDS: Final = 20
"""Scrape, evaluation of the rules, and the metrics adapter."""
MISSES_PER_REPLICA_MINUTE: Final = 20
"""The exchange rate of the score: so many SLO misses cost as much as one pod for a minute."""
MAX_REPLICAS: Final = 20
_RATE_SECONDS: Final = 60

Signal = Callable[[Sequence[Readings], int], float]


@dataclass(frozen=True)
class Rule:
    """A name, the autoscaler's spec, and what each of its metrics reads."""

    name: str
    spec: dict[str, Any]
    signals: tuple[Signal, ...]


@dataclass(frozen=True)
class Result:
    """What a rule did on a trace: SLO misses in questions, and the pods wanted every sync."""

    trace: str
    rule: str
    replica_minutes: float
    misses: float
    asked: float
    pods: tuple[int, ...]

    @property
    def score(self) -> float:
        """Replica-minutes, with the SLO misses in the same coin; less is better."""
        return self.replica_minutes + self.misses / MISSES_PER_REPLICA_MINUTE


def rendered() -> dict[str, Any]:
    """The spec of the autoscaler that the product renders, with every default but ``maxReplicas``."""
    spec = {"autoscaling": {"enabled": True, "maxReplicas": MAX_REPLICAS}}
    deployment = crd.parse(
        {"apiVersion": crd.API_VERSION, "kind": crd.KIND, "metadata": {"name": "simulated"}, "spec": spec}
    )
    context = render.Context("api", "0", scaling=Scaling("Metrics", "external.metrics.k8s.io", cpu=True))
    (manifest,) = [m for m in render.render(deployment, context) if m["kind"] == "HorizontalPodAutoscaler"]
    found: dict[str, Any] = copy.deepcopy(manifest["spec"])
    found["metrics"] = [metric[metric["type"].lower()] for metric in found["metrics"]]
    return found


def rules() -> tuple[Rule, ...]:
    """Ours, and the two that people begin with; all with the same limits, windows and policies."""
    ours = rendered()
    p95 = {"target": {"type": "Value", "value": "2"}}
    cpu = next(metric for metric in ours["metrics"] if metric.get("name") == "cpu")
    return (
        Rule("ragkube", ours, (_in_flight, _misses, _busy_p95, _cpu)),
        Rule("p95 only", {**ours, "metrics": [p95]}, (_total_p95,)),
        Rule("CPU only", {**ours, "metrics": [cpu]}, (_cpu,)),
    )


def _in_flight(seen: Sequence[Readings], _: int) -> float:
    return seen[-1].in_flight


def _misses(seen: Sequence[Readings], _: int) -> float:
    return sum(one.misses for one in seen) / len(seen)


def _cpu(seen: Sequence[Readings], _: int) -> float:
    recent = seen[-SYNC_SECONDS:]
    return sum(one.cpu for one in recent) / len(recent)


def _busy_p95(seen: Sequence[Readings], pods: int) -> float:
    """As the recording rule: 0 without traffic, and where pods are not busy."""
    known = [one.local_p95 for one in seen if not math.isnan(one.local_p95)]
    busy = seen[-1].in_flight / pods >= BUSY_SHARE * CONCURRENCY
    return max(known[-SYNC_SECONDS:]) if known and busy else 0.0


def _total_p95(seen: Sequence[Readings], _: int) -> float:
    """What a quantile over the latency histogram gives: NaN without traffic."""
    recent = [one.total_p95 for one in seen[-_RATE_SECONDS:] if not math.isnan(one.total_p95)]
    return max(recent[-SYNC_SECONDS:]) if recent else math.nan


def play(trace: Trace, rule: Rule) -> Result:
    """One rule on one trace, second by second."""
    platform, scaler = Platform(trace.first), Autoscaler(rule.spec)
    seen: deque[Readings] = deque(maxlen=LAG_SECONDS + _RATE_SECONDS)
    count, asked, history = trace.first, 0.0, []
    for now in range(trace.minutes * 60):
        seen.append(platform.step(now, trace.at(now), trace.retries))
        asked += seen[-1].asked
        if now % SYNC_SECONDS == 0:
            known = list(seen)[: len(seen) - LAG_SECONDS]
            if known:
                values = [signal(known, platform.pods) for signal in rule.signals]
                count = scaler.decide(now, count, values)
                platform.scale(count, now)
            history.append(count)
    misses = platform.late + platform.refused
    return Result(trace.name, rule.name, platform.pod_seconds / 60, misses, asked, tuple(history))


def results() -> list[list[Result]]:
    """Every rule on every trace."""
    return [[play(trace, rule) for rule in rules()] for trace in TRACES]


def table(found: Sequence[Sequence[Result]]) -> str:
    """Replica-minutes, SLO misses and score, as Markdown."""
    lines = [
        "| trace | rule | replica-minutes | most pods | SLO misses | score |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for result in (result for group in found for result in group):
        share = 100 * result.misses / max(1.0, result.asked)
        cells = (f"{result.replica_minutes:.0f}", max(result.pods), f"{share:.2f} %", f"{result.score:.0f}")
        lines.append("| " + " | ".join(map(str, (result.trace, result.rule, *cells))) + " |")
    return "\n".join(lines) + "\n"
