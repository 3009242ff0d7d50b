"""The worker that keeps the index up with the sources; it runs only where there are any."""

from __future__ import annotations

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.documents import Source, SourceVolume
from ragkube_operator.render import api, names, pods
from ragkube_operator.render.context import Context
from ragkube_operator.render.pods import Manifest
from ragkube_operator.render.settings import SOURCES


def objects(deployment: RagDeployment, context: Context) -> list[Manifest]:
    """The Deployment of the worker, or nothing."""
    if not deployment.spec.documents.sources:
        return []
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": pods.metadata(deployment, names.worker(deployment.name), "worker"),
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 3,
                "progressDeadlineSeconds": 300,
                # Two workers would read every source twice.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": names.selector(deployment.name, "worker")},
                "template": _template(deployment, context),
            },
        }
    ]


def _template(deployment: RagDeployment, context: Context) -> Manifest:
    mounted = [source for source in deployment.spec.documents.sources if source.directory.volume is not None]
    container = api.base_container(deployment, context, "worker", deployment.spec.workers.resources)
    container["args"] = ["worker"]
    container["volumeMounts"] += [
        {"name": _volume_name(s), "mountPath": f"{SOURCES}/{s.name}", "readOnly": True} for s in mounted
    ]
    return pods.template(
        deployment,
        "worker",
        placement=deployment.spec.workers,
        user=api.USER,
        annotations=api.settings_hash(deployment),
        spec={
            "terminationGracePeriodSeconds": api.grace_period(deployment),
            "containers": [container],
            "volumes": [*api.base_volumes(deployment), *(_volume(s) for s in mounted)],
        },
    )


def _volume_name(source: Source) -> str:
    return f"source-{source.name}"


def _volume(source: Source) -> Manifest:
    return {"name": _volume_name(source), **_origin(source.directory.volume or SourceVolume())}


def _origin(volume: SourceVolume) -> Manifest:
    if volume.persistent_volume_claim is not None:
        claim = volume.persistent_volume_claim.claim_name
        return {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return {"configMap": {"name": volume.config_map.name if volume.config_map is not None else ""}}
