"""The operator's process: its options, its documentation, and which events wake whom."""

from __future__ import annotations

import re
from collections import UserDict
from pathlib import Path
from typing import Any

import pytest

from ragkube_operator import __main__ as program
from ragkube_operator.errors import ConfigurationError
from ragkube_operator.handlers import finished, owner_key, resource_key, settings, settled
from ragkube_operator.kube import Credentials
from ragkube_operator.metrics import Metrics
from ragkube_operator.options import VARIABLES, LeaseRef, Options, operator_version
from ragkube_operator.reconciler import Key
from ragkube_operator.redis_client import Access


def test_the_defaults_suit_a_pod() -> None:
    options = Options.read({})
    assert options.kubeconfig is None
    assert options.namespaces == ()
    assert options.api_image.startswith("ragkube/api:")


def test_namespaces_are_named_with_commas() -> None:
    assert Options.read({"RAGKUBE_NAMESPACES": " a, b,"}).namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RAGKUBE_LOG_LEVEL", "loud"),
        ("RAGKUBE_METRICS_ADDRESS", "nowhere"),
        ("RAGKUBE_HEALTH_ADDRESS", "nowhere"),
        ("RAGKUBE_LEASE", "only-a-name"),
        ("RAGKUBE_LEASE", "/name"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        Options.read({variable: value})


def test_outside_a_cluster_there_is_no_lease_unless_it_is_named() -> None:
    assert Options.read({}).lease is None
    assert Options.read({"RAGKUBE_LEASE": "none"}).lease is None
    assert Options.read({"RAGKUBE_LEASE": "system/op"}).lease == LeaseRef("system", "op")


def test_a_wrong_variable_ends_the_process_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAGKUBE_LOG_LEVEL", "loud")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert program.main([]) == 2
    assert capsys.readouterr().err.startswith("ragkube-operator: RAGKUBE_LOG_LEVEL is 'loud'")


class Asked(UserDict[str, str]):
    """An environment that knows what was looked up in it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(key)
        return super().get(key, default)


def test_every_variable_that_is_read_is_documented() -> None:
    environment = Asked()
    Options.read(environment)
    assert environment.names == set(VARIABLES)


def test_documented_defaults_are_the_defaults() -> None:
    values = {
        name: variable.default.strip("`")
        for name, variable in VARIABLES.items()
        if variable.default.startswith("`")
    }
    values["RAGKUBE_API_IMAGE"] = values["RAGKUBE_API_IMAGE"].replace("VERSION", operator_version())
    assert len(values) == 4
    assert Options.read(values) == Options.read({})


def test_every_metric_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "operator.md").read_text()
    families = {family.name: family.type for family in Metrics().registry.collect()}
    ours = {name for name in families if name.startswith("ragkube_operator_")}
    exposed = {f"{name}_total" if families[name] == "counter" else name for name in ours}
    assert set(re.findall(r"^\| `(ragkube_operator_\w+)`", text, flags=re.MULTILINE)) == exposed


def child(**meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": "demo-api", "namespace": "shop", "uid": "child", **meta}}


def test_events_wake_the_resource_that_an_object_belongs_to() -> None:
    body = {"metadata": {"name": "demo", "namespace": "shop", "uid": "1"}}
    assert resource_key(body) == Key("shop", "demo", "1")
    reference = {"apiVersion": "ragkube.dev/v1alpha1", "kind": "RagDeployment", "name": "demo", "uid": "1"}
    assert owner_key(child(ownerReferences=[reference])) == Key("shop", "demo", "1")
    assert owner_key(child()) is None
    foreign = {**reference, "apiVersion": "example.com/v1"}
    assert owner_key(child(ownerReferences=[foreign])) is None


def listed(status: str, seen: int) -> dict[str, Any]:
    condition = {"type": "Ready", "status": status, "observedGeneration": seen}
    return {"metadata": {"generation": 2}, "status": {"conditions": [condition]}}


def test_after_a_start_what_was_ready_may_wait_and_the_rest_may_not() -> None:
    assert finished(listed("True", 2))
    assert not finished(listed("True", 1))
    assert not finished(listed("False", 2))
    assert not finished({"metadata": {"generation": 1}})
    whole = {"observedGeneration": 1, "readyReplicas": 3}
    workload = {"metadata": {"generation": 1}, "spec": {"replicas": 3}, "status": whole}
    assert settled(workload)
    assert not settled({**workload, "status": {**whole, "readyReplicas": 2}})
    assert not settled({**workload, "metadata": {"generation": 2}})
    assert settled(child())
    assert not settled(child(deletionTimestamp="now"))


def test_kopf_writes_nothing_and_watches_only_what_is_ours() -> None:
    found = settings()
    assert found.posting.enabled is False
    assert set(found.watching.label_selectors.values()) == {"app.kubernetes.io/managed-by=ragkube"}


@pytest.mark.proves("S6")
def test_secrets_are_not_shown_by_accident() -> None:
    assert "s3cret" not in repr(Access("s3cret"))
    assert "s3cret" not in repr(Credentials("https://x", None, False, None, None, "s3cret"))
