"""Take what is there already, without a timer for what is not."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """A coroutine that has run up to the first thing it waits for; awaiting it goes on from there.

    ``done``: it waited for nothing, and ``value`` is its result. An exception that comes from outside (a
    cancellation, a timeout) closes the coroutine.
    """

    __slots__ = ("_coroutine", "_waits_for", "done", "value")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._waits_for: Any = None
        self.value: T | None = None
        self.done = False
        try:
            self._waits_for = coroutine.send(None)
        except StopIteration as end:
            self.value, self.done = end.value, True

    def __await__(self) -> Generator[Any, Any, T]:
        """Pass on to the task what is waited for."""
        waits_for = self._waits_for
        try:
            while True:
                waits_for = self._coroutine.send((yield waits_for))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            self._coroutine.close()
