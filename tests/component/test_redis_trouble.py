"""A Redis Cluster that breaks: never a stale answer, and it heals by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from ragkube_api.domain import Fence, Fill, Lookup
from ragkube_api.errors import CacheUnavailableError, StoreUnavailableError
from ragkube_api.ports import FencedCache
from ragkube_api.settings import RedisCacheBackend
from support.caches import HOUR, KEY, TENANT, fill, key, opened, value_of
from support.processes import REPOSITORY, free_ports, tool
from support.redis import RedisServers, start_cluster

T = TypeVar("T")
SLOT_KEY = "{test:acme}"

pytestmark = pytest.mark.component("redis")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisServers]:
    """One of its own: these tests break it."""
    servers = start_cluster("redis", tmp_path, password="old")
    yield servers
    servers.stop()


@pytest.fixture
def persistent_cluster(tmp_path: Path) -> Iterator[RedisServers]:
    servers = start_cluster("redis", tmp_path, persistent=True)
    yield servers
    servers.stop()


async def eventually(action: Callable[[], Awaitable[T]], *, seconds: float = 45) -> T:
    """The first result that is no outage."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await action()
        except CacheUnavailableError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def fence_of(cache: FencedCache) -> Fence:
    """Waits until Redis is there."""
    deadline = time.monotonic() + 45
    while (fence := (await cache.lookup(TENANT, KEY)).fence) is None:
        assert time.monotonic() < deadline, "Redis is still away"
        await asyncio.sleep(0.05)
    return fence


async def stored(cache: FencedCache, value: bytes, fence: Fence) -> bool:
    return await cache.store(TENANT, Fill(KEY, value, HOUR), fence=fence)


async def leased(cache: FencedCache) -> bool:
    """It serves without asking: that takes a subscription, too."""
    await cache.lookup(TENANT, KEY)
    return cache.peek(TENANT, KEY) is not None


async def wait_until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.05)


@pytest.mark.proves("R3")
async def test_it_starts_without_redis_and_finds_it_later(tmp_path: Path) -> None:
    servers = RedisServers(tool("redis-server"), tmp_path, password="x")
    try:
        async with opened(servers.settings(timeout_seconds=0.5)) as cache:
            assert await cache.lookup(TENANT, KEY) == Lookup(None, None)
            with pytest.raises(CacheUnavailableError) as caught:
                await cache.ping()
            assert "127.0.0.1" not in caught.value.message
            servers.start()
            servers.form()
            await eventually(cache.ping)
            await wait_until(lambda: fill(cache))
    finally:
        servers.stop()


@pytest.mark.proves("C9")
async def test_the_first_question_waits_for_no_connection(redis_cluster: RedisServers) -> None:
    """A new replica is asked by many at once; whoever has to connect first may be too late, and pays for an answer."""
    async with opened(redis_cluster.settings(prefix=uuid.uuid4().hex)) as cache:
        found: asyncio.Future[Lookup] = asyncio.get_running_loop().create_future()
        assert cache.ask(TENANT, KEY, None, found.set_result)
        assert (await found).fence is not None


@pytest.mark.proves("R3")
async def test_without_redis_no_write_begins(cluster: RedisServers) -> None:
    async with opened(cluster.settings(timeout_seconds=0.5)) as cache:
        await fill(cache)
        cluster.stop()
        wrote = False
        with pytest.raises(CacheUnavailableError):
            async with cache.writing(TENANT):
                wrote = True
        assert not wrote
        # what may have been recorded runs out by itself: nothing is left that tries for ever
        async with asyncio.timeout(60):
            while "cache-end-of-write" in {task.get_name() for task in asyncio.all_tasks()}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@pytest.mark.proves("R3")
async def test_a_restart_from_disk_brings_no_old_answer_back(persistent_cluster: RedisServers) -> None:
    servers = persistent_cluster
    async with opened(servers.settings()) as cache:
        assert await fill(cache)
        fence = await fence_of(cache)
        servers.stop()
        servers.start()
        servers.wait_until_whole()
        assert await fence_of(cache) != fence
        assert await value_of(cache) is None
        assert not await stored(cache, b"old", fence)
        assert await fill(cache)


