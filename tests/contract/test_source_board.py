"""What every board of source progress promises."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ragkube_api.adapters.memory_cache import MemorySourceBoard
from ragkube_api.domain import SourceStatus
from ragkube_api.ports import SourceBoard
from support.caches import KINDS, backend_of


@pytest.fixture(params=KINDS)
async def board(request: pytest.FixtureRequest) -> AsyncIterator[SourceBoard]:
    async with backend_of(request) as backend:
        yield MemorySourceBoard() if backend is None else backend.sources


async def test_an_empty_board_is_empty(board: SourceBoard) -> None:
    assert dict(await board.read()) == {}


async def test_a_status_comes_back_whole(board: SourceBoard) -> None:
    status = SourceStatus(
        "docs", "syncing", total=9, done=4, indexed=2, unchanged=1, deleted=1,
        failures={"a/b ü.pdf": ("document-broken", "The file is damaged.")}, detail="half way",
    )  # fmt: skip
    await board.publish(status)
    assert dict(await board.read()) == {"docs": status}


async def test_a_later_status_replaces_an_earlier_one(board: SourceBoard) -> None:
    await board.publish(SourceStatus("docs", "syncing", failures={"x": ("document-empty", "No text.")}))
    await board.publish(SourceStatus("wiki", "pending"))
    await board.publish(SourceStatus("docs", "synced"))
    assert dict(await board.read()) == {
        "docs": SourceStatus("docs", "synced"),
        "wiki": SourceStatus("wiki", "pending"),
    }
