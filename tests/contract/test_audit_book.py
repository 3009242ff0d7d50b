"""What every audit book promises, and what the error budget makes of it on several replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import generate_latest

from ragkube_api.adapters.memory_audits import MemoryAuditBook
from ragkube_api.errors import CacheUnavailableError
from ragkube_api.ports import AuditBook
from ragkube_api.services.semantic.budget import TRUST_SECONDS, ErrorBudget
from ragkube_api.services.semantic.standing import Standing, decode
from ragkube_api.telemetry import Telemetry
from support.api import metric_in
from support.caches import KINDS, backend_of

TENANT, NAME = "acme", "0.2"


@pytest.fixture(params=KINDS)
async def book(request: pytest.FixtureRequest) -> AsyncIterator[AuditBook]:
    async with backend_of(request) as backend:
        yield MemoryAuditBook() if backend is None else backend.audits


async def test_an_empty_book_has_nothing(book: AuditBook) -> None:
    assert await book.read(TENANT, NAME) is None


async def test_a_record_is_replaced_only_by_who_knows_it(book: AuditBook) -> None:
    assert await book.replace(TENANT, NAME, None, b"1") == (True, b"1")
    assert await book.replace(TENANT, NAME, None, b"2") == (False, b"1")
    assert await book.replace(TENANT, NAME, b"0", b"2") == (False, b"1")
    assert await book.replace(TENANT, NAME, b"1", b"2") == (True, b"2")
    assert await book.replace(TENANT, NAME, b"1", b"2") == (False, b"2"), "the same bytes, of somebody else"
    assert await book.read(TENANT, NAME) == b"2"


async def test_tenants_and_names_are_apart(book: AuditBook) -> None:
    await book.replace(TENANT, NAME, None, b"1")
    assert await book.read("other", NAME) is None
    assert await book.read(TENANT, "0.02") is None


@pytest.mark.proves("C7")
async def test_no_audit_is_lost_or_counted_twice_when_replicas_count_at_the_same_time(
    book: AuditBook,
) -> None:
    replicas = [ErrorBudget(0.2, book, Telemetry()) for _ in range(4)]
    for n in range(40):
        replicas[n % 4].record(TENANT, wrong=n % 8 == 0)
        if n % 3 == 0:
            await asyncio.sleep(0)
    for replica in replicas:
        await replica.settled()
    record = await book.read(TENANT, NAME)
    standing = decode(record or b"")
    assert standing is not None
    assert standing.audits == 40
    assert (standing.windows[0].right, standing.windows[0].wrong) == (35, 5)


@pytest.mark.proves("C7")
async def test_replicas_stop_and_come_back_together(book: AuditBook) -> None:
    clock = Clock()
    first, second = (ErrorBudget(0.2, book, Telemetry(), clock) for _ in range(2))
    assert not await first.serving(TENANT)
    assert not await second.serving(TENANT)
    for n in range(24):
        await _recorded((first, second)[n % 2], wrong=False)
    clock.now += TRUST_SECONDS
    assert await first.serving(TENANT)
    assert await second.serving(TENANT)
    stopped = await _until(first, serving=False, wrong=True)
    assert stopped <= 5
    clock.now += TRUST_SECONDS
    assert not await second.serving(TENANT), "what the other replica counted"
    await _until(second, serving=True, wrong=False)
    clock.now += TRUST_SECONDS
    assert await first.serving(TENANT)
    restarted = ErrorBudget(0.2, book, Telemetry(), clock)
    assert await restarted.serving(TENANT), "a replica that begins knows what the others know"


@pytest.mark.proves("C7")
async def test_a_record_that_was_lost_or_is_damaged_is_made_good_by_who_knows_more(book: AuditBook) -> None:
    clock, telemetry = Clock(), Telemetry()
    budget = ErrorBudget(0.2, book, telemetry, clock)
    for _ in range(24):
        await _recorded(budget, wrong=False)
    whole = await book.read(TENANT, NAME)
    for bad in (Standing().after(0.2, wrong=True).encode(), b"not ours"):
        held = await book.read(TENANT, NAME)
        await book.replace(TENANT, NAME, held, bad)
        clock.now += TRUST_SECONDS
        assert await budget.serving(TENANT)
        assert await book.read(TENANT, NAME) == whole
    assert _corrupt(telemetry) == 1


def _corrupt(telemetry: Telemetry) -> float:
    text = generate_latest(telemetry.registry).decode()
    return metric_in(text, "rag_cache_errors_total", reason="corrupt")


class Clock:
    """Goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class FailingBook:
    """A book that can be away: before a call arrives, or after it was done."""

    def __init__(self, book: AuditBook) -> None:
        self.book = book
        self.away = False
        self.loses_replies = False

    async def read(self, tenant: str, name: str) -> bytes | None:
        return await self._call(self.book.read, tenant, name)  # type: ignore[no-any-return]

    async def replace(
        self, tenant: str, name: str, old: bytes | None, new: bytes
    ) -> tuple[bool, bytes | None]:
        return await self._call(self.book.replace, tenant, name, old, new)  # type: ignore[no-any-return]

    async def _call(self, method: Any, *arguments: Any) -> Any:
        if self.away:
            raise CacheUnavailableError("away")
        result = await method(*arguments)
        if self.loses_replies:
            raise CacheUnavailableError("lost")
        return result


@pytest.mark.proves("C7")
async def test_nothing_is_served_by_what_was_known_too_long_ago(book: AuditBook) -> None:
    clock, failing = Clock(), FailingBook(book)
    budget = ErrorBudget(0.2, failing, Telemetry(), clock)
    for _ in range(24):
        await _recorded(budget, wrong=False)
    failing.away = True
    clock.now += TRUST_SECONDS / 2
    assert await budget.serving(TENANT), "it goes on for a moment"
    await budget.settled()
    clock.now += TRUST_SECONDS / 2
    assert not await budget.serving(TENANT)
    failing.away = False
    clock.now += 1
    await budget.serving(TENANT)
    await budget.settled()
    assert await budget.serving(TENANT)


@pytest.mark.proves("C7")
async def test_when_a_reply_is_lost_no_right_audit_counts_twice_and_no_wrong_one_is_lost(
    book: AuditBook,
) -> None:
    clock, failing = Clock(), FailingBook(book)
    budget = ErrorBudget(0.2, failing, Telemetry(), clock)
    failing.loses_replies = True
    for wrong in (False, True):
        await _recorded(budget, wrong=wrong)
    failing.loses_replies, failing.away = False, True
    for wrong in (False, True):
        await _recorded(budget, wrong=wrong)
    failing.away = False
    await _recorded(budget, wrong=False)
    standing = decode(await book.read(TENANT, NAME) or b"")
    assert standing is not None
    (window,) = standing.windows
    assert window.right == 2, "the first and the last"
    assert window.wrong >= 2


async def _recorded(budget: ErrorBudget, *, wrong: bool) -> None:
    budget.record(TENANT, wrong=wrong)
    await budget.settled()


async def _until(budget: ErrorBudget, *, serving: bool, wrong: bool) -> int:
    for count in range(1, 300):
        await _recorded(budget, wrong=wrong)
        if await budget.serving(TENANT) == serving:
            return count
    raise AssertionError("never")