@pytest.mark.proves("C2", "R3")
async def test_after_a_failover_nothing_from_before_is_served(cluster: RedisServers) -> None:
    async with opened(cluster.settings()) as cache:
        assert await fill(cache)
        fence = await fence_of(cache)
        lost = cluster.primary_of(SLOT_KEY)
        cluster.processes[lost].kill()
        await asyncio.to_thread(cluster.wait_for_failover, SLOT_KEY, lost=lost)
        assert await fence_of(cache) != fence
        assert await value_of(cache) is None
        assert not await stored(cache, b"old", fence)
        await wait_until(lambda: fill(cache))
        await eventually(cache.ping)


@pytest.mark.proves("R3")
async def test_a_write_survives_a_failover_in_the_middle(cluster: RedisServers) -> None:
    async with opened(cluster.settings(), lease=15) as cache, opened(cluster.settings()) as other:
        async with cache.writing(TENANT):
            lost = cluster.primary_of(SLOT_KEY)
            cluster.processes[lost].kill()
            await asyncio.to_thread(cluster.wait_for_failover, SLOT_KEY, lost=lost)
            fence = await fence_of(other)

            async def refused() -> bool:
                return not await stored(other, b"half", await fence_of(other))

            await wait_until(refused)
        assert await value_of(other) is None
        assert not await stored(other, b"half", fence)
        assert await fill(other)


@pytest.mark.proves("R3")
async def test_a_frozen_primary_costs_little_and_is_replaced(cluster: RedisServers) -> None:
    async with opened(cluster.settings(timeout_seconds=0.5)) as cache:
        assert await fill(cache)
        lost = cluster.primary_of(SLOT_KEY)
        cluster.processes[lost].freeze()
        try:
            began = asyncio.get_running_loop().time()
            assert (await cache.lookup(TENANT, key("another"))).fence is None
            assert asyncio.get_running_loop().time() - began < 10
            await fence_of(cache)
            assert await value_of(cache) is None
        finally:
            cluster.processes[lost].thaw()
        await wait_until(lambda: fill(cache))


@pytest.mark.proves("C2")
async def test_a_writer_that_is_killed_is_cleaned_up_after(cluster: RedisServers) -> None:
    settings = cluster.settings()
    program = (
        "import asyncio, sys\n"
        "from ragkube_api.adapters.redis_cache import open_redis\n"
        "from ragkube_api.settings import RedisCacheBackend\n"
        "async def main():\n"
        "    settings = RedisCacheBackend.model_validate_json(sys.argv[1])\n"
        "    async with open_redis(settings, lease_seconds=2) as backend, backend.cache.writing('acme'):\n"
        "        print('writing', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    async with opened(settings) as cache:
        command = [sys.executable, "-c", program, settings.model_dump_json()]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "api")}
        writer = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert writer.stdout is not None
        assert b"writing" in await writer.stdout.readline()
        during = await fence_of(cache)
        assert not await stored(cache, b"half", during)
        writer.send_signal(signal.SIGKILL)
        await writer.wait()
        await wait_until(lambda: fill(cache))
        assert not await stored(cache, b"half", during), "from before the clean-up"
        assert await value_of(cache) == b"answer"


@pytest.mark.proves("C2")
async def test_a_write_outlives_its_first_lease(cluster: RedisServers) -> None:
    async with opened(cluster.settings(), lease=1) as cache, opened(cluster.settings()) as other:
        async with cache.writing(TENANT):
            until = asyncio.get_running_loop().time() + 2.5
            while asyncio.get_running_loop().time() < until:
                assert not await fill(other), "somebody filled during the write"
                await asyncio.sleep(0.05)
        assert await fill(other)


@pytest.mark.proves("R3")
async def test_a_write_that_loses_redis_is_given_up_before_its_lease_ends(cluster: RedisServers) -> None:
    async with opened(cluster.settings(timeout_seconds=0.3), lease=2) as cache:
        finished = False

        async def write() -> None:
            nonlocal finished
            async with cache.writing(TENANT):
                cluster.stop()
                await asyncio.sleep(20)
                finished = True

        with pytest.raises(CacheUnavailableError):
            await write()
        assert not finished


