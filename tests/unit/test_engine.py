"""The engine: nothing is written when nothing changed, drift is repaired, leftovers go last."""

from __future__ import annotations

from typing import Any

import pytest

from ragkube_operator.engine import CONFIG_MAP, DEPLOYMENT, SERVICE, Engine, Owner, Ref, stamp
from ragkube_operator.errors import KubeError, StalledError
from ragkube_operator.kube import Kind, Manifest
from support.fake_kube import FakeKube

OWNER = Owner("ragkube.dev/v1alpha1", "RagDeployment", "shop", "demo", "owner-1")


def config(name: str = "demo-settings", **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(replicas: int = 2, **container: Any) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "demo-api"},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"name": "api", **container}]}}},
    }


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


async def converge(kube: FakeKube, *manifests: Manifest, held: frozenset[Ref] = frozenset()) -> list[str]:
    """A pass of an operator that was just started; the writes it made."""
    kube.writes.clear()
    await Engine(kube).converge(OWNER, manifests, held=held)
    return list(kube.writes)


@pytest.mark.proves("K3")
async def test_objects_are_applied_in_the_order_in_which_they_need_each_other(kube: FakeKube) -> None:
    assert await converge(kube, deployment(), config()) == [
        "apply ConfigMap/demo-settings",
        "apply Deployment/demo-api",
    ]
    meta = kube.objects[CONFIG_MAP, "demo-settings"]["metadata"]
    assert meta["namespace"] == "shop"
    assert meta["ownerReferences"][0]["uid"] == "owner-1"
    assert meta["ownerReferences"][0]["controller"] is True
    assert meta["labels"]["ragkube.dev/owner-uid"] == "owner-1"


@pytest.mark.proves("K3")
async def test_nothing_is_written_when_nothing_changed(kube: FakeKube) -> None:
    kube.defaults = {"revisionHistoryLimit": 10}
    await converge(kube, deployment(), config(a="1"))
    assert await converge(kube, deployment(), config(a="1")) == []


@pytest.mark.proves("K3")
@pytest.mark.parametrize("change", ["value", "gone", "label", "object"])
async def test_drift_of_any_field_is_repaired(kube: FakeKube, change: str) -> None:
    await converge(kube, deployment(image="a", env=[{"name": "A", "value": "1"}]))
    live = kube.objects[DEPLOYMENT, "demo-api"]
    match change:
        case "value":
            live["spec"]["replicas"] = 5
        case "gone":
            del live["spec"]["template"]["spec"]["containers"][0]["env"]
        case "label":
            live["metadata"]["labels"] = {}
        case "object":
            del kube.objects[DEPLOYMENT, "demo-api"]
    writes = await converge(kube, deployment(image="a", env=[{"name": "A", "value": "1"}]))
    assert writes == ["apply Deployment/demo-api"]
    assert kube.objects[DEPLOYMENT, "demo-api"]["spec"]["replicas"] == 2


async def test_what_others_add_is_left_alone(kube: FakeKube) -> None:
    await converge(kube, deployment(image="a"))
    live = kube.objects[DEPLOYMENT, "demo-api"]
    live["spec"]["template"]["spec"]["containers"].insert(0, {"name": "sidecar"})
    live["metadata"]["labels"]["team"] = "search"
    assert await converge(kube, deployment(image="a")) == []


