"""Speed of cached answers, one server core: ratios of figures from the same run, medians of interleaved rounds.

python -m bench.cache [--rounds N] [--seconds S] [--answers N] [--parts speed miss memory processes]
    [--rows redis semantic litellm]   of the part speed, beside L1, the bare application and the ordinary handler

Server on one core, load generator, Redis Cluster, Weaviate and the Messages API on the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import cache_litellm
from bench.cache_load import Figures, Target, as_others, first, flood, generator, paced
from bench.cache_miss import miss
from bench.cache_processes import processes
from bench.cache_semantic import Paraphrases
from bench.cache_servers import LOAD_CORE, Server, World, open_world
from bench.datasets import REPOSITORY

PARTS = ("speed", "miss", "memory", "processes")
ROWS = ("redis", "semantic", "litellm")
BARE, ORDINARY, LITELLM = "bare ASGI", "FastAPI + pydantic + redis-py", "LiteLLM proxy with Redis"
FROM_L1, FROM_REDIS = "ours from L1", "ours from Redis"
HALF_LOAD = (FROM_L1, FROM_REDIS)
QUESTIONS = 100


def bodies(count: int, topic: str = "caching") -> list[bytes]:
    """Distinct questions about our own documentation."""
    return [
        json.dumps({"question": f"What does part {number} of the documentation say about {topic}?"}).encode()
        for number in range(count)
    ]


def informed(server: Server) -> Server:
    """With a few documents."""
    for file in sorted((REPOSITORY / "docs").glob("*.md"))[:12]:
        server.call("PUT", f"/v1/documents/{file.name}", file.read_bytes(), Content_Type="text/markdown")
    return server


def filled(server: Server, asked: Sequence[bytes]) -> Server:
    """With a few documents, and every question answered before."""
    informed(server)
    for body in asked:
        server.ask(body)
    assert json.loads(server.ask(asked[0]))["cache"]["status"] == "hit"
    return server


@dataclass(frozen=True)
class Entrant:
    """A server, and what it is asked in the next run."""

    server: Server
    target: Callable[[], Target]


def speed(world: World, rounds: int, seconds: float, chosen: Sequence[str]) -> None:
    """Every server in turn, several times."""
    asked = bodies(QUESTIONS)
    entrants, answer = ours(world, asked, chosen)
    entrants = {**references(world, asked, answer, chosen), **entrants}
    paraphrases = None
    if "semantic" in chosen:
        paraphrases = Paraphrases(world)
        entrants["ours, a paraphrase that was asked before"] = Entrant(paraphrases.server, paraphrases.seen)
        unseen = partial(paraphrases.unseen, seconds)
        entrants["ours, a paraphrase that was never asked"] = Entrant(paraphrases.server, unseen)
        paraphrases.served()
    rows = measured(
        entrants, rounds, lambda target: flood(target, seconds, core=LOAD_CORE, folder=world.folder)
    )
    tell(rows)
    if paraphrases is not None:
        what = ", ".join(f"{name} {count:,.0f}" for name, count in paraphrases.served().items())
        print(
            f"paraphrases by what became of them (made: refused by a gate, and answered by the model): {what}"
        )
    if LITELLM in entrants:
        print(
            f"{LITELLM}: its model was asked {cache_litellm.model_calls(world)} times for {QUESTIONS} questions"
        )
    for name in (name for name in HALF_LOAD if name in entrants):
        half = statistics.median(one.rate for one in rows[name]) / 2
        at_half_load(world, {each: entrants[each] for each in (BARE, name)}, half, rounds, seconds)


def ours(world: World, asked: Sequence[bytes], chosen: Sequence[str]) -> tuple[dict[str, Entrant], bytes]:
    """Our servers with every answer cached, and such an answer."""
    found: dict[str, Entrant] = {}
    answer = b""
    rows = {"l1": (FROM_L1, 10_000)}
    if "redis" in chosen:
        rows["redis"] = (FROM_REDIS, 0)
    for row, (name, local) in rows.items():
        server = filled(world.ragkube(f"ours-{row}", local=local).start(), asked)
        answer = server.ask(asked[1])
        print(f"{name}: a hit is {len(answer):,} bytes, served from {json.loads(answer)['cache']['level']}")
        found[name] = Entrant(server, partial(server.target, asked))
    return found, answer


def references(
    world: World, asked: Sequence[bytes], answer: bytes, chosen: Sequence[str]
) -> dict[str, Entrant]:
    """What we are compared with; without LiteLLM, said why, where that cannot be installed."""
    found: dict[str, Entrant] = {}
    for row, name in (("bare", BARE), ("ordinary", ORDINARY)):
        server = world.reference(row, answer).start("/", any_status=True)
        found[name] = Entrant(server, partial(server.target, asked))
    if "litellm" in chosen:
        theirs = cache_litellm.bodies([json.loads(body)["question"] for body in asked])
        try:
            server = cache_litellm.start(world, theirs)
        except cache_litellm.UnavailableError as error:
            print(f"{LITELLM}: skipped, {error}")
        else:
            print(
                f"{LITELLM}: version {cache_litellm.VERSION}, a hit is {len(server.ask(theirs[0])):,} bytes"
            )
            found[LITELLM] = Entrant(server, partial(server.target, theirs))
    return found


def at_half_load(
    world: World, entrants: dict[str, Entrant], rate: float, rounds: int, seconds: float
) -> None:
    """Beside the bare application at the same rate: what that takes is the machine's, the server's and the generator's.

    Server, generator and Redis run before everything else on their cores, and Redis before the generator: a delay that
    another process of this machine causes is none of the server's.
    """
    seen: dict[str, list[Figures]] = {name: [] for name in entrants}
    waited = dict.fromkeys(entrants, 0.0)
    processes = [each.server.pid for each in entrants.values()] + [each.pid for each in world.redis.processes]
    if not first(processes, priority=2):
        print("not allowed to run server, generator and Redis before others: what others take counts, too")
    for _ in range(rounds):
        for name, entrant in entrants.items():
            before = entrant.server.waited()
            seen[name].append(paced(entrant.target(), rate, seconds, core=LOAD_CORE))
            waited[name] += entrant.server.waited() - before
    as_others(processes)
    for name, figures in seen.items():
        p50, p99, late = (
            statistics.median(values)
            for values in zip(*((f.p50, f.p99, f.late) for f in figures), strict=True)
        )
        print(
            f"{name} at {rate:,.0f}/s (own generator, itself {late:.2f} ms late in a hundredth): p50 {p50:.2f} ms,"
            f" p99 {p99:.2f} ms (wanted < 2); waited {waited[name] / rounds / seconds:.1%} of the time for its core"
        )


@dataclass(frozen=True)
class Row:
    """One run: requests a second, and microseconds of the server's processor time a request."""

    rate: float
    cost: float
    p99: float


