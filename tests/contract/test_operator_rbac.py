"""The operator's rights are exactly what its code touches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ragkube_operator.crd import GROUP, PLURAL
from ragkube_operator.engine import OPTIONAL_KINDS, POD, RANKED_KINDS, SECRET, VOLUME_CLAIM
from ragkube_operator.handlers import CHILDREN
from ragkube_operator.kube import Kind
from ragkube_operator.leader import LEASE

Right = tuple[str, str, str]


def plural(kind: Kind) -> tuple[str, str]:
    name = kind.kind.lower()
    return kind.group, f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def needed() -> set[Right]:
    owned = {plural(kind) for kind in (*RANKED_KINDS, *OPTIONAL_KINDS)}
    rights = {
        (*resource, verb) for resource in owned for verb in ("get", "list", "create", "patch", "delete")
    }
    rights |= {(group, name, verb) for group, name in CHILDREN for verb in ("list", "watch")}
    rights |= {(GROUP, PLURAL, verb) for verb in ("get", "list", "watch")}
    rights |= {(GROUP, f"{PLURAL}/status", "patch"), ("", "events", "create")}
    rights |= {(*plural(SECRET), verb) for verb in ("get", "create", "patch")}
    # Prometheus finds pods: the API server lets nobody grant what he may not do himself
    rights |= {(*plural(POD), verb) for verb in ("get", "list", "watch")}
    return rights | {(*plural(VOLUME_CLAIM), "get")}


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def granted(role: dict[str, Any]) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.proves("S6")
def test_the_cluster_role_grants_what_the_code_touches_and_nothing_more(repository: Path) -> None:
    (role,) = documents(repository / "manifests" / "rbac" / "cluster-role.yaml")
    assert granted(role) == needed()


@pytest.mark.proves("S6", "K13")
def test_the_lease_is_granted_in_the_operators_namespace_only(repository: Path) -> None:
    role, binding = documents(repository / "manifests" / "rbac" / "lease-role.yaml")
    assert (role["kind"], binding["kind"]) == ("Role", "RoleBinding")
    assert role["metadata"]["namespace"] == "ragkube-system"
    assert granted(role) == {(*plural(LEASE), verb) for verb in ("get", "create", "patch")}


@pytest.mark.proves("S6")
def test_secrets_are_never_listed_and_nothing_is_a_wildcard(repository: Path) -> None:
    for path in (repository / "manifests" / "rbac").glob("*role*.yaml"):
        for role in documents(path):
            for group, resource, verb in granted(role) if "rules" in role else ():
                assert "*" not in (group, resource, verb)
                assert resource != "secrets" or verb in {"get", "create", "patch"}


def test_every_kind_that_is_applied_is_watched() -> None:
    assert {plural(kind) for kind in RANKED_KINDS} == set(CHILDREN)


@pytest.mark.proves("K12")
def test_the_kustomization_names_every_manifest_but_no_sample(repository: Path) -> None:
    root = repository / "manifests"
    (listed,) = documents(root / "kustomization.yaml")
    files = {
        str(path.relative_to(root))
        for folder in ("crd", "rbac", "operator")
        for path in (root / folder).glob("*.yaml")
    }
    assert set(listed["resources"]) == files


@pytest.mark.proves("S6")
def test_the_operators_pod_is_restricted(repository: Path) -> None:
    (deployment,) = documents(repository / "manifests" / "operator" / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["resources"]["limits"]["memory"] == "384Mi"
