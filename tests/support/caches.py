"""What the tests of the caches have in common."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Final

import pytest

from ragkube_api.adapters.redis_cache import RedisBackend, open_redis
from ragkube_api.domain import About, Cached, Fill, Key, Lifetime, Lookup
from ragkube_api.ports import FencedCache
from ragkube_api.settings import LocalLevel, RedisCacheBackend

TENANT = "acme"
HOUR = Lifetime(3600)


def digest(name: str) -> str:
    """32 hexadecimal digits."""
    return sha256(name.encode()).hexdigest()[:32]


def key(name: str) -> Key:
    """The key of an answer."""
    return Key("answer", digest(name))


KEY = key("k")
ABOUT = About(question="how?", mark=digest("wrong"))


async def fill(
    cache: FencedCache,
    tenant: str = TENANT,
    key: Key = KEY,
    value: bytes = b"answer",
    *,
    lifetime: Lifetime = HOUR,
    about: About | None = None,
) -> bool:
    """Store it under the fence of now."""
    fence = (await cache.lookup(tenant, key)).fence
    return fence is not None and await cache.store(tenant, Fill(key, value, lifetime, about), fence=fence)


async def found(cache: FencedCache, tenant: str = TENANT, key: Key = KEY) -> Cached | None:
    """What is stored, current or not."""
    return (await cache.lookup(tenant, key)).found


async def value_of(cache: FencedCache, tenant: str = TENANT, key: Key = KEY) -> bytes | None:
    """The value that may be served as it is."""
    cached = await found(cache, tenant, key)
    return cached.value if cached is not None and cached.current else None


@asynccontextmanager
async def opened(
    where: RedisCacheBackend,
    *,
    entries: int = 1000,
    lease: float = 3,
    readers: float = 0.4,
    damaged: Callable[[], None] = lambda: None,
) -> AsyncIterator[Any]:
    """A cache over Redis; leases are short, so that tests that let one run out are."""
    async with open_redis(
        where,
        local=LocalLevel(max_entries=entries),
        lease_seconds=lease,
        reader_seconds=readers,
        damaged=damaged,
    ) as backend:
        yield backend.cache


class Asking:
    """A cache that is looked up without a task where that can be, as the HTTP protocol does it."""

    def __init__(self, inner: FencedCache) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def lookup(self, tenant: str, key: Key, beside: Key | None = None) -> Lookup:
        if self._inner.peek(tenant, key) is None:
            reply: asyncio.Future[Lookup] = asyncio.get_running_loop().create_future()

            def deliver(told: Lookup) -> None:
                if not reply.done():
                    reply.set_result(told)

            if self._inner.ask(tenant, key, beside, deliver):
                return await reply
        return await self._inner.lookup(tenant, key, beside)


class Alternating:
    """Replicas of one cache: every call goes to the next one."""

    def __init__(self, caches: Sequence[FencedCache]) -> None:
        self.first = caches[0]
        self._turns = itertools.cycle(caches)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._turns), name)


KINDS: Final = [
    "memory",
    pytest.param("redis", marks=pytest.mark.component("redis")),
    pytest.param("valkey", marks=pytest.mark.component("valkey")),
]
"""Parameters of a fixture that opens the adapters of a port one after the other."""


@asynccontextmanager
async def backend_of(request: pytest.FixtureRequest) -> AsyncIterator[RedisBackend | None]:
    """The adapters on the servers that a parameter of ``KINDS`` names, empty; None for those in memory."""
    if request.param == "memory":
        yield None
        return
    servers = request.getfixturevalue(f"{request.param}_cluster")
    async with open_redis(servers.settings(prefix=uuid.uuid4().hex)) as backend:
        yield backend
