"""Hits in the process with one process and with two, for ``bench.cache``: each has a port and a core of its own."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.cache_load import flood
from bench.cache_servers import Server, World


@dataclass(frozen=True)
class Run:
    """Requests a second, and how many cores the servers and the generators took."""

    rate: float
    servers: float
    generators: float


def processes(
    world: World, fill: Callable[[Server], Server], asked: Sequence[bytes], rounds: int, seconds: float
) -> None:
    """By rate, where the generators may be what limits, and by what the servers' processor time was enough for."""
    pair = [fill(world.ragkube(f"process-{core}", local=10_000, core=core).start()) for core in (0, 1)]
    one, two = [], []
    for turn in range(-1, rounds):
        first, both = (_run(world.folder, servers, asked, seconds) for servers in (pair[:1], pair))
        if turn >= 0:
            one.append(first)
            two.append(both)
    for name, runs in (("one process", one), ("two processes", two)):
        rate, servers, generators = (
            statistics.median(getattr(run, part) for run in runs)
            for part in ("rate", "servers", "generators")
        )
        print(
            f"{name}: {rate:,.0f}/s; the servers took {servers:.2f} cores, the generators {generators:.2f}"
            f" of the {os.cpu_count()} that are here; {rate / servers:,.0f} requests a second of processor time"
        )
    by_rate, by_time = (
        statistics.median(measure(b) / measure(a) for a, b in zip(one, two, strict=True))
        for measure in (_rate, lambda run: run.rate / run.servers)
    )
    print(
        f"two processes answer {by_rate:.2f} times what one does here; with a whole core for each it would be"
        f" {2 * by_time:.2f} times (computed: processor time a request is {1 / by_time:.2f} times that of one)"
    )


def _rate(run: Run) -> float:
    return run.rate


def _run(folder: Path, servers: Sequence[Server], asked: Sequence[bytes], seconds: float) -> Run:
    spare = (os.cpu_count() or 1) >= 2 * len(servers)
    before, children, began = [s.cpu() for s in servers], _children(), time.monotonic()

    def load(number: int) -> float:
        own = folder / f"load-{number}"
        own.mkdir(exist_ok=True)
        core = len(servers) + number if spare else None
        return flood(servers[number].target(asked), seconds, core=core, folder=own).rate

    with ThreadPoolExecutor(len(servers)) as pool:
        rate = sum(pool.map(load, range(len(servers))))
    taken = time.monotonic() - began
    used = sum(server.cpu() - past for server, past in zip(servers, before, strict=True))
    return Run(rate, used / taken, (_children() - children) / taken)


def _children() -> float:
    """Seconds of processor time of the programs that were started and have ended: the generators."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
