"""The Lease: one holder, time that only one clock measures, and no write after its end."""

# ruff: noqa: ARG002  # the signatures are the real client's
from __future__ import annotations

import asyncio
import copy
from typing import Any, cast

import pytest

from ragkube_operator import kube, process
from ragkube_operator.errors import KubeError, NotLeadingError
from ragkube_operator.kube import Kind, Manifest
from ragkube_operator.leader import Elector, Fence, Timing
from ragkube_operator.metrics import Metrics
from ragkube_operator.options import LeaseRef

REF = LeaseRef("system", "operator")
QUICK = Timing(lease=0.6, deadline=0.3, renew=0.05, poll=0.02)
PATIENT = Timing(lease=6, deadline=3, renew=0.05, poll=0.02)


class Leases:
    """One Lease with the API server's optimistic locking; it can be away, and says who wrote."""

    def __init__(self) -> None:
        self.live: Manifest | None = None
        self.version = 0
        self.away = False
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def _check(self) -> None:
        if self.away:
            raise KubeError(0, "Unreachable", "away")

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        await asyncio.sleep(0)
        self._check()
        return copy.deepcopy(self.live)

    async def create(self, manifest: Manifest) -> Manifest:
        self._check()
        if self.live is not None:
            raise KubeError(409, "AlreadyExists", "exists")
        return self._store(manifest["spec"])

    async def merge(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        self._check()
        assert self.live is not None
        if change["metadata"]["resourceVersion"] != self.live["metadata"]["resourceVersion"]:
            raise KubeError(409, "Conflict", "somebody was faster")
        return self._store({**self.live["spec"], **change["spec"]})

    def _store(self, spec: dict[str, Any]) -> Manifest:
        self.version += 1
        self.live = {"metadata": {"name": "operator", "resourceVersion": str(self.version)}, "spec": spec}
        return copy.deepcopy(self.live)

    @property
    def holder(self) -> str:
        assert self.live is not None
        return str(self.live["spec"]["holderIdentity"])


def elector(leases: Leases, name: str, **options: Any) -> Elector:
    return Elector(leases, REF, name, Metrics(), **{"timing": QUICK, **options})


@pytest.mark.proves("K13")
async def test_of_many_that_start_together_exactly_one_leads() -> None:
    leases = Leases()
    many = [elector(leases, f"pod-{number}") for number in range(8)]
    results = await asyncio.gather(*(each._try() for each in many))
    assert results.count(True) == 1
    assert [each.fence.left > 0 for each in many] == results


@pytest.mark.proves("K13")
async def test_a_crashed_holder_is_replaced_only_after_its_whole_lease() -> None:
    leases = Leases()
    leases._store({"holderIdentity": "dead", "leaseDurationSeconds": 15})
    other = elector(leases, "b", clock=leases.clock)
    for now, taken in ((100.0, False), (114.9, False), (115.1, True)):
        leases.now = now
        assert await other._try() is taken
    assert leases.holder == "b"
    assert leases.live is not None
    assert leases.live["spec"]["leaseTransitions"] == 1


async def test_a_holder_that_renews_is_left_alone_however_long() -> None:
    leases = Leases()
    leases._store({"holderIdentity": "a", "leaseDurationSeconds": 15})
    other = elector(leases, "b", clock=leases.clock)
    for now in range(0, 100, 10):
        leases.now = now
        leases._store({"holderIdentity": "a", "leaseDurationSeconds": 15})
        assert not await other._try()


@pytest.mark.proves("K13")
async def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    leases = Leases()
    first, second = elector(leases, "a"), elector(leases, "b")
    await first.acquire()
    assert not await second._try()
    await first.release()
    assert first.fence.left <= 0
    assert await second._try()
    assert leases.holder == "b"


async def test_giving_back_never_takes_from_somebody_else() -> None:
    leases = Leases()
    first = elector(leases, "a")
    await first.acquire()
    leases._store({"holderIdentity": "b", "leaseDurationSeconds": 15})
    await first.release()
    assert leases.holder == "b"


@pytest.mark.proves("K13")
async def test_a_holder_cut_off_gives_up_before_others_may_take_it() -> None:
    leases = Leases()
    first = elector(leases, "a")
    await first.acquire()
    leases.away = True
    async with asyncio.timeout(5):
        await first.hold()
    assert first.fence.left <= 0
    leases.away = False
    # the other one saw the last renewal after it was sent, so its count ends later
    second = elector(leases, "b")
    assert not await second._try()


async def test_a_holder_goes_on_through_a_short_outage() -> None:
    leases = Leases()
    first = elector(leases, "a", timing=PATIENT)
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    leases.away = True
    await asyncio.sleep(0.1)
    leases.away = False
    version = leases.version
    async with asyncio.timeout(5):
        while leases.version == version:  # noqa: ASYNC110  # a plain counter
            await asyncio.sleep(0.01)
    assert not holding.done()
    assert first.fence.left > 0
    holding.cancel()


async def test_a_holder_notices_at_once_that_somebody_took_it() -> None:
    leases = Leases()
    first = elector(leases, "a")
    await first.acquire()
    leases._store({"holderIdentity": "b", "leaseDurationSeconds": 15})
    async with asyncio.timeout(5):
        await first.hold()
    assert leases.holder == "b"


@pytest.mark.proves("K13")
async def test_no_write_is_sent_after_the_end_and_none_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was frozen wakes up with work in hand: the fence is asked before each write."""
    now = 0.0
    fence = Fence(lambda: now)
    client = kube.Kube(None, Metrics(), fence)  # type: ignore[arg-type]
    assert not client.writable
    with pytest.raises(NotLeadingError):
        client._time_for("PATCH")
    assert client._time_for("GET") == 30
    fence.extend(12.0)
    assert client._time_for("PATCH") == 12.0
    now = 13.0
    with pytest.raises(NotLeadingError):
        client._time_for("DELETE")


class Work:
    """A term that has nothing to do."""

    async def run(self, over: asyncio.Event, restore_signals: object) -> None:
        await over.wait()


@pytest.mark.proves("K13")
async def test_a_fault_while_it_leads_ends_the_process_and_gives_the_lease_back() -> None:
    leases = Leases()
    elector = Elector(cast("Any", leases), REF, "one", Metrics(), timing=QUICK)
    serving = asyncio.create_task(process._serve(cast("Any", Work()), elector, asyncio.Event()))
    while leases.version < 2:  # noqa: ASYNC110  # it has renewed once
        await asyncio.sleep(0.01)
    read = leases.get

    async def broken(*_: Any) -> Manifest | None:
        leases.get = read  # type: ignore[method-assign]
        raise OSError("the token cannot be read")

    leases.get = broken  # type: ignore[assignment]
    with pytest.raises(OSError, match="the token"):
        await asyncio.wait_for(serving, 20)
    assert leases.live is not None
    assert leases.live["spec"]["holderIdentity"] == ""
