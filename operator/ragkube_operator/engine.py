"""Makes the cluster hold exactly the desired manifests: apply in rank order, repair drift, prune last."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import structlog

from ragkube_operator import drift
from ragkube_operator.errors import KubeError, StalledError
from ragkube_operator.kube import Kind, Manifest
from ragkube_operator.render.rendering import RANK

log = structlog.get_logger(__name__)

OWNER_LABEL = "ragkube.dev/owner-uid"
HASH_ANNOTATION = "ragkube.dev/applied-hash"

_INSTANCE = "app.kubernetes.io/instance"
_FORMERLY_OURS = {"app.kubernetes.io/managed-by": "ragkube"}

SERVICE_ACCOUNT = Kind("v1", "ServiceAccount")
CONFIG_MAP = Kind("v1", "ConfigMap")
SECRET = Kind("v1", "Secret")
SERVICE = Kind("v1", "Service")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget")
STATEFUL_SET = Kind("apps/v1", "StatefulSet")
DEPLOYMENT = Kind("apps/v1", "Deployment")
POD_AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding")
POD_MONITOR = Kind("monitoring.coreos.com/v1", "PodMonitor")
SERVICE_MONITOR = Kind("monitoring.coreos.com/v1", "ServiceMonitor")
PROMETHEUS_RULE = Kind("monitoring.coreos.com/v1", "PrometheusRule")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject")
POD = Kind("v1", "Pod")
VOLUME_CLAIM = Kind("v1", "PersistentVolumeClaim")

# every kind we ever apply
RANKED_KINDS = (
    SERVICE_ACCOUNT,
    ROLE,
    ROLE_BINDING,
    CONFIG_MAP,
    NETWORK_POLICY,
    SERVICE,
    DISRUPTION_BUDGET,
    STATEFUL_SET,
    DEPLOYMENT,
    POD_AUTOSCALER,
)
# kinds of other operators, which a cluster need not have
OPTIONAL_KINDS = (SCALED_OBJECT, POD_MONITOR, SERVICE_MONITOR, PROMETHEUS_RULE)


class Ref(NamedTuple):
    """One object within the resource's namespace."""

    kind: Kind
    name: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Ref:
        """The reference of a manifest."""
        return cls(Kind.of(manifest), manifest["metadata"]["name"])

    def __str__(self) -> str:
        """As kubectl prints it."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class Owner:
    """The RagDeployment that everything belongs to."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, resource: Mapping[str, Any]) -> Owner:
        """The owner that a live resource is."""
        meta = resource["metadata"]
        return cls(resource["apiVersion"], resource["kind"], meta["namespace"], meta["name"], meta["uid"])

    def reference(self) -> dict[str, Any]:
        """The owner reference; it does not block a foreground deletion."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }

    @property
    def selector(self) -> str:
        """Finds everything that was stamped for this owner."""
        return f"{OWNER_LABEL}={self.uid}"


class Client(Protocol):
    """What the engine needs of the Kubernetes client."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The live object, or None."""

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> list[Manifest]:
        """The live objects that carry the labels."""

    async def apply(self, manifest: Manifest, *, subresource: str = "", manager: str = "ragkube") -> Manifest:
        """Server-side apply."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create."""

    async def delete(self, manifest: Manifest) -> None:
        """Delete."""

    async def serves(self, kind: Kind) -> bool:
        """Whether the cluster has this kind."""


@dataclass
class Outcome:
    """What the cluster holds after a pass, and what the pass wrote."""

    live: dict[Ref, Manifest] = field(default_factory=dict)
    applied: list[Ref] = field(default_factory=list)
    pruned: list[Ref] = field(default_factory=list)
    skipped: list[Ref] = field(default_factory=list)

    def find(self, kind: Kind, name: str) -> Manifest | None:
        """A live object of the resource."""
        return self.live.get(Ref(kind, name))


def stamp(manifest: Manifest, owner: Owner) -> Manifest:
    """The manifest with namespace, owner, prune label and fingerprint."""
    result = copy.deepcopy(manifest)
    meta = result["metadata"]
    meta["namespace"] = owner.namespace
    meta.setdefault("labels", {})[OWNER_LABEL] = owner.uid
    meta["ownerReferences"] = [owner.reference()]
    meta.setdefault("annotations", {})[HASH_ANNOTATION] = drift.digest(result)
    return result


def owned(live: Mapping[str, Any], owner: Owner) -> bool:
    """Whether the live object names the owner as its own."""
    return any(r["uid"] == owner.uid for r in live["metadata"].get("ownerReferences") or [])


def claim(live: Mapping[str, Any], owner: Owner, kind: Kind) -> None:
    """Make sure that an object that exists already may become ours.

    Raises:
        KubeError: it belongs to the former resource of this name and is about to be collected.
        StalledError: it is somebody else's.
    """
    meta = live["metadata"]
    references = meta.get("ownerReferences") or []
    if owned(live, owner):
        return
    if any((r["kind"], r["name"]) == (owner.kind, owner.name) for r in references):
        text = f"{kind.kind} {meta['name']} of the former {owner.kind} of this name is still being deleted"
        raise KubeError(409, "Conflict", text)
    labels = meta.get("labels") or {}
    if not references and _FORMERLY_OURS.items() <= labels.items() and labels.get(_INSTANCE) == owner.name:
        return  # deleted with --cascade=orphan, or restored from a backup
    raise StalledError(
        "NameConflict",
        f"{kind.kind} {owner.namespace}/{meta['name']} exists and does not belong to this RagDeployment: "
        "delete or rename it, or give the RagDeployment another name",
    )


def rank(manifest: Mapping[str, Any]) -> int:
    """Where a manifest stands in the order of applying; unknown kinds come last."""
    return _place(Kind.of(manifest))


