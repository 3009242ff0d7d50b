"""The rules that the product renders, played against traces: what they promise, and the arithmetic they are played with."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from simulator.autoscaler import Autoscaler, wanted_by
from simulator.picture import picture
from simulator.play import MAX_REPLICAS, Result, rendered, results, table
from simulator.traces import TRACES

pytestmark = pytest.mark.proves("K9")


@cache
def played() -> dict[str, dict[str, Result]]:
    return {group[0].trace: {result.rule: result for result in group} for group in results()}


@pytest.mark.parametrize("trace", [trace.name for trace in TRACES])
def test_ours_is_never_worse_than_the_rules_that_people_begin_with(trace: str) -> None:
    ours, p95, cpu = (played()[trace][rule] for rule in ("ragkube", "p95 only", "CPU only"))
    for other in (p95, cpu):
        assert ours.misses / ours.asked <= other.misses / other.asked + 1e-9
        assert ours.score <= other.score + 1e-6
    assert ours.replica_minutes <= p95.replica_minutes


@pytest.mark.parametrize(("rule", "times"), [("p95 only", 5), ("CPU only", 4)])
def test_ours_is_better_on_most_traces(rule: str, times: int) -> None:
    better = [name for name, found in played().items() if found["ragkube"].score < 0.95 * found[rule].score]
    assert len(better) >= times, better


def test_a_slow_model_brings_what_its_waiting_needs_and_no_runaway() -> None:
    found = played()["slow-model"]
    assert max(found["ragkube"].pods) <= 6
    assert max(found["p95 only"].pods) == MAX_REPLICAS
    assert found["CPU only"].misses > 20 * found["ragkube"].misses


def test_a_slow_database_brings_no_pods_that_cannot_help() -> None:
    found = played()["slow-store"]
    assert max(found["ragkube"].pods) == 2
    assert max(found["p95 only"].pods) == MAX_REPLICAS


def test_silence_ends_at_the_least_number_and_stays_there() -> None:
    found = played()["zero-traffic"]
    assert set(found["ragkube"].pods[-120:]) == {2}
    # NaN is no reason to scale down
    assert found["p95 only"].pods[-1] > 2


def test_nothing_moves_under_a_steady_load() -> None:
    assert {len(set(result.pods)) for result in played()["steady"].values()} == {1}


@pytest.mark.parametrize(
    ("target", "value", "pods", "expected"),
    [
        ({"type": "AverageValue", "averageValue": "32"}, 180.0, 2, 6),
        ({"type": "AverageValue", "averageValue": "32"}, 69.0, 2, 2),
        ({"type": "AverageValue", "averageValue": "32"}, 0.0, 5, 0),
        ({"type": "Value", "value": "500m"}, 1.0, 3, 6),
        ({"type": "Value", "value": "500m"}, math.nan, 3, None),
    ],
)
def test_the_arithmetic_of_one_metric(
    target: dict[str, Any], value: float, pods: int, expected: int | None
) -> None:
    assert wanted_by({"target": target}, value, pods) == expected


def test_windows_and_policies_are_those_of_the_manifest() -> None:
    spec = {**rendered(), "metrics": rendered()["metrics"][:1]}
    scaler, pods, history = Autoscaler(spec), 2, []
    for now in range(0, 900, 15):
        pods = scaler.decide(now, pods, [640.0 if now < 60 else 0.0])
        history.append(pods)
    assert history[:4] == [4, 8, 16, 20]  # doubled at most
    assert history[3 : 4 + 300 // 15 - 1] == [20] * 20  # the window of five minutes
    assert history[24:31:2] == [10, 5, 2, 2]  # halved at most every 30 s


def test_the_documentation_has_this_table_and_this_picture(repository: Path) -> None:
    found = results()
    assert table(found) in (repository / "docs" / "autoscaling.md").read_text()
    assert (repository / "docs" / "img" / "autoscaling.svg").read_text() == picture(found)
