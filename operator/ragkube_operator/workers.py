"""One serial worker per resource: woken by events, resynced with jitter, backing off alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar

import structlog

from ragkube_operator.errors import OperatorError
from ragkube_operator.metrics import Metrics

log = structlog.get_logger(__name__)

K = TypeVar("K")

COALESCE_SECONDS = 0.1
BACKOFF_SECONDS = (0.5, 60.0)
PARALLEL_PASSES = 8
LOOKS_PER_SECOND = 10.0
"""How fast resources that seem to need nothing are looked at after a (re)start."""
_JITTER = 0.1


@dataclass
class _Worker:
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0
    due: float = field(default_factory=monotonic)
    task: asyncio.Task[None] | None = None


class Workers(Generic[K]):
    """Runs ``reconcile(key)`` for every key that was ever woken, until it answers None."""

    def __init__(self, reconcile: Callable[[K], Awaitable[float | None]], metrics: Metrics) -> None:
        self._reconcile = reconcile
        self._metrics = metrics
        self._workers: dict[K, _Worker] = {}
        self._planned: dict[K, None] = {}
        self._looker: asyncio.Task[None] | None = None
        self._slots = asyncio.Semaphore(PARALLEL_PASSES)
        self._stopping = False

    def wake(self, key: K) -> None:
        """Ask for a pass soon; many calls in a row make one pass."""
        self._planned.pop(key, None)
        if self._stopping:
            return
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = _Worker()
            self._start(key, worker)
        if not worker.wake.is_set():
            worker.due = monotonic()
            worker.wake.set()

    def look(self, key: K, *, only_new: bool = False) -> None:
        """Ask for a pass in turn: many of these are spread over time, and no change waits behind them."""
        if self._stopping or key in self._planned or (only_new and key in self._workers):
            return
        self._planned[key] = None
        self._count()
        if self._looker is None or self._looker.done():
            self._looker = asyncio.create_task(self._look_in_turn(), name="looks")

    async def _look_in_turn(self) -> None:
        """One after the other: a busy process looks more slowly, it never catches up in a burst."""
        while self._planned:
            await asyncio.sleep(1 / LOOKS_PER_SECOND)
            key = next(iter(self._planned), None)
            if key is not None:
                self.wake(key)

    async def stop(self) -> None:
        """End every worker between or within its passes; a later process goes on from what is there."""
        self._stopping = True
        self._planned.clear()
        tasks = [worker.task for worker in self._workers.values() if worker.task is not None]
        tasks += [self._looker] if self._looker is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workers.clear()

    def __len__(self) -> int:
        """How many resources are looked after."""
        return len(self._workers)

    def _count(self) -> None:
        self._metrics.resources.set(len(self._workers.keys() | self._planned.keys()))

    def _start(self, key: K, worker: _Worker) -> None:
        worker.task = asyncio.create_task(self._work(key, worker), name=f"reconcile {key}")
        worker.task.add_done_callback(lambda task: self._ended(key, worker, task))
        self._count()

    def _ended(self, key: K, worker: _Worker, task: asyncio.Task[None]) -> None:
        """A worker that died of a bug is told in the log and started again, more slowly each time."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._stopping:
            self._metrics.passes.labels("crash").inc()
            log.error("worker_crashed", key=str(key), exc_info=error)
            worker.failures += 1
            self._start(key, worker)
            return
        self._workers.pop(key, None)
        self._count()

    async def _work(self, key: K, worker: _Worker) -> None:
        if worker.failures:
            await asyncio.sleep(backoff(worker.failures))
        while True:
            worker.wake.clear()
            delay = await self._pass(key, worker)
            if delay is None and not worker.wake.is_set():
                return
            await self._pause(worker, delay or 0)

    async def _pass(self, key: K, worker: _Worker) -> float | None:
        with self._metrics.queue.track_inprogress():
            await self._slots.acquire()
        started = monotonic()
        self._metrics.waited.observe(max(0.0, started - worker.due))
        try:
            return await self._timed(key, worker, started)
        finally:
            self._slots.release()

    async def _timed(self, key: K, worker: _Worker, started: float) -> float | None:
        try:
            delay = await self._reconcile(key)
        except OperatorError as error:
            worker.failures += 1
            self._metrics.passes.labels("error").inc()
            log.warning("pass_failed", key=str(key), error=str(error), failures=worker.failures)
            return backoff(worker.failures)
        finally:
            self._metrics.seconds.observe(monotonic() - started)
        worker.failures = 0
        self._metrics.passes.labels("ok").inc()
        return delay if delay is None else delay * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311

    async def _pause(self, worker: _Worker, delay: float) -> None:
        """Sleep until it is time or somebody wakes us; a failing resource is not hurried by events."""
        if worker.failures:
            await asyncio.sleep(delay)
            worker.due = monotonic()
            return
        try:
            async with asyncio.timeout(delay):
                await worker.wake.wait()
        except TimeoutError:
            worker.due = monotonic()
            return
        await asyncio.sleep(COALESCE_SECONDS)


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, with full jitter upwards."""
    first, longest = BACKOFF_SECONDS
    return min(longest, first * float(2 ** min(failures - 1, 10))) * random.uniform(0.75, 1.25)  # noqa: S311
