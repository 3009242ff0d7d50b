"""What a miss costs: looking up, claiming the computation, and storing.

Above the application asked with ``Cache-Control: no-store``; and, like for like, above a server without a cache, which as
a miss does spares the application for a plain question.
"""

from __future__ import annotations

import http.client
import math
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.cache_servers import HEADERS, Server

_SETTLED_SECONDS = 0.006


@dataclass
class Way:
    """Questions asked of one server: milliseconds by the clock, and of the core."""

    name: str
    server: Server
    headers: dict[str, str]
    status: str
    times: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)

    def ask(self, body: bytes) -> None:
        """What a miss leaves to be done behind its answer is over before the next: it counts as work, not as time."""
        before, began = self.server.cpu(), time.perf_counter()
        self._connection.request("POST", self.server.path, body, {**HEADERS, **self.headers})
        answer = self._connection.getresponse().read()
        self.times.append((time.perf_counter() - began) * 1000)
        time.sleep(_SETTLED_SECONDS)
        self.work.append((self.server.cpu() - before) * 1000)
        assert b'"status":"%b"' % self.status.encode() in answer, answer

    def close(self) -> None:
        self._connection.close()


def miss(cached: Server, bare: Server, questions: Sequence[bytes]) -> None:
    """Every question in all ways, over connections that are kept, each of them first in turns; none was asked before."""
    missed = Way("a miss", cached, {}, "miss")
    others = [
        Way("the application without the cache", cached, {"Cache-Control": "no-store"}, "bypass"),
        Way("a server without a cache", bare, {}, "bypass"),
    ]
    ways = deque([missed, *others])
    for body in questions:
        for way in ways:
            way.ask(body)
        ways.rotate()
    for way in ways:
        way.close()
    for other in others:
        _tell("by the clock", missed.name, missed.times, other.name, other.times)
        _tell("of the core", missed.name, missed.work, other.name, other.work)


def _tell(what: str, name: str, ones: Sequence[float], other: str, others: Sequence[float]) -> None:
    more = [one - another for one, another in zip(ones, others, strict=True)]
    print(
        f"{name}: {statistics.median(ones):.2f} ms {what}, {other} {statistics.median(others):.2f}:"
        f" {statistics.median(more):.2f} more (median of {len(more)} pairs, give or take {_doubt(more):.2f}; wanted < 1)"
    )


def _doubt(values: Sequence[float]) -> float:
    """Two standard errors of their median, from the values next to it."""
    ordered, reach = sorted(values), math.isqrt(len(values))
    middle = len(ordered) // 2
    return (ordered[min(middle + reach, len(ordered) - 1)] - ordered[max(0, middle - reach)]) / 2
