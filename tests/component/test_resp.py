"""The pipelined Redis connections: nobody ever gets another one's reply, and redirections are followed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ragkube_api.adapters.redis_client import RedisClient, Script
from ragkube_api.adapters.resp_cluster import slot_of
from ragkube_api.adapters.resp_connection import connect
from ragkube_api.errors import CacheUnavailableError
from ragkube_api.settings import RedisCacheBackend
from support.redis import RedisServers, start_cluster

pytestmark = pytest.mark.component("redis")

ECHO = Script("return {KEYS[1], ARGV[1]}")
SLOW_ECHO = Script("for i = 1, 100000 do end return {KEYS[1], ARGV[1]}")
PUT = Script("return redis.call('SET', KEYS[1], ARGV[1])")
TAKE = Script("return redis.call('GET', KEYS[1])")


@asynccontextmanager
async def opened(settings: RedisCacheBackend) -> AsyncIterator[RedisClient]:
    client = RedisClient(settings)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[RedisServers]:
    servers = start_cluster("redis", tmp_path)
    yield servers
    servers.stop()


def ids(servers: RedisServers) -> list[str]:
    return [str(servers.call(index, "CLUSTER", "MYID")) for index in range(len(servers.ports))]


async def asked(client: RedisClient, script: Script, key: str, word: str, *, without_task: bool) -> Any:
    """Either way."""
    reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def deliver(told: Any) -> None:
        if not reply.done():
            reply.set_result(told)

    if without_task:
        client.send(script, [key], [word], deliver)
        told = await reply
        if isinstance(told, CacheUnavailableError):
            raise told
        return told
    return await client.script(script, [key], [word])


async def asks(client: RedisClient, number: int, rng: random.Random) -> int:
    """Asks for its own word and leaves early now and then; 1 when it got its reply."""
    key, word = f"{{{number % 7}}}", f"word-{number}"
    script = SLOW_ECHO if number % 50 == 0 else ECHO
    call = asyncio.create_task(asked(client, script, key, word, without_task=number % 2 == 0))
    if rng.random() < 0.3:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        call.cancel()
    with suppress(asyncio.CancelledError):
        assert await call == [key.encode(), word.encode()], "somebody else's reply"
        return 1
    return 0


@pytest.mark.proves("C2", "S3")
async def test_nobody_gets_another_ones_reply_whoever_leaves(redis_cluster: RedisServers) -> None:
    rng = random.Random(7)
    async with opened(redis_cluster.settings()) as client:
        answered = 0
        for start in range(0, 6000, 500):
            calls = [asks(client, number, rng) for number in range(start, start + 500)]
            answered += sum(await asyncio.gather(*calls))
    assert 3000 < answered < 6000


@pytest.mark.proves("C2", "S3")
async def test_nobody_gets_another_ones_reply_while_connections_are_cut(redis_cluster: RedisServers) -> None:
    async with opened(redis_cluster.settings()) as client:
        over = asyncio.Event()

        async def cut() -> None:
            while not over.is_set():
                for index in range(3):
                    await asyncio.to_thread(
                        redis_cluster.call, index, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
                    )

        async def keeps_asking(who: int) -> int:
            failed = 0
            for turn in range(300):
                word = f"{who}-{turn}"
                try:
                    reply = await asked(client, ECHO, f"{{{who}}}", word, without_task=turn % 2 == 0)
                except CacheUnavailableError:
                    failed += 1
                else:
                    assert reply[1] == word.encode(), "somebody else's reply"
            return failed

        cutting = asyncio.create_task(cut())
        failed = sum(await asyncio.gather(*(keeps_asking(who) for who in range(20))))
        over.set()
        await cutting
        assert failed < 6000
        assert await client.script(ECHO, ["a"], ["b"]) == [b"a", b"b"]


@pytest.mark.proves("C9")
async def test_one_round_trip_a_script_and_concurrent_ones_share_it(redis_cluster: RedisServers) -> None:
    """Seen by the server: one command a call, and reads of several commands at once."""
    async with opened(redis_cluster.settings()) as client:
        await client.script(ECHO, ["k"], ["warm"])
        index = redis_cluster.primary_of("k")

        def handled(name: str) -> int:
            lines = str(redis_cluster.call(index, "INFO", "stats")).splitlines()
            return next(int(line.partition(":")[2]) for line in lines if line.startswith(name + ":"))

        reads, commands = handled("total_reads_processed"), handled("total_commands_processed")
        await asyncio.gather(*(client.script(ECHO, ["k"], [number]) for number in range(1000)))
        assert handled("total_commands_processed") - commands < 1000 + 200
        assert handled("total_reads_processed") - reads < 200


@pytest.mark.proves("C2")
async def test_a_slot_that_moves_is_followed(own_cluster: RedisServers) -> None:
    """First asked for at the new owner (ASK), then moved there (MOVED)."""
    key, names = "{moving}:k", ids(own_cluster)
    source = own_cluster.primary_of(key)
    target = (source + 1) % 3
    slot = slot_of(key)
    async with opened(own_cluster.settings()) as client:
        assert await client.script(PUT, [key], ["1"]) == b"OK"
        own_cluster.call(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        own_cluster.call(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
        port = own_cluster.ports[target]
        own_cluster.call(source, "MIGRATE", "127.0.0.1", port, key, 0, 5000)
        assert await client.script(TAKE, [key], []) == b"1"
        for index in (target, source):
            own_cluster.call(index, "CLUSTER", "SETSLOT", slot, "NODE", names[target])
        assert await client.script(PUT, [key], ["2"]) == b"OK"
        assert await client.script(TAKE, [key], []) == b"2"


@pytest.mark.proves("C2")
async def test_a_server_that_forgot_the_script_is_sent_it(redis_cluster: RedisServers) -> None:
    async with opened(redis_cluster.settings()) as client:
        for without_task in (False, True):
            assert await client.script(ECHO, ["k"], ["1"]) == [b"k", b"1"]
            for index in range(3):
                redis_cluster.call(index, "SCRIPT", "FLUSH")
            assert await asked(client, ECHO, "k", "2", without_task=without_task) == [b"k", b"2"]


@pytest.mark.proves("C2")
async def test_an_error_of_the_script_is_an_outage_of_this_call_only(redis_cluster: RedisServers) -> None:
    broken = Script("return redis.call('INCR', KEYS[1], 'x')")
    async with opened(redis_cluster.settings()) as client:
        calls = [client.script(broken, ["k"], []), client.script(ECHO, ["k"], ["fine"])]
        failed, fine = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(failed, CacheUnavailableError)
    assert "INCR" not in failed.message
    assert fine == [b"k", b"fine"]


@pytest.mark.parametrize("babble", [b"?what\r\n", b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n", b"*1000000\r\n"])
async def test_a_server_that_babbles_is_left(babble: bytes) -> None:
    """Something else listens there: the call fails in time and nothing is taken for a reply."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while await reader.read(65536):
                writer.write(babble)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = RedisCacheBackend(nodes=[f"127.0.0.1:{port}"], timeout_seconds=0.3)
    async with server, opened(settings) as client:
        with pytest.raises(CacheUnavailableError):
            await client.script(ECHO, ["k"], ["v"])


