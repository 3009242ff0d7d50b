"""Two replicas, documents and questions, moved on step by step in any order while things break around them.

What is judged: a value that is served as *current* belongs to a version of its document that is at least as new as the
last write that had finished when the question was asked, and no newer than what is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ragkube_api.domain import Cached, Fence, Fill, Key, Lifetime, Selector
from ragkube_api.errors import CacheUnavailableError
from support.caches import Asking, digest, opened
from support.processes import wait_for
from support.redis import RedisServers

T = TypeVar("T")
DOCUMENTS = 2
READERS = 0.25
LEASE = 1.5
TENANTS = itertools.count()


class Replica:
    """A tiered cache whose messages can be lost, whose replies can be late, and that can be cut off or crash."""

    def __init__(self, servers: RedisServers) -> None:
        self._servers = servers
        self._stack = AsyncExitStack()
        self._late_ones: set[asyncio.Task[None]] = set()
        self.cache: Any = None
        self.deaf = False
        self.cut_off = False
        self.gate = asyncio.Event()

    async def open(self) -> None:
        where = self._servers.settings(timeout_seconds=1)
        self.cache = await self._stack.enter_async_context(opened(where, lease=LEASE, readers=READERS))
        leases, level = self.cache._leases, self.cache._level
        heard, run, begin = leases.heard, level._run, level._begin
        self.deaf = self.cut_off = False
        self.gate = asyncio.Event()
        self.gate.set()

        async def over_the_network(*call: Any) -> Any:
            if self.cut_off:
                raise CacheUnavailableError("cut off")
            reply = await run(*call)
            await self.gate.wait()
            return reply

        def over_the_wire(message: bytes) -> None:
            if not self.deaf and not self.cut_off:
                heard(message)

        def begun_over_the_network(*call: Any) -> bool:
            *words, deliver = call
            return not self.cut_off and begin(*words, partial(self._late, self.gate, deliver))

        level._run, level._begin = over_the_network, begun_over_the_network
        leases.heard = over_the_wire

    def _late(self, gate: asyncio.Event, deliver: Callable[[Any], None], reply: Any) -> None:
        async def behind_it() -> None:
            await gate.wait()
            deliver(reply)

        if gate.is_set():
            deliver(reply)
        else:
            task = asyncio.create_task(behind_it())
            self._late_ones.add(task)
            task.add_done_callback(self._late_ones.discard)

    async def listens(self) -> None:
        while not self.cache._leases._subscription.alive:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)

    async def crash(self) -> None:
        """Nothing is given back: not the leases, not the marks of writes."""
        self.gate.set()
        self.cut_off = True
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        await self.open()

    async def close(self) -> None:
        self.gate.set()
        await self._stack.aclose()


@dataclass
class Write:
    """One that is under way; ``version`` once it is committed."""

    document: int
    replica: Replica
    task: asyncio.Task[None]
    commit: asyncio.Event
    leave: asyncio.Event
    version: int | None = None


@dataclass
class Question:
    """A look-up on its way, and what had finished when it was asked."""

    document: int
    replica: Replica
    finished: int
    task: asyncio.Task[Any]


@dataclass
class World:
    """One tenant. Every step leaves it consistent, whatever is still under way."""

    servers: RedisServers
    replicas: list[Replica]
    tenant: str = field(default_factory=lambda: f"t{next(TENANTS)}")
    stored: list[int] = field(default_factory=lambda: [0] * DOCUMENTS)
    finished: list[int] = field(default_factory=lambda: [0] * DOCUMENTS)
    writes: list[Write] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    fills: list[tuple[Replica, int, Fence, int]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def key(self, document: int) -> Key:
        return Key("answer", digest(f"about {document}"))

    def judge(self, document: int, cached: Cached, finished: int) -> None:
        version = int(cached.value)
        assert finished <= version <= self.stored[document], (
            f"served version {version} of {document} from {cached.level}; {finished} had finished"
        )
        self.seen[f"hit {cached.level}"] += 1

    async def ask(self, replica: Replica, document: int) -> None:
        """Served from memory, or a look-up that may be answered later."""
        cached = replica.cache.peek(self.tenant, self.key(document))
        if cached is not None:
            self.judge(document, cached, self.finished[document])
            return
        cache = Asking(replica.cache) if document % 2 else replica.cache
        lookup = asyncio.create_task(cache.lookup(self.tenant, self.key(document)))
        self.questions.append(Question(document, replica, self.finished[document], lookup))
        await self.answers()

    async def ask_and_fill(self, replica: Replica, document: int) -> None:
        """As a caller does it; a miss is filled at once when its reply was not late."""
        waiting = len(self.fills)
        await self.ask(replica, document)
        if len(self.fills) > waiting:
            await self.fill(-1, Lifetime(3600))

    async def answers(self) -> None:
        """Take the replies that can come; look-ups behind a closed gate stay on their way."""
        for question in list(self.questions):
            if question.replica.gate.is_set():
                await asyncio.wait([question.task])
            if question.task.done():
                self.questions.remove(question)
                self.answer(question)

    def answer(self, question: Question) -> None:
        lookup = question.task.result()
        found, document = lookup.found, question.document
        if found is not None and found.current:
            self.judge(document, found, question.finished)
        elif lookup.fence is None:
            self.seen["away"] += 1
        else:
            # retrieval: it sees what is stored now; an entry with the same evidence is stamped anew, others replaced
            self.seen["same evidence" if found and int(found.value) == self.stored[document] else "miss"] += 1
            self.fills.append((question.replica, document, lookup.fence, self.stored[document]))

    async def fill(self, which: int, lifetime: Lifetime) -> None:
        if self.fills:
            replica, document, fence, version = self.fills.pop(which % len(self.fills))
            await self.behind_open_gates(
                replica.cache.store(self.tenant, Fill(self.key(document), b"%d" % version, lifetime), fence=fence)
            )  # fmt: skip

    async def begin(self, replica: Replica, document: int) -> None:
        while len(self.writes) >= 2:
            await self.end(0)
        entered, commit, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with replica.cache.writing(self.tenant):
                entered.set()
                await commit.wait()
                self.stored[document] += 1
                write.version = self.stored[document]
                await leave.wait()

        task = asyncio.create_task(hold())
        write = Write(document, replica, task, commit, leave)
        began = asyncio.create_task(entered.wait())
        await self.behind_open_gates(asyncio.wait([task, began], return_when=asyncio.FIRST_COMPLETED))
        began.cancel()
        if task.done():
            self.seen["write refused"] += 1
            with contextlib.suppress(CacheUnavailableError):
                await task
        else:
            self.writes.append(write)

    async def commit(self, which: int) -> None:
        if self.writes:
            self.writes[which % len(self.writes)].commit.set()
            await asyncio.sleep(0)

    async def end(self, which: int) -> None:
        if not self.writes:
            return
        write = self.writes.pop(which % len(self.writes))
        write.commit.set()
        write.leave.set()
        await self.behind_open_gates(asyncio.wait([write.task]))
        if write.task.cancelled() or write.task.exception() is not None:
            self.seen["write unconfirmed"] += 1
        elif write.version is not None:
            self.finished[write.document] = max(self.finished[write.document], write.version)
            self.seen["write"] += 1

    async def drop(self, replica: Replica) -> None:
        with contextlib.suppress(CacheUnavailableError):
            await self.behind_open_gates(replica.cache.drop(self.tenant, Selector()))
            for other, document in itertools.product(self.replicas, range(DOCUMENTS)):
                assert other.cache.peek(self.tenant, self.key(document)) is None, "served what was dropped"
            self.seen["drop"] += 1

    async def crash(self, replica: Replica) -> None:
        await self.open_gates()
        for write in [write for write in self.writes if write.replica is replica]:
            self.writes.remove(write)
            write.task.cancel()
            await asyncio.wait([write.task])
        self.fills = [fill for fill in self.fills if fill[0] is not replica]
        await replica.crash()
        self.seen["crash"] += 1

    async def sever(self) -> None:
        """From now on the replica of the tenant's shard gets no writes: a failover will lose them."""
        await asyncio.to_thread(sever, self.servers, f"{{test:{self.tenant}}}")
        self.seen["sever"] += 1

    async def fail_over(self) -> None:
        """The replica of the tenant's shard takes over, with what it has."""
        await self.open_gates()
        await asyncio.to_thread(take_over, self.servers, f"{{test:{self.tenant}}}")
        self.seen["failover"] += 1

    async def forget(self) -> None:
        """The state of the tenant is gone, as when its time is over or Redis needs the memory."""
        tag = f"{{test:{self.tenant}}}"
        await asyncio.to_thread(
            self.servers.call, self.servers.primary_of(f"{tag}:state"), "DEL", f"{tag}:state"
        )
        self.seen["forget"] += 1

    async def hold_replies(self, replica: Replica) -> None:
        """What Redis answers to this one is late: other things happen first."""
        replica.gate.clear()

    async def deafen(self, replica: Replica, deaf: bool) -> None:
        """Messages to this one are lost."""
        replica.deaf = deaf

    async def cut_off(self, replica: Replica, cut_off: bool) -> None:
        """This one does not reach Redis, and hears nothing."""
        replica.cut_off = cut_off

    async def open_gates(self) -> None:
        for replica in self.replicas:
            replica.gate.set()
        await self.answers()

    async def behind_open_gates(self, work: Coroutine[Any, Any, T]) -> T:
        """What a caller waits for must be able to come."""
        await self.open_gates()
        return await work

    async def settle(self) -> None:
        await self.open_gates()
        for replica in self.replicas:
            replica.deaf = replica.cut_off = False
        while self.writes:
            await self.end(0)
        for replica, document in itertools.product(self.replicas, range(DOCUMENTS)):
            await self.ask(replica, document)

    async def abandon(self) -> None:
        """After a failure too, nothing of this world is left in the loop."""
        for replica in self.replicas:
            replica.gate.set()
            replica.deaf = replica.cut_off = False
        tasks = [write.task for write in self.writes] + [question.task for question in self.questions]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sever(servers: RedisServers, slot_key: str) -> None:
    """The shard's replica can no longer log in at its primary."""
    replica = replica_of(servers, servers.primary_of(slot_key))
    servers.call(replica, "CONFIG", "SET", "masterauth", "wrong")
    servers.call(replica, "CLIENT", "KILL", "TYPE", "master")


