"""What the workloads of monitoring have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.common import Placement
from ragkube_operator.render import names, pods
from ragkube_operator.render.pods import Manifest

# the rules are rendered in every pass: the same text in a tenth of the time where libyaml is there
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def text(value: Any) -> str:
    """YAML for a program's configuration."""
    return yaml.dump(value, Dumper=_DUMPER, sort_keys=False, width=1000, allow_unicode=True)


def port(name: str, number: int) -> Manifest:
    """A port of a container."""
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def service(deployment: RagDeployment, name: str, component: names.Component, number: int) -> Manifest:
    """A Service with the port ``http``."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.metadata(deployment, name, component),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector(deployment.name, component),
            "ports": [{"name": "http", "port": number, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def single(
    deployment: RagDeployment,
    name: str,
    component: names.Component,
    *,
    placement: Placement,
    user: int,
    container: Manifest,
    volumes: Sequence[Manifest],
    annotations: dict[str, str],
) -> Manifest:
    """A Deployment of one pod that keeps nothing; the old one ends first."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": pods.metadata(deployment, name, component),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": 300,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": names.selector(deployment.name, component)},
            "template": pods.template(
                deployment,
                component,
                placement=placement,
                user=user,
                annotations=annotations,
                spec={
                    "terminationGracePeriodSeconds": 30,
                    "containers": [container],
                    "volumes": list(volumes),
                },
            ),
        },
    }
