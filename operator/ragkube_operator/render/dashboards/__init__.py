"""The dashboards: generated JSON files beside this module, completed with the deployment that they show.

``hack/dashboards`` makes them; the operator needs no Grafana library.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Final

from ragkube_operator.crd import RagDeployment
from ragkube_operator.render import names, pods
from ragkube_operator.render.pods import Manifest

NAMES: Final = ("platform", "cache", "cost", "ingestion", "operator")
NAMESPACE: Final = "@NAMESPACE@"
DEPLOYMENT: Final = "@DEPLOYMENT@"
IDENTITY: Final = "@IDENTITY@"
"""What a file has in the place of namespace, name and a short text that no other deployment has."""


def config_maps(deployment: RagDeployment, labels: dict[str, str]) -> list[Manifest]:
    """One ConfigMap for each dashboard, with ``labels`` beside our own."""
    found = []
    for board in NAMES:
        data = {f"{deployment.namespace}-{deployment.name}-{board}.json": content(deployment, board)}
        manifest = pods.config_map(deployment, names.dashboard(deployment.name, board), "grafana", data)
        manifest["metadata"]["labels"] = {**labels, **manifest["metadata"]["labels"]}
        found.append(manifest)
    return found


def content(deployment: RagDeployment, board: str) -> str:
    """A dashboard of the deployment; several of them get on in one Grafana."""
    identity = pods.digest([deployment.namespace, deployment.name])
    return (
        _file(board)
        .replace(NAMESPACE, deployment.namespace)
        .replace(DEPLOYMENT, deployment.name)
        .replace(IDENTITY, identity)
    )


@functools.cache
def _file(board: str) -> str:
    return resources.files(__name__).joinpath(f"{board}.json").read_text()
