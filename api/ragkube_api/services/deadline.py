"""One limit for everything a request does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ragkube_api.errors import DeadlineExceededError


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Raise ``DeadlineExceededError`` when the block takes longer; other timeouts pass through."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceededError(f"The request took longer than {seconds:g} seconds.") from error
