"""Looks at the parts of a resource: Redis over its protocol, external services, pods and workloads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from ragkube_operator import monitoring_part, probes, redis_client, scaling_part
from ragkube_operator.crd import RagDeployment
from ragkube_operator.engine import CONFIG_MAP, DEPLOYMENT, POD, STATEFUL_SET, VOLUME_CLAIM, Outcome
from ragkube_operator.errors import RedisAuthError, RedisError
from ragkube_operator.kube import Kind, Manifest
from ragkube_operator.metrics import Metrics
from ragkube_operator.redis_client import Access, Endpoint
from ragkube_operator.redis_cluster import Done, Forget, Spec, Wait, plan
from ragkube_operator.render import names
from ragkube_operator.scaling import Decision
from ragkube_operator.secret_store import SecretStore
from ragkube_operator.status import Event, Part, Reason, deployment_part, stateful_set_part

log = structlog.get_logger(__name__)


class Client(Protocol):
    """What is needed of the Kubernetes client."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The live object, or None."""

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> list[Manifest]:
        """The live objects that carry the labels."""


@dataclass
class Observation:
    """The parts as they are, and what was done to Redis on the way."""

    parts: dict[str, Part] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    stepped: bool = False


@dataclass(frozen=True)
class Observer:
    """Looks at one resource after its objects were applied."""

    client: Client
    metrics: Metrics
    deployment: RagDeployment
    secrets: SecretStore
    outcome: Outcome
    previous: Mapping[str, Any]
    act: bool
    scaling: Decision | None = None

    async def parts(self, secrets_part: Part) -> Observation:
        """Every part's state; takes at most one batch of steps towards a whole Redis Cluster."""
        result = Observation()
        pods = await self._pods()
        result.parts["SecretsReady"] = secrets_part
        # side by side: what others let us wait for must not slow down the healing of Redis
        cache, store, monitored = await asyncio.gather(
            self._cache(pods, result), self._vector_store(pods), self._monitoring(pods)
        )
        result.parts["CacheReady"], result.parts["VectorStoreReady"] = cache, store
        result.parts["APIReady"] = self._api(pods, held=not secrets_part.ready)
        if self.deployment.spec.documents.sources:
            result.parts["SourcesReady"] = await self._sources(pods, held=not secrets_part.ready)
        if self.scaling is not None:
            result.parts["ScalingReady"] = scaling_part.part(self.deployment, self.scaling, self.outcome)
        if monitored is not None:
            result.parts["MonitoringReady"] = monitored
        return result

    async def _monitoring(self, pods: Sequence[Manifest]) -> Part | None:
        if self.deployment.spec.monitoring.type == "None":
            return None
        return await monitoring_part.part(self.deployment, self.outcome, pods, self.secrets)

    async def _pods(self) -> list[Manifest]:
        labels = names.selector(self.deployment.name, "api") | {"app.kubernetes.io/component": ""}
        selector = ",".join(f"{key}={value}" for key, value in labels.items() if value)
        return await self.client.list(POD, self.deployment.namespace, selector)

    async def _cache(self, pods: Sequence[Manifest], result: Observation) -> Part:
        cache = self.deployment.spec.cache
        if not cache.enabled:
            return Part(True, Reason.DISABLED, "spec.cache.enabled is false: nothing is cached")
        if cache.redis.external is not None:
            return await self._external_redis()
        name = names.redis(self.deployment.name)
        workload = stateful_set_part(self.outcome.find(STATEFUL_SET, name), _component(pods, "redis"))
        if workload.reason is Reason.NOT_CREATED:
            return workload
        return await self._redis_cluster(name, _component(pods, "redis"), workload, result)

    async def _redis_cluster(
        self, name: str, pods: Sequence[Manifest], workload: Part, result: Observation
    ) -> Part:
        server = self.deployment.spec.cache.redis.server
        spec = Spec(server.shards, server.replicas_per_shard)
        password = await self.secrets.value(names.redis_auth(self.deployment.name), "password")
        access = Access(password)
        endpoints = [endpoint for pod in pods if (endpoint := _endpoint(pod)) is not None]
        expected = [f"{name}-{index}" for index in range(spec.size)]
        try:
            topology = await redis_client.observe(endpoints, access, expected)
            decision = plan(spec, topology)
            if isinstance(decision, tuple) and self.act:
                result.stepped = True
                for step in decision:
                    await redis_client.run(step, endpoints, access)
                    self.metrics.redis_steps.labels(type(step).__name__).inc()
                    log.info("redis_step", step=type(step).__name__, owner=self.deployment.name)
                    if isinstance(step, Forget):
                        result.events.append(_replaced(step))
        except RedisAuthError as error:
            return Part(False, Reason.AUTHENTICATION_FAILED, f"{error}: {self._restart_hint()}")
        except RedisError as error:
            result.stepped = True
            return self._unfinished(str(error), workload)
        if isinstance(decision, Done):
            message = f"{spec.shards} shards with {spec.replicas_per_shard} replicas each serve every slot"
            return Part(True, Reason.CLUSTER_FORMED, message)
        if isinstance(decision, Wait):
            return self._unfinished(decision.reason, workload)
        return self._unfinished(f"{type(decision[0]).__name__} is under way", workload)

    def _restart_hint(self) -> str:
        """One by one would not do: pods with the new password cannot join those with the old one."""
        secret, space = names.redis_auth(self.deployment.name), self.deployment.namespace
        labels = ",".join(f"{k}={v}" for k, v in names.selector(self.deployment.name, "redis").items())
        return (
            f"Secret {secret} was changed after the pods started; replace them all "
            f"(the cache starts empty): kubectl delete pod -n {space} -l {labels}"
        )

    def _unfinished(self, message: str, workload: Part) -> Part:
        """Forming before the cluster was whole for the first time, healing afterwards."""
        before = _reason(self.previous, "CacheReady")
        formed = before in {Reason.CLUSTER_FORMED, Reason.HEALING_CLUSTER}
        text = message if workload.ready else f"{message}; {workload.message}"
        return Part(False, Reason.HEALING_CLUSTER if formed else Reason.FORMING_CLUSTER, text)

    async def _external_redis(self) -> Part:
        external = self.deployment.spec.cache.redis.external
        assert external is not None  # noqa: S101  # narrowed by the caller
        password = await self._secret(external.password_secret_ref)
        ca = await self._secret(external.ca_secret_ref)
        access = Access(password, external.username, external.tls, ca)
        return await probes.redis(external.nodes, access)

    async def _vector_store(self, pods: Sequence[Manifest]) -> Part:
        weaviate = self.deployment.spec.vector_store.weaviate
        external = weaviate.external
        if external is None:
            live = self.outcome.find(STATEFUL_SET, names.weaviate(self.deployment.name))
            return stateful_set_part(live, _component(pods, "weaviate"))
        return await probes.weaviate(
            probes.WeaviateAddress(
                external.http_host,
                external.http_port,
                external.grpc_host or external.http_host,
                external.grpc_port,
                external.secure,
                await self._secret(external.api_key_secret_ref),
            )
        )

    async def _secret(self, reference: Any) -> str | None:
        return await self.secrets.value(reference.name, reference.key) if reference is not None else None

    def _api(self, pods: Sequence[Manifest], *, held: bool) -> Part:
        live = self.outcome.find(DEPLOYMENT, names.api(self.deployment.name))
        if live is None and held:
            return Part(False, Reason.HELD_BACK, "The API is started as soon as SecretsReady is True")
        part = deployment_part(live, _component(pods, "api"))
        if part.ready and self.deployment.spec.auth.mode == "None":
            return Part(True, part.reason, f"{part.message}; {OPEN}")
        return part

    async def _sources(self, pods: Sequence[Manifest], *, held: bool) -> Part:
        missing = [text for source in self._volumes() if (text := await self._missing(*source))]
        if missing:
            return Part(False, Reason.VOLUME_MISSING, f"{'; '.join(missing)}: create it")
        live = self.outcome.find(DEPLOYMENT, names.worker(self.deployment.name))
        if live is None and held:
            return Part(False, Reason.HELD_BACK, "The worker is started as soon as SecretsReady is True")
        return deployment_part(live, _component(pods, "worker"))

    def _volumes(self) -> list[tuple[Kind, str, str]]:
        found: list[tuple[Kind, str, str]] = []
        for source in self.deployment.spec.documents.sources:
            volume = source.directory.volume
            if volume is not None and volume.config_map is not None:
                found.append((CONFIG_MAP, volume.config_map.name, source.name))
            elif volume is not None and volume.persistent_volume_claim is not None:
                found.append((VOLUME_CLAIM, volume.persistent_volume_claim.claim_name, source.name))
        return found

    async def _missing(self, kind: Kind, name: str, source: str) -> str:
        if await self.client.get(kind, self.deployment.namespace, name) is not None:
            return ""
        return f"{kind.kind} {name} of source {source} does not exist"


