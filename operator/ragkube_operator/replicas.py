"""Who decides how many API pods run: the spec when its number changes, otherwise whoever scales the Deployment.

The Deployment is applied without ``replicas``, because an applier that owns the field would undo every autoscaler and every
``kubectl scale``. The number is written by a field manager of its own, together with an annotation that says which number of the
spec it stands for. An object that was applied with ``replicas`` by an older operator keeps its pods: the number has its second
owner before the first one lets go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from ragkube_operator.crd import RagDeployment
from ragkube_operator.engine import DEPLOYMENT, Owner, Ref, owned
from ragkube_operator.kube import Manifest
from ragkube_operator.render import names

ANNOTATION: Final = "ragkube.dev/replicas"
MANAGER: Final = "ragkube-replicas"


class Client(Protocol):
    """What is needed of the Kubernetes client."""

    async def apply(self, manifest: Manifest, *, subresource: str = "", manager: str = "ragkube") -> Manifest:
        """Server-side apply."""


def without_count(manifest: Manifest, deployment: RagDeployment) -> Manifest:
    """The manifest as it is applied: the API's Deployment says nothing of its number of pods."""
    if Ref.of(manifest) != Ref(DEPLOYMENT, names.api(deployment.name)):
        return manifest
    return {**manifest, "spec": {k: v for k, v in manifest["spec"].items() if k != "replicas"}}


def initial(deployment: RagDeployment) -> int:
    """What a new Deployment starts with."""
    autoscaling, wanted = deployment.spec.autoscaling, deployment.spec.api.replicas
    if not autoscaling.enabled:
        return wanted
    return min(max(wanted, autoscaling.min_replicas), autoscaling.max_replicas)


def to_write(deployment: RagDeployment, live: Mapping[str, Any]) -> int | None:
    """The number of pods that has to be written, or None when it is somebody else's to decide."""
    noted = (live["metadata"].get("annotations") or {}).get(ANNOTATION)
    if noted == str(deployment.spec.api.replicas):
        return None
    scaled, running = deployment.spec.autoscaling.enabled, int(live["spec"].get("replicas", 1))
    if noted is None:
        return max(running, initial(deployment)) if scaled else initial(deployment)
    # a number that changes while the autoscaler owns it is noted, so that it does not come back when that goes
    return running if scaled else deployment.spec.api.replicas


async def settle(client: Client, deployment: RagDeployment, owner: Owner, live: dict[Ref, Manifest]) -> None:
    """Write the number of pods where it has to be; ``live`` then has the new object."""
    ref = Ref(DEPLOYMENT, names.api(deployment.name))
    found = live.get(ref)
    if found is None or found["metadata"].get("deletionTimestamp") or not owned(found, owner):
        return
    count = to_write(deployment, found)
    if count is None:
        return
    meta = {field: found["metadata"][field] for field in ("name", "namespace", "uid")}
    change = {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": {**meta, "annotations": {ANNOTATION: str(deployment.spec.api.replicas)}},
        "spec": {"replicas": count},
    }
    live[ref] = await client.apply(change, manager=MANAGER)
