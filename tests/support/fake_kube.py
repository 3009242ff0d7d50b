"""An API server in memory with just enough server-side apply for unit tests of the engine."""

# ruff: noqa: ARG002  # the signatures are the real client's
from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any

from ragkube_operator.errors import KubeError
from ragkube_operator.kube import Kind, Manifest


class FakeKube:
    """Keeps objects, counts writes, and lets tests refuse or mangle what is applied."""

    def __init__(self, missing: Iterable[Kind] = ()) -> None:
        self.objects: dict[tuple[Kind, str], Manifest] = {}
        self.writes: list[str] = []
        self.missing = set(missing)
        self.refusals: dict[str, KubeError] = {}
        self.defaults: dict[str, Any] = {}
        self._uids = itertools.count(1)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        found = self.objects.get((kind, name))
        return copy.deepcopy(found) if found else None

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> list[Manifest]:
        key, _, value = selector.partition("=")
        return [
            copy.deepcopy(item)
            for (found, _), item in self.objects.items()
            if found == kind and (not key or (item["metadata"].get("labels") or {}).get(key) == value)
        ]

    async def apply(self, manifest: Manifest, *, subresource: str = "", manager: str = "") -> Manifest:
        kind, name = Kind.of(manifest), manifest["metadata"]["name"]
        self.writes.append(f"apply {kind.kind}/{name}")
        if name in self.refusals:
            raise self.refusals[name]
        before = self.objects.get((kind, name))
        if manager and before:
            before["metadata"].setdefault("annotations", {}).update(manifest["metadata"]["annotations"])
            before["spec"].update(manifest["spec"])
            return copy.deepcopy(before)
        live = copy.deepcopy(manifest)
        live["metadata"]["uid"] = before["metadata"]["uid"] if before else f"uid-{next(self._uids)}"
        live.setdefault("spec", {}).update(copy.deepcopy(self.defaults))
        self.objects[kind, name] = live
        return copy.deepcopy(live)

    async def create(self, manifest: Manifest) -> Manifest:
        self.writes.append(f"create {manifest['kind']}/{manifest['metadata']['name']}")
        live = copy.deepcopy(manifest)
        live["metadata"] |= {"uid": f"uid-{next(self._uids)}", "resourceVersion": "1"}
        self.objects[Kind.of(manifest), manifest["metadata"]["name"]] = live
        return copy.deepcopy(live)

    async def merge(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        self.writes.append(f"patch {kind.kind}/{name}")
        live = self.objects[kind, name]
        live.setdefault("data", {}).update(change.get("data") or {})
        return copy.deepcopy(live)

    async def delete(self, manifest: Manifest) -> None:
        kind, name = Kind.of(manifest), manifest["metadata"]["name"]
        self.writes.append(f"delete {kind.kind}/{name}")
        self.objects.pop((kind, name), None)

    async def serves(self, kind: Kind) -> bool:
        return kind not in self.missing
