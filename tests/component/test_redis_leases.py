"""Replicas that serve from their memory, one failure at a time: a finished write is seen by each of them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest

from ragkube_api.adapters import leases, redis_scripts
from ragkube_api.adapters.resp_connection import pack
from ragkube_api.domain import About, Fill, Key, Lifetime, Selector
from support.caches import ABOUT, HOUR, KEY, TENANT, digest, fill, found, key, opened, value_of
from support.redis import RedisServers, start_cluster

pytestmark = pytest.mark.component("redis")
LEASE = 1.0
TAG = "{test:acme}"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisServers]:
    """One of its own, for what breaks it."""
    servers = start_cluster("redis", tmp_path)
    yield servers
    servers.stop()


@pytest.fixture
def patient_cluster(tmp_path: Path) -> Iterator[RedisServers]:
    """Its replicas take over as late as the docs ask for: at the limit of what is promised of a frozen primary."""
    servers = start_cluster("redis", tmp_path, node_timeout=3000)
    yield servers
    servers.stop()


@asynccontextmanager
async def replicas(
    servers: RedisServers, *, readers: float = LEASE, prefix: str = "test"
) -> AsyncIterator[tuple[Any, Any]]:
    """Two that both serve the same answer from their memory."""
    where = servers.settings(prefix=prefix)
    async with (
        opened(where, lease=15, readers=readers) as one,
        opened(where, lease=15, readers=readers) as other,
    ):
        await until(lambda: fill(one))
        await until(lambda: serves(one))
        await until(lambda: serves(other))
        yield one, other


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


async def serves(cache: Any, key: Key = KEY) -> bool:
    """Without asking anybody."""
    await cache.lookup(TENANT, key)
    return cache.peek(TENANT, key) is not None


async def write(cache: Any) -> float:
    """Seconds it took."""
    began = time.monotonic()
    async with cache.writing(TENANT):
        pass
    return time.monotonic() - began


@pytest.mark.proves("C2", "C4")
async def test_a_hit_in_memory_needs_no_redis_and_a_finished_write_ends_it(
    redis_cluster: RedisServers,
) -> None:
    async with replicas(redis_cluster, prefix="hit") as (one, other):
        took = [await write(one) for _ in range(5)]
        assert min(took) < LEASE / 2, "acknowledged, not waited out"
        assert one.peek(TENANT, KEY) is None
        assert other.peek(TENANT, KEY) is None


@pytest.mark.proves("C2", "C4")
async def test_a_lost_message_costs_the_writer_one_lease_at_most(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicas(redis_cluster, prefix="lost") as (one, other):
        monkeypatch.setattr(other._leases, "revoke", lambda _: 0)  # it hears, and does not act
        monkeypatch.setattr(other._leases, "_start", lambda work: work.close())
        took = await write(one)
        assert other.peek(TENANT, KEY) is None, "its lease is over"
        assert LEASE * 0.5 < took < LEASE * 4
        assert await value_of(other) is None


@pytest.mark.proves("C2")
async def test_writers_at_once_wait_together(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicas(redis_cluster, prefix="writers") as (one, other):
        monkeypatch.setattr(other._leases, "_start", lambda work: work.close())
        began = time.monotonic()
        await asyncio.gather(*(write(one) for _ in range(20)))
        assert time.monotonic() - began < 4 * LEASE, "not a lease each"


@pytest.mark.proves("C2", "C4")
async def test_a_late_reply_brings_nothing_back(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicas(redis_cluster, prefix="late") as (one, other):
        gate, run = asyncio.Event(), other._level._run

        async def late(*call: Any) -> Any:
            reply = await run(*call)
            await gate.wait()
            return reply

        await until(lambda: fill(one, key=key("second")))
        monkeypatch.setattr(other._level, "_run", late)
        asked = asyncio.create_task(other.lookup(TENANT, key("second")))
        await asyncio.sleep(0.1)  # Redis has answered by now; if not, the test proves less, not wrong
        monkeypatch.setattr(other._level, "_run", run)
        await write(one)
        gate.set()
        assert (await asked).found is not None
        assert other.peek(TENANT, key("second")) is None, "granted before the write"
        joined = await other.lookup(TENANT, key("second"))
        assert joined.found is not None
        assert not joined.found.current


@pytest.mark.proves("C2", "C4")
async def test_who_asks_after_a_write_gets_no_fence_from_before_it(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = key("absent")
    async with replicas(redis_cluster) as (one, other):
        gate, replied, run = asyncio.Event(), asyncio.Event(), other._level._run

        async def late(*call: Any) -> Any:
            reply = await run(*call)
            replied.set()
            await gate.wait()
            return reply

        monkeypatch.setattr(other._level, "_run", late)
        asked = asyncio.create_task(other.lookup(TENANT, absent))
        await replied.wait()
        monkeypatch.setattr(other._level, "_run", run)
        await write(one)
        joined = asyncio.create_task(other.lookup(TENANT, absent))
        await asyncio.sleep(0)
        gate.set()
        now = (await one.lookup(TENANT, absent)).fence
        assert (await asked).fence != now
        assert (await joined).fence == now


@pytest.mark.proves("C2", "C4", "R3")
async def test_a_failover_that_loses_the_readers_makes_writers_wait(cluster: RedisServers) -> None:
    async with replicas(cluster) as (one, other):
        lost = cluster.primary_of(TAG)
        cluster.processes[lost].kill()
        await asyncio.to_thread(cluster.wait_for_failover, TAG, lost=lost)
        await until(lambda: reached(one))
        cluster.call(cluster.primary_of(TAG), "DEL", f"{TAG}:readers")
        state = cluster.call(cluster.primary_of(TAG), "HGETALL", f"{TAG}:state")
        assert "unsettled" in state, "leases of the lost primary may live"
        await write(one)
        assert other.peek(TENANT, KEY) is None


async def reached(cache: Any) -> bool:
    return (await cache.lookup(TENANT, key("anything"))).fence is not None


@pytest.mark.proves("C2", "C4")
async def test_a_primary_frozen_through_its_own_failover_serves_nothing_old(
    patient_cluster: RedisServers,
) -> None:
    cluster = patient_cluster
    async with replicas(cluster) as (one, _):
        entry = f"{TAG}:answer:{KEY.digest}"
        keys = [f"{TAG}:state", f"{TAG}:writers", f"{TAG}:readers", f"{TAG}:disowned", entry]
        lost = cluster.primary_of(TAG)
        question = pack(
            ("EVALSHA", redis_scripts.LOOKUP.sha, len(keys), *keys, "token", 1000, "reader", 1 << 40, "")
        )
        with socket.create_connection(("127.0.0.1", cluster.ports[lost])) as line:
            line.sendall(question)
            assert answer(line)[5] == 1, "current before"
            cluster.processes[lost].freeze()
            try:
                line.sendall(question)  # it lies there until the server goes on
                await asyncio.to_thread(cluster.wait_for_failover, TAG, lost=lost)
                await until(lambda: reached(one))
                await write(one)
            finally:
                cluster.processes[lost].thaw()
            said = answer(line)
            assert isinstance(said, hiredis.ReplyError) or (said[1], said[5]) == (0, 0), said


def answer(line: socket.socket) -> Any:
    reader = hiredis.Reader()
    while (reply := reader.gets()) is False:
        reader.feed(line.recv(65536))
    return reply


@pytest.mark.proves("C2", "R3")
async def test_with_redis_away_memory_serves_by_evidence_only_and_it_comes_back(
    cluster: RedisServers,
) -> None:
    async with replicas(cluster) as (one, _):
        for process in cluster.processes:
            process.freeze()
        try:
            await until(lambda: unfenced(one))
            lookup = await one.lookup(TENANT, KEY)
            assert lookup.fence is None
            assert lookup.found is not None, "kept, for its evidence to be checked"
            assert not lookup.found.current
            assert not await one.store(TENANT, Fill(key("new"), b"x", HOUR), fence=None) or await found(
                one, key=key("new")
            )
            began = time.monotonic()
            for _ in range(200):
                await one.lookup(TENANT, key("absent"))
            assert time.monotonic() - began < 20, "only a few wait for what is away"
        finally:
            for process in cluster.processes:
                process.thaw()
        await until(lambda: reached(one))
        await until(lambda: fill(one))


async def unfenced(cache: Any) -> bool:
    return cache.peek(TENANT, KEY) is None and (await cache.lookup(TENANT, KEY)).fence is None


@pytest.mark.proves("C2", "C6")
async def test_an_empty_replica_asks_once_for_many_askers(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        replicas(redis_cluster, prefix="empty") as (_, __),
        opened(redis_cluster.settings(prefix="empty"), readers=LEASE) as empty,
    ):
        calls, run = [], empty._level._run

        async def counted(*call: Any) -> Any:
            calls.append(call[0])
            return await run(*call)

        monkeypatch.setattr(empty._level, "_run", counted)
        lookups = await asyncio.gather(*(empty.lookup(TENANT, KEY) for _ in range(200)))
        assert all(lookup.found is not None and lookup.found.current for lookup in lookups)
        assert calls.count(redis_scripts.LOOKUP) <= 2


@pytest.mark.proves("C2")
async def test_the_lease_of_a_tenant_in_use_is_renewed_without_its_requests(
    redis_cluster: RedisServers,
) -> None:
    lease = 4.0  # renewed in time also where the loop stands still for a second
    async with replicas(redis_cluster, readers=lease, prefix="renewed") as (one, _):
        until_then = time.monotonic() + 1.3 * lease
        while time.monotonic() < until_then:
            assert one.peek(TENANT, KEY) is not None
            await asyncio.sleep(0.02)
    # a replica that has gone keeps no writer waiting
    async with opened(redis_cluster.settings(prefix="renewed"), readers=lease) as later:
        assert min([await write(later) for _ in range(3)]) < lease / 2


@pytest.mark.proves("C6", "C8")
@pytest.mark.parametrize("stored", [True, False])
async def test_what_is_about_to_be_stored_is_waited_for_until_that_has_come_to_an_end(
    redis_cluster: RedisServers, stored: bool
) -> None:
    async with opened(redis_cluster.settings(prefix=f"afterwards-{int(stored)}")) as cache:
        fence, begun, may_store = (await cache.lookup(TENANT, KEY)).fence, asyncio.Event(), asyncio.Event()

        async def store() -> None:
            async with cache.afterwards(TENANT, KEY):
                begun.set()
                await may_store.wait()
                await cache.store(TENANT, Fill(KEY, b"answer", HOUR), fence=fence)

        storing = asyncio.create_task(store())
        await begun.wait()
        asked = asyncio.create_task(cache.lookup(TENANT, KEY))
        settled = asyncio.create_task(cache.settled(TENANT))
        # nobody else waits, and the fast lane leaves it to who can
        assert (await cache.lookup(TENANT, key("other"))).found is None
        await cache.settled("zeta")
        assert not cache.ask(TENANT, KEY, None, lambda _: None)
        assert [task.done() for task in (asked, settled)] == [False, False]
        if stored:
            may_store.set()
        else:
            storing.cancel()
        answer = (await asked).found
        await settled
        assert (answer and answer.value) == (b"answer" if stored else None)
        assert await entries(cache) == int(stored)


@pytest.mark.proves("C8")
async def test_what_is_disowned_before_it_is_stored_is_not_stored(redis_cluster: RedisServers) -> None:
    where = redis_cluster.settings(prefix="disowned-before")
    async with opened(where) as one, opened(where) as other:
        fence = (await one.lookup(TENANT, KEY)).fence
        assert not await other.disown(TENANT, KEY)
        assert not await one.store(TENANT, Fill(KEY, b"wrong", HOUR, ABOUT), fence=fence)
        assert await found(one) is await found(other) is None


async def entries(cache: Any) -> int:
    return sum(row.entries for row in await cache.statistics(TENANT) if row.level == "redis")


@pytest.mark.proves("C8")
async def test_what_is_dropped_or_disowned_is_served_by_no_replica(redis_cluster: RedisServers) -> None:
    async with replicas(redis_cluster, prefix="dropped") as (one, other):
        assert await one.drop(TENANT, Selector()) == 1
        assert other.peek(TENANT, KEY) is None
        assert await found(other) is None
        await fill(one, about=ABOUT)
        await until(lambda: serves(other))
        assert await one.disown(TENANT, KEY)
        assert other.peek(TENANT, KEY) is None
        assert await found(other) is None
        assert not await other.store(TENANT, Fill(KEY, b"wrong", HOUR, ABOUT), fence=None)


@pytest.mark.proves("C8")
async def test_what_redis_has_lost_can_be_disowned(redis_cluster: RedisServers) -> None:
    async with replicas(redis_cluster) as (one, other):
        redis_cluster.call(redis_cluster.primary_of(TAG), "DEL", f"{TAG}:answer:{KEY.digest}")
        one._local.clear(TENANT)
        assert not await one.disown(TENANT, KEY)
        assert other.peek(TENANT, KEY) is None
        assert await found(other) is None


@pytest.mark.proves("C8")
async def test_a_lost_reply_does_not_hide_that_an_answer_was_disowned(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicas(redis_cluster) as (one, other):
        run = one._level._run

        async def twice(*call: Any) -> Any:
            await run(*call)  # its reply is lost: the client sends it again
            return await run(*call)

        one._local.clear(TENANT)
        monkeypatch.setattr(one._level, "_run", twice)
        assert await one.disown(TENANT, KEY)
        assert other.peek(TENANT, KEY) is None
        assert not await one.disown(TENANT, KEY)


@pytest.mark.proves("C8")
async def test_a_large_cache_is_gone_through_in_small_steps(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragkube_api.adapters.redis_level.MOST_AT_ONCE", 3)
    lengths: list[int] = []
    async with opened(redis_cluster.settings(prefix=digest("large"))) as cache:
        run = cache._level._run

        async def measured(script: Any, *call: Any) -> Any:
            reply = await run(script, *call)
            if script is redis_scripts.PAGE:
                lengths.append(len(reply[1]) // 2)
            return reply

        monkeypatch.setattr(cache._level, "_run", measured)
        for number in range(10):
            about = About(question=f"{number % 2}", mark=digest(f"m{number}"))
            await until(lambda n=number, a=about: fill(cache, key=key(f"{n}"), about=a))  # type: ignore[misc]
        await until(lambda: fill(cache, key=Key("retrieval", digest("r"))))
        tag = cache._level._tag(TENANT)
        redis_cluster.call(redis_cluster.primary_of(tag), "ZADD", f"{tag}:index:answer", 1, "no digest")
        counts = {row.kind: row.entries for row in await cache.statistics(TENANT) if row.level == "redis"}
        assert counts == {"answer": 10, "retrieval": 1, "document": 0}
        assert await cache.drop(TENANT, Selector(question="1")) == 5
        assert await cache.drop(TENANT, Selector()) == 6
        assert max(lengths) == 3


FOREIGN = [
    ("state", ("SET", "x")),
    ("state", ("HSET", "epoch", "")),
    ("writers", ("SET", "x")),
    ("readers", ("SADD", "x")),
    ("disowned", ("HSET", "a", "b")),
    (f"answer:{KEY.digest}", ("SET", "x")),
    (f"answer:{KEY.digest}", ("HSET", "value", "half")),
    (f"answer:{KEY.digest}", ("HSET", "meta", "nonsense")),
    (f"answer:{KEY.digest}", ("HSET", "meta", "1 2 3 4 5")),
    (f"answer:{KEY.digest}", ("HDEL", "value")),
    (f"answer:{KEY.digest}", ("HSET", "about", "{}")),
    ("index:answer", ("LPUSH", "x")),
    ("expiry:answer", ("SET", "x")),
    ("asked", ("SET", "x")),
]


@pytest.mark.proves("C2")
@pytest.mark.parametrize(("name", "command"), FOREIGN)
async def test_a_damaged_or_foreign_value_is_a_miss_and_breaks_nothing(
    redis_cluster: RedisServers, name: str, command: tuple[str, ...]
) -> None:
    damaged: list[None] = []
    prefix = digest(f"{name} {command}")
    where = redis_cluster.settings(prefix=prefix)
    async with opened(where, entries=0, readers=0.1, damaged=lambda: damaged.append(None)) as cache:
        await fill(cache, about=ABOUT)
        node = redis_cluster.primary_of(f"{{{prefix}:{TENANT}}}")
        place = f"{{{prefix}:{TENANT}}}:{name}"
        if command[0] not in {"HDEL", "HSET"} or name == "disowned":
            redis_cluster.call(node, "DEL", place)
        redis_cluster.call(node, command[0], place, *command[1:])
        assert await value_of(cache) in {None, b"answer"}
        await cache.entries(TENANT)
        await cache.statistics(TENANT)
        await cache.tally(TENANT, {b"q": 1})
        await cache.most_asked(TENANT, 5)
        async with cache.writing(TENANT):
            pass
        await until(lambda: fill(cache, about=ABOUT))
        assert await value_of(cache) == b"answer"
        assert await cache.disown(TENANT, KEY)
        assert await cache.drop(TENANT, Selector()) == 0
        assert damaged or command == ("HSET", "epoch", ""), "it is counted"


@pytest.mark.proves("S3")
@pytest.mark.parametrize("tenant", ["a:b", "a}b", "", "A", "a" * 64, "a b", "../x"])
async def test_no_key_is_built_from_what_is_no_tenant_or_no_digest(
    redis_cluster: RedisServers, tenant: str
) -> None:
    async with opened(redis_cluster.settings()) as cache:
        with pytest.raises(ValueError, match="not a tenant"):
            await cache.lookup(tenant, KEY)
        with pytest.raises(ValueError, match="not a key"):
            await cache.lookup("acme", Key("answer", tenant))
        assert (await cache.lookup("acme", KEY)).fence is not None, "it still works"


def _keys(servers: RedisServers, tag: str) -> dict[str, int]:
    """The tenant's keys and their TTL in milliseconds, -1 without one."""
    primary = servers.primary_of(tag)
    names = [str(name) for name in servers.call(primary, "KEYS", f"{tag}:*")]
    return {name.removeprefix(f"{tag}:"): servers.call(primary, "PTTL", name) for name in names}