OPEN = "auth.mode is None: everyone who reaches the Service may do everything"


def counts(deployment: RagDeployment, outcome: Outcome) -> dict[str, Any]:
    """The pod counts of the status."""
    spec, name = deployment.spec, deployment.name
    found: dict[str, Any] = {"api": _count(outcome.find(DEPLOYMENT, names.api(name)), spec.api.replicas)}
    if spec.documents.sources:
        found["workers"] = _count(outcome.find(DEPLOYMENT, names.worker(name)), 1)
    if spec.cache.enabled:
        live = outcome.find(STATEFUL_SET, names.redis(name))
        found["cache"] = _external() if spec.cache.redis.type == "External" else _count(live, 0)
    live = outcome.find(STATEFUL_SET, names.weaviate(name))
    managed = spec.vector_store.weaviate.type == "Managed"
    found["vectorStore"] = _count(live, 0, "Weaviate ") if managed else _external("Weaviate ")
    return found


def _count(live: Mapping[str, Any] | None, wanted: int, prefix: str = "") -> dict[str, Any]:
    replicas = live["spec"].get("replicas", wanted) if live else wanted
    ready = (live.get("status") or {}).get("readyReplicas", 0) if live else 0
    return {"replicas": replicas, "ready": ready, "summary": f"{prefix}{ready}/{replicas}"}


def _external(prefix: str = "") -> dict[str, Any]:
    return {"replicas": 0, "ready": 0, "summary": f"{prefix}External"}


def _component(pods: Sequence[Manifest], component: str) -> list[Manifest]:
    label = "app.kubernetes.io/component"
    return [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(label) == component]


def _endpoint(pod: Manifest) -> Endpoint | None:
    """A pod that is going away is as good as gone: its replacement has another address."""
    status = pod.get("status") or {}
    if (
        pod["metadata"].get("deletionTimestamp")
        or status.get("phase") != "Running"
        or not status.get("podIP")
    ):
        return None
    return Endpoint(
        pod["metadata"]["name"], status["podIP"], names.REDIS_PORT, pod["spec"].get("nodeName", "")
    )


def _replaced(step: Forget) -> Event:
    gone = sorted({node for _, node in step.pairs})
    short = ", ".join(node[:8] for node in gone)
    return Event(
        "Normal", "PodReplaced", f"Redis nodes {short} are gone for good; new pods took their places"
    )


def _reason(previous: Mapping[str, Any], condition: str) -> str | None:
    return next((c["reason"] for c in previous.get("conditions") or [] if c["type"] == condition), None)
