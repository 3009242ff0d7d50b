"""One bounded pass over one RagDeployment: parse > render > converge > observe > report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog

from ragkube_operator import monitoring_part, replicas, scaling, status
from ragkube_operator.crd import API_VERSION, KIND, RagDeployment, SpecError, parse
from ragkube_operator.engine import (
    DEPLOYMENT,
    POD_AUTOSCALER,
    SCALED_OBJECT,
    Engine,
    Outcome,
    Owner,
    Ref,
    owned,
)
from ragkube_operator.errors import KubeError, StalledError
from ragkube_operator.kube import FIELD_MANAGER, Kind, Kube, Manifest
from ragkube_operator.metrics import Metrics
from ragkube_operator.observation import Observation, Observer, counts
from ragkube_operator.render import Context, generated_secrets, names, referenced_secrets, render
from ragkube_operator.secret_store import SecretStore, check
from ragkube_operator.status import Event, Facts, Part, Reason

log = structlog.get_logger(__name__)

RAG_DEPLOYMENT = Kind(API_VERSION, KIND)
_EVENT = "v1"

# seconds until the next look when nothing wakes us before
STEP_SECONDS = 0.3
WAITING_SECONDS = 2.0
PODS_SECONDS = 5.0
MISSING_SECONDS = 5.0
EXTERNAL_SECONDS = 20.0
SCALING_SECONDS = 15.0
ENGINE_SECONDS = 60.0
STALLED_SECONDS = 60.0
RESYNC_SECONDS = 300.0
_UNWATCHED = frozenset(
    {Reason.FORMING_CLUSTER, Reason.HEALING_CLUSTER, Reason.UNREACHABLE, Reason.AUTHENTICATION_FAILED}
)


@dataclass(frozen=True)
class Key:
    """One resource of one life: a re-created one has another uid."""

    namespace: str
    name: str
    uid: str


@dataclass
class Report:
    """What one pass found out and did."""

    facts: Facts
    again: float
    events: list[Event] = field(default_factory=list)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Reconciler:
    """Makes the cluster follow the spec, one pass at a time; keeps nothing between passes."""

    def __init__(
        self, kube: Kube, metrics: Metrics, context: Context, clock: Callable[[], str] = _now
    ) -> None:
        self._kube = kube
        self._metrics = metrics
        self._context = context
        self._clock = clock
        self._engine = Engine(kube)
        self._discovery = scaling.Discovery(kube)

    async def reconcile(self, key: Key) -> float | None:
        """Take one pass.

        Returns:
            Seconds until the next pass, or None when the resource is gone and nothing is left to do.

        Raises:
            KubeError: a passing failure; it stands in the status where that could be written.
        """
        live = await self._kube.get(RAG_DEPLOYMENT, key.namespace, key.name)
        if live is None or live["metadata"]["uid"] != key.uid or "deletionTimestamp" in live["metadata"]:
            self._forget(key)
            return None
        try:
            report = await self._pass(live)
        except KubeError as error:
            if error.status:
                await self._report(
                    live, Report(Facts(live["metadata"]["generation"], retrying=str(error)), 0)
                )
            raise
        await self._report(live, report)
        return report.again

    async def _pass(self, live: Manifest) -> Report:
        try:
            deployment = parse(live)
        except SpecError as error:
            # the CRD refuses such specs; one may stem from before an upgrade
            problem = status.stalled(Reason.INVALID_SPEC, str(error))
            return Report(Facts(live["metadata"]["generation"], stalled=problem), STALLED_SECONDS)
        owner = Owner.of(live)
        store = SecretStore(self._kube, owner.namespace)
        return await self._converge(live, deployment, owner, store)

    async def _converge(
        self, live: Manifest, deployment: RagDeployment, owner: Owner, store: SecretStore
    ) -> Report:
        secrets = await check(store, referenced_secrets(deployment))
        image = (live.get("status") or {}).get("apiImage") or self._context.api_image
        stalled: Part | None = None
        decision = await self._scaling(deployment, live)
        context = replace(self._context, api_image=image, scaling=decision.scaling if decision else None)
        try:
            outcome = await self._apply(deployment, owner, store, context, held=not secrets.ready)
        except StalledError as error:
            # what runs is still looked after: a stalled change must not stop the healing of Redis
            log.warning("stalled", reason=error.reason, message=error.message, owner=owner.name)
            stalled = status.stalled(error.reason, error.message)
            outcome = Outcome(live=await self._engine.observe(owner))
        observer = Observer(
            self._kube,
            self._metrics,
            deployment,
            store,
            outcome,
            live.get("status") or {},
            act=not deployment.spec.paused and self._kube.writable,
            scaling=decision,
        )
        seen = await observer.parts(secrets)
        fields = {
            "url": names.url(deployment.name, deployment.namespace),
            "version": self._context.operator_version,
            "apiImage": image,
            "selector": ",".join(f"{k}={v}" for k, v in names.selector(deployment.name, "api").items()),
            "autoscaling": scaling.status(decision),
            **counts(deployment, outcome),
        }
        facts = Facts(
            live["metadata"]["generation"],
            seen.parts,
            stalled=stalled,
            paused=deployment.spec.paused,
            fields=fields,
        )
        return Report(facts, _again(deployment, seen, stalled=stalled is not None), seen.events)

    async def _apply(
        self, deployment: RagDeployment, owner: Owner, store: SecretStore, context: Context, *, held: bool
    ) -> Outcome:
        """Write what differs; pods that would miss a Secret are neither started nor rolled."""
        if deployment.spec.paused:
            return Outcome(live=await self._engine.observe(owner))
        await store.ensure(owner, generated_secrets(deployment))
        manifests = [replicas.without_count(m, deployment) for m in render(deployment, context)]
        hold = frozenset(Ref(DEPLOYMENT, name) for name in _needing_secrets(owner.name) if held)
        live = await self._engine.observe(owner)
        await replicas.settle(self._kube, deployment, owner, live)
        await self._leave_scaler(owner, live, context)
        outcome = await self._engine.converge(owner, manifests, held=hold, live=live)
        await replicas.settle(self._kube, deployment, owner, outcome.live)
        return outcome

    async def _scaling(self, deployment: RagDeployment, live: Manifest) -> scaling.Decision | None:
        """The autoscaler to use, found out anew; None: autoscaling is off."""
        autoscaling = deployment.spec.autoscaling
        if not autoscaling.enabled:
            return None
        now = (live.get("status") or {}).get("autoscaling") or {}
        offer = await self._discovery.offer()
        if offer.keda and not await self._kube.serves(SCALED_OBJECT):
            # KEDA is new: its ScaledObject must be applied in the pass that takes our autoscaler away
            await self._kube.serves(SCALED_OBJECT, fresh=True)
        return scaling.decide(deployment, offer, _prometheus(deployment), now)

    async def _leave_scaler(self, owner: Owner, live: dict[Ref, Manifest], context: Context) -> None:
        """KEDA refuses a Deployment that has an autoscaler already: ours goes before its comes."""
        ref = Ref(POD_AUTOSCALER, names.api(owner.name))
        found = live.get(ref)
        keda = context.scaling is not None and context.scaling.engine == "KEDA"
        if keda and found is not None and owned(found, owner):
            await self._kube.delete(found)
            del live[ref]

    async def _report(self, live: Manifest, report: Report) -> None:
        """Write the status when it changed, and tell what the change means."""
        previous = live.get("status") or {}
        new = status.build(report.facts, previous, self._clock())
        key = live["metadata"]["namespace"], live["metadata"]["name"]
        self._metrics.ready.labels(*key).set(new["conditions"][0]["status"] == "True")
        if status.differs(new, previous) and not await self._write_status(live, new):
            return
        for event in [*report.events, *status.events(new, previous)]:
            await self._tell(live, event)

    async def _write_status(self, live: Manifest, new: status.Status) -> bool:
        """False when the resource was deleted meanwhile: its event wakes us once more."""
        meta = {field: live["metadata"][field] for field in ("namespace", "name", "uid")}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "status": new}
        try:
            await self._kube.apply(body, subresource="status")
        except KubeError as error:
            if error.not_found:
                return False
            raise
        return True

    async def _tell(self, live: Manifest, event: Event) -> None:
        meta, now = live["metadata"], self._clock()
        regarding = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            **{field: meta[field] for field in ("namespace", "name", "uid", "resourceVersion")},
        }
        body = {
            "apiVersion": _EVENT,
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": regarding,
            "type": event.kind,
            "reason": event.reason,
            "message": event.message[:1024],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": "ragkube.dev/operator",
        }
        try:
            await self._kube.create(body)
        except KubeError as error:
            # an event is a courtesy: the status has said it already
            log.warning("event_lost", reason=event.reason, error=str(error))

    def _forget(self, key: Key) -> None:
        try:
            self._metrics.ready.remove(key.namespace, key.name)
        except KeyError:
            return


def _needing_secrets(name: str) -> tuple[str, ...]:
    """The workloads that read the Secrets which a spec names."""
    return names.api(name), names.worker(name)


def _prometheus(deployment: RagDeployment) -> str | None:
    """Whom the autoscaler asks."""
    return deployment.spec.autoscaling.prometheus_url or monitoring_part.prometheus_url(deployment)


def _again(deployment: RagDeployment, seen: Observation, *, stalled: bool) -> float:
    if seen.stepped:
        return STEP_SECONDS
    if not seen.parts["SecretsReady"].ready:
        return MISSING_SECONDS
    if stalled:
        return STALLED_SECONDS
    parts = {name: part for name, part in seen.parts.items() if name not in status.ADVISORY}
    waiting = {part.reason for part in parts.values() if not part.ready}
    if waiting:
        # workloads wake us by themselves; Redis and external services cannot
        return WAITING_SECONDS if waiting & _UNWATCHED else PODS_SECONDS
    external = deployment.spec.cache.redis.external or deployment.spec.vector_store.weaviate.external
    monitoring = seen.parts.get("MonitoringReady")
    asked = deployment.spec.monitoring.outside.prometheus_url is not None
    if external is not None or asked or (monitoring is not None and not monitoring.ready):
        return EXTERNAL_SECONDS
    scaler = seen.parts.get("ScalingReady")
    if scaler is None:
        return RESYNC_SECONDS
    # nothing tells us when the cluster gets an engine or its metrics
    return ENGINE_SECONDS if scaler.ready else SCALING_SECONDS
