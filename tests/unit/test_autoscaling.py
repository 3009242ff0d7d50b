"""Autoscaling: which engine is chosen, what is rendered for it, who owns the number of pods, what the condition says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from ragkube_operator import crd, replicas, scaling, scaling_part
from ragkube_operator.engine import DEPLOYMENT, POD_AUTOSCALER, SCALED_OBJECT, Engine, Outcome, Owner, Ref
from ragkube_operator.errors import KubeError
from ragkube_operator.handlers import Scalers
from ragkube_operator.kube import Manifest
from ragkube_operator.render import Context, render
from ragkube_operator.render.autoscaling import SIGNALS
from ragkube_operator.render.context import Scaling
from ragkube_operator.scaling import Decision, Offer
from ragkube_operator.status import Part, Reason
from support.fake_kube import FakeKube

pytestmark = pytest.mark.proves("K9")

EXTERNAL, CUSTOM = "external.metrics.k8s.io", "custom.metrics.k8s.io"
NAMES = frozenset(map(str, SIGNALS))
DESCRIBED = frozenset(f"ragdeployments.ragkube.dev/{name}" for name in SIGNALS)
KEDA: dict[str, frozenset[str] | None] = {"keda.sh/v1alpha1": frozenset({"scaledobjects"})}
CPU: dict[str, frozenset[str] | None] = {"metrics.k8s.io": frozenset({"pods"})}
PROMETHEUS = "http://prometheus.monitoring:9090"


def deployment(**autoscaling: Any) -> crd.RagDeployment:
    api = autoscaling.pop("api", {})
    spec = {"api": api, "autoscaling": {"enabled": True, **autoscaling}}
    metadata = {"name": "demo", "namespace": "shop"}
    return crd.parse({"apiVersion": crd.API_VERSION, "kind": crd.KIND, "metadata": metadata, "spec": spec})


def decide(
    served: Mapping[str, frozenset[str] | None],
    engine: str = "Auto",
    prometheus: str | None = PROMETHEUS,
    now: Mapping[str, Any] | None = None,
) -> Decision:
    return scaling.decide(deployment(engine=engine), Offer(served), prometheus, now or {})


@pytest.mark.parametrize(
    ("served", "prometheus", "expected"),
    [
        ({**KEDA, EXTERNAL: NAMES, **CPU}, PROMETHEUS, ("KEDA", None)),
        ({**KEDA, EXTERNAL: NAMES, **CPU}, None, ("Metrics", EXTERNAL)),
        ({EXTERNAL: NAMES, CUSTOM: DESCRIBED}, PROMETHEUS, ("Metrics", EXTERNAL)),
        ({EXTERNAL: frozenset(), CUSTOM: DESCRIBED}, PROMETHEUS, ("Metrics", CUSTOM)),
        ({EXTERNAL: None, CUSTOM: NAMES, **CPU}, PROMETHEUS, ("CPU", None)),
        (CPU, PROMETHEUS, ("CPU", None)),
    ],
)
def test_auto_takes_the_best_engine_that_the_cluster_offers(
    served: Mapping[str, frozenset[str] | None], prometheus: str | None, expected: tuple[str, str | None]
) -> None:
    chosen = decide(served, prometheus=prometheus).scaling
    assert chosen is not None
    assert (chosen.engine, chosen.api) == expected


def test_what_is_missing_is_named_with_its_api_and_its_fix() -> None:
    found = decide({EXTERNAL: NAMES - {"ragkube:inflight:sum"}})
    assert found.scaling is None
    keda, metrics, cpu = found.missing
    assert "install KEDA" in keda
    assert "external.metrics.k8s.io lacks ragkube:inflight:sum;" in metrics
    assert "nothing serves custom.metrics.k8s.io" in metrics
    assert "install metrics-server" in cpu
    assert decide({}, engine="KEDA").missing == (keda,)


def test_metrics_that_are_gone_for_a_while_change_no_engine() -> None:
    now = {"engine": "Metrics", "api": CUSTOM}
    for there in (None, frozenset[str]()):
        kept = decide({CUSTOM: there, EXTERNAL: frozenset(), **CPU}, now=now).scaling
        assert kept == Scaling("Metrics", "custom.metrics.k8s.io", cpu=True)
    gone = decide(CPU, now=now).scaling
    assert gone is not None
    assert gone.engine == "CPU"


class Cluster:
    """Answers discovery, and counts how often it is asked."""

    def __init__(self) -> None:
        self.answers: dict[str, frozenset[str] | KubeError] = {}
        self.asked = 0
        self.now = 0.0

    async def resource_names(self, api_version: str) -> frozenset[str] | None:
        self.asked += 1
        await asyncio.sleep(0)
        answer = self.answers.get(api_version)
        if isinstance(answer, KubeError):
            raise answer
        return answer


async def test_passes_side_by_side_ask_once() -> None:
    cluster = Cluster()
    discovery = scaling.Discovery(cluster, lambda: cluster.now)
    await discovery.offer()
    once, cluster.now = cluster.asked, 61
    await asyncio.gather(*(discovery.offer() for _ in range(8)))
    assert cluster.asked == 2 * once


async def test_discovery_is_asked_once_a_minute_and_sees_what_comes_and_goes() -> None:
    cluster = Cluster()
    discovery = scaling.Discovery(cluster, lambda: cluster.now)
    assert (await discovery.offer()).served == {}
    first = cluster.asked
    for _ in range(100):
        await discovery.offer()
    assert cluster.asked == first
    cluster.now = 61
    cluster.answers = {"keda.sh/v1alpha1": frozenset({"scaledobjects"}), f"{CUSTOM}/v1beta1": NAMES}
    assert (await discovery.offer()).served == {"keda.sh/v1alpha1": {"scaledobjects"}, CUSTOM: NAMES}
    cluster.now = 122
    cluster.answers = {f"{EXTERNAL}/v1beta1": KubeError(503, "ServiceUnavailable", "no endpoints")}
    assert (await discovery.offer()).served == {EXTERNAL: None}
    cluster.answers = {f"{EXTERNAL}/v1beta1": NAMES}
    cluster.now = 133
    assert (await discovery.offer()).served == {EXTERNAL: NAMES}
    cluster.now = 200
    cluster.answers = {f"{EXTERNAL}/v1beta1": KubeError(0, "Unreachable", "gone")}
    with pytest.raises(KubeError):
        await discovery.offer()


def rendered(chosen: Scaling | None, **autoscaling: Any) -> list[Manifest]:
    found = render(deployment(**autoscaling), Context("api:1", "1", scaling=chosen))
    return [m for m in found if m["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}]


def test_a_horizontal_autoscaler_compares_each_signal_with_its_target() -> None:
    targets = {"missesPerSecond": "2.5", "localLatencyP95": "1500ms"}
    (found,) = rendered(
        Scaling("Metrics", "external.metrics.k8s.io", cpu=True), targets=targets, maxReplicas=7
    )
    assert found["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "demo-api",
    }
    assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (2, 7)
    *external, cpu = found["spec"]["metrics"]
    assert [(m["external"]["metric"]["name"], m["external"]["target"]) for m in external] == [
        ("ragkube:inflight:sum", {"type": "AverageValue", "averageValue": "32"}),
        ("ragkube:cache_misses:rate1m", {"type": "AverageValue", "averageValue": "2500m"}),
        ("ragkube:local_latency_p95:busy", {"type": "Value", "value": "1500m"}),
    ]
    assert external[0]["external"]["metric"]["selector"] == {"matchLabels": {"ragkube_deployment": "demo"}}
    assert cpu["resource"] == {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "700m"}}


def test_custom_metrics_describe_the_ragdeployment() -> None:
    (found,) = rendered(Scaling("Metrics", "custom.metrics.k8s.io"))
    described = {"apiVersion": "ragkube.dev/v1alpha1", "kind": "RagDeployment", "name": "demo"}
    assert [m["object"]["describedObject"] for m in found["spec"]["metrics"]] == [described] * 3


def test_keda_asks_prometheus_for_the_same_series_and_holds_when_there_are_none() -> None:
    (found,) = rendered(Scaling("KEDA", prometheus=PROMETHEUS), api={"maxConcurrency": 16})
    triggers = found["spec"]["triggers"]
    assert [(t["metricType"], t["metadata"]["threshold"]) for t in triggers] == [
        ("AverageValue", "8"),
        ("AverageValue", "25"),
        ("Value", "0.5"),
    ]
    query = 'sum(ragkube:inflight:sum{namespace="shop",ragkube_deployment="demo"})'
    assert triggers[0]["metadata"]["query"] == query
    assert {t["metadata"]["serverAddress"] for t in triggers} == {PROMETHEUS}
    assert {t["metadata"]["ignoreNullValues"] for t in triggers} == {"false"}


def test_without_an_engine_or_without_autoscaling_nothing_is_rendered() -> None:
    assert rendered(None) == []
    assert rendered(Scaling("CPU"), enabled=False) == []


# -- who owns the number of pods ---------------------------------------------------------------------------------------

OWNER = Owner(crd.API_VERSION, crd.KIND, "shop", "demo", "owner-1")


class Platform:
    """One resource on an API server in memory, reconciled as far as its Deployment goes."""

    def __init__(self) -> None:
        self.kube = FakeKube(missing={SCALED_OBJECT})

    async def take_a_pass(self, wanted: crd.RagDeployment) -> int:
        """A pass of an operator that was just started; the number of pods after it."""
        engine = Engine(self.kube)
        manifests = [replicas.without_count(m, wanted) for m in render(wanted, Context("api:1", "1"))]
        live = await engine.observe(OWNER)
        await replicas.settle(self.kube, wanted, OWNER, live)
        outcome = await engine.converge(OWNER, manifests, live=live)
        await replicas.settle(self.kube, wanted, OWNER, outcome.live)
        return self.pods

    @property
    def pods(self) -> int:
        return int(self.kube.objects[DEPLOYMENT, "demo-api"]["spec"].get("replicas", 1))

    @pods.setter
    def pods(self, count: int) -> None:
        self.kube.objects[DEPLOYMENT, "demo-api"]["spec"]["replicas"] = count


def off(count: int = 2) -> crd.RagDeployment:
    return deployment(enabled=False, api={"replicas": count})


def test_the_number_is_not_part_of_what_is_applied() -> None:
    wanted = off(5)
    for manifest in render(wanted, Context("api:1", "1")):
        ours = replicas.without_count(manifest, wanted)
        assert ("replicas" in ours.get("spec", {})) is (manifest["kind"] == "StatefulSet")


async def test_the_specs_number_is_written_when_it_is_new_and_a_hand_is_respected_afterwards() -> None:
    platform = Platform()
    assert await platform.take_a_pass(off()) == 2
    platform.pods = 6
    platform.kube.writes.clear()
    assert await platform.take_a_pass(off()) == 6
    assert platform.kube.writes == []
    assert await platform.take_a_pass(off(3)) == 3


async def test_on_off_on_keeps_the_number() -> None:
    platform = Platform()
    assert await platform.take_a_pass(deployment(minReplicas=3)) == 3
    platform.pods = 7
    for wanted in (deployment(), off(), deployment(), deployment(api={"replicas": 2}, minReplicas=3)):
        assert await platform.take_a_pass(wanted) == 7
    # what is changed while the autoscaler owns the number does not come back when it goes
    assert await platform.take_a_pass(deployment(api={"replicas": 4})) == 7
    assert await platform.take_a_pass(off(4)) == 7
    assert await platform.take_a_pass(off(5)) == 5


@pytest.mark.parametrize(("count", "expected"), [(1, 3), (5, 5), (90, 10)])
async def test_a_new_deployment_starts_within_the_limits(count: int, expected: int) -> None:
    assert await Platform().take_a_pass(deployment(minReplicas=3, api={"replicas": count})) == expected


def event(value: int, active: str = "True", **spec: Any) -> dict[str, Any]:
    metric = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageValue": f"{value}m"}}}
    conditions = [{"type": "ScalingActive", "status": active, "reason": "r"}]
    meta = {"name": "demo-api", "uid": "u", "resourceVersion": str(value)}
    status = {"conditions": conditions, "currentMetrics": [metric]}
    return {"kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec, "status": status}


def test_readings_of_an_autoscaler_wake_nobody() -> None:
    scalers = Scalers()
    assert scalers.news("ADDED", event(1))
    assert not scalers.news("MODIFIED", event(2))
    assert scalers.news("MODIFIED", event(3, active="False"))
    assert scalers.news("MODIFIED", event(4, active="False", maxReplicas=3))
    assert scalers.news("DELETED", event(5, active="False", maxReplicas=3))
    assert scalers.news("ADDED", event(5, active="False", maxReplicas=3))
    assert scalers.news("MODIFIED", {"kind": "Deployment", "metadata": {"uid": "u"}})


async def test_the_autoscaler_that_keda_makes_is_neither_pruned_nor_overlooked() -> None:
    """It carries our labels, because KEDA copies those of the ScaledObject."""
    kube = FakeKube(missing={SCALED_OBJECT})
    meta = {"name": "keda-hpa-demo-api", "labels": {"ragkube.dev/owner-uid": OWNER.uid}, "uid": "k"}
    theirs = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta}
    kube.objects[POD_AUTOSCALER, "keda-hpa-demo-api"] = theirs
    outcome = await Engine(kube).converge(OWNER, [])
    assert outcome.pruned == []
    assert outcome.find(POD_AUTOSCALER, "keda-hpa-demo-api") == theirs


# -- the condition -----------------------------------------------------------------------------------------------------

EXTERNAL_METRICS = Decision(Scaling("Metrics", "external.metrics.k8s.io"))


def scaler(*conditions: tuple[str, str, str], measured: int = 3) -> Manifest:
    (manifest,) = rendered(EXTERNAL_METRICS.scaling)
    found = [{"type": t, "status": s, "reason": r, "message": f"words of {r}"} for t, s, r in conditions]
    current = manifest["spec"]["metrics"][:measured]
    return {**manifest, "status": {"conditions": found, "currentMetrics": current}}


def part(live: Manifest | None, decision: Decision = EXTERNAL_METRICS) -> Part:
    objects = {Ref(POD_AUTOSCALER, "demo-api"): live} if live else {}
    return scaling_part.part(deployment(), decision, Outcome(live=objects))


ABLE = ("AbleToScale", "True", "ReadyForNewScale")
ACTIVE = ("ScalingActive", "True", "ValidMetricFound")


@pytest.mark.parametrize(
    ("live", "ready", "reason", "words"),
    [
        (None, False, Reason.NOT_CREATED, "does not exist yet"),
        (scaler(), False, Reason.WAITING_FOR_METRICS, "has not looked"),
        (scaler(ABLE, measured=0), False, Reason.WAITING_FOR_METRICS, "has not looked at the metrics yet"),
        (scaler(ABLE, ACTIVE), True, Reason.SCALING, "Metrics on external.metrics.k8s.io keeps between 2 and 10"),
        (scaler(ABLE, ("ScalingActive", "False", "FailedGetExternalMetric")), False, Reason.METRICS_UNAVAILABLE,
         "words of FailedGetExternalMetric; the number of pods stays as it is: check that Prometheus is up"),
        (scaler(ABLE, ACTIVE, measured=1), False, Reason.METRICS_UNAVAILABLE,
         "no value of ragkube:cache_misses:rate1m, ragkube:local_latency_p95:busy"),
        (scaler(ABLE, ("ScalingActive", "False", "ScalingDisabled")), False, Reason.SCALED_TO_ZERO, "by hand"),
        (scaler(ABLE, ("ScalingActive", "False", "FailedGetResourceMetric")), False, Reason.METRICS_UNAVAILABLE,
         "words of FailedGetResourceMetric; the number of pods stays as it is: check metrics-server"),
        (scaler(("AbleToScale", "False", "FailedGetScale")), False, Reason.METRICS_UNAVAILABLE, "FailedGetScale"),
        (scaler(ABLE, ACTIVE, ("ScalingLimited", "True", "TooManyReplicas")), True, Reason.AT_MAXIMUM,
         "raise spec.autoscaling.maxReplicas"),
        (scaler(ABLE, ACTIVE, ("ScalingLimited", "True", "TooFewReplicas")), True, Reason.SCALING, "keeps"),
    ],
)  # fmt: skip
def test_the_condition_says_what_is_wrong_and_what_to_do(
    live: Manifest | None, ready: bool, reason: Reason, words: str
) -> None:
    found = part(live)
    assert (found.ready, found.reason) == (ready, reason)
    assert words in found.message


def test_cpu_as_the_last_resort_is_told_with_what_the_better_engines_lack() -> None:
    decision = decide(CPU)
    found = part(scaler(ABLE, ACTIVE), decision)
    assert (found.ready, found.reason) == (True, Reason.SCALING_ON_CPU)
    assert "install KEDA" in found.message
    assert part(scaler(ABLE, ACTIVE), decide(CPU, engine="CPU")).reason is Reason.SCALING


def test_an_engine_that_the_cluster_lacks_is_told_and_the_pods_stay() -> None:
    found = part(None, decide({}, engine="KEDA"))
    assert (found.ready, found.reason) == (False, Reason.ENGINE_MISSING)
    assert "the number of pods stays as it is: engine KEDA" in found.message


@pytest.mark.parametrize(
    ("ready", "reason", "words"),
    [
        (None, Reason.WAITING_FOR_METRICS, "KEDA has not looked"),
        ("False", Reason.METRICS_UNAVAILABLE, "spec.autoscaling.prometheusUrl"),
        ("True", Reason.SCALING, "KEDA keeps between"),
    ],
)
def test_keda_and_its_autoscaler_are_both_looked_at(ready: str | None, reason: Reason, words: str) -> None:
    conditions = [{"type": "Ready", "status": ready, "reason": "r", "message": "m"}] if ready else []
    status = {"conditions": conditions, "hpaName": "keda-hpa-demo-api"}
    live = {
        Ref(SCALED_OBJECT, "demo-api"): {"metadata": {"name": "demo-api"}, "status": status},
        Ref(POD_AUTOSCALER, "keda-hpa-demo-api"): scaler(ABLE, ACTIVE),
    }
    found = scaling_part.part(deployment(), Decision(Scaling("KEDA", prometheus="x")), Outcome(live=live))
    assert found.reason is reason
    assert words in found.message
