"""Workers: serial per key, woken and coalesced, backing off alone, ending with their resource."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ragkube_operator import workers
from ragkube_operator.errors import KubeError
from ragkube_operator.metrics import Metrics
from ragkube_operator.workers import Workers, backoff


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BACKOFF_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(workers, "COALESCE_SECONDS", 0.01)


async def until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not predicate():  # noqa: ASYNC110  # the predicate reads plain counters
            await asyncio.sleep(0.005)


@pytest.mark.proves("K3")
async def test_passes_of_one_key_never_overlap_and_wakes_coalesce() -> None:
    running = passes = 0
    gate = asyncio.Event()

    async def reconcile(_: str) -> float:
        nonlocal running, passes
        running += 1
        assert running == 1
        await gate.wait()
        running -= 1
        passes += 1
        return 60

    pool = Workers[str](reconcile, Metrics())
    pool.wake("a")
    await asyncio.sleep(0)
    for _ in range(50):
        pool.wake("a")
    gate.set()
    await until(lambda: passes == 2)
    await asyncio.sleep(0.05)
    assert passes == 2
    await pool.stop()


async def test_a_resource_is_looked_at_again_without_any_event() -> None:
    passes = 0

    async def reconcile(_: str) -> float:
        nonlocal passes
        passes += 1
        return 0.01

    pool = Workers[str](reconcile, Metrics())
    pool.wake("a")
    await until(lambda: passes > 3)
    await pool.stop()


@pytest.mark.proves("K3")
@pytest.mark.parametrize("error", [KubeError(503, "ServiceUnavailable", "away"), ValueError("a bug")])
async def test_a_failing_resource_neither_stops_nor_hinders_the_others(error: Exception) -> None:
    passes = {"bad": 0, "good": 0}

    async def reconcile(key: str) -> float:
        passes[key] += 1
        if key == "bad" and passes[key] < 4:
            raise error
        return 0.01

    pool = Workers[str](reconcile, Metrics())
    pool.wake("bad")
    pool.wake("good")
    await until(lambda: passes["bad"] > 5 and passes["good"] > 5)
    await pool.stop()


async def test_the_worker_of_a_resource_that_is_gone_ends() -> None:
    async def reconcile(_: str) -> None:
        return None

    pool = Workers[str](reconcile, Metrics())
    pool.wake("a")
    await until(lambda: len(pool) == 0)
    await pool.stop()


async def test_stopping_ends_a_pass_in_the_middle_and_accepts_no_more() -> None:
    started = asyncio.Event()

    async def reconcile(_: str) -> float:
        started.set()
        await asyncio.Event().wait()
        return 1

    pool = Workers[str](reconcile, Metrics())
    pool.wake("a")
    await started.wait()
    await pool.stop()
    pool.wake("b")
    assert len(pool) == 0


@pytest.mark.proves("K13")
async def test_looks_are_spread_and_a_change_does_not_wait_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "LOOKS_PER_SECOND", 2.0)
    passes: list[str] = []

    async def reconcile(key: str) -> float:
        passes.append(key)
        return 60

    metrics = Metrics()
    pool = Workers[str](reconcile, metrics)
    for number in range(40):
        pool.look(f"calm-{number}")
        pool.look(f"calm-{number}")
    pool.wake("changed")
    pool.wake("calm-39")
    await until(lambda: len(passes) >= 2)
    assert set(passes[:3]) >= {"changed", "calm-39"}
    assert len(passes) < 10
    monkeypatch.setattr(workers, "LOOKS_PER_SECOND", 500.0)
    assert metrics.registry.get_sample_value("ragkube_operator_resources") == 41
    await until(lambda: len(passes) == 41)
    assert len(set(passes)) == 41
    await pool.stop()


async def test_a_known_resource_is_looked_at_again_but_not_by_the_sweep() -> None:
    passes: list[str] = []

    async def reconcile(key: str) -> float:
        passes.append(key)
        return 60

    pool = Workers[str](reconcile, Metrics())
    pool.wake("a")
    await until(lambda: len(passes) == 1)
    pool.look("a", only_new=True)
    assert not pool._planned
    pool.look("a")
    await until(lambda: len(passes) == 2)
    await pool.stop()


def test_backoff_doubles_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BACKOFF_SECONDS", (0.5, 60.0))
    assert 0.3 < backoff(1) < 0.7
    assert 1.4 < backoff(3) < 2.6
    assert backoff(1000) < 76
