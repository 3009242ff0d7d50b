"""Manifests are checked in Python by the rules and in the words of the API server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkube_operator import crd
from ragkube_operator.crd.base import Part, amount, seconds
from ragkube_operator.crd.rules import Rule
from ragkube_operator.crd.schema import structural
from ragkube_operator.crd.spec import NAME_RULE, RagDeploymentSpec
from support.crd_cases import ACCEPTED, REFUSED, Accepted, Refused, manifest

pytestmark = pytest.mark.proves("K2")


def _old(case: Refused | Accepted) -> dict[str, Any] | None:
    return None if case.before is None else manifest(case, case.before)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_a_wrong_manifest_is_refused_with_field_value_and_reason(case: Refused) -> None:
    with pytest.raises(crd.SpecError) as refusal:
        crd.parse(manifest(case), old=_old(case))
    assert case.line in str(refusal.value).splitlines()


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.id)
def test_a_right_manifest_is_accepted(case: Accepted) -> None:
    crd.parse(manifest(case), old=_old(case))


def _models(base: type[Part] = Part) -> list[type[Part]]:
    return [found for child in base.__subclasses__() for found in (child, *_models(child))]


def _rules() -> list[Rule]:
    return [NAME_RULE, *(rule for model in _models() for rule in model.rules)]


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: rule.message[:40])
def test_every_rule_has_a_manifest_that_it_refuses(rule: Rule) -> None:
    assert [case for case in REFUSED if case.line.endswith(rule.message)]


def test_every_problem_is_reported_at_once() -> None:
    spec = {"api": {"replicas": 0, "logLevel": "x"}, "llm": {"kind": "Extractive"}}
    with pytest.raises(crd.SpecError) as refusal:
        crd.parse(manifest(Accepted("x", spec)))
    found = {problem.path: problem for problem in refusal.value.problems}
    assert set(found) == {"spec.api.replicas", "spec.api.logLevel", "spec.llm.kind"}
    assert found["spec.api.replicas"].value == 0


def _problems(wanted: dict[str, Any]) -> list[str]:
    """Any other exception than ``SpecError`` fails the test."""
    try:
        crd.parse(wanted)
    except crd.SpecError as refusal:
        return [str(problem) for problem in refusal.problems]
    return []


def test_a_date_without_quotes_is_a_text_as_for_kubectl() -> None:
    spec = yaml.safe_load("{llm: {type: Anthropic, anthropic: {model: 2026-01-31, baseUrl: 'http://x'}}}")
    found = crd.parse(manifest(Accepted("x", spec))).spec.llm.anthropic
    assert found is not None
    assert found.model == "2026-01-31"


_WORDS = st.sampled_from(
    ["apiVersion", "kind", "metadata", "name", "spec", "api", "replicas", "cache", "redis", "managed", "external",
     "type", "documents", "sources", "directory", "volume", "resources", "requests", "External", "docs", "1Gi", "5m"]
)  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | _WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_WORDS | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_WORDS, _JSON, max_size=5), st.dictionaries(_WORDS, _JSON, max_size=5))
def test_whatever_stands_in_a_file_is_answered_with_sentences(
    top: dict[str, Any], spec: dict[str, Any]
) -> None:
    _problems(top)
    _problems(manifest(Accepted("x", spec)))


def test_defaults_are_filled_in() -> None:
    spec = crd.parse(manifest(Accepted("x"))).spec
    assert (
        spec.api.replicas,
        spec.cache.redis.server.shards,
        spec.cache.redis.server.replicas_per_shard,
    ) == (2, 3, 1)
    assert spec.vector_store.weaviate.server.storage.size == "10Gi"
    assert spec.deletion_policy == "Delete"


def _objects(schema: dict[str, Any], path: str = "spec") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, child in schema.get("properties", {}).items():
        found += _objects(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += _objects(schema[key], f"{path}[]")
    return found


def test_every_field_is_described_for_kubectl_explain() -> None:
    undocumented = [
        f"{path}.{name}"
        for path, schema in _objects(structural(RagDeploymentSpec))
        for name, child in schema.get("properties", {}).items()
        if not child.get("description")
    ]
    assert undocumented == []


def test_every_list_text_and_map_is_bounded() -> None:
    """The API server refuses rules over unbounded values."""
    schema = structural(RagDeploymentSpec)
    assert [p for p, s in _objects(schema) if s.get("type") == "array" and "maxItems" not in s] == []
    assert [p for p, s in _objects(schema) if "additionalProperties" in s and "maxProperties" not in s] == []


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800)])
def test_durations(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), ("500m", 0.5), ("1.5Gi", 1.5 * 2**30), ("2M", 2e6), ("0.5Ki", 512)]
)
def test_quantities(text: str, expected: float) -> None:
    assert float(amount(text)) == expected


SAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_is_valid(sample: Path) -> None:
    crd.parse(yaml.safe_load(sample.read_text()))


@pytest.mark.proves("K1")
def test_the_minimal_sample_has_ten_lines(repository: Path) -> None:
    lines = (repository / "manifests" / "samples" / "minimal.yaml").read_text().splitlines()
    assert len(lines) <= 10


def _leaves(schema: dict[str, Any], path: str = "") -> set[str]:
    if "properties" in schema.get("items", {}) and not path.endswith(".tolerations"):
        return _leaves(schema["items"], path)
    if "properties" not in schema:
        return {path}
    return {leaf for name, child in schema["properties"].items() for leaf in _leaves(child, f"{path}.{name}")}


def _given(value: Any, path: str = "") -> set[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {path} | {leaf for item in value for leaf in _given(item, path)}
    if not isinstance(value, dict):
        return {path}
    return {path} | {leaf for name, child in value.items() for leaf in _given(child, f"{path}.{name}")}


def test_the_full_and_external_samples_show_every_field(repository: Path) -> None:
    samples = [
        yaml.safe_load((repository / "manifests" / "samples" / f"{name}.yaml").read_text())
        for name in ("full", "external")
    ]
    shown = set().union(*(_given(sample["spec"]) for sample in samples))
    missing = _leaves(structural(RagDeploymentSpec)) - shown
    assert missing == set()
