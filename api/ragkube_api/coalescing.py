"""One computation for all who ask for the same at the same time, in this process.

``Coalescer`` for what is too dear to be done twice, ``SingleFlight`` for the rest: it takes no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Running(Generic[T]):
    task: asyncio.Task[None] = field(init=False)
    waiting: set[asyncio.Future[T]] = field(default_factory=set)
    told: bool = False


class Coalescer(Generic[T]):
    """Computations by key. One runs in a task of its own: when nobody waits for it any more it is cancelled, or given to ``abandon``."""

    def __init__(self, abandon: Callable[[asyncio.Task[None]], object] = asyncio.Task.cancel) -> None:
        self._abandon = abandon
        self._running: dict[Hashable, _Running[T]] = {}

    async def run(
        self,
        key: Hashable,
        compute: Callable[[], Awaitable[T]],
        *,
        behind: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[T, bool]:
        """The result and whether ``compute`` was ours; raises what the computation raised, to everyone.

        ``behind`` is what its task does when everyone has the result.
        """
        running = self._running.get(key)
        ours = running is None
        if running is None:
            running = self._running[key] = _Running()
            running.task = asyncio.create_task(self._lead(key, running, compute, behind))
            running.task.add_done_callback(partial(self._ended, key, running))
        told: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        running.waiting.add(told)
        try:
            return await told, ours
        finally:
            running.waiting.discard(told)
            if not running.waiting and self._forget(key, running):
                self._abandon(running.task)  # who comes now begins anew

    async def _lead(
        self,
        key: Hashable,
        running: _Running[T],
        compute: Callable[[], Awaitable[T]],
        behind: Callable[[], Awaitable[None]] | None,
    ) -> None:
        result = await compute()
        self._forget(key, running)
        running.told = True
        for told in running.waiting:
            if not told.done():
                told.set_result(result)
        if behind is not None:
            await behind()

    def _ended(self, key: Hashable, running: _Running[T], task: asyncio.Task[None]) -> None:
        if running.told:
            return  # what goes wrong behind is for the loop's handler
        self._forget(key, running)
        error = None if task.cancelled() else task.exception()
        for told in running.waiting:
            if told.done():
                continue
            if error is None:
                told.cancel()
            else:
                told.set_exception(error)

    def _forget(self, key: Hashable, running: _Running[T]) -> bool:
        """Whether it was under way."""
        if self._running.get(key) is not running:
            return False
        del self._running[key]
        return True


class SingleFlight(Generic[T]):
    """Computations by key, each in the task of the first who asks. When that is cancelled, one of those who wait begins anew."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Future[T]] = {}

    async def run(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> T:
        """The result; raises what the computation raised, to everyone."""
        while (running := self._running.get(key)) is not None:
            await asyncio.wait((running,))
            if not running.cancelled():
                return running.result()
        ours = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            result = await compute()
        except Exception as error:
            ours.set_exception(error)
            ours.exception()  # retrieved, also when nobody waits
            raise
        else:
            ours.set_result(result)
            return result
        finally:
            ours.cancel()
            del self._running[key]
