"""The pool of local volumes of our own cluster.

hostPath volumes ignore fsGroup, so a Redis with uid 999 could not write: `local` volumes honour it. A Released volume is
never bound again: between tests it is wiped and made anew.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PER_NODE = 24
_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}


def volume(root: Path, node: str, name: str) -> dict[str, Any]:
    match = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "standard",
            "local": {"path": str(root / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [match]}]}},
        },
    }


def pool(root: Path, nodes: Iterable[str], per_node: int = PER_NODE) -> str:
    """Make the directories; the objects to apply."""
    names = [(node, f"{node}-{index:02}") for node in nodes for index in range(1, per_node + 1)]
    for _, name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
    return as_list([_CLASS, *(volume(root, node, name) for node, name in names)])


def released(listing: str) -> list[tuple[str, str]]:
    """(node, name) of the volumes whose claim is gone."""
    gone = [
        item for item in json.loads(listing)["items"] if item.get("status", {}).get("phase") == "Released"
    ]
    return [(item["metadata"]["name"].rpartition("-")[0], item["metadata"]["name"]) for item in gone]


def wipe(root: Path, names: Iterable[str]) -> None:
    for name in names:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)


def as_list(items: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
