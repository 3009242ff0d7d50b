"""Lets work be prepared while it is not yet known whether it will be ours: what costs something waits for the go-ahead."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Final

_AWAITED: Final[ContextVar[asyncio.Future[None] | None]] = ContextVar("go_ahead", default=None)


def awaits(go: asyncio.Future[None]) -> None:
    """From now on this task, and those that it starts, have the go-ahead when the future is done."""
    _AWAITED.set(go)


async def given() -> None:
    """Before anything that costs or that others can see; at once where nobody has to decide. Raises ``CancelledError`` when it is not ours."""
    go = _AWAITED.get()
    if go is not None:
        await asyncio.shield(go)