async def test_quantities_are_compared_by_value(kube: FakeKube) -> None:
    wanted = deployment(resources={"requests": {"cpu": "0.5", "memory": "1024Mi"}})
    await converge(kube, wanted)
    container = kube.objects[DEPLOYMENT, "demo-api"]["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "500m", "memory": "1Gi"}}
    assert await converge(kube, wanted) == []


async def test_a_field_that_is_no_longer_wanted_is_removed(kube: FakeKube) -> None:
    await converge(kube, config(a="1", b="2"))
    assert await converge(kube, config(a="1")) == ["apply ConfigMap/demo-settings"]
    assert kube.objects[CONFIG_MAP, "demo-settings"]["data"] == {"a": "1"}


async def test_what_the_api_server_rewrites_is_not_fought_over(kube: FakeKube) -> None:
    kube.defaults = {"replicas": 7}
    engine = Engine(kube)
    await engine.converge(OWNER, [deployment(2)])
    kube.writes.clear()
    await engine.converge(OWNER, [deployment(2)])
    assert kube.writes == []
    kube.objects[DEPLOYMENT, "demo-api"]["spec"]["replicas"] = 9
    await engine.converge(OWNER, [deployment(2)])
    assert kube.writes == ["apply Deployment/demo-api"]


@pytest.mark.proves("K3")
async def test_leftovers_are_pruned_after_everything_was_applied(kube: FakeKube) -> None:
    await converge(kube, config("one"), config("two"), deployment())
    assert await converge(kube, config("one", a="new")) == [
        "apply ConfigMap/one",
        "delete Deployment/demo-api",
        "delete ConfigMap/two",
    ]


async def test_nothing_is_pruned_when_an_object_is_refused(kube: FakeKube) -> None:
    await converge(kube, config("one"), config("two"))
    kube.refusals["new"] = KubeError(403, "Forbidden", "exceeded quota")
    with pytest.raises(StalledError, match="exceeded quota") as caught:
        await converge(kube, config("new"), config("one", a="changed"))
    assert caught.value.reason == "Refused"
    assert kube.writes == ["apply ConfigMap/new", "apply ConfigMap/one"]


async def test_a_passing_failure_is_no_stall(kube: FakeKube) -> None:
    kube.refusals["one"] = KubeError(503, "ServiceUnavailable", "try again")
    with pytest.raises(KubeError):
        await converge(kube, config("one"))


async def test_an_immutable_field_is_explained(kube: FakeKube) -> None:
    message = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden"
    kube.refusals["demo-api"] = KubeError(422, "Invalid", message)
    with pytest.raises(
        StalledError, match="kubectl delete deployment demo-api -n shop --cascade=orphan"
    ) as e:
        await converge(kube, deployment())
    assert e.value.reason == "ImmutableField"


@pytest.mark.parametrize("owner", [None, "somebody-else"])
async def test_an_object_of_somebody_else_is_never_taken(kube: FakeKube, owner: str | None) -> None:
    references = [{"uid": owner, "kind": "X", "name": "x", "apiVersion": "v1"}] if owner else []
    kube.objects[SERVICE, "demo"] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "demo", "uid": "s", "ownerReferences": references},
    }
    service: Manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "demo"}, "spec": {}}
    with pytest.raises(StalledError, match="Service shop/demo exists and does not belong") as caught:
        await converge(kube, service)
    assert caught.value.reason == "NameConflict"
    assert kube.writes == []


async def test_objects_of_the_former_resource_are_waited_for(kube: FakeKube) -> None:
    former = Owner("ragkube.dev/v1alpha1", "RagDeployment", "shop", "demo", "owner-0")
    await Engine(kube).converge(former, [config("one")])
    with pytest.raises(KubeError, match="of the former RagDeployment of this name is still being deleted"):
        await converge(kube, config("one"))
    assert kube.writes == []


async def test_orphans_of_a_former_resource_are_adopted(kube: FakeKube) -> None:
    labels = {"app.kubernetes.io/managed-by": "ragkube", "app.kubernetes.io/instance": "demo"}
    kube.objects[CONFIG_MAP, "one"] = {
        **config("one"),
        "metadata": {"name": "one", "uid": "x", "labels": labels},
    }
    assert await converge(kube, config("one")) == ["apply ConfigMap/one"]


async def test_objects_of_a_namesake_are_not_pruned(kube: FakeKube) -> None:
    other = Owner("ragkube.dev/v1alpha1", "RagDeployment", "shop", "demo", "owner-0")
    await Engine(kube).converge(other, [config("old")])
    assert await converge(kube, config("new")) == ["apply ConfigMap/new"]
    assert (CONFIG_MAP, "old") in kube.objects


async def test_held_objects_are_neither_written_nor_pruned(kube: FakeKube) -> None:
    ref = Ref(DEPLOYMENT, "demo-api")
    await converge(kube, deployment(2))
    assert await converge(kube, deployment(3), held=frozenset({ref})) == []
    assert await converge(kube, held=frozenset({ref})) == []


@pytest.mark.proves("K3")
async def test_kinds_that_the_cluster_lacks_are_skipped() -> None:
    kind = Kind("monitoring.coreos.com/v1", "ServiceMonitor")
    kube = FakeKube(missing=[kind])
    monitor = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "demo"}}
    outcome = await Engine(kube).converge(OWNER, [config(), monitor])
    assert outcome.skipped == [Ref(kind, "demo")]
    assert kube.writes == ["apply ConfigMap/demo-settings"]


def test_the_fingerprint_depends_on_content_only() -> None:
    one, two = stamp(config(a="1", b="2"), OWNER), stamp(config(b="2", a="1"), OWNER)
    assert one == two
    assert stamp(config(a="3"), OWNER)["metadata"]["annotations"] != one["metadata"]["annotations"]
