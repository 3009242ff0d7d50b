"""What every answer cache promises: above all, nothing stale."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragkube_api.domain import Fence
from ragkube_api.errors import StoreUnavailableError
from ragkube_api.ports import AnswerCache
from support.redis import RedisServers

OpenCache: TypeAlias = Callable[[], AbstractAsyncContextManager[AnswerCache]]


def _redis(servers: RedisServers) -> OpenCache:
    @asynccontextmanager
    async def open_it() -> AsyncIterator[AnswerCache]:
        from ragkube_api.adapters.redis_cache import open_redis

        settings = servers.settings(prefix=uuid.uuid4().hex)
        async with open_redis(settings, lease_seconds=3) as backend:
            yield backend.answers

    return open_it


def _memory() -> OpenCache:
    @asynccontextmanager
    async def open_it() -> AsyncIterator[AnswerCache]:
        from ragkube_api.adapters.memory_cache import MemoryAnswerCache

        yield MemoryAnswerCache(max_entries=1000, max_bytes=1 << 20)

    return open_it


@pytest.fixture(
    scope="session",
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.component("redis")),
        pytest.param("valkey", marks=pytest.mark.component("valkey")),
    ],
)
def open_cache(request: pytest.FixtureRequest) -> OpenCache:
    """Opens an empty cache of each kind."""
    if request.param == "memory":
        return _memory()
    return _redis(request.getfixturevalue(f"{request.param}_cluster"))


@pytest.fixture
async def cache(open_cache: OpenCache) -> AsyncIterator[AnswerCache]:
    async with open_cache() as opened:
        yield opened


async def fill(cache: AnswerCache, tenant: str = "acme", key: str = "k", value: bytes = b"answer") -> bool:
    found = await cache.lookup(tenant, key)
    return await cache.store(tenant, key, value, found.fence, 60)


async def value_of(cache: AnswerCache, tenant: str = "acme", key: str = "k") -> bytes | None:
    answer = (await cache.lookup(tenant, key)).answer
    return answer.value if answer else None


async def filled_at_last(cache: AnswerCache) -> None:
    for _ in range(600):
        if await fill(cache, value=b"filled"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("still refused after 30 s")


@pytest.mark.proves("C1")
async def test_a_stored_answer_is_found_with_its_age(cache: AnswerCache) -> None:
    assert await value_of(cache) is None
    value = b"\x00\xff answer " + "ünï😀".encode()
    assert await fill(cache, value=value)
    answer = (await cache.lookup("acme", "k")).answer
    assert answer is not None
    assert answer.value == value
    assert 0 <= answer.age_seconds < 30


async def test_the_fence_stays_while_nothing_is_written(cache: AnswerCache) -> None:
    first = (await cache.lookup("acme", "k")).fence
    await fill(cache)
    assert (await cache.lookup("acme", "other")).fence == first


async def test_any_key_is_one_key(cache: AnswerCache) -> None:
    keys = ["", "a b", "a\nb", "{x}", "*", "ключ 😀", "k" * 10_000, "\x00"]
    for number, key in enumerate(keys):
        assert await fill(cache, key=key, value=str(number).encode())
    assert [await value_of(cache, key=key) for key in keys] == [b"%d" % n for n in range(len(keys))]


async def test_a_later_answer_replaces_an_earlier_one(cache: AnswerCache) -> None:
    await fill(cache, value=b"1")
    await fill(cache, value=b"2")
    assert await value_of(cache) == b"2"


@pytest.mark.proves("C1")
async def test_a_write_ends_what_was_stored_before(cache: AnswerCache) -> None:
    await fill(cache)
    async with cache.writing("acme"):
        assert await value_of(cache) is None
    assert await value_of(cache) is None
    assert await fill(cache, value=b"new")
    assert await value_of(cache) == b"new"


@pytest.mark.proves("C1")
async def test_a_fill_from_before_a_write_is_dropped(cache: AnswerCache) -> None:
    fence = (await cache.lookup("acme", "k")).fence
    async with cache.writing("acme"):
        assert not await cache.store("acme", "k", b"old", fence, 60)
    assert not await cache.store("acme", "k", b"old", fence, 60)
    assert await value_of(cache) is None


@pytest.mark.proves("C1")
async def test_a_fill_that_began_during_a_write_is_dropped(cache: AnswerCache) -> None:
    async with cache.writing("acme"):
        fence = (await cache.lookup("acme", "k")).fence
        assert not await cache.store("acme", "k", b"half", fence, 60)
    assert not await cache.store("acme", "k", b"half", fence, 60)
    assert await value_of(cache) is None


async def test_two_writers_overlap(cache: AnswerCache) -> None:
    async with cache.writing("acme"):
        async with cache.writing("acme"):
            pass
        fence = (await cache.lookup("acme", "k")).fence
        assert not await cache.store("acme", "k", b"half", fence, 60), "the first is still writing"
    assert await fill(cache)


async def test_a_write_that_failed_still_drops_and_lets_go(cache: AnswerCache) -> None:
    await fill(cache)
    with pytest.raises(RuntimeError, match="disk"):
        async with cache.writing("acme"):
            raise RuntimeError("disk")
    assert await value_of(cache) is None
    assert await fill(cache)


async def test_a_cancelled_write_lets_go(cache: AnswerCache) -> None:
    entered = asyncio.Event()

    async def write() -> None:
        async with cache.writing("acme"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await filled_at_last(cache)


async def test_a_write_whose_outcome_is_unknown_lets_go_in_the_end(cache: AnswerCache) -> None:
    await fill(cache)
    before = (await cache.lookup("acme", "k")).fence
    with pytest.raises(StoreUnavailableError):
        async with cache.writing("acme"):
            raise StoreUnavailableError("away")
    assert await value_of(cache) is None
    assert not await cache.store("acme", "k", b"old", before, 60)
    await filled_at_last(cache)


@pytest.mark.proves("S3")
async def test_tenants_share_nothing(cache: AnswerCache) -> None:
    await fill(cache, "acme", value=b"a")
    await fill(cache, "zeta", value=b"z")
    async with cache.writing("zeta"):
        pass
    await cache.clear("zeta")
    assert await value_of(cache, "acme") == b"a"
    assert await value_of(cache, "zeta") is None


@pytest.mark.proves("S3")
async def test_a_fence_of_another_tenant_does_not_fit(cache: AnswerCache) -> None:
    await cache.clear("acme")
    foreign = (await cache.lookup("zeta", "k")).fence
    assert foreign == (await cache.lookup("acme", "k")).fence or not await cache.store(
        "acme", "k", b"x", foreign, 60
    )


async def test_an_invented_fence_does_not_fit(cache: AnswerCache) -> None:
    assert not await cache.store("acme", "k", b"x", Fence("0"), 60)
    assert not await cache.store("acme", "k", b"x", Fence(""), 60)


async def test_clear_drops_the_answers_and_fills_under_way(cache: AnswerCache) -> None:
    await fill(cache)
    fence = (await cache.lookup("acme", "k")).fence
    await cache.clear("acme")
    assert await value_of(cache) is None
    assert not await cache.store("acme", "k", b"old", fence, 60)


async def test_an_answer_goes_when_its_time_is_over(cache: AnswerCache) -> None:
    fence = (await cache.lookup("acme", "k")).fence
    assert await cache.store("acme", "k", b"x", fence, 1)
    for _ in range(400):
        if await value_of(cache) is None:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it is still there after 20 s")


async def test_it_can_serve(cache: AnswerCache) -> None:
    await cache.ping()


async def test_many_at_once(cache: AnswerCache) -> None:
    async def one(number: int) -> None:
        key = f"k{number % 7}"
        if number % 10 == 0:
            async with cache.writing("acme"):
                await asyncio.sleep(0)
        else:
            await fill(cache, key=key, value=key.encode())
            assert await value_of(cache, key=key) in {None, key.encode()}

    await asyncio.gather(*(one(number) for number in range(60)))
    assert await fill(cache, value=b"settled")
    assert await value_of(cache) == b"settled"


class _Race:
    """Readers and writers of one document, moved on step by step in any order."""

    def __init__(self, cache: AnswerCache) -> None:
        self.cache = cache
        self.version = 0
        self.writers: list[tuple[asyncio.Task[None], asyncio.Event, asyncio.Event]] = []
        self.readers: list[tuple[Fence, bytes]] = []

    async def ask(self, _: int) -> None:
        found = await self.cache.lookup("acme", "k")
        if found.answer is None:
            self.readers.append((found.fence, b"%d" % self.version))
        else:
            assert not self.writers, "served while a write was under way"
            assert found.answer.value == b"%d" % self.version, "served an answer from before a write"

    async def fill(self, which: int) -> None:
        if self.readers:
            fence, value = self.readers.pop(which % len(self.readers))
            await self.cache.store("acme", "k", value, fence, 60)

    async def begin(self, _: int) -> None:
        entered, commit, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def write() -> None:
            async with self.cache.writing("acme"):
                entered.set()
                await commit.wait()
                self.version += 1
                await leave.wait()

        task = asyncio.create_task(write())
        await entered.wait()
        self.writers.append((task, commit, leave))

    async def commit(self, which: int) -> None:
        if self.writers:
            self.writers[which % len(self.writers)][1].set()
            await asyncio.sleep(0)

    async def end(self, which: int) -> None:
        if self.writers:
            task, commit, leave = self.writers.pop(which % len(self.writers))
            commit.set()
            leave.set()
            await task

    async def clear(self, _: int) -> None:
        await self.cache.clear("acme")

    async def settle(self) -> None:
        while self.writers:
            await self.end(0)
        await self.ask(0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "fill", "fill", "begin", "commit", "end", "end", "clear"]),
        st.integers(0, 5),
    ),
    max_size=40,
)


@pytest.mark.proves("C1")
@given(steps=STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_order_of_reads_and_writes_serves_a_stale_answer(
    open_cache: OpenCache, steps: list[tuple[str, int]]
) -> None:
    async def run() -> None:
        async with open_cache() as cache:
            race = _Race(cache)
            for name, which in steps:
                step: Callable[[int], Coroutine[Any, Any, None]] = getattr(race, name)
                await step(which)
            await race.settle()

    asyncio.run(run())
