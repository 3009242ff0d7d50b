"""The only Kubernetes client code: dict manifests in wire spelling, server-side apply, discovery."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from ragkube_operator.errors import ConfigurationError, KubeError, NotLeadingError
from ragkube_operator.metrics import Metrics

Manifest = dict[str, Any]
_Pairs = list[tuple[str, str]]
# the package ships without annotations
_load_file: Any = config.load_kube_config
_load_pod: Any = config.load_incluster_config

FIELD_MANAGER = "ragkube"
USER_AGENT = "ragkube-operator"
_APPLY = "application/apply-patch+yaml"
_DISCOVERY_SECONDS = 60.0
_TIMEOUT_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
PARALLEL_REQUESTS = 16
"""Connections to the API server at most, so that a restart of the operator is no storm."""
THROTTLED_TRIES = 4
"""How often a request that is answered 429 is sent, each time after the pause that the API server asks for."""
_THROTTLED_SECONDS = (1.0, 15.0)


@dataclass(frozen=True)
class Kind:
    """A kind as manifests name it."""

    api_version: str
    kind: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Kind:
        """The kind of a manifest."""
        return cls(manifest["apiVersion"], manifest["kind"])

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    def __str__(self) -> str:
        """``Deployment.apps``, as kubectl spells it."""
        return f"{self.kind}.{self.group}" if self.group else self.kind


@dataclass(frozen=True)
class Resource:
    """Where a kind is served."""

    plural: str
    namespaced: bool


async def configuration(kubeconfig: str | None, context: str | None = None) -> Configuration:
    """The address and the credentials: of a kubeconfig when given, of the pod otherwise."""
    result = Configuration()
    result.connection_pool_maxsize = PARALLEL_REQUESTS
    try:
        if kubeconfig:
            await _load_file(config_file=kubeconfig, context=context, client_configuration=result)
        else:
            _load_pod(client_configuration=result)
    except (config.ConfigException, OSError) as error:
        where = kubeconfig or "the pod's service account"
        raise ConfigurationError(f"cannot read the cluster's address from {where}: {error}") from error
    return result


@dataclass(frozen=True)
class Credentials:
    """What another client needs to speak to the same API server; the token is never shown."""

    server: str
    ca_file: str | None
    insecure: bool
    certificate_file: str | None
    key_file: str | None
    token: str | None = field(repr=False)


async def credentials(settings: Configuration) -> Credentials:
    """The credentials as they are now: a pod's token is read again when it was renewed."""
    token = await settings.get_api_key_with_prefix("BearerToken")
    words = (token or "").split()
    return Credentials(
        server=settings.host,
        ca_file=settings.ssl_ca_cert,
        insecure=not settings.verify_ssl,
        certificate_file=settings.cert_file,
        key_file=settings.key_file,
        token=words[-1] if words else None,
    )


class WriteFence(Protocol):
    """Says whether this process may still write."""

    @property
    def left(self) -> float:
        """Seconds; at most zero when it must not write."""


@asynccontextmanager
async def connect(
    settings: Configuration, metrics: Metrics, fence: WriteFence | None = None
) -> AsyncIterator[Kube]:
    """A client that is closed at the end; with a fence it writes only while that is open."""
    async with ApiClient(settings) as api:
        api.user_agent = USER_AGENT
        yield Kube(api, metrics, fence)


