"""Hits, misses and errors of the whole deployment: every replica hands over what it counted."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson
from prometheus_client.registry import Collector

from ragkube_api.domain import Totals
from ragkube_api.errors import CacheUnavailableError
from ragkube_api.ports import CountBoard
from ragkube_api.telemetry import Telemetry

FLUSH_SECONDS: Final = 5.0
COUNTERS: Final = ("hits", "misses", "errors")


@dataclass(frozen=True, slots=True)
class Count:
    """One series of a counter, with the labels it has in the metrics."""

    labels: dict[str, str]
    count: int


Counted: TypeAlias = dict[str, list[Count]]
"""By the names in ``COUNTERS``."""


class DeploymentCounts:
    """Hands over what was counted since the last time; what cannot be handed over now is, later."""

    def __init__(self, board: CountBoard, telemetry: Telemetry) -> None:
        self._board = board
        self._counters = dict(
            zip(COUNTERS, (telemetry.cache_hits, telemetry.cache_misses, telemetry.cache_errors), strict=True)
        )
        self._me = secrets.token_hex(8)
        self._number = 0
        self._handed: Mapping[str, int] = {}
        # the same again under the same number, until it is known to have arrived
        self._unsure: Mapping[str, int] | None = None
        self._turn = asyncio.Lock()

    def own(self) -> Counted:
        """Of this process since it began; what never happened is left out."""
        return {name: _counts(counter) for name, counter in self._counters.items()}

    async def read(self) -> tuple[Totals, Counted]:
        """Of all replicas, what this one has not handed over yet included. Raises ``CacheUnavailableError``."""
        await self._hand_over()
        totals = await self._board.read()
        found: Counted = {name: [] for name in COUNTERS}
        for name, count in totals.counts.items():
            series = _series(name)
            if series is not None:
                found[series[0]].append(Count(series[1], count))
        return totals, {name: _sorted(counts) for name, counts in found.items()}

    async def run(self) -> None:
        """Hand over every few seconds until cancelled, and once more at the end."""
        try:
            while True:
                await self._try(last=False)
                await asyncio.sleep(FLUSH_SECONDS)
        finally:
            await self._try(last=True)

    async def _try(self, *, last: bool) -> None:
        try:
            await self._hand_over(last=last)
        except CacheUnavailableError:
            return

    async def _hand_over(self, *, last: bool = False) -> None:
        async with self._turn:
            if self._unsure is not None:
                await self._send(self._unsure, last=False)
            now = {
                _name(counter, each.labels): each.count
                for counter, counts in self.own().items()
                for each in counts
            }
            await self._send(now, last=last)

    async def _send(self, now: Mapping[str, int], *, last: bool) -> None:
        new = {name: count - self._handed.get(name, 0) for name, count in now.items()}
        self._unsure = now
        await self._board.add(
            self._me, self._number, {name: count for name, count in new.items() if count}, last=last
        )
        self._number += 1
        self._handed, self._unsure = now, None


def _counts(counter: Collector) -> list[Count]:
    samples = [s for metric in counter.collect() for s in metric.samples if s.name.endswith("_total")]
    return _sorted(Count(dict(sample.labels), int(sample.value)) for sample in samples if sample.value)


def _sorted(counts: Iterable[Count]) -> list[Count]:
    return sorted(counts, key=lambda each: sorted(each.labels.items()))


def _name(counter: str, labels: Mapping[str, str]) -> str:
    return orjson.dumps([counter, labels]).decode()


def _series(name: str) -> tuple[str, dict[str, str]] | None:
    """None for what is no series of ours."""
    try:
        found: Any = orjson.loads(name)
    except orjson.JSONDecodeError:
        return None
    match found:
        case [str(counter), dict(labels)] if counter in COUNTERS:
            return counter, {str(label): str(value) for label, value in labels.items()}
        case _:
            return None
