"""Work that nobody waits for: bounded, and ended with the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """Runs at most ``limit`` pieces of work at a time, one a name."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """False when it is running already, or there is no room."""
        if self._closed or name in self._tasks or len(self._tasks) >= self._limit:
            return False
        task = asyncio.create_task(work(), name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))
        return True

    def runs(self, name: str) -> bool:
        """Whether that piece of work is running."""
        return name in self._tasks

    async def settled(self) -> None:
        """Wait for what is running."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """End everything."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
