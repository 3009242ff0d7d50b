"""Lets work be prepared while it is not yet known whether it will be ours: what costs something waits for the go-ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_AWAITED: Final[ContextVar[asyncio.Future[None] | None]] = ContextVar("go_ahead", default=None)


@contextmanager
def awaiting(go: asyncio.Future[None]) -> Iterator[None]:
    """What runs in the block, and the tasks it starts, have the go-ahead when the future is done."""
    token = _AWAITED.set(go)
    try:
        yield
    finally:
        _AWAITED.reset(token)


async def given() -> None:
    """Before anything that costs or that others can see; at once where nobody has to decide."""
    go = _AWAITED.get()
    if go is not None and not go.done():
        await asyncio.shield(go)
