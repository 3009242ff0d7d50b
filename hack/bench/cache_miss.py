"""What a miss costs above the same pipeline without the cache: looking up, claiming the computation, and storing."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.cache_servers import HEADERS, Server

_SETTLED_SECONDS = 0.006


@dataclass
class Way:
    """Questions asked one way: milliseconds by the clock, and of the core."""

    name: str
    headers: dict[str, str]
    times: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)

    def ask(self, server: Server, connection: http.client.HTTPConnection, body: bytes) -> None:
        """What a miss leaves to be done behind its answer is over before the next: it counts as work, not as time."""
        before, began = server.cpu(), time.perf_counter()
        connection.request("POST", server.path, body, {**HEADERS, **self.headers})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        self.times.append((time.perf_counter() - began) * 1000)
        time.sleep(_SETTLED_SECONDS)
        self.work.append((server.cpu() - before) * 1000)


def miss(server: Server, questions: Sequence[bytes]) -> None:
    """Question by question, in turns, over one connection; each is new to server and store."""
    ways = [Way("a miss", {}), Way("without the cache", {"Cache-Control": "no-store"})]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for number, body in enumerate(questions):
        pair, second = divmod(number, 2)
        ways[(pair + second) % 2].ask(server, connection, body)
    connection.close()
    missed, bare = ways
    for what, ones, others in (
        ("by the clock", missed.times, bare.times),
        ("of the core", missed.work, bare.work),
    ):
        more = statistics.median(one - other for one, other in zip(ones, others, strict=True))
        print(
            f"{missed.name}: {statistics.median(ones):.2f} ms {what}, {bare.name} {statistics.median(others):.2f}:"
            f" {more:.2f} more (median of {len(ones)} pairs; wanted < 1)"
        )