class Kube:
    """A thin client: one method per verb, every request counted.

    Raises:
        NotLeadingError: a write after the fence was closed; it was not sent.
    """

    def __init__(self, api: ApiClient, metrics: Metrics, fence: WriteFence | None = None) -> None:
        self._api = api
        self._metrics = metrics
        self._fence = fence
        self._kinds: dict[Kind, Resource] = {}
        self._looked: dict[str, float] = {}

    @property
    def writable(self) -> bool:
        """Whether this process may change anything now."""
        return self._fence is None or self._fence.left > 0

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The live object, or None."""
        path = await self._path(kind, namespace, name)
        try:
            return await self._call("get", kind, "GET", path)
        except KubeError as error:
            if error.not_found:
                return None
            raise

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> list[Manifest]:
        """The live objects that carry the labels."""
        query = [("labelSelector", selector)] if selector else []
        try:
            found = await self._call("list", kind, "GET", await self._path(kind, namespace), query)
        except KubeError as error:
            if error.not_found:
                self._kinds.pop(kind, None)  # no such kind any more
            raise
        stamp = {"apiVersion": kind.api_version, "kind": kind.kind}
        return [{**stamp, **item} for item in found.get("items") or []]

    async def apply(
        self, manifest: Manifest, *, subresource: str = "", manager: str = FIELD_MANAGER
    ) -> Manifest:
        """Server-side apply as a field manager; takes over fields of others."""
        kind = Kind.of(manifest)
        metadata = manifest["metadata"]
        path = await self._path(kind, metadata.get("namespace"), metadata["name"])
        if subresource:
            path = f"{path}/{subresource}"
        query = [("fieldManager", manager), ("force", "true")]
        return await self._call("apply", kind, "PATCH", path, query, manifest, content=_APPLY)

    async def create(self, manifest: Manifest) -> Manifest:
        """Create; raises when it exists."""
        kind = Kind.of(manifest)
        path = await self._path(kind, manifest["metadata"].get("namespace"))
        return await self._call("create", kind, "POST", path, [("fieldManager", FIELD_MANAGER)], manifest)

    async def merge(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        """A JSON merge patch, guarded by the resourceVersion inside it where that matters."""
        path = await self._path(kind, namespace, name)
        query = [("fieldManager", FIELD_MANAGER)]
        return await self._call(
            "patch", kind, "PATCH", path, query, change, content="application/merge-patch+json"
        )

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this object (not a later one of the same name); gone already is fine."""
        kind = Kind.of(manifest)
        metadata = manifest["metadata"]
        path = await self._path(kind, metadata.get("namespace"), metadata["name"])
        body = {"propagationPolicy": "Background", "preconditions": {"uid": metadata["uid"]}}
        try:
            await self._call("delete", kind, "DELETE", path, [], body)
        except KubeError as error:
            if error.status not in {404, 409}:
                raise

    async def serves(self, kind: Kind, *, fresh: bool = False) -> bool:
        """Whether the cluster has this kind now; asked again at most once a minute while it has not."""
        if fresh:
            self._looked.pop(kind.api_version, None)
        return await self._resource(kind) is not None

    async def resource_names(self, api_version: str) -> frozenset[str] | None:
        """What an API version serves now, as it names it; None: there is no such version. Asked every time."""
        try:
            found = await self._call("get", Kind(api_version, "APIResourceList"), "GET", _base(api_version))
        except KubeError as error:
            if error.not_found:
                return None
            raise
        return frozenset(item["name"] for item in found.get("resources") or [])

    async def _path(self, kind: Kind, namespace: str | None, name: str = "") -> str:
        resource = await self._resource(kind)
        if resource is None:
            raise KubeError(404, "NotFound", f"the cluster does not serve {kind}")
        parts = [_base(kind.api_version)]
        if resource.namespaced and namespace:
            parts.append(f"namespaces/{quote(namespace)}")
        parts.append(resource.plural)
        if name:
            parts.append(quote(name))
        return "/".join(parts)

    async def _resource(self, kind: Kind) -> Resource | None:
        if kind not in self._kinds:
            await self._discover(kind.api_version)
        return self._kinds.get(kind)

    async def _discover(self, api_version: str) -> None:
        now = monotonic()
        if now - self._looked.get(api_version, -_DISCOVERY_SECONDS) < _DISCOVERY_SECONDS:
            return
        try:
            found = await self._call("get", Kind(api_version, "APIResourceList"), "GET", _base(api_version))
        except KubeError as error:
            if not error.not_found:
                raise
            found = {}
        self._looked[api_version] = now
        for item in found.get("resources") or []:
            if "/" not in item["name"]:
                resource = Resource(item["name"], item["namespaced"])
                self._kinds[Kind(api_version, item["kind"])] = resource

    async def _call(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        query: _Pairs | None = None,
        body: Manifest | None = None,
        *,
        content: str = "application/json",
    ) -> Manifest:
        headers = {"Accept": "application/json", "Content-Type": content}
        for attempt in range(1, THROTTLED_TRIES + 1):
            request = await self._api.param_serialize(
                method, path, {}, query or [], headers, body, auth_settings=["BearerToken"]
            )
            answer = await self._send(verb, kind, request)
            if answer.status != 429 or attempt == THROTTLED_TRIES:
                break
            await asyncio.sleep(answer.pause)
        return _decode(answer.status, answer.text)

    async def _send(self, verb: str, kind: Kind, request: tuple[Any, ...]) -> _Answer:
        method, url, header, payload, _ = request
        timeout = aiohttp.ClientTimeout(total=self._time_for(method), connect=_CONNECT_SECONDS)
        status, started = 0, monotonic()
        try:
            found: Any = await self._api.call_api(method, url, header, payload, _request_timeout=timeout)
            status = found.status
            return _Answer(status, await found.read(), _pause(found.headers.get("Retry-After")))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(0, "Unreachable", f"{type(error).__name__}: {error}") from error
        finally:
            self._metrics.requests.labels(verb, kind.kind, str(status)).inc()
            self._metrics.request_seconds.labels(verb).observe(monotonic() - started)

    def _time_for(self, method: str) -> float:
        """A write ends before the Lease does: the next leader never races with it."""
        if method == "GET" or self._fence is None:
            return _TIMEOUT_SECONDS
        left = self._fence.left
        if left <= 0:
            raise NotLeadingError("this instance does not hold the Lease any more")
        return min(left, _TIMEOUT_SECONDS)


class _Answer(NamedTuple):
    status: int
    text: bytes
    pause: float


def _pause(retry_after: str | None) -> float:
    """How long the API server asks us to wait, in seconds and within reason."""
    shortest, longest = _THROTTLED_SECONDS
    try:
        return min(longest, max(shortest, float(retry_after or 0)))
    except ValueError:
        return shortest


def _base(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _decode(status: int, text: bytes) -> Manifest:
    try:
        data = json.loads(text) if text else {}
    except ValueError:
        data = {}
    if not isinstance(data, dict):
        data = {}
    if status // 100 == 2:
        return data
    message = data.get("message") or text[:300].decode(errors="replace")
    raise KubeError(status, data.get("reason") or "Unknown", message)
