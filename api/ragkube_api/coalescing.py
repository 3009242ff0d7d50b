"""One computation for all who ask for the same at the same time, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Running(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0


class Coalescer(Generic[T]):
    """Computations by key. One runs in a task of its own: it ends when nobody waits for it any more."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _Running[T]] = {}

    async def run(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The result and whether ``compute`` was ours; raises what the computation raised, to everyone."""
        running = self._running.get(key)
        ours = running is None
        if running is None:
            running = self._running[key] = _Running(asyncio.create_task(_call(compute)))
            running.task.add_done_callback(lambda task: self._forget(key, task))
        running.waiting += 1
        try:
            return await asyncio.shield(running.task), ours
        finally:
            running.waiting -= 1
            if not running.waiting and not running.task.done():
                self._forget(key, running.task)  # who comes now begins anew
                running.task.cancel()

    def _forget(self, key: Hashable, task: asyncio.Task[T]) -> None:
        running = self._running.get(key)
        if running is not None and running.task is task:
            del self._running[key]
        if task.done() and not task.cancelled():
            task.exception()  # retrieved, also when everyone has left


async def _call(compute: Callable[[], Awaitable[T]]) -> T:
    return await compute()
