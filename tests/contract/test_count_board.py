"""What every count board promises, and what replicas make of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping

import pytest

from ragkube_api.adapters.memory_counts import MemoryCountBoard
from ragkube_api.adapters.redis_cache import open_redis
from ragkube_api.domain import Totals
from ragkube_api.errors import CacheUnavailableError
from ragkube_api.ports import CountBoard
from ragkube_api.services.totals import DeploymentCounts
from ragkube_api.telemetry import Telemetry
from support.caches import KINDS, backend_of
from support.redis import RedisServers

pytestmark = pytest.mark.proves("C8")


@pytest.fixture(params=KINDS)
async def board(request: pytest.FixtureRequest) -> AsyncIterator[CountBoard]:
    async with backend_of(request) as backend:
        yield MemoryCountBoard() if backend is None else backend.counts


async def test_an_empty_board_has_no_replicas_and_no_counts(board: CountBoard) -> None:
    found = await board.read()
    assert (found.replicas, found.age_seconds, found.counts) == (0, 0.0, {})
    assert found.since > 1.7e9


async def test_counts_add_up_and_the_same_number_counts_once(board: CountBoard) -> None:
    since = (await board.read()).since
    await board.add("a", 0, {"hits": 2})
    await board.add("b", 0, {"hits": 3, "misses": 1})
    await board.add("a", 0, {"hits": 2})
    await board.add("a", 1, {"hits": 4})
    found = await board.read()
    assert (found.replicas, found.counts) == (2, {"hits": 9, "misses": 1})
    assert 0 <= found.age_seconds < 30
    assert found.since >= since - 1


async def test_a_replica_that_ends_is_none_and_its_counts_stay(board: CountBoard) -> None:
    await board.add("a", 0, {"hits": 2})
    await board.add("b", 0, {"hits": 1})
    await board.add("a", 1, {"hits": 1}, last=True)
    found = await board.read()
    assert (found.replicas, found.counts) == (1, {"hits": 4})


async def test_replicas_read_the_sum_of_what_all_have_counted(board: CountBoard) -> None:
    first, second = (Telemetry() for _ in range(2))
    counts = [DeploymentCounts(board, telemetry) for telemetry in (first, second)]
    first.cache_hits.labels("l1", "exact").inc()
    second.cache_hits.labels("l1", "exact").inc(2)
    second.cache_errors.labels("corrupt").inc()
    for _ in range(2):
        for each in counts:
            totals, found = await each.read()
    assert totals.replicas == 2
    assert [(c.labels, c.count) for c in found["hits"]] == [({"kind": "exact", "level": "l1"}, 3)]
    assert [(c.labels, c.count) for c in found["errors"]] == [({"reason": "corrupt"}, 1)]
    assert found["misses"] == []


class Breaking:
    """A board that is away, before or after it has done what was asked."""

    def __init__(self, board: CountBoard) -> None:
        self.board = board
        self.breaks: list[str] = []

    async def add(self, replica: str, number: int, counts: Mapping[str, int], *, last: bool = False) -> None:
        how = self.breaks.pop() if self.breaks else ""
        if how != "before":
            await self.board.add(replica, number, counts, last=last)
        if how:
            raise CacheUnavailableError("away", retry_after=1)

    async def read(self) -> Totals:
        return await self.board.read()


@pytest.mark.parametrize("how", ["before", "after"])
async def test_what_could_not_be_handed_over_is_counted_once_later(board: CountBoard, how: str) -> None:
    breaking, telemetry = Breaking(board), Telemetry()
    counts = DeploymentCounts(breaking, telemetry)
    telemetry.cache_misses.labels("exact").inc(3)
    breaking.breaks = [how]
    with pytest.raises(CacheUnavailableError):
        await counts.read()
    telemetry.cache_misses.labels("exact").inc()
    for _ in range(2):
        _, found = await counts.read()
    assert [c.count for c in found["misses"]] == [4]


@pytest.mark.component("redis")
@pytest.mark.parametrize(
    "command",
    [
        ("SET", "x"),
        ("HSET", '["hits",{"kind":"exact","level":"l1"}]', "x"),
        ("HSET", "nonsense", "5"),
        ("HSET", "since", "x"),
    ],
)
async def test_foreign_values_in_its_place_harm_nothing(
    redis_cluster: RedisServers, command: tuple[str, ...]
) -> None:
    prefix, damaged = uuid.uuid4().hex, list[None]()
    place = f"{{{prefix}}}:counted"
    redis_cluster.call(redis_cluster.primary_of(place), command[0], place, *command[1:])
    where = redis_cluster.settings(prefix=prefix)
    async with open_redis(where, damaged=lambda: damaged.append(None)) as backend:
        telemetry = Telemetry()
        telemetry.cache_hits.labels("l1", "exact").inc()
        _, found = await DeploymentCounts(backend.counts, telemetry).read()
    assert [c.count for c in found["hits"]] == [1]
