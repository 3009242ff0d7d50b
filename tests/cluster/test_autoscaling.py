"""Autoscaling on the real HPA controller, Prometheus, prometheus-adapter and KEDA.

The test cluster looks every 5 s (15 s by default); the windows are 20 s here (5 min by default), Prometheus scrapes and evaluates
every 5 s (15 s by default): a scrape may take as long on a busy machine.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.testbed.base import Cluster
from cluster.testbed.client import Http, Kubectl, Namespaces, wait_for
from ragkube_operator.render.rules import Record, Scope
from support.loaded import Loaded
from support.metrics_stack import PROMETHEUS, Stack

pytestmark = [pytest.mark.level("nodes"), pytest.mark.proves("K9"), pytest.mark.timeout(600)]

SCALING: dict[str, Any] = {
    "enabled": True,
    "minReplicas": 1,
    "maxReplicas": 6,
    "targets": {"inFlight": 4, "missesPerSecond": 40},
    "behavior": {"scaleDownWindow": "20s"},
}
SMALL = {"replicas": 1, "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}}}
UP_SECONDS = 60
READY_SECONDS = 60
"""After the decision."""
DIFFERENT = 500
"""Questions; ten a second make fifty seconds of misses."""
DOWN_SECONDS = 150
"""The window, until the rate over a minute has forgotten the load, and down by half every 30 s."""


@pytest.fixture(scope="module")
def stack(
    operator: None, cluster: Cluster, kubectl: Kubectl, http: Http, repository: Path
) -> Iterator[Stack]:
    made = Stack(cluster, kubectl, http, repository)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def platform(
    operator: None,
    cluster: Cluster,
    kubectl: Kubectl,
    http: Http,
    namespaces: Namespaces,
    stack: Stack,
    repository: Path,
) -> Iterator[Loaded]:
    """A small platform with a model that takes a second, and what Prometheus and the adapter say of it."""
    space = namespaces.create("scaled")
    found = Loaded(cluster, kubectl, http, space)
    found.apply(api=SMALL)  # its pods start while the others do
    stack.start_prometheus(Scope(space, found.name))
    stack.start_adapter("custom.metrics.k8s.io")
    found.start(repository, api=SMALL)
    found.slow_model(1)
    yield found
    namespaces.delete(space)


def scale(platform: Loaded, **changes: Any) -> None:
    platform.apply(api=SMALL, autoscaling={**SCALING, **changes})


def reason(platform: Loaded) -> str:
    return str(platform.scaling().get("reason"))


def rests(platform: Loaded, pods: int, seconds: float = DOWN_SECONDS) -> None:
    wait_for(lambda: platform.pods == pods, seconds, what=f"{pods} pods", pause=1)


def rises(platform: Loaded, pods: int) -> str:
    """The autoscaler decides within a minute; how soon pods are ready after that is up to the nodes."""
    started = time.monotonic()
    wait_for(lambda: platform.pods >= pods, UP_SECONDS, what=f"{pods} pods", pause=0.5)
    decided = time.monotonic() - started
    wait_for(lambda: platform.ready_pods >= pods, READY_SECONDS, what=f"{pods} ready pods", pause=0.5)
    return f"{pods} pods wanted after {decided:.0f} s, ready after {time.monotonic() - started:.0f} s"


def leaves(platform: Loaded, seconds: float = DOWN_SECONDS) -> str:
    """Seconds until one pod is left."""
    started = time.monotonic()
    rests(platform, 1, seconds)
    return f"back to one pod after {time.monotonic() - started:.0f} s"


def test_a_hand_is_respected_and_an_engine_that_is_missing_is_told(
    platform: Loaded, kubectl: Kubectl
) -> None:
    deployment = f"deployment/{platform.name}-api"
    kubectl("scale", deployment, "-n", platform.space, "--replicas=2")
    kubectl("label", "ragd", platform.name, "-n", platform.space, "wake=1", "--overwrite")
    wait_for(lambda: platform.ready_pods == 2, 60, what="the second pod")
    assert platform.pods == 2
    kubectl("scale", f"ragd/{platform.name}", "-n", platform.space, "--replicas=3")
    wait_for(lambda: platform.pods == 3, 20, what="the number of the spec")
    scale(platform, engine="KEDA")
    wait_for(lambda: reason(platform) == "EngineMissing", 30, what="the condition")
    assert "the cluster has no ScaledObject (keda.sh/v1alpha1): install KEDA" in platform.scaling()["message"]
    assert platform.pods == 3


@pytest.fixture
def recorded(platform: Loaded, stack: Stack) -> Callable[[Record], float | None]:
    """The value of a recorded series."""
    scope = Scope(platform.space, platform.name)
    return lambda record: stack.value(f"sum({scope.recorded(record)})")


def test_the_series_are_zero_and_there_without_traffic(recorded: Callable[[Record], float | None]) -> None:
    for record in (Record.INFLIGHT, Record.MISSES, Record.SCALING_P95):
        wait_for(lambda record=record: recorded(record) == 0, 120, what=f"{record} to be 0", pause=1)  # type: ignore[misc]


def test_load_brings_pods_within_a_minute_and_they_leave_after_the_window(
    platform: Loaded, kubectl: Kubectl
) -> None:
    """Engine Auto finds the custom metrics."""
    kubectl("scale", f"deployment/{platform.name}-api", "-n", platform.space, "--replicas=1")
    scale(platform)
    wait_for(lambda: reason(platform) == "Scaling", 90, what="the metrics to be found", pause=1)
    assert "Metrics on custom.metrics.k8s.io keeps between 1 and 6 pods" in platform.scaling()["message"]
    rests(platform, 1)
    with platform.load("--workers", "16", "--unique") as counted:
        print(f"\n16 questions at a time: {rises(platform, 4)}")
        assert platform.peak(10) <= 5
    assert set(counted.answers) == {"200"}
    print(leaves(platform))
    assert counted.total > 100


def test_without_prometheus_the_pods_stay_and_the_condition_says_so(platform: Loaded, stack: Stack) -> None:
    with platform.load("--workers", "8", "--unique"):
        rises(platform, 2)
        stack.scale("prometheus", 0)
        wait_for(lambda: reason(platform) == "MetricsUnavailable", 60, what="the condition", pause=1)
        held = platform.pods
    assert "the number of pods stays as it is: check that Prometheus is up" in platform.scaling()["message"]
    assert platform.peak(25) == platform.pods == held
    stack.scale("prometheus", 1)
    wait_for(lambda: reason(platform) == "Scaling", 90, what="the metrics to come back", pause=1)
    rests(platform, 1)


def test_off_and_on_again_keeps_the_number(platform: Loaded, kubectl: Kubectl) -> None:
    scale(platform, minReplicas=3)
    rests(platform, 3, 60)
    platform.apply(api=SMALL)
    wait_for(lambda: not platform.scaling(), 20, what="autoscaling to be off")
    hpa = ("get", "hpa", f"{platform.name}-api", "-n", platform.space, "--ignore-not-found", "-o", "name")
    wait_for(lambda: not kubectl(*hpa), 20, what="the autoscaler to go")
    assert platform.pods == 3
    scale(platform, minReplicas=2)
    # what the cluster offers is asked twice a minute, and the adapter may not have every metric the first time
    wait_for(lambda: kubectl(*hpa), UP_SECONDS, what="the autoscaler")
    assert platform.pods == 3


# -- longer ------------------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_slow_model_brings_the_pods_that_its_waiting_needs_and_no_more(
    platform: Loaded, stack: Stack
) -> None:
    """2.5 questions a second: 3 wait for a model of 1 s, 50 for one of 20 s: five pods of 11, not all eight."""
    scale(platform, maxReplicas=8, targets={"inFlight": 11, "missesPerSecond": 40})
    rests(platform, 1)
    with platform.load("--rate", "2.5", "--unique") as counted:
        assert platform.peak(30) == 1
        platform.slow_model(20)
        most = platform.peak(120)
        at_the_end = platform.pods
        platform.slow_model(1)
        rests(platform, 1, 200)
    print(f"\nmodel from 1 s to 20 s: at most {most} pods, {at_the_end} at the end; {dict(counted.answers)}")
    assert 5 <= most <= 6
    assert at_the_end == 5
    assert set(counted.answers) == {"200"}


@pytest.mark.soak
def test_a_cleared_cache_under_load_brings_pods_that_leave_again(
    platform: Loaded, recorded: Callable[[Record], float | None]
) -> None:
    """Hits cost little; when all become misses, pods follow them and leave when the cache is warm."""
    scale(platform, maxReplicas=1)
    with platform.load("--rate", "10", "--different", str(DIFFERENT)) as counted:
        wait_for(lambda: recorded(Record.MISSES), 60, what="misses to be seen", pause=1)
        wait_for(lambda: recorded(Record.MISSES) == 0, 200, what="the cache to be warm", pause=1)
        scale(platform, targets={"inFlight": 60, "missesPerSecond": 2})
        rests(platform, 1)
        assert platform.peak(20) == 1
        print(f"\n{platform.clear_cache()} answers cleared: {rises(platform, 3)}")
        most = platform.peak(30)
        print(f"at most {most} pods, {leaves(platform, 200)} of load on a warm cache")
        assert platform.peak(20) == 1
    assert 3 <= most <= 5
    assert set(counted.answers) == {"200"}


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_minutes_without_a_question_nothing_is_unknown_and_nothing_moves(
    platform: Loaded, stack: Stack, kubectl: Kubectl
) -> None:
    scale(platform, minReplicas=2)
    wait_for(lambda: platform.ready_pods == 2, DOWN_SECONDS, what="two ready pods", pause=1)
    wait_for(lambda: reason(platform) == "Scaling", 90, what="the metrics", pause=1)
    moved = platform.deployment["metadata"]["generation"]
    end, seen = time.monotonic() + 600, Counter[str]()
    while time.monotonic() < end:
        line = kubectl("get", "hpa", f"{platform.name}-api", "-n", platform.space, "--no-headers")
        seen[f"{reason(platform)}, {'<unknown>' if '<unknown>' in line else 'all known'}"] += 1
        time.sleep(5)
    print(f"\nten minutes without a question: {dict(seen)}")
    assert set(seen) == {"Scaling, all known"}
    assert platform.deployment["metadata"]["generation"] == moved


@pytest.mark.soak
def test_external_metrics_are_preferred(platform: Loaded, stack: Stack) -> None:
    stack.start_adapter("custom.metrics.k8s.io", "external.metrics.k8s.io")
    scale(platform)
    wait_for(
        lambda: "Metrics on external.metrics.k8s.io" in platform.scaling().get("message", ""),
        150,
        what="external",
    )
    with platform.load("--workers", "16", "--unique"):
        print(f"\nexternal metrics: {rises(platform, 4)}")
    print(leaves(platform))


@pytest.mark.soak
def test_cpu_alone_scales_where_somebody_wants_it(platform: Loaded, stack: Stack) -> None:
    """The target is low: on a busy machine a pod that has much to do gets no more than 80m."""
    stack.start_metrics_server()
    scale(platform, engine="CPU", maxReplicas=2, targets={"cpu": "45m"})
    wait_for(lambda: "CPU keeps" in platform.scaling().get("message", ""), 120, what="CPU to be measured")
    rests(platform, 1)
    with platform.load("--workers", "2") as counted:
        print(f"\nCPU: {rises(platform, 2)}")
    assert set(counted.answers) == {"200"}
    print(leaves(platform))


@pytest.mark.soak
def test_keda_takes_over_when_it_is_installed(
    platform: Loaded, stack: Stack, kubectl: Kubectl, tmp_path: Path
) -> None:
    scale(platform, prometheusUrl=PROMETHEUS)
    stack.start_keda(tmp_path)
    wait_for(
        lambda: "KEDA keeps between" in platform.scaling().get("message", ""),
        150,
        what="KEDA to scale",
        pause=1,
    )
    autoscalers = kubectl.json("get", "hpa", "-n", platform.space)["items"]
    assert [item["metadata"]["name"] for item in autoscalers] == [f"keda-hpa-{platform.name}-api"]
    rests(platform, 1)
    with platform.load("--workers", "16", "--unique") as counted:
        print(f"\nKEDA: {rises(platform, 4)}")
        assert platform.peak(10) <= 5
    assert set(counted.answers) == {"200"}
    print(leaves(platform))


@pytest.mark.soak
def test_a_wrong_address_of_prometheus_is_told_while_the_pods_stay_and_serve(
    platform: Loaded, stack: Stack, tmp_path: Path
) -> None:
    if not stack.has_keda():
        stack.start_keda(tmp_path)
    scale(platform, prometheusUrl=PROMETHEUS)
    wait_for(lambda: reason(platform) == "Scaling", 150, what="KEDA to scale", pause=1)
    with platform.load("--workers", "7", "--unique") as counted:
        print(f"\nKEDA: {rises(platform, 2)}")
        started = time.monotonic()
        scale(platform, prometheusUrl="http://nowhere.invalid:9090")
        wait_for(lambda: reason(platform) == "MetricsUnavailable", 120, what="it to be told", pause=1)
        print(f"a wrong address is told after {time.monotonic() - started:.0f} s")
        assert "check spec.autoscaling.prometheusUrl" in platform.scaling()["message"]
    assert platform.peak(30) == platform.pods == 2
    assert set(counted.answers) == {"200"}
    scale(platform, prometheusUrl=PROMETHEUS)
    wait_for(lambda: reason(platform) == "Scaling", 90, what="the right address to be used", pause=1)
    print(leaves(platform))
