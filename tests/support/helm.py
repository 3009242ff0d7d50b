"""Helm as users run it, with homes of its own, and the cases of values that the chart is tested with."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml

from support.processes import REPOSITORY, tool

CHART = REPOSITORY / "charts" / "ragkube"
DEPLOYMENT_CHART = REPOSITORY / "charts" / "ragkube-deployment"
NAMESPACE = "ragkube-system"
Values = dict[str, Any]

_TOLERATION = {"key": "dedicated", "operator": "Exists"}
_AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]
        }
    }
}
CASES: dict[str, Values] = {
    "image.repository": {"image": {"repository": "registry.example/op"}},
    "image.tag": {"image": {"tag": "9.9.9"}},
    "image.digest": {"image": {"digest": "sha256:" + "a" * 64}},
    "image.pullPolicy": {"image": {"pullPolicy": "Always"}},
    "apiImage.repository": {"apiImage": {"repository": "registry.example/api"}},
    "apiImage.tag": {"apiImage": {"tag": "8.8.8"}},
    "apiImage.digest": {"apiImage": {"digest": "sha256:" + "b" * 64}},
    "imagePullSecrets": {"imagePullSecrets": [{"name": "pull"}]},
    "replicas": {"replicas": 3},
    "watchNamespaces": {"watchNamespaces": ["team-a", "team-b"]},
    "logLevel": {"logLevel": "debug"},
    "crds.enabled": {"crds": {"enabled": False}},
    "crds.keep": {"crds": {"keep": False}},
    "rbac.create": {"rbac": {"create": False}},
    "rbac.scope": {"rbac": {"scope": "Namespaced"}},
    "rbac.userRoles": {"rbac": {"userRoles": False}},
    "serviceAccount.create": {"serviceAccount": {"create": False, "name": "mine"}},
    "serviceAccount.name": {"serviceAccount": {"name": "mine"}},
    "serviceAccount.annotations": {"serviceAccount": {"annotations": {"role": "arn"}}},
    "podDisruptionBudget.enabled": {"podDisruptionBudget": {"enabled": False}},
    "resources": {"resources": {"limits": {"memory": "1Gi"}}},
    "fullnameOverride": {"fullnameOverride": "other"},
    "labels": {"labels": {"team": "search"}},
    "podLabels": {"podLabels": {"team": "search"}},
    "podAnnotations": {"podAnnotations": {"note": "text"}},
    "env": {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]},
    "nodeSelector": {"nodeSelector": {"kubernetes.io/os": "linux"}},
    "tolerations": {"tolerations": [_TOLERATION]},
    "affinity": {"affinity": _AFFINITY},
    "priorityClassName": {"priorityClassName": "system-cluster-critical"},
    "service.annotations": {"service": {"annotations": {"note": "text"}}},
    "serviceMonitor.enabled": {"serviceMonitor": {"enabled": True}},
    "serviceMonitor.interval": {"serviceMonitor": {"enabled": True, "interval": "7s"}},
    "serviceMonitor.labels": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "sample.enabled": {"sample": {"enabled": True}},
    "sample.name": {"sample": {"enabled": True, "name": "docs"}},
    "sample.spec": {"sample": {"enabled": True, "spec": {"api": {"replicas": 1}}}},
}
"""For every value of the chart one that differs from its default."""


class HelmError(RuntimeError):
    """Helm ended with an error."""


@cache
def _home() -> str:
    return mkdtemp(prefix="helm-")


def helm(*arguments: str | Path, values: Values | None = None, kubeconfig: Path | None = None) -> str:
    """Run helm; its output.

    Raises:
        HelmError: with what it said.
    """
    env = {**os.environ, "HELM_CACHE_HOME": _home(), "HELM_CONFIG_HOME": _home(), "HELM_DATA_HOME": _home()}
    env["KUBECONFIG"] = str(kubeconfig or Path(_home()) / "none")
    command = [str(tool("helm")), *map(str, arguments), *(("--values", "-") if values is not None else ())]
    done = subprocess.run(
        command, input=json.dumps(values), env=env, capture_output=True, text=True, check=False, timeout=400
    )
    if done.returncode:
        raise HelmError(f"helm {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def template(
    values: Values | None = None,
    *options: str,
    chart: Path = CHART,
    release: str = "ragkube",
    namespace: str = NAMESPACE,
) -> list[dict[str, Any]]:
    """The objects that the chart makes of these values."""
    text = helm("template", release, chart, "-n", namespace, *options, values=values or {})
    return [document for document in yaml.safe_load_all(text) if document]


def by_name(objects: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """``Kind/name`` -> object."""
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in objects}
