"""The real API server accepts and refuses the same manifests as Python does, in the same words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.testbed.client import Kubectl, KubectlError, Namespaces, wait_for
from ragkube_operator import crd, render
from support.crd_cases import ACCEPTED, REFUSED, Accepted, Refused, manifest

pytestmark = [pytest.mark.level("api"), pytest.mark.proves("K2")]

SAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))
OPTIONAL = ("monitoring.coreos.com/", "keda.sh/")
DEFINITION = f"crd/{crd.PLURAL}.{crd.GROUP}"


@pytest.fixture(scope="module")
def installed(kubectl: Kubectl, repository: Path) -> Kubectl:
    """kubectl, with the generated CRD in place."""
    folder = str(repository / "manifests" / "crd")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
    kubectl("wait", "--for=condition=Established", DEFINITION, "--timeout=30s")
    wait_for(
        lambda: "ragd" in kubectl("api-resources", "--api-group=ragkube.dev"), 30, what="ragd to be served"
    )
    return kubectl


@pytest.fixture(scope="module")
def place(namespaces: Namespaces, installed: Kubectl) -> Iterator[str]:
    """A namespace for all tests of this module."""
    name = namespaces.create("crd")
    yield name
    namespaces.delete(name)


def _try(kubectl: Kubectl, place: str, case: Refused | Accepted) -> str:
    """What kubectl says to creating the object, or to changing the one that exists."""
    name = f"c-{case.id}"[:40].rstrip("-")
    wanted = manifest(case)
    if case.before is None:
        return _send(kubectl, place, wanted, "create", "--dry-run=server", "--validate=strict")
    for spec in (case.before, case.spec):
        wanted = manifest(case, {"paused": True, **spec})
        wanted["metadata"]["name"] = name
        # Server-side: an operator that runs here as well writes the status in between.
        message = _send(kubectl, place, wanted, "apply", "--server-side", "--validate=strict")
    return message


def _send(kubectl: Kubectl, place: str, wanted: dict[str, Any], *command: str) -> str:
    return kubectl("-n", place, *command, "-f", "-", input=json.dumps(wanted))


def _server_words(case: Refused) -> str:
    """The API server knows no better name for a misspelt field; Python adds one."""
    return case.line.split(": did you mean")[0] if case.line.startswith("unknown field") else case.line


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_the_api_server_refuses_it_in_the_same_words(installed: Kubectl, place: str, case: Refused) -> None:
    with pytest.raises(KubectlError) as refusal:
        _try(installed, place, case)
    assert _server_words(case) in str(refusal.value)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.id)
def test_the_api_server_accepts_it(installed: Kubectl, place: str, case: Accepted) -> None:
    _try(installed, place, case)


def test_both_fill_in_the_same_defaults(installed: Kubectl, place: str) -> None:
    for case in (Accepted("x"), Accepted("x", {"cache": {"redis": {"managed": {}}}})):
        wanted = manifest(case)
        answer = _send(installed, place, wanted, "create", "--dry-run=server", "-o", "json")
        assert crd.parse(json.loads(answer)).spec == crd.parse(wanted).spec


@pytest.mark.proves("K1")
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_applies(installed: Kubectl, place: str, sample: Path) -> None:
    said = installed("-n", place, "apply", "--dry-run=server", "--validate=strict", "-f", str(sample))
    assert "Warning" not in said


@pytest.mark.proves("K1", "S6")
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_everything_rendered_from_a_sample_is_taken_by_the_api_server(
    installed: Kubectl, place: str, sample: Path
) -> None:
    """Strictly (no unknown field), and its pods under Pod Security "restricted"."""
    source = yaml.safe_load(sample.read_text())
    source["metadata"]["namespace"] = place
    deployment = crd.parse(source)
    context = render.Context(api_image="ragkube/api:0.1.0", operator_version="0.1.0")
    # Kinds of operators that are not here have tests of their own, with their definitions.
    manifests = [m for m in render.render(deployment, context) if not m["apiVersion"].startswith(OPTIONAL)]
    pods = [_pod(m) for m in manifests if "template" in m.get("spec", {})]
    for wanted in [*manifests, *pods]:
        command = ("apply", "--server-side", "--dry-run=server", "--validate=strict")
        if wanted["kind"] == "Pod":
            # No admission plugin may add an account that is not there yet.
            wanted["spec"].pop("serviceAccountName")
        _send(installed, place, wanted, *command)


def _pod(owner: dict[str, Any]) -> dict[str, Any]:
    """A pod from the owner's template: Pod Security is enforced on pods only."""
    template = json.loads(json.dumps(owner["spec"]["template"]))
    claims = [claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])]
    template["spec"].setdefault("volumes", []).extend({"name": name, "emptyDir": {}} for name in claims)
    name, namespace = owner["metadata"]["name"], owner["metadata"]["namespace"]
    metadata = {**template["metadata"], "name": f"{name}-try", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def test_kubectl_explains_the_fields(installed: Kubectl) -> None:
    said = installed("explain", "ragd.spec.cache.redis.managed.shards")
    assert "Primaries; each holds a part of the keys." in said


@pytest.mark.proves("K4")
def test_the_columns_of_kubectl_get(installed: Kubectl, place: str) -> None:
    wanted = manifest(Accepted("x", {"paused": True}))
    wanted["metadata"]["name"] = "columns"
    _send(installed, place, wanted, "create")
    status = {
        "observedGeneration": 1,
        "url": "http://columns.x.svc",
        "apiImage": "ragkube/api:1",
        "api": {"replicas": 2, "ready": 2, "summary": "2/2"},
        "vectorStore": {"replicas": 1, "ready": 1, "summary": "Weaviate 1/1"},
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Ready", "message": "",
             "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}
        ],
    }  # fmt: skip
    patch = json.dumps({"status": status})
    write = ("patch", "ragd", "columns", "--subresource=status", "--type=merge", "-p", patch, "-o", "json")

    def printed() -> bool:
        """An operator that runs here as well may write its own status in between."""
        kept = json.loads(installed("-n", place, *write))["status"]
        header, row = installed("-n", place, "get", "ragd", "columns").splitlines()
        return (
            status.items() <= kept.items()
            and header.split() == ["NAME", "READY", "API", "STORE", "URL", "AGE"]
            and row.split()[:-1] == ["columns", "True", "2/2", "Weaviate", "1/1", "http://columns.x.svc"]
        )

    wait_for(printed, 20, what="the columns")