def take_over(servers: RedisServers, slot_key: str) -> None:
    """Promote the replica of the key's shard without asking anybody; the old primary follows it."""
    old = servers.primary_of(slot_key)
    new = replica_of(servers, old)

    def swapped() -> bool:
        roles = [str(servers.call(index, "ROLE")) for index in (old, new)]
        return "slave" in roles[0] and "master" in roles[1] and servers.primary_of(slot_key) == new

    for _ in range(10):  # one that has not heard of the latest epoch is not believed
        with contextlib.suppress(RuntimeError):
            servers.call(new, "CLUSTER", "FAILOVER", "TAKEOVER")
        heal(servers)
        with contextlib.suppress(AssertionError):
            wait_for("the old primary follows", swapped, seconds=2)
            return
    raise AssertionError("no failover happened")


def heal(servers: RedisServers) -> None:
    """Every replica may log in again."""
    for index in range(len(servers.ports)):
        servers.call(index, "CONFIG", "SET", "masterauth", servers.password or "")


def replica_of(servers: RedisServers, primary: int) -> int:
    """Index of its only replica."""
    name = servers.call(primary, "CLUSTER", "MYID")

    def following() -> list[str]:
        lines = str(servers.call(primary, "CLUSTER", "NODES")).splitlines()
        return [line.split()[1] for line in lines if line.split()[3] == name]

    address = wait_for("it has a replica", following)[0]
    return servers.ports.index(int(address.split("@")[0].rpartition(":")[2]))
