"""What every cache of plain values (embeddings) promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from ragkube_api.adapters.local_level import MemoryValueCache
from ragkube_api.ports import ValueCache
from support.caches import KINDS, backend_of, digest


@pytest.fixture(params=KINDS)
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[ValueCache]:
    async with backend_of(request) as backend:
        yield (
            MemoryValueCache(max_entries=100, max_bytes=1 << 20, clock=time.monotonic)
            if backend is None
            else backend.values
        )


@pytest.mark.proves("C3")
async def test_a_value_is_found_until_its_time_is_over(cache: ValueCache) -> None:
    assert await cache.get("acme", digest("a")) is None
    await cache.put("acme", digest("a"), b"\x00\xff", 60)
    await cache.put("acme", digest("b"), b"short", 0.3)
    assert await cache.get("acme", digest("a")) == b"\x00\xff"
    for _ in range(400):
        if await cache.get("acme", digest("b")) is None:
            break
        await asyncio.sleep(0.05)
    assert await cache.get("acme", digest("b")) is None
    assert await cache.get("acme", digest("a")) == b"\x00\xff"


@pytest.mark.proves("S3")
async def test_tenants_share_no_values(cache: ValueCache) -> None:
    await cache.put("acme", digest("a"), b"x", 60)
    assert await cache.get("zeta", digest("a")) is None


async def test_what_does_not_fit_is_not_kept(cache: ValueCache) -> None:
    await cache.put("acme", digest("big"), b"x" * (8 << 20), 60)
    for number in range(300):
        await cache.put("acme", digest(str(number)), b"v", 60)
    assert await cache.get("acme", digest("299")) == b"v"
