"""What every kind of flight promises: one computation for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from ragkube_api import go_ahead
from ragkube_api.adapters.memory_flights import MemoryFlights
from ragkube_api.adapters.redis_client import RedisClient, Script
from ragkube_api.adapters.redis_flights import RedisFlights
from ragkube_api.adapters.resp_cluster import slot_of
from ragkube_api.errors import CacheUnavailableError
from ragkube_api.ports import Flights
from ragkube_api.settings import RedisCacheBackend
from support.redis import RedisServers

LEASE = 5.0
"""As by default: nobody here stands still for so long, however much the machine has to do."""
PATIENCE = 30


class Work:
    """A computation that ends when it is told to, and counts how often it began."""

    def __init__(self, result: bytes = b"\x00result\xff") -> None:
        self.result = result
        self.begun = 0
        self.cancelled = 0
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self) -> bytes:
        await go_ahead.given()
        self.begun += 1
        self.started.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.result

    async def at_once(self) -> bytes:
        self.may_end.set()
        return await self()


@asynccontextmanager
async def _redis(settings: RedisCacheBackend) -> AsyncIterator[RedisFlights]:
    client = RedisClient(settings)
    flights = RedisFlights(client, settings.key_prefix, lease_seconds=LEASE)
    await client.open()  # as a replica does: who asks for the first time is as quick as the others
    try:
        yield flights
    finally:
        await flights.close()
        await client.close()


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.component("redis")),
        pytest.param("valkey", marks=pytest.mark.component("valkey")),
    ]
)
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[list[Flights]]:
    """Three replicas; in memory there is only one, three times."""
    if request.param == "memory":
        yield [MemoryFlights()] * 3
        return
    servers = request.getfixturevalue(f"{request.param}_cluster")
    settings = servers.settings(prefix=uuid.uuid4().hex)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_redis(settings)) for _ in range(3)]


@pytest.fixture
async def shared(redis_cluster: RedisServers) -> AsyncIterator[list[RedisFlights]]:
    """Three replicas over Redis."""
    settings = redis_cluster.settings(prefix=uuid.uuid4().hex)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_redis(settings)) for _ in range(3)]


def ask(
    flights: Flights, work: Callable[[], Awaitable[bytes]], name: str = "q", tenant: str = "acme"
) -> asyncio.Task[tuple[bytes, bool]]:
    return asyncio.create_task(_ask(flights, work, name, tenant))


async def _ask(
    flights: Flights, work: Callable[[], Awaitable[bytes]], name: str, tenant: str
) -> tuple[bytes, bool]:
    async with asyncio.timeout(PATIENCE):
        return await flights.once(tenant, name, work)


@pytest.mark.proves("C6")
async def test_one_computation_for_all_who_ask_at_the_same_time(replicas: list[Flights]) -> None:
    work = Work()
    tasks = [ask(replicas[number % 3], work) for number in range(60)]
    await work.started.wait()
    work.may_end.set()
    results = await asyncio.gather(*tasks)

    assert work.begun == 1
    assert {result for result, _ in results} == {work.result}
    assert sum(ours for _, ours in results) == 1


async def test_who_comes_after_the_end_computes_anew(replicas: list[Flights]) -> None:
    first, second = Work(b"1"), Work(b"2")
    assert await replicas[0].once("acme", "q", first.at_once) == (b"1", True)
    await _handed_on(replicas[0])
    assert await replicas[1].once("acme", "q", second.at_once) == (b"2", True)


@pytest.mark.proves("C6")
async def test_who_looked_elsewhere_while_it_was_made_gets_it(replicas: list[Flights]) -> None:
    first, second = Work(b"1"), Work(b"2")
    assert await replicas[0].once("acme", "q", first.at_once, looked_seconds=0) == (b"1", True)
    if isinstance(
        replicas[0], RedisFlights
    ):  # the result goes to the others a moment later than to its caller
        await _until_field(replicas[0], "result")
    assert await replicas[1].once("acme", "q", second.at_once, looked_seconds=60) == (b"1", False)


@pytest.mark.component("redis")
@pytest.mark.proves("C6")
async def test_who_looked_by_the_shared_clock_gets_what_was_finished_since_and_nothing_older(
    shared: list[RedisFlights],
) -> None:
    assert await shared[0].once("acme", "q", Work(b"1").at_once) == (b"1", True)
    done = int(await _until_field(shared[0], "done"))
    assert await shared[1].once("acme", "q", Work(b"2").at_once, looked_at=done) == (b"1", False)
    after = Work(b"3")
    assert await shared[2].once("acme", "q", after.at_once, looked_at=done + 1) == (b"3", True)


@pytest.mark.component("redis")
@pytest.mark.proves("C6")
async def test_who_waits_gets_the_result_however_long_his_next_question_takes(
    shared: list[RedisFlights], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, send, held = Work(), shared[1]._client.send, list[tuple[Any, ...]]()
    leader, began = ask(shared[0], work), time.monotonic()
    await work.started.wait()
    other = ask(shared[1], Work(b"other"))
    await _until_field(shared[0], "waited")
    monkeypatch.setattr(shared[1]._client, "send", lambda *call: held.append(call))
    while not held:  # noqa: ASYNC110  it asks again
        await asyncio.sleep(0.01)
    work.may_end.set()
    await leader
    await _until_field(shared[0], "result")
    await asyncio.sleep(time.monotonic() - began)  # longer on its way than it has waited
    send(*held[0])
    assert await other == (work.result, False)


@pytest.mark.proves("C6")
async def test_a_result_is_left_where_the_next_one_looks_before_the_flight_is_over(
    replicas: list[Flights],
) -> None:
    left: list[bytes] = []

    async def settle() -> None:
        left.append(b"1")

    async def next_one() -> bytes:
        await go_ahead.given()
        return left[0]

    first = Work(b"1")
    assert await replicas[0].once("acme", "q", first.at_once, settle=settle) == (b"1", True)
    assert (await replicas[1].once("acme", "q", next_one))[0] == b"1"
    assert left == [b"1"]


@pytest.mark.component("redis")
@pytest.mark.proves("C6")
async def test_who_made_it_need_not_wait_until_it_is_stored(shared: list[RedisFlights]) -> None:
    may_store, stored = asyncio.Event(), asyncio.Event()

    async def settle() -> None:
        await may_store.wait()
        stored.set()

    first, second = Work(b"1"), Work(b"2")
    assert await shared[0].once("acme", "q", first.at_once, settle=settle) == (b"1", True)
    assert not stored.is_set()
    other = ask(shared[1], second)
    await _until_field(shared[0], "waited")
    may_store.set()
    assert await other == (b"1", False)
    assert second.begun == 0


@pytest.mark.component("redis")
async def test_what_is_being_stored_is_not_lost_when_the_replica_ends(shared: list[RedisFlights]) -> None:
    may_store, stored = asyncio.Event(), asyncio.Event()

    async def settle() -> None:
        await may_store.wait()
        stored.set()

    await shared[0].once("acme", "q", Work().at_once, settle=settle)
    closing = asyncio.create_task(shared[0].close())
    await asyncio.sleep(0)
    may_store.set()
    await closing
    assert stored.is_set()


@pytest.mark.component("redis")
async def test_so_many_that_are_being_stored_make_the_next_one_wait(
    shared: list[RedisFlights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragkube_api.adapters.redis_flights.MOST_SETTLING", 3)
    may_store = asyncio.Event()

    async def settle() -> None:
        await may_store.wait()

    for number in range(3):
        await shared[0].once("acme", f"q{number}", Work().at_once, settle=settle)
    fourth = asyncio.create_task(shared[0].once("acme", "q", Work().at_once, settle=settle))
    while shared[0]._settling < 4:  # noqa: ASYNC110  it is being stored
        await asyncio.sleep(0.01)
    assert not fourth.done()
    may_store.set()
    await fourth


@pytest.mark.proves("S3")
async def test_other_questions_and_other_tenants_compute_for_themselves(replicas: list[Flights]) -> None:
    one, two, three = Work(b"1"), Work(b"2"), Work(b"3")
    tasks = [
        ask(replicas[0], one),
        ask(replicas[1], two, name="other"),
        ask(replicas[2], three, tenant="zeta"),
    ]
    for work in (one, two, three):
        await work.started.wait()
        work.may_end.set()
    assert await asyncio.gather(*tasks) == [(b"1", True), (b"2", True), (b"3", True)]


async def test_a_computation_that_fails_fails_for_its_own_process_and_frees_the_way(
    replicas: list[Flights],
) -> None:
    async def broken() -> bytes:
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        await replicas[0].once("acme", "q", broken)
    work = Work()
    assert await asyncio.wait_for(replicas[1].once("acme", "q", work.at_once), PATIENCE) == (
        work.result,
        True,
    )


@pytest.mark.proves("C6")
@pytest.mark.parametrize("place", [0, 1])
async def test_a_leader_that_leaves_leaves_the_computation_to_the_others(
    replicas: list[Flights], place: int
) -> None:
    work = Work()
    leader = ask(replicas[0], work)
    await work.started.wait()
    other = ask(replicas[place], work)
    if place and isinstance(replicas[0], RedisFlights):
        await _until_field(replicas[0], "waited")
    else:
        await asyncio.sleep(0.2)  # let it come to wait; when it does not, the test proves less, not wrong
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    await asyncio.sleep(0.05)
    work.may_end.set()

    assert (await other)[0] == work.result
    assert (work.begun, work.cancelled) == (1, 0)


async def test_a_computation_that_nobody_waits_for_is_ended(replicas: list[Flights]) -> None:
    work = Work()
    callers = [ask(replicas[0], work) for _ in range(3)]
    await work.started.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    async with asyncio.timeout(PATIENCE):
        while not work.cancelled:  # noqa: ASYNC110  that is the event
            await asyncio.sleep(0.01)
    again = Work(b"again")
    assert await replicas[1].once("acme", "q", again.at_once) == (b"again", True)


@pytest.mark.component("redis")
@pytest.mark.proves("C6")
async def test_who_is_still_preparing_when_another_leads_does_not_begin(shared: list[RedisFlights]) -> None:
    work, prepared, begun = Work(), asyncio.Event(), []

    async def late() -> bytes:
        await prepared.wait()
        await go_ahead.given()
        begun.append(1)
        return b"late"

    leader = ask(shared[0], work)
    await work.started.wait()
    other = ask(shared[1], late)
    await _until_field(shared[0], "waited")
    async with asyncio.timeout(PATIENCE):
        while not any(flight.go.cancelled() for flight in shared[1]._flights.values()):  # noqa: ASYNC110  it has heard that
            await asyncio.sleep(0.01)
    prepared.set()
    work.may_end.set()
    assert await leader == (work.result, True)
    assert await other == (work.result, False)
    assert not begun


@pytest.mark.component("redis")
@pytest.mark.proves("C6")
async def test_who_leaves_before_redis_says_that_it_is_his_keeps_nobody_waiting(
    shared: list[RedisFlights], monkeypatch: pytest.MonkeyPatch
) -> None:
    send, replies = shared[0]._client.send, []

    def late(script: Script, keys: list[str], arguments: Any, deliver: Callable[[Any], None]) -> None:
        send(script, keys, arguments, lambda reply: replies.append((deliver, reply)))

    with monkeypatch.context() as slow:
        slow.setattr(shared[0]._client, "send", late)
        leaving = ask(shared[0], Work())
        async with asyncio.timeout(PATIENCE):
            while not replies:  # noqa: ASYNC110  only Redis knows
                await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.wait([leaving])
    work = Work()
    deliver, reply = replies[0]
    assert reply == [b"lead"]
    deliver(reply)
    monkeypatch.setattr("ragkube_api.adapters.redis_flights._LONGEST_PAUSE", 0.01)
    async with asyncio.timeout(LEASE / 2):
        assert await shared[1].once("acme", "q", work.at_once) == (work.result, True)


@pytest.mark.component("redis")
@pytest.mark.proves("C6")
async def test_a_leader_that_dies_is_replaced_by_one_of_those_who_wait(
    shared: list[RedisFlights],
) -> None:
    dead, work = Work(), Work()
    leader = ask(shared[0], dead)
    await dead.started.wait()
    waiters = [ask(shared[1 + number % 2], work) for number in range(20)]
    await _until_field(shared[0], "waited")
    _kill(shared[0])
    await work.started.wait()
    work.may_end.set()
    results = await asyncio.gather(*waiters)

    assert work.begun == 1
    assert sum(ours for _, ours in results) == 1
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)


@pytest.mark.component("redis")
async def test_a_leader_that_lost_its_lease_hands_nothing_on(shared: list[RedisFlights]) -> None:
    slow, quick = Work(b"slow"), Work(b"quick")
    leader = ask(shared[0], slow)
    await slow.started.wait()
    _freeze(shared[0])
    other = ask(shared[1], quick)
    await quick.started.wait()
    slow.may_end.set()
    assert await leader == (b"slow", True)
    quick.may_end.set()
    assert await other == (b"quick", True)
    third = Work(b"third")
    assert (await shared[2].once("acme", "q", third.at_once, looked_seconds=5))[0] in {b"quick", b"third"}


@pytest.mark.component("redis")
async def test_without_redis_every_process_computes_for_itself(redis_cluster: RedisServers) -> None:
    nowhere = redis_cluster.settings(prefix="x", timeout_seconds=0.2)
    nowhere = nowhere.model_copy(update={"nodes": ["127.0.0.1:1"]})
    async with _redis(nowhere) as one, _redis(nowhere) as two:
        first, second = Work(b"1"), Work(b"2")
        tasks = [ask(one, first), ask(one, first), ask(two, second)]
        await first.started.wait()
        await second.started.wait()
        first.may_end.set()
        second.may_end.set()
        results = await asyncio.gather(*tasks)
    assert (first.begun, second.begun) == (1, 1)
    assert [result for result, _ in results] == [b"1", b"1", b"2"]


@pytest.mark.component("redis")
@pytest.mark.proves("R3")
async def test_without_redis_only_one_in_a_while_waits_for_it(
    shared: list[RedisFlights], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def silent(_: object, keys: list[str], __: object, deliver: Callable[[Any], None]) -> None:
        asked.extend(keys)
        deliver(CacheUnavailableError("The cache does not answer."))

    with monkeypatch.context() as away:
        away.setattr(shared[0]._client, "send", silent)
        for number in range(50):
            assert await shared[0].once("acme", f"q{number}", Work(b"1").at_once) == (b"1", True)
        assert len(asked) < 50
    async with asyncio.timeout(PATIENCE):  # then it is asked again
        while await shared[1].once("acme", "q", Work(b"2").at_once, looked_seconds=5) != (b"1", False):
            await shared[0].once("acme", "q", Work(b"1").at_once)


@pytest.mark.component("redis")
@pytest.mark.proves("C6")
async def test_a_leader_whose_claim_was_sent_twice_does_not_wait_for_itself(
    shared: list[RedisFlights], monkeypatch: pytest.MonkeyPatch
) -> None:
    send, replies = shared[0]._client.send, []

    def twice(script: Script, keys: list[str], arguments: Any, deliver: Callable[[Any], None]) -> None:
        def told(reply: Any) -> None:
            replies.append(bytes(reply[0]))
            deliver(reply)

        send(script, keys, arguments, lambda _lost: send(script, keys, arguments, told))

    monkeypatch.setattr(shared[0]._client, "send", twice)
    assert await shared[0].once("acme", "q", Work(b"1").at_once) == (b"1", True)
    assert replies == [b"lead"]


@pytest.mark.component("redis")
async def test_a_tenant_s_flights_are_keys_of_its_own(shared: list[RedisFlights]) -> None:
    with pytest.raises(ValueError, match="not a tenant"):
        await shared[0].once("a}:b", "q", Work().at_once)


async def _handed_on(flights: Flights) -> None:
    """Until its results are there for the others, and a moment more: their time is counted in milliseconds."""
    while getattr(flights, "_tasks", None) or getattr(flights, "_flights", None):  # noqa: ASYNC110  only it knows
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)


async def _until_field(flights: RedisFlights, name: str) -> bytes:
    """What the flight has there: ``waited`` when another process waits, ``result`` and ``done`` when it is published."""
    key = flights._key("acme", "q")
    async with asyncio.timeout(PATIENCE):
        while (value := await flights._client.command(slot_of(key), "HGET", key, name)) is None:  # noqa: ASYNC110  only Redis knows
            await asyncio.sleep(0.01)
    return bytes(value)


def _freeze(flights: RedisFlights) -> None:
    """As a process that stands still: it renews nothing."""

    async def nothing(*_: object) -> bool:
        return False

    setattr(flights, "_renew", nothing)  # noqa: B010


def _kill(flights: RedisFlights) -> None:
    """As a process that is gone: it says nothing more."""
    _freeze(flights)

    async def gone(*_: object) -> int:
        return 0

    setattr(flights._client, "script", gone)  # noqa: B010
