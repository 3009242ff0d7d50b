"""A dictionary that foreign input cannot grow without end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """At most ``most`` values of ``most_bytes`` together, as ``weigh`` counts them; what was put first goes first."""

    def __init__(self, *, most: int, most_bytes: int, weigh: Callable[[V], int]) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._weigh = weigh
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._bytes = 0
        self.get = self._kept.get

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: K, value: V) -> None:
        """Keep it as the newest one, if it has room at all."""
        self.pop(key)
        weight = self._weigh(value)
        if weight > self._most_bytes:
            return
        self._kept[key] = value
        self._bytes += weight
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            self.pop(next(iter(self._kept)))

    def pop(self, key: K) -> V | None:
        """Forget it; None when it was not there."""
        value = self._kept.pop(key, None)
        if value is not None:
            self._bytes -= self._weigh(value)
        return value

    def touch(self, key: K) -> None:
        """It is used, and counts as put now."""
        self._kept.move_to_end(key)

    def oldest(self) -> tuple[K, V] | None:
        """What goes next."""
        return next(iter(self._kept.items()), None)
