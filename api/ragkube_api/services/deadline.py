"""One limit for everything a request does."""

from __future__ import annotations

import asyncio
from types import TracebackType

from ragkube_api.errors import DeadlineExceededError


class Deadline:
    """``async with``: raises ``DeadlineExceededError`` when the block takes longer; other timeouts pass through."""

    __slots__ = ("_limit", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._limit = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise DeadlineExceededError(f"The request took longer than {self._seconds:g} seconds.") from late