def _place(kind: Kind) -> int:
    return RANK.index(kind.kind) if kind.kind in RANK else len(RANK)


class Engine:
    """Converges one resource at a time; keeps nothing that a restart could lose."""

    def __init__(self, client: Client) -> None:
        self._client = client
        # what the API server made of our manifests beyond what drift.py knows, so that we never fight over it
        self._accepted: dict[str, tuple[str, dict[drift.Path, Any]]] = {}

    async def converge(
        self,
        owner: Owner,
        manifests: Iterable[Manifest],
        *,
        held: frozenset[Ref] = frozenset(),
        live: dict[Ref, Manifest] | None = None,
    ) -> Outcome:
        """Write what differs, then prune; ``held`` objects are neither written nor pruned.

        ``live`` is what ``observe`` found, when it was asked just before.

        Raises:
            StalledError: the API server refuses an object until somebody changes something;
                everything else was applied, nothing was pruned.
            KubeError: a passing failure; the next pass goes on from there.
        """
        outcome = Outcome(live=await self.observe(owner) if live is None else live)
        wanted: set[Ref] = set()
        stalled: StalledError | None = None
        for manifest in sorted((stamp(m, owner) for m in manifests), key=rank):
            ref = Ref.of(manifest)
            wanted.add(ref)
            try:
                await self._converge_one(ref, manifest, owner, outcome, held)
            except StalledError as error:
                stalled = stalled or error
        if stalled:
            raise stalled
        await self._prune(owner, wanted | held, outcome)
        return outcome

    async def observe(self, owner: Owner) -> dict[Ref, Manifest]:
        """Every live object that carries the owner's label."""
        lists = await asyncio.gather(*(self._list(kind, owner) for kind in await self._kinds()))
        return {Ref.of(item): item for items in lists for item in items}

    async def _list(self, kind: Kind, owner: Owner) -> list[Manifest]:
        try:
            return await self._client.list(kind, owner.namespace, owner.selector)
        except KubeError as error:
            if error.not_found and kind in OPTIONAL_KINDS:
                return []  # its CustomResourceDefinition was removed, and with it every object
            raise

    async def _kinds(self) -> list[Kind]:
        """Every kind that may have objects of ours in this cluster."""
        return [*RANKED_KINDS, *[kind for kind in OPTIONAL_KINDS if await self._client.serves(kind)]]

    async def _converge_one(
        self, ref: Ref, manifest: Manifest, owner: Owner, outcome: Outcome, held: frozenset[Ref]
    ) -> None:
        if ref in held:
            return
        if ref.kind not in RANKED_KINDS and not await self._client.serves(ref.kind):
            outcome.skipped.append(ref)
            return
        live = outcome.live.get(ref)
        if live is None:
            live = await self._adopt(ref, owner)
        if live is not None and not self._differs(manifest, live):
            outcome.live[ref] = live
            return
        outcome.live[ref] = await self._apply(ref, manifest)
        outcome.applied.append(ref)
        log.info("applied", object=str(ref), namespace=owner.namespace, owner=owner.name)

    async def _adopt(self, ref: Ref, owner: Owner) -> Manifest | None:
        """An object of that name without our label: ours when its owner says so, else somebody's."""
        found = await self._client.get(ref.kind, owner.namespace, ref.name)
        if found is not None:
            claim(found, owner, ref.kind)
        return found

    def _differs(self, manifest: Manifest, live: Manifest) -> bool:
        if live["metadata"].get("deletionTimestamp"):
            return False  # created again by the pass that its deletion wakes
        fingerprint, accepted = self._accepted.get(live["metadata"]["uid"], ("", {}))
        known = accepted if fingerprint == _fingerprint(manifest) else {}
        missing = object()
        return any(known.get(path, missing) != value for path, value in drift.differences(manifest, live))

    async def _apply(self, ref: Ref, manifest: Manifest) -> Manifest:
        try:
            live = await self._client.apply(manifest)
        except KubeError as error:
            raise _explain(ref, manifest, error) from error
        left = dict(drift.differences(manifest, live))
        if left:
            self._accepted[live["metadata"]["uid"]] = (_fingerprint(manifest), left)
        return live

    async def _prune(self, owner: Owner, wanted: set[Ref], outcome: Outcome) -> None:
        leftovers = [ref for ref in outcome.live if ref not in wanted]
        for ref in sorted(leftovers, key=lambda ref: _place(ref.kind), reverse=True):
            if not owned(outcome.live[ref], owner):
                continue  # made by another operator, which copies labels: KEDA's autoscaler
            live = outcome.live.pop(ref)
            if live["metadata"].get("deletionTimestamp"):
                continue
            await self._client.delete(live)
            outcome.pruned.append(ref)
            log.info("pruned", object=str(ref), namespace=owner.namespace, owner=owner.name)


def _fingerprint(manifest: Manifest) -> str:
    return str(manifest["metadata"]["annotations"][HASH_ANNOTATION])


def _explain(ref: Ref, manifest: Manifest, error: KubeError) -> KubeError | StalledError:
    if not error.terminal:
        return error
    where = f"{ref.kind.kind} {manifest['metadata']['namespace']}/{ref.name}"
    if error.status == 422 and ("immutable" in error.message or "updates to statefulset" in error.message):
        resource = ref.kind.kind.lower()
        command = (
            f"kubectl delete {resource} {ref.name} -n {manifest['metadata']['namespace']} --cascade=orphan"
        )
        return StalledError(
            "ImmutableField",
            f"{where} cannot be changed in place ({error.message}): undo the change, or run "
            f"`{command}` and the operator creates it again around the running pods",
        )
    return StalledError("Refused", f"the API server refuses {where}: {error.message}")