@pytest.mark.proves("C2")
async def test_a_write_that_may_still_be_carried_out_keeps_fills_away(cluster: RedisServers) -> None:
    async with opened(cluster.settings(), lease=2) as cache:
        began = asyncio.get_running_loop().time()

        async def write() -> None:
            async with cache.writing(TENANT):
                raise StoreUnavailableError("timed out, its commit on the way")

        with pytest.raises(StoreUnavailableError):
            await write()
        await wait_until(lambda: fill(cache))
        assert asyncio.get_running_loop().time() - began >= 1.9


@pytest.mark.proves("R3")
async def test_an_end_that_cannot_be_recorded_is_said_and_made_up_for(
    persistent_cluster: RedisServers,
) -> None:
    servers = persistent_cluster
    async with opened(servers.settings(timeout_seconds=0.5)) as cache:
        assert await fill(cache)
        with pytest.raises(CacheUnavailableError):
            async with cache.writing(TENANT):
                servers.stop()
        servers.start()
        servers.wait_until_whole()
        await fence_of(cache)
        assert await value_of(cache) is None
        await wait_until(lambda: fill(cache))


@pytest.mark.proves("S3")
async def test_a_new_password_needs_no_restart(cluster: RedisServers) -> None:
    settings = cluster.settings()
    async with opened(settings) as cache:
        assert await fill(cache)
        assert settings.password_file is not None
        for index in range(len(cluster.ports)):
            cluster.call(index, "CONFIG", "SET", "masterauth", "new", "requirepass", "new")
        cluster.password = "new"
        settings.password_file.write_text("new")
        for index in range(len(cluster.ports)):
            cluster.call(index, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await fence_of(cache)
        assert await value_of(cache) == b"answer"


@pytest.mark.proves("S6")
async def test_over_tls_as_a_user_who_may_do_little(tmp_path: Path) -> None:
    servers = start_cluster("redis", tmp_path, password="admin", tls=True)
    try:
        for index in range(len(servers.ports)):
            servers.call(
                index, "ACL", "SETUSER", "ragkube", "on", ">mine", "~{test*", "&test:*", "-@all", "+@read", "+@write", "+@fast",
                "+@scripting", "+@connection", "+info", "+cluster|info", "+cluster|slots", "+command", "+subscribe", "-@admin",
            )  # fmt: skip
        secured = servers.settings()
        assert secured.password_file is not None
        secured.password_file.write_text("mine")
        settings = secured.model_copy(update={"username": "ragkube"})
        async with opened(settings) as cache:
            await eventually(cache.ping)
            assert await fill(cache)
            assert await value_of(cache) == b"answer"
            await wait_until(lambda: leased(cache))
            async with cache.writing(TENANT):
                pass
            assert await value_of(cache) is None
        unknown = settings.model_copy(update={"tls_ca_file": None})
        async with opened(unknown) as cache:
            with pytest.raises(CacheUnavailableError):
                await cache.ping()
    finally:
        servers.stop()


class _Name:
    """A fixed address that leads to another server each time, like a Service's name."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.target = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        yield
        server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pump(reader, upstream[1]), self._pump(upstream[0], writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.mark.proves("R3")
async def test_it_finds_a_cluster_whose_every_node_has_a_new_address(tmp_path: Path) -> None:
    name = _Name()
    first = await asyncio.to_thread(start_cluster, "redis", tmp_path / "first")
    second: RedisServers | None = None
    try:
        name.target = first.ports[0]
        settings = RedisCacheBackend(nodes=[f"127.0.0.1:{name.port}"], key_prefix="test", timeout_seconds=0.5)
        async with name.serving(), opened(settings) as cache:
            await wait_until(lambda: fill(cache))
            first.stop()
            second = await asyncio.to_thread(start_cluster, "redis", tmp_path / "second")
            name.target = second.ports[3]
            await fence_of(cache)
            await wait_until(lambda: fill(cache))
    finally:
        first.stop()
        if second is not None:
            second.stop()