@pytest.mark.proves("C4")
async def test_nothing_of_a_name_that_was_only_asked_for_stays_for_ever(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "IDLE_SECONDS", 0.1)
    tag = "{forgotten:acme}"
    async with opened(redis_cluster.settings(prefix="forgotten"), lease=15, readers=0.4) as cache:
        assert await fill(cache, lifetime=Lifetime(60, 30))
        await until(lambda: serves(cache))
        await until(lambda: fill(cache, key=key("another"), lifetime=Lifetime(5)))

        async def gave_up() -> bool:
            return "readers" not in await asyncio.to_thread(_keys, redis_cluster, tag)

        await until(gave_up)
        kept = await asyncio.to_thread(_keys, redis_cluster, tag)
        assert kept.pop("state") > redis_scripts.FORGOTTEN_MS / 2
        assert kept.pop("index:answer") > 60_000, "as long as the answer that lives longest"
        assert kept.pop("expiry:answer") > 60_000
        assert all(0 < left <= 90_000 for left in kept.values()), kept
        await until(lambda: serves(cache))  # by a new lease


@pytest.mark.proves("C4")
async def test_a_state_that_is_gone_is_followed_by_a_new_one_and_writers_wait_for_leases(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary = redis_cluster.primary_of("{gone:acme}")
    async with replicas(redis_cluster, readers=3 * LEASE, prefix="gone") as (one, other):
        token = (await one.lookup(TENANT, key("new"))).fence.token
        monkeypatch.setattr(other._leases, "revoke", lambda _: 0)  # it hears nothing
        monkeypatch.setattr(other._leases, "_start", lambda work: work.close())
        assert redis_cluster.call(primary, "DEL", "{gone:acme}:state", "{gone:acme}:readers") == 2
        assert other.peek(TENANT, KEY) is not None
        await write(one)
        assert other.peek(TENANT, KEY) is None, "its lease was waited for"
        new = (await one.lookup(TENANT, key("new"))).fence.token
        assert not set(new.split(":")) & set(token.split(":")), "neither epoch nor drops come back"