def measured(
    entrants: dict[str, Entrant], rounds: int, measure: Callable[[Target], Figures]
) -> dict[str, list[Row]]:
    """One row an entrant and round; a run first, that does not count."""
    rows: dict[str, list[Row]] = {name: [] for name in entrants}
    for turn in range(-1, rounds):
        for name, entrant in entrants.items():
            target = entrant.target()
            before, began = entrant.server.cpu(), time.monotonic()
            figures = measure(target)
            requests = figures.rate * (time.monotonic() - began)
            if figures.failed:
                print(f"{name}: {figures.failed} of {requests:,.0f} requests failed in this round")
            if turn >= 0:
                cost = (entrant.server.cpu() - before) / requests * 1e6
                rows[name].append(Row(figures.rate, cost, figures.p99))
    return rows


def tell(rows: dict[str, list[Row]]) -> None:
    """A line each. Ratios are of the same round, by processor time: other work on the machine hardly changes them."""
    for name, mine in rows.items():
        rates, costs = [row.rate for row in mine], [row.cost for row in mine]
        line = f"{name}: {statistics.median(rates):,.0f}/s, {statistics.median(costs):,.0f} us of the core a request"
        for other in (each for each in (BARE, ORDINARY, LITELLM) if each in rows):
            by_cost = statistics.median(b.cost / a.cost for a, b in zip(mine, rows[other], strict=True))
            by_rate = statistics.median(a.rate / b.rate for a, b in zip(mine, rows[other], strict=True))
            line += f"; {by_cost:.3g} x {other} ({by_rate:.3g} by rate)"
        print(f"{line}; p99 {statistics.median(row.p99 for row in mine):.1f} ms", flush=True)


def memory(world: World, answers: int) -> None:
    """Resident memory with Weaviate, Redis and Claude configured."""
    server = world.ragkube("memory", local=10_000).start()
    empty = server.memory()
    filled(server, bodies(1))
    paced_fill(server, answers)
    print(
        f"memory: {empty:.0f} MB after the start, {server.memory():.0f} MB with {answers:,} cached answers (wanted < 250)"
    )


def paced_fill(server: Server, answers: int) -> None:
    """Ask every question once, several at a time."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(server.ask, bodies(answers, "memory")))


def measure(part: str, world: World, wanted: argparse.Namespace) -> None:
    """One of ``PARTS``; its servers are the world's to stop."""
    match part:
        case "speed":
            speed(world, wanted.rounds, wanted.seconds, wanted.rows)
        case "miss":
            # a process that has ingested is slower at everything: neither of the two has
            informed(world.ragkube("documents", local=10_000).start()).stop()
            cached = world.ragkube("miss", local=10_000, documents="documents").start()
            bare = world.ragkube("without", local=10_000, documents="documents", enabled=False).start()
            warm, *questions = bodies(1 + 2 * QUESTIONS * wanted.rounds, "the cost of a miss")
            for server in (cached, bare):
                server.ask(warm)
            miss(cached, bare, questions)
        case "memory":
            memory(world, wanted.answers)
        case _:
            asked = bodies(QUESTIONS)
            processes(world, partial(filled, asked=asked), asked, wanted.rounds, wanted.seconds)


def main() -> None:
    """Print everything that was asked for."""
    parser = argparse.ArgumentParser(prog="bench.cache", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=ROWS)
    wanted = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; generator: {generator()}")
    with tempfile.TemporaryDirectory(prefix="ragkube-bench-") as directory:
        world = open_world(Path(directory))
        try:
            for part in wanted.parts:
                measure(part, world, wanted)
                world.stop_servers()  # the next part has the machine to itself
        finally:
            world.stop()


if __name__ == "__main__":
    main()
