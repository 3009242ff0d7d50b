"""Who computes what many ask for at the same time."""

from __future__ import annotations

import asyncio

import pytest

from ragkube_api.coalescing import SingleFlight


class Search:
    """Ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        return number


async def _asked(flights: SingleFlight[int], search: Search, askers: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(flights.run("q", search)) for _ in range(askers)]
    await asyncio.sleep(0)
    return tasks


async def test_one_search_for_all_who_ask_at_the_same_time_and_another_one_afterwards() -> None:
    flights, search = SingleFlight[int](), Search()
    tasks = await _asked(flights, search, 5)
    other = asyncio.create_task(flights.run("another", search))
    await asyncio.sleep(0)
    search.may_end.set()
    assert await asyncio.gather(*tasks) == [1] * 5
    assert await other == 2
    assert await flights.run("q", search) == 3


@pytest.mark.parametrize("leaving", [1, 2, 4])
async def test_when_the_first_leaves_one_of_the_others_begins_anew(leaving: int) -> None:
    flights, search = SingleFlight[int](), Search()
    tasks = await _asked(flights, search, 5)
    for number, task in enumerate(tasks[:leaving], 1):
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(10):
            while search.begun == number:  # noqa: ASYNC110  that is the event
                await asyncio.sleep(0)
    search.may_end.set()
    assert await asyncio.gather(*tasks[leaving:]) == [leaving + 1] * (5 - leaving)
    assert search.begun == leaving + 1


async def test_a_failure_is_everybody_s_and_the_next_one_begins_anew() -> None:
    flights, may_fail = SingleFlight[int](), asyncio.Event()

    async def broken() -> int:
        await may_fail.wait()
        raise RuntimeError("disk")

    tasks = [asyncio.create_task(flights.run("q", broken)) for _ in range(3)]
    await asyncio.sleep(0)
    may_fail.set()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(failure) for failure in failures] == ["disk"] * 3
    search = Search()
    search.may_end.set()
    assert await flights.run("q", search) == 1
