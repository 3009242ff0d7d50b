"""The Helm charts: every value does something, wrong ones are refused, and by default they are what manifests/ is."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import charts
from ragkube_operator import term
from ragkube_operator.options import Options
from support.helm import CASES, CHART, DEPLOYMENT_CHART, NAMESPACE, HelmError, by_name, helm, template
from support.processes import REPOSITORY, tool

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
LEAVES = {path: schema for path, schema, _ in charts.leaves(SCHEMA, DEFAULTS, 9)}
HELMS_OWN = ("app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart")


def is_hook(item: dict[str, Any]) -> bool:
    return "helm.sh/hook" in item["metadata"].get("annotations", {})


def without_helm(item: dict[str, Any]) -> dict[str, Any]:
    """The object without what only Helm adds."""
    result = copy.deepcopy(item)
    meta = result["metadata"]
    meta["labels"] = {key: value for key, value in meta.get("labels", {}).items() if key not in HELMS_OWN}
    annotations = meta.pop("annotations", {})
    annotations.pop("helm.sh/resource-policy", None)
    return {**result, "metadata": {**meta, **({"annotations": annotations} if annotations else {})}}


@pytest.mark.proves("K11", "K12")
def test_the_chart_and_the_manifests_are_the_same_objects() -> None:
    """Besides the namespace, which `--create-namespace` makes, and the pod of `helm test`."""
    built = subprocess.run(
        [tool("kubectl"), "kustomize", REPOSITORY / "manifests"], capture_output=True, text=True, check=True
    )
    manifests = by_name([item for item in yaml.safe_load_all(built.stdout) if item["kind"] != "Namespace"])
    objects = by_name([item for item in template() if not is_hook(item)])
    assert objects.keys() == manifests.keys()
    for name, manifest in manifests.items():
        assert without_helm(objects[name]) == without_helm(manifest), name


def test_every_value_has_a_description_a_default_and_a_case() -> None:
    assert set(LEAVES) == set(CASES)
    assert all(schema["description"] for schema in LEAVES.values())

    def known(values: dict[str, Any], schema: dict[str, Any]) -> bool:
        return set(values) == set(schema["properties"]) - {"global", "claims"} and all(
            known(value, schema["properties"][key])
            for key, value in values.items()
            if "properties" in schema["properties"][key]
        )

    assert known(DEFAULTS, SCHEMA)


@functools.cache
def rendered_with(enabled: str) -> dict[str, dict[str, Any]]:
    """What the defaults make, with this part switched on (none when empty)."""
    return by_name(template({enabled: {"enabled": True}} if enabled else {}))


@pytest.mark.proves("K11")
@pytest.mark.parametrize("path", CASES)
def test_every_value_changes_what_is_rendered(path: str) -> None:
    values = CASES[path]
    rendered = template(values)
    top, _, rest = path.partition(".")
    inside = rest not in {"", "enabled", "create"} and "enabled" in values[top]
    assert by_name(rendered) != rendered_with(top if inside else "")
    shown = json.dumps(rendered)
    value = values[top][rest] if rest else values[top]
    if value != "Namespaced":
        assert all(text in shown for text in texts(value))


def texts(value: Any) -> Iterator[str]:
    """Every text inside a value."""
    if isinstance(value, dict):
        yield from (text for each in value.values() for text in texts(each))
    elif isinstance(value, list):
        yield from (text for each in value for text in texts(each))
    elif isinstance(value, str):
        yield value


def wrong_values() -> list[tuple[str, Any]]:
    """A value of a wrong type for every leaf, and others that make no sense."""
    wrong: dict[str, Any] = {
        "string": 7,
        "boolean": "yes",
        "integer": "two",
        "array": "one",
        "object": "text",
    }
    typed = [(path, wrong[schema["type"]]) for path, schema in LEAVES.items()]
    return [
        *typed,
        ("replicas", 0), ("replicas", 1.5), ("logLevel", "loud"), ("rbac.scope", "cluster"), ("image.digest", "sha256:1"),
        ("image.repository", ""), ("watchNamespaces", ["Not A Name"]), ("watchNamespaces", ["a", "a"]),
        ("imagePullSecrets", ["pull"]), ("serviceMonitor.interval", "soon"), ("labels", {"a": 1}),
        ("resources", {"request": {}}), ("fullnameOverride", "Upper"), ("unknown", 1), ("crds.unknown", 1),
        ("env", [{"value": "nameless"}]), ("sample.name", ""),
    ]  # fmt: skip


@pytest.mark.proves("K11")
def test_wrong_values_are_refused_with_their_name() -> None:
    for path, value in wrong_values():
        nested: Any = value
        for part in reversed(path.split(".")):
            nested = {part: nested}
        with pytest.raises(HelmError) as refused:
            template(nested)
        assert path.split(".")[-1] in str(refused.value), f"{path}={value!r}: {refused.value}"
        assert "specifications of the schema" in str(refused.value), str(refused.value)


@pytest.mark.proves("K11")
def test_without_cluster_rights_nothing_of_the_cluster_is_touched() -> None:
    values = {
        "rbac": {"scope": "Namespaced"}, "crds": {"enabled": False}, "watchNamespaces": ["team-a", "team-b"],
    }  # fmt: skip
    objects = template(values, namespace="team-a")
    assert not [
        item for item in objects if item["kind"].startswith("Cluster") or item["kind"].startswith("Custom")
    ]
    roles = [
        item for item in objects if item["kind"] == "Role" and item["metadata"]["name"].endswith("-resources")
    ]
    assert [role["metadata"]["namespace"] for role in roles] == ["team-a", "team-b"]
    cluster_role = by_name(template())["ClusterRole/ragkube-operator"]
    assert all(role["rules"] == cluster_role["rules"] for role in roles)
    env = by_name(objects)["Deployment/ragkube-operator"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "RAGKUBE_NAMESPACES", "value": "team-a,team-b"} in env


def test_another_release_has_names_of_its_own() -> None:
    values = {"crds": {"enabled": False}, "rbac": {"userRoles": False}}
    ours, theirs = template(values), template(values, release="second")
    assert not by_name(ours).keys() & by_name(theirs).keys()
    deployment = by_name(theirs)["Deployment/second-operator"]["spec"]["template"]["spec"]
    assert {"name": "RAGKUBE_LEASE", "value": f"{NAMESPACE}/second-operator"} in deployment["containers"][0][
        "env"
    ]


@pytest.mark.proves("K11", "O1")
def test_a_managed_prometheus_finds_the_operator_of_any_release() -> None:
    """The operator knows its Lease; its Service has the same name."""
    for release in ("ragkube", "second"):
        objects = by_name(template({"crds": {"enabled": False}}, release=release))
        (service,) = (item for item in objects.values() if item["kind"] == "Service")
        (pod,) = (
            item["spec"]["template"]["spec"] for item in objects.values() if item["kind"] == "Deployment"
        )
        env = {entry["name"]: entry.get("value", "") for entry in pod["containers"][0]["env"]}
        rendered = term.context(Options.read(env))
        meta = service["metadata"]
        assert rendered.operator_metrics == f"{meta['name']}.{meta['namespace']}.svc"


def test_a_missing_account_is_a_sentence() -> None:
    with pytest.raises(HelmError, match=r"serviceAccount\.name is needed"):
        template({"serviceAccount": {"create": False}})


@pytest.mark.proves("K11")
def test_the_crd_stays_when_the_release_goes_unless_somebody_asks() -> None:
    name = "CustomResourceDefinition/ragdeployments.ragkube.dev"
    kept = by_name(template())[name]["metadata"]["annotations"]
    assert kept == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in by_name(template({"crds": {"keep": False}}))[name]["metadata"]


def test_both_charts_pass_lint_and_have_the_version_of_the_package(repository: Any) -> None:
    helm("lint", "--strict", CHART, DEPLOYMENT_CHART)
    project = (repository / "pyproject.toml").read_text()
    for chart in (CHART, DEPLOYMENT_CHART):
        found = yaml.safe_load((chart / "Chart.yaml").read_text())
        assert f'version = "{found["version"]}"' in project
        assert found["appVersion"] == found["version"]


SAMPLES = sorted((REPOSITORY / "manifests" / "samples").glob("*.yaml"))


@pytest.mark.proves("K11")
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_values_become_exactly_the_spec_of_a_sample(sample: Any) -> None:
    spec = yaml.safe_load(sample.read_text())["spec"]
    (made,) = template({"spec": spec}, chart=DEPLOYMENT_CHART, release="docs", namespace="team-a")
    assert made["spec"] == spec
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("docs", "team-a")


@pytest.mark.proves("K11")
@pytest.mark.parametrize(
    "values",
    [
        {"spec": {"api": {"replicas": "two"}}},
        {"spec": {"apis": {}}},
        {"spec": {"api": {"replica": 2}}},
        {"spec": []},
        {"name": 7},
        {"keep": "yes"},
        {"labels": {"a": 1}},
    ],
)
def test_a_wrong_spec_is_refused_before_anything_is_sent(values: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match="specifications of the schema"):
        template(values, chart=DEPLOYMENT_CHART)


def test_name_labels_annotations_and_keep_of_the_deployment_chart() -> None:
    values = {"name": "other", "labels": {"team": "a"}, "annotations": {"note": "b"}, "keep": True}
    (made,) = template(values, chart=DEPLOYMENT_CHART)
    meta = made["metadata"]
    assert meta["name"] == "other"
    assert meta["labels"]["team"] == "a"
    assert meta["annotations"] == {"helm.sh/resource-policy": "keep", "note": "b"}
