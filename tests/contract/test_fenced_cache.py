"""What every fenced cache promises: above all, that nothing stale is called current."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragkube_api.domain import About, Cached, Fence, Fill, Key, Kind, Lifetime, Selector
from ragkube_api.errors import StoreUnavailableError
from ragkube_api.ports import FencedCache
from support.caches import (
    ABOUT,
    HOUR,
    KEY,
    TENANT,
    Alternating,
    Asking,
    digest,
    fill,
    found,
    key,
    opened,
    value_of,
)
from support.redis import RedisServers

OpenCache: TypeAlias = Callable[[], AbstractAsyncContextManager[FencedCache]]


@asynccontextmanager
async def _memory() -> AsyncIterator[FencedCache]:
    from ragkube_api.adapters.memory_cache import MemoryCache

    yield MemoryCache(max_entries=1000, max_bytes=1 << 22, unknown_seconds=1)


def _redis(servers: RedisServers, *, entries: int) -> OpenCache:
    @asynccontextmanager
    async def open_it() -> AsyncIterator[FencedCache]:
        async with opened(servers.settings(prefix=uuid.uuid4().hex), entries=entries) as cache:
            yield cache

    return open_it


def _asked(open_cache: OpenCache) -> OpenCache:
    @asynccontextmanager
    async def open_it() -> AsyncIterator[FencedCache]:
        async with open_cache() as cache:
            yield Asking(cache)

    return open_it


def _replicas(servers: RedisServers) -> OpenCache:
    @asynccontextmanager
    async def open_it() -> AsyncIterator[FencedCache]:
        where = servers.settings(prefix=uuid.uuid4().hex)
        async with opened(where) as one, opened(where) as other:
            yield Alternating([one, other])

    return open_it


@pytest.fixture(
    scope="session",
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.component("redis")),
        pytest.param("redis-alone", marks=pytest.mark.component("redis")),
        pytest.param("redis-replicas", marks=pytest.mark.component("redis")),
        pytest.param("valkey", marks=pytest.mark.component("valkey")),
    ],
)
def open_cache(request: pytest.FixtureRequest) -> OpenCache:
    """Opens an empty cache of each kind: with and without a level in the process, and two replicas in turns."""
    if request.param == "memory":
        return _memory
    servers = request.getfixturevalue(f"{request.param.partition('-')[0]}_cluster")
    match request.param:
        case "redis-alone":
            return _asked(_redis(servers, entries=0))
        case "redis-replicas":
            return _replicas(servers)
        case _:
            return _redis(servers, entries=1000)


@pytest.fixture
async def cache(open_cache: OpenCache) -> AsyncIterator[FencedCache]:
    async with open_cache() as opened:
        yield opened


async def fence_of(cache: FencedCache, tenant: str = TENANT) -> Fence:
    fence = (await cache.lookup(tenant, KEY)).fence
    assert fence is not None
    return fence


async def stored(cache: FencedCache, fence: Fence | None, value: bytes = b"old") -> bool:
    return await cache.store(TENANT, Fill(KEY, value, HOUR), fence=fence)


async def filled_at_last(cache: FencedCache) -> None:
    for _ in range(600):
        if await fill(cache, value=b"filled"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("still refused after 30 s")


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    for _ in range(400):
        if await condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen within 20 s")


@pytest.mark.proves("C1")
async def test_a_stored_value_is_found_with_its_age(cache: FencedCache) -> None:
    assert await value_of(cache) is None
    value = b"\x00\xff answer " + "ünï😀".encode()
    assert await fill(cache, value=value)
    cached = await found(cache)
    assert cached is not None
    assert cached.value == value
    assert cached.current
    assert 0 <= cached.age_seconds < 30
    assert 3500 < cached.fresh_seconds <= 3600


@pytest.mark.proves("C3")
async def test_kinds_do_not_mix(cache: FencedCache) -> None:
    kinds: list[Kind] = ["answer", "retrieval", "document"]
    for kind in kinds:
        assert await fill(cache, key=Key(kind, digest("same")), value=kind.encode())
    assert [await value_of(cache, key=Key(kind, digest("same"))) for kind in kinds] == [
        b"answer",
        b"retrieval",
        b"document",
    ]


@pytest.mark.proves("C3")
async def test_what_is_asked_for_beside_comes_where_the_first_is_not_current(cache: FencedCache) -> None:
    passages = Key("retrieval", digest("passages"))
    assert (await cache.lookup(TENANT, KEY, passages)).beside is None
    await fill(cache, key=passages, value=b"passages")
    lookup = await cache.lookup(TENANT, KEY, passages)
    assert lookup.found is None
    assert lookup.beside is not None
    assert (lookup.beside.value, lookup.beside.current) == (b"passages", True)
    assert lookup.fence == await fence_of(cache)
    async with cache.writing(TENANT):
        pass
    lookup = await cache.lookup(TENANT, KEY, passages)
    assert lookup.beside is not None
    assert not lookup.beside.current
    await fill(cache, key=passages, value=b"passages")
    await fill(cache)
    assert (await cache.lookup(TENANT, KEY, passages)).beside is None


async def test_the_fence_stays_while_nothing_is_written(cache: FencedCache) -> None:
    first = await fence_of(cache)
    await fill(cache)
    assert (await cache.lookup(TENANT, key("other"))).fence == first


@pytest.mark.proves("C3")
async def test_what_is_stored_together_is_found_apart(cache: FencedCache) -> None:
    passages = Fill(Key("retrieval", digest("passages")), b"passages", Lifetime(60))
    assert await cache.store(TENANT, Fill(KEY, b"answer", HOUR), passages, fence=await fence_of(cache))
    assert await value_of(cache) == b"answer"
    other = await found(cache, key=passages.key)
    assert other is not None
    assert (other.value, other.current) == (b"passages", True)
    assert other.fresh_seconds <= 60


@pytest.mark.proves("C4")
async def test_of_what_comes_too_late_nothing_is_stored(cache: FencedCache) -> None:
    passages = Fill(Key("retrieval", digest("passages")), b"passages", HOUR)
    fence = await fence_of(cache)
    async with cache.writing(TENANT):
        pass
    assert not await cache.store(TENANT, Fill(KEY, b"answer", HOUR), passages, fence=fence)
    assert [await found(cache, key=each) for each in (KEY, passages.key)] == [None, None]


async def test_a_later_value_replaces_an_earlier_one(cache: FencedCache) -> None:
    one = (
        cache.first if isinstance(cache, Alternating) else cache
    )  # others may serve the earlier, as good, for its TTL
    await fill(one, value=b"1")
    await fill(one, value=b"2")
    assert await value_of(one) == b"2"


async def test_a_peek_tells_only_what_is_current(cache: FencedCache) -> None:
    await fill(cache, value=b"x")
    await cache.lookup(TENANT, KEY)
    seen = cache.peek(TENANT, KEY)
    assert seen is None or (seen.value == b"x" and seen.current and seen.level == "l1")
    async with cache.writing(TENANT):
        assert cache.peek(TENANT, KEY) is None
    assert cache.peek(TENANT, KEY) is None


@pytest.mark.proves("C1", "C4")
async def test_after_a_write_an_entry_is_there_but_not_current(cache: FencedCache) -> None:
    await fill(cache, value=b"old")
    async with cache.writing(TENANT):
        during = await found(cache)
        assert during is None or not during.current
    after = await found(cache)
    assert after is not None, "its evidence may still hold"
    assert after.value == b"old"
    assert not after.current
    assert await fill(cache, value=b"new")
    assert await value_of(cache) == b"new"


@pytest.mark.proves("C4")
async def test_an_entry_is_current_again_when_it_is_stored_anew(cache: FencedCache) -> None:
    await fill(cache, value=b"same")
    async with cache.writing(TENANT):
        pass
    assert await value_of(cache) is None
    assert await fill(cache, value=b"same")
    assert await value_of(cache) == b"same"


@pytest.mark.proves("C1", "C4")
async def test_a_fill_from_before_a_write_is_dropped(cache: FencedCache) -> None:
    fence = await fence_of(cache)
    async with cache.writing(TENANT):
        assert not await stored(cache, fence)
    assert not await stored(cache, fence)
    assert await found(cache) is None


@pytest.mark.proves("C1", "C4")
async def test_a_fill_that_began_during_a_write_is_dropped(cache: FencedCache) -> None:
    async with cache.writing(TENANT):
        fence = await fence_of(cache)
        assert not await stored(cache, fence)
    assert not await stored(cache, fence)
    assert await found(cache) is None


async def test_two_writers_overlap(cache: FencedCache) -> None:
    async with cache.writing(TENANT):
        async with cache.writing(TENANT):
            pass
        assert not await stored(cache, await fence_of(cache)), "the first is still writing"
    assert await fill(cache)


async def test_a_write_that_failed_still_ends_what_was_current_and_lets_go(cache: FencedCache) -> None:
    await fill(cache)
    with pytest.raises(RuntimeError, match="disk"):
        async with cache.writing(TENANT):
            raise RuntimeError("disk")
    assert await value_of(cache) is None
    assert await fill(cache)


async def test_a_cancelled_write_lets_go(cache: FencedCache) -> None:
    entered = asyncio.Event()

    async def write() -> None:
        async with cache.writing(TENANT):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await fill(cache), "what it began may still be carried out"
    await filled_at_last(cache)


async def test_a_write_whose_outcome_is_unknown_lets_go_in_the_end(cache: FencedCache) -> None:
    await fill(cache)
    before = await fence_of(cache)
    with pytest.raises(StoreUnavailableError):
        async with cache.writing(TENANT):
            raise StoreUnavailableError("away")
    assert await value_of(cache) is None
    assert not await fill(cache), "it may still be carried out"
    assert not await stored(cache, before)
    await filled_at_last(cache)


@pytest.mark.proves("S3")
async def test_tenants_share_nothing(cache: FencedCache) -> None:
    await fill(cache, "acme", value=b"a")
    await fill(cache, "zeta", value=b"z")
    async with cache.writing("zeta"):
        pass
    assert await value_of(cache, "zeta") is None
    await fill(cache, "zeta", value=b"z")
    assert await cache.drop("zeta", Selector()) == 1
    assert await value_of(cache, "acme") == b"a"
    assert await found(cache, "zeta") is None


@pytest.mark.proves("S3")
async def test_a_fence_of_another_tenant_does_not_fit(cache: FencedCache) -> None:
    foreign = await fence_of(cache, "zeta")
    assert foreign == await fence_of(cache) or not await stored(cache, foreign)


async def test_an_invented_fence_does_not_fit(cache: FencedCache) -> None:
    assert not await stored(cache, Fence("0"))
    assert not await stored(cache, Fence(""))


@pytest.mark.proves("C2")
async def test_without_a_fence_a_value_is_never_current(cache: FencedCache) -> None:
    await stored(cache, None, b"x")
    cached = await found(cache)
    assert cached is None or not cached.current
    assert cache.peek(TENANT, KEY) is None


@pytest.mark.proves("C5")
async def test_a_value_goes_when_its_time_is_over(cache: FencedCache) -> None:
    assert await fill(cache, lifetime=Lifetime(0.5))

    async def gone() -> bool:
        return await found(cache) is None

    await until(gone)
    assert cache.peek(TENANT, KEY) is None


@pytest.mark.proves("C6")
async def test_past_its_ttl_a_value_stays_for_revalidation(cache: FencedCache) -> None:
    assert await fill(cache, lifetime=Lifetime(0.3, stale_seconds=3600))

    async def over() -> bool:
        cached = await found(cache)
        assert cached is not None
        assert cached.current, "old, but valid"
        return cached.fresh_seconds < 0

    await until(over)
    assert cache.peek(TENANT, KEY) is None, "serving it needs a decision"


def about(question: str, **fields: Any) -> About:
    return About(question=question, mark=digest(f"mark of {question}"), **fields)


async def fill_three(cache: FencedCache) -> None:
    await fill(cache, key=key("a"), about=about("how do pods start?", tags=("ops",), documents=("d1", "d2")))
    await fill(cache, key=key("b"), about=about("how do nodes start?", tags=("ops", "x"), documents=("d2",)))
    await fill(cache, key=key("c"), about=about("what is [a] pod", documents=("d3",)))
    await fill(cache, key=Key("retrieval", digest("a")), value=b"r")


@pytest.mark.proves("C8")
@pytest.mark.parametrize(
    ("selector", "gone"),
    [
        (Selector(tag="ops"), "ab"),
        (Selector(tag="nobody"), ""),
        (Selector(document="d2"), "ab"),
        (Selector(document="d3"), "c"),
        (Selector(question="HOW do * start?"), "ab"),
        (Selector(question="how do pods"), ""),
        (Selector(question="*[a]*"), "c"),
        (Selector(question="how do p?ds*", tag="ops"), "a"),
        (Selector(tag="x", document="d1"), ""),
        (Selector(kind="retrieval"), "r"),
        (Selector(kind="answer"), "abc"),
        (Selector(), "abcr"),
    ],
)
async def test_entries_are_dropped_by_what_they_are_about(
    cache: FencedCache, selector: Selector, gone: str
) -> None:
    await fill_three(cache)
    assert await cache.drop(TENANT, selector) == len(gone)
    keys = {"a": key("a"), "b": key("b"), "c": key("c"), "r": Key("retrieval", digest("a"))}
    left = [name for name, each in keys.items() if await found(cache, key=each) is not None]
    assert left == [name for name in keys if name not in gone]
    for name in gone:
        assert cache.peek(TENANT, keys[name]) is None


async def test_a_pattern_of_many_stars_is_not_slow(cache: FencedCache) -> None:
    await fill(cache, about=about("a" * 1000))
    assert await cache.drop(TENANT, Selector(question="*a" * 200 + "b")) == 0


@pytest.mark.proves("C8")
async def test_a_drop_refuses_fills_that_are_under_way(cache: FencedCache) -> None:
    fence = await fence_of(cache)
    await cache.drop(TENANT, Selector())
    assert not await stored(cache, fence)
    assert await fill(cache)


@pytest.mark.proves("C8")
async def test_a_drop_leaves_other_entries_current(cache: FencedCache) -> None:
    await fill_three(cache)
    await cache.drop(TENANT, Selector(document="d3"))
    assert await value_of(cache, key=key("a")) is not None


@pytest.mark.proves("C8")
async def test_a_disowned_answer_never_comes_back(cache: FencedCache) -> None:
    await fill(cache, value=b"wrong", about=ABOUT)
    fence = await fence_of(cache)
    assert await cache.disown(TENANT, KEY)
    assert await found(cache) is None
    assert cache.peek(TENANT, KEY) is None
    assert not await cache.store(TENANT, Fill(KEY, b"wrong", HOUR, ABOUT), fence=fence)
    assert not await fill(cache, value=b"wrong", about=ABOUT)
    assert not await fill(cache, key=key("paraphrase"), value=b"wrong", about=ABOUT)
    assert not await cache.store(TENANT, Fill(KEY, b"wrong", HOUR, ABOUT), fence=None)
    assert await found(cache) is None
    beside = Fill(Key("retrieval", digest("passages")), b"passages", HOUR)
    assert not await cache.store(
        TENANT, Fill(KEY, b"wrong", HOUR, ABOUT), beside, fence=await fence_of(cache)
    )
    assert await value_of(cache, key=beside.key) == b"passages", "they are not wrong"
    better = About(question=ABOUT.question, mark=digest("better"))
    assert await fill(cache, value=b"better", about=better), "another answer to the question may be stored"
    assert await value_of(cache) == b"better"
    assert await value_of(cache) == b"better"
    assert cache.disowned(TENANT, ABOUT.mark)
    assert cache.disowned(TENANT, ABOUT.mark)
    assert not cache.disowned(TENANT, better.mark)
    assert not cache.disowned("zeta", ABOUT.mark)


@pytest.mark.proves("C8", "S3")
async def test_another_tenants_answer_cannot_be_disowned(cache: FencedCache) -> None:
    await fill(cache, about=ABOUT)
    assert not await cache.disown("zeta", KEY)
    assert not await cache.disown(TENANT, key("absent"))
    assert await value_of(cache) is not None
    assert await fill(cache, "zeta", about=ABOUT)


@pytest.mark.proves("C7", "C8")
async def test_entries_are_listed_in_the_order_of_their_time(cache: FencedCache) -> None:
    await fill_three(cache)
    notes = await cache.entries(TENANT)
    assert [note.key for note in notes] == [key("a"), key("b"), key("c")]
    assert notes[0].about == about("how do pods start?", tags=("ops",), documents=("d1", "d2"))
    assert notes[0].stored <= notes[1].stored <= notes[2].stored
    later = await cache.entries(TENANT, since=notes[2].stored)
    assert later[-1].key == key("c")
    assert (await cache.entries(TENANT, limit=1))[0].key == key("a")
    assert await cache.entries("zeta") == []
    await fill(cache, key=key("a"), about=about("how do pods start?"))
    assert [note.key for note in await cache.entries(TENANT)][-1] == key("a"), "stored again: the youngest"


@pytest.mark.proves("C8")
async def test_entries_that_have_gone_do_not_end_the_list(cache: FencedCache) -> None:
    short = Lifetime(1)
    await fill(cache, key=key("gone"), lifetime=short, about=ABOUT)
    for name in ("a", "b", "c"):
        await fill(cache, key=key(name), about=about(name))
    while await found(cache, key=key("gone")) is not None:  # noqa: ASYNC110  its time is over
        await asyncio.sleep(0.05)
    assert [note.key for note in await cache.entries(TENANT, limit=2)] == [key("a"), key("b")]


async def test_what_an_entry_is_about_comes_back_as_it_was(cache: FencedCache) -> None:
    whole = About(
        question="was? 😀\x00", request=b'{"k":1}', partition=digest("p"), ttl_class="live",
        documents=("a/b", "ü"), tags=("t 1", ""), mark=digest("m"),
    )  # fmt: skip
    await fill(cache, about=whole)
    assert (await cache.entries(TENANT))[0].about == whole


@pytest.mark.proves("C8")
async def test_the_most_asked_requests(cache: FencedCache) -> None:
    assert await cache.most_asked(TENANT, 10) == []
    await cache.tally(TENANT, {b'{"q":"a"}': 2, b'{"q":"b"}': 5})
    await cache.tally(TENANT, {b'{"q":"a"}': 4, b"\xff\x00": 1})
    assert await cache.most_asked(TENANT, 2) == [(b'{"q":"a"}', 6), (b'{"q":"b"}', 5)]
    assert await cache.most_asked("zeta", 2) == []


async def test_the_tally_is_bounded_and_keeps_the_most_asked(cache: FencedCache) -> None:
    await cache.tally(TENANT, {b"often": 50})
    for start in range(0, 5000, 500):
        await cache.tally(TENANT, {b"%d" % number: 1 for number in range(start, start + 500)})
    asked = await cache.most_asked(TENANT, 100_000)
    assert asked[0] == (b"often", 50)
    assert len(asked) <= 2500


@pytest.mark.proves("C8")
async def test_statistics_by_level_and_kind(cache: FencedCache) -> None:
    await fill_three(cache)
    rows = {(row.level, row.kind): row for row in await cache.statistics(TENANT)}
    lowest = "redis" if ("redis", "answer") in rows else "l1"
    assert rows[lowest, "answer"].entries == 3  # type: ignore[index]
    assert rows[lowest, "retrieval"].entries == 1  # type: ignore[index]
    assert rows[lowest, "answer"].bytes == 3 * len(b"answer")  # type: ignore[index]
    assert all(row.entries == 0 for row in await cache.statistics("zeta"))


async def test_it_can_serve(cache: FencedCache) -> None:
    await cache.ping()


async def test_many_at_once(cache: FencedCache) -> None:
    async def one(number: int) -> None:
        each = key(f"k{number % 7}")
        value = each.digest.encode()
        if number % 10 == 0:
            async with cache.writing(TENANT):
                await asyncio.sleep(0)
        else:
            await fill(cache, key=each, value=value)
            assert await value_of(cache, key=each) in {None, value}

    await asyncio.gather(*(one(number) for number in range(60)))
    assert await fill(cache, value=b"settled")
    assert await value_of(cache) == b"settled"


class _Race:
    """Readers and writers of one document, moved on step by step in any order."""

    def __init__(self, cache: FencedCache) -> None:
        self.cache = cache
        self.version = 0
        self.writers: list[tuple[asyncio.Task[None], asyncio.Event, asyncio.Event]] = []
        self.readers: list[tuple[Fence, bytes]] = []

    def check(self, cached: Cached | None) -> bool:
        if cached is None or not cached.current:
            return False
        assert not self.writers, "served while a write was under way"
        assert cached.value == b"%d" % self.version, "served a value from before a write"
        return True

    async def ask(self, _: int) -> None:
        if self.check(self.cache.peek(TENANT, KEY)):
            return
        lookup = await self.cache.lookup(TENANT, KEY)
        if not self.check(lookup.found):
            assert lookup.fence is not None
            self.readers.append((lookup.fence, b"%d" % self.version))

    async def fill(self, which: int) -> None:
        if self.readers:
            fence, value = self.readers.pop(which % len(self.readers))
            await self.cache.store(TENANT, Fill(KEY, value, HOUR), fence=fence)

    async def begin(self, _: int) -> None:
        entered, commit, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def write() -> None:
            async with self.cache.writing(TENANT):
                entered.set()
                await commit.wait()
                self.version += 1
                await leave.wait()

        task = asyncio.create_task(write())
        began = asyncio.create_task(entered.wait())
        await asyncio.wait([task, began], return_when=asyncio.FIRST_COMPLETED)
        if not began.done():
            began.cancel()
            await task
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

    async def drop(self, _: int) -> None:
        await self.cache.drop(TENANT, Selector())
        assert self.cache.peek(TENANT, KEY) is None, "served what was dropped"

    async def settle(self) -> None:
        while self.writers:
            await self.end(0)
        await self.ask(0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "fill", "fill", "begin", "commit", "end", "end", "drop"]),
        st.integers(0, 5),
    ),
    max_size=40,
)


@pytest.mark.proves("C1", "C4")
@given(steps=STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_order_of_reads_and_writes_serves_a_stale_value(
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


async def test_the_level_in_the_process_is_bounded() -> None:
    from ragkube_api.adapters.memory_cache import MemoryCache

    cache = MemoryCache(max_entries=3, max_bytes=1 << 20)
    for number in range(5):
        await fill(cache, key=key(str(number)))
        await found(cache, key=key("0"))  # used: it stays
    present = [n for n in range(5) if await found(cache, key=key(str(n))) is not None]
    assert present == [0, 3, 4]
    small = MemoryCache(max_entries=100, max_bytes=10_000)
    assert not await fill(small, value=b"x" * 20_000), "larger than all the room"
    for number in range(10):
        assert await fill(small, key=key(str(number)), value=b"x" * 2_000)
    rows = {row.kind: row for row in await small.statistics(TENANT)}
    assert rows["answer"].bytes is not None
    assert 0 < rows["answer"].bytes < 10_000
    assert rows["answer"].evictions == 10 - rows["answer"].entries