@pytest.mark.proves("C2")
async def test_a_silent_server_fails_every_caller_in_time(own_cluster: RedisServers) -> None:
    async with opened(own_cluster.settings(timeout_seconds=0.3)) as client:
        await client.script(ECHO, ["k"], ["warm"])
        lost = own_cluster.primary_of("k")
        own_cluster.processes[lost].freeze()
        try:
            calls = [asked(client, ECHO, "k", str(n), without_task=n % 2 == 0) for n in range(100)]
            async with asyncio.timeout(5):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(outcome, CacheUnavailableError) for outcome in outcomes)
        finally:
            own_cluster.processes[lost].thaw()
        while True:
            with suppress(CacheUnavailableError):
                assert await client.script(ECHO, ["k"], ["after"]) == [b"k", b"after"]
                return


@pytest.mark.proves("C4", "R3")
async def test_an_idle_connection_to_a_server_that_stands_still_is_given_up(
    own_cluster: RedisServers,
) -> None:
    """Before another can have taken over: what lies in a connection is answered before the server learns of that."""
    connection = await connect(
        "127.0.0.1",
        own_cluster.ports[0],
        tls=None,
        credentials=(),
        timeout_seconds=0.5,
    )
    own_cluster.processes[0].freeze()
    try:
        async with asyncio.timeout(30):
            while connection.usable:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.02)
    finally:
        own_cluster.processes[0].thaw()
        connection.abort("the test is over")


@pytest.mark.proves("C2", "R3")
async def test_a_failover_is_noticed_before_anybody_asks(own_cluster: RedisServers) -> None:
    key = "{acme}"
    async with opened(own_cluster.settings()) as client:
        assert await client.script(ECHO, [key], ["before"]) == [key.encode(), b"before"]
        lost = own_cluster.primary_of(key)
        own_cluster.processes[lost].kill()
        await asyncio.to_thread(own_cluster.wait_for_failover, key, lost=lost)
        async with asyncio.timeout(30):
            while client._cluster.ready(slot_of(key)) is None:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.02)
        assert await client.script(ECHO, [key], ["after"]) == [key.encode(), b"after"]
