"""Which autoscaler the cluster offers: asked of its discovery, decided by a pure function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Literal, Protocol

from ragkube_operator.crd import PLURAL, RagDeployment
from ragkube_operator.crd.spec import GROUP
from ragkube_operator.errors import KubeError
from ragkube_operator.render.autoscaling import SCALED_OBJECT_API, SIGNALS
from ragkube_operator.render.context import Scaling

MetricsApi = Literal["external.metrics.k8s.io", "custom.metrics.k8s.io"]

EXTERNAL: Final = "external.metrics.k8s.io"
CUSTOM: Final = "custom.metrics.k8s.io"
_VERSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    SCALED_OBJECT_API: (SCALED_OBJECT_API,),
    EXTERNAL: (f"{EXTERNAL}/v1beta1",),
    CUSTOM: (f"{CUSTOM}/v1beta2", f"{CUSTOM}/v1beta1"),
    "metrics.k8s.io": ("metrics.k8s.io/v1beta1",),
}
_DISCOVERY_SECONDS: Final = 30.0
_AWAY_SECONDS: Final = 10.0


class Client(Protocol):
    """What is needed of the Kubernetes client."""

    async def resource_names(self, api_version: str) -> frozenset[str] | None:
        """What an API version serves, as it names it; None: the API version is not there."""


@dataclass(frozen=True)
class Offer:
    """What the cluster has: per API what it serves; None: it is registered but does not answer."""

    served: Mapping[str, frozenset[str] | None] = field(default_factory=dict)

    @property
    def keda(self) -> bool:
        """Whether KEDA's kinds are installed."""
        return SCALED_OBJECT_API in self.served

    @property
    def cpu(self) -> bool:
        """Whether something measures CPU; a server that is away for a moment counts."""
        return "metrics.k8s.io" in self.served


@dataclass(frozen=True)
class Decision:
    """The autoscaler to use, or None; ``missing`` says what each better one lacks, with the fix."""

    scaling: Scaling | None
    missing: tuple[str, ...] = ()


class Discovery:
    """Asks the cluster what it serves, at most twice a minute for all resources together."""

    def __init__(self, client: Client, clock: Callable[[], float] = monotonic) -> None:
        self._client = client
        self._clock = clock
        self._kept: dict[str, tuple[float, frozenset[str] | None, bool]] = {}
        self._asking = asyncio.Lock()

    async def offer(self) -> Offer:
        """What there is now.

        Raises:
            KubeError: the API server itself does not answer.
        """
        found: dict[str, frozenset[str] | None] = {}
        async with self._asking:  # passes run side by side
            for api in _VERSIONS:
                names, there = await self._api(api)
                if there:
                    found[api] = names
        return Offer(found)

    async def _api(self, api: str) -> tuple[frozenset[str] | None, bool]:
        now = self._clock()
        until, names, there = self._kept.get(api, (now, None, False))
        if until <= now:
            names, there = await self._ask(api)
            pause = _AWAY_SECONDS if there and names is None else _DISCOVERY_SECONDS
            self._kept[api] = now + pause, names, there
        return names, there

    async def _ask(self, api: str) -> tuple[frozenset[str] | None, bool]:
        for version in _VERSIONS[api]:
            try:
                names = await self._client.resource_names(version)
            except KubeError as error:
                if error.status < 500:
                    raise
                return None, True  # registered; the server behind it is away
            if names is not None:
                return names, True
        return None, False


def decide(
    deployment: RagDeployment, offer: Offer, prometheus: str | None, now: Mapping[str, Any]
) -> Decision:
    """The engine that the spec asks for, or the best that there is.

    Args:
        deployment: what is wanted.
        offer: what the cluster has.
        prometheus: the address that KEDA would ask.
        now: ``status.autoscaling``: an engine in use is kept while its API stays registered.
    """
    wanted = deployment.spec.autoscaling.engine
    missing: list[str] = []
    for scaling, lacks in _engines(offer, prometheus, now):
        if wanted not in ("Auto", scaling.engine):
            continue
        if not lacks:
            return Decision(scaling, tuple(missing))
        missing.append(lacks)
    return Decision(None, tuple(missing))


def _engines(offer: Offer, prometheus: str | None, now: Mapping[str, Any]) -> Iterator[tuple[Scaling, str]]:
    """Every engine, best first, with what it lacks; an empty text: nothing."""
    keda = Scaling("KEDA", prometheus=prometheus, cpu=offer.cpu)
    yield keda, _keda_lacks(offer, prometheus)
    api, lacks = _metrics_lack(offer)
    if lacks and now.get("engine") == "Metrics" and now.get("api") in offer.served:
        # metrics that are gone for a while (Prometheus is away) change no engine: the autoscaler holds the count
        api, lacks = _api(now["api"]), ""
    yield Scaling("Metrics", api, cpu=offer.cpu), lacks
    yield (
        Scaling("CPU", cpu=True),
        "" if offer.cpu else "engine CPU: nothing serves metrics.k8s.io: install metrics-server",
    )


def _keda_lacks(offer: Offer, prometheus: str | None) -> str:
    if not offer.keda:
        return f"engine KEDA: the cluster has no ScaledObject ({SCALED_OBJECT_API}): install KEDA"
    if not prometheus:
        return "engine KEDA: no Prometheus to ask: set spec.autoscaling.prometheusUrl"
    return ""


def _metrics_lack(offer: Offer) -> tuple[MetricsApi | None, str]:
    """The first metrics API that serves every signal, or what both lack."""
    reasons = []
    for api, prefix in ((EXTERNAL, ""), (CUSTOM, f"{PLURAL}.{GROUP}/")):
        if api not in offer.served:
            reasons.append(f"nothing serves {api}")
            continue
        names = offer.served[api]
        absent = [
            f"{prefix}{signal}" for signal in SIGNALS if names is None or f"{prefix}{signal}" not in names
        ]
        if not absent:
            return _api(api), ""
        reasons.append(f"{api} does not answer" if names is None else f"{api} lacks {', '.join(absent)}")
    return (
        None,
        f"engine Metrics: {'; '.join(reasons)}: docs/autoscaling.md has the rules of prometheus-adapter",
    )


def _api(name: str) -> MetricsApi:
    return "custom.metrics.k8s.io" if name == CUSTOM else "external.metrics.k8s.io"


def status(decision: Decision | None) -> dict[str, Any] | None:
    """What the status of the resource says about it."""
    if decision is None or decision.scaling is None:
        return None
    found = {"engine": decision.scaling.engine, "api": decision.scaling.api}
    return {key: value for key, value in found.items() if value is not None}
