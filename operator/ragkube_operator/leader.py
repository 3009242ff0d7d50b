"""One active instance at a time, by a Lease: who holds it works, the others stand by.

The holder stops writing before others may take the Lease: its own clock counts from before each renewal was
sent, and `Fence.left` is checked for every write (kube.py). Clocks of different machines are never compared.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Protocol

import structlog

from ragkube_operator.errors import KubeError
from ragkube_operator.kube import Kind, Manifest
from ragkube_operator.metrics import Metrics
from ragkube_operator.options import LeaseRef

log = structlog.get_logger(__name__)

LEASE = Kind("coordination.k8s.io/v1", "Lease")


@dataclass(frozen=True)
class Timing:
    """Seconds. A crashed holder is replaced after at most ``lease + poll``."""

    lease: float = 15.0
    deadline: float = 10.0
    renew: float = 2.5
    poll: float = 1.0


class Client(Protocol):
    """What is needed of the Kubernetes client."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The live object, or None."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create."""

    async def merge(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        """Merge patch."""


class Fence:
    """Until when this process may write."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._until = float("-inf")

    @property
    def left(self) -> float:
        """Seconds; at most zero when it must not write."""
        return self._until - self._clock()

    def extend(self, until: float) -> None:
        """Writes are fine until this moment of the clock."""
        self._until = until

    def close(self) -> None:
        """No more writes."""
        self._until = float("-inf")


@dataclass(frozen=True)
class _Seen:
    """A version of the Lease, and when this process saw it first."""

    version: str
    at: float


class Elector:
    """Takes, renews and gives back the Lease for one process."""

    def __init__(
        self,
        client: Client,
        lease: LeaseRef,
        identity: str,
        metrics: Metrics,
        *,
        timing: Timing | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._client = client
        self._lease = lease
        self._identity = identity
        self._metrics = metrics
        self._timing = timing or Timing()
        self._clock = clock
        self._seen = _Seen("", 0)
        self._told = ""
        self.fence = Fence(clock)
        self.answered = float("-inf")
        """When the API server last answered, by the clock."""

    async def acquire(self) -> None:
        """Return when this process holds the Lease; until then it only reads the Lease, about once a second."""
        while not await self._try():  # noqa: ASYNC110  # the Lease is an object of the API server
            await asyncio.sleep(self._timing.poll * random.uniform(0.8, 1.2))  # noqa: S311
        log.info("leading", identity=self._identity)
        self._metrics.leader.set(1)
        self._metrics.elections.inc()

    async def hold(self) -> None:
        """Renew until it is lost; returns at the deadline, before others may take it."""
        while True:
            pause = self._timing.renew * random.uniform(0.8, 1.2)  # noqa: S311
            await asyncio.sleep(min(pause, max(0.0, self._left())))
            try:
                async with asyncio.timeout(max(0.1, self._left())):
                    held = await self._try()
            except TimeoutError:
                held = False
            if not held and (self._taken or self._left() <= 0):
                log.warning("leadership_lost", identity=self._identity, holder=self._told)
                self._step_down()
                return

    async def release(self) -> None:
        """Give it back, so that a standby need not wait; nothing when it is not held."""
        held = self.fence.left > 0
        self._step_down()
        if not held:
            return
        try:
            async with asyncio.timeout(self._timing.renew):
                live = await self._client.get(LEASE, self._lease.namespace, self._lease.name)
                if live is not None and _holder(live) == self._identity:
                    await self._write(live, "")
                    log.info("lease_released", identity=self._identity)
        except (KubeError, TimeoutError) as error:
            log.warning("lease_not_released", error=str(error))

    def _step_down(self) -> None:
        self.fence.close()
        self._metrics.leader.set(0)

    @property
    def _taken(self) -> bool:
        """Whether somebody else was seen to hold it."""
        return self._told not in {"", self._identity}

    def _left(self) -> float:
        """Seconds until this process gives up, which is well before the Lease ends."""
        return self.fence.left - (self._timing.lease - self._timing.deadline)

    async def _try(self) -> bool:
        """Read, and take or renew where that is allowed; False when it is not ours or not known."""
        started = self._clock()
        try:
            live = await self._client.get(LEASE, self._lease.namespace, self._lease.name)
            self.answered = self._clock()
            if live is None:
                await self._client.create(self._body(self._identity, 0))
            elif self._free(live):
                await self._write(live, self._identity)
            else:
                return False
        except KubeError as error:
            if error.status not in {404, 409}:
                log.warning("lease_unreachable", error=str(error))
            return False
        self._told = self._identity
        self.fence.extend(started + self._timing.lease)
        return True

    def _free(self, live: Manifest) -> bool:
        """Ours, given back, or not renewed for its whole duration while this process looked at it."""
        version = live["metadata"]["resourceVersion"]
        if version != self._seen.version:
            self._seen = _Seen(version, self._clock())
        holder = _holder(live)
        if holder in {"", self._identity}:
            return True
        if holder != self._told:
            log.info("standing_by", holder=holder)
        self._told = holder
        duration = (live.get("spec") or {}).get("leaseDurationSeconds") or self._timing.lease
        return self._clock() - self._seen.at > duration

    async def _write(self, live: Manifest, holder: str) -> None:
        spec = live.get("spec") or {}
        moved = holder != "" and _holder(live) != holder
        body = self._body(holder, int(spec.get("leaseTransitions") or 0) + moved)
        if not moved:
            body["spec"].pop("acquireTime")
        # refused with 409 when somebody was faster
        body["metadata"] = {"resourceVersion": live["metadata"]["resourceVersion"]}
        await self._client.merge(LEASE, self._lease.namespace, self._lease.name, body)

    def _body(self, holder: str, transitions: int) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"namespace": self._lease.namespace, "name": self._lease.name},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(self._timing.lease)) if holder else 1,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }


def _holder(live: Manifest) -> str:
    return str((live.get("spec") or {}).get("holderIdentity") or "")
