"""The older answer cache behind the port that all kinds share: only current values, only what it can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from ragkube_api.domain import (
    About,
    Cached,
    EntryNote,
    Fence,
    Key,
    LevelStatistics,
    Lifetime,
    Lookup,
    Selector,
)
from ragkube_api.errors import CacheUnavailableError
from ragkube_api.ports import AnswerCache


class BridgedCache:
    """``FencedCache`` over an ``AnswerCache``."""

    def __init__(self, answers: AnswerCache) -> None:
        self._answers = answers

    def peek(self, tenant: str, key: Key) -> Cached | None:
        """There is no level in the process."""
        del tenant, key
        return None

    async def lookup(self, tenant: str, key: Key) -> Lookup:
        """The value while it is current."""
        try:
            found = await self._answers.lookup(tenant, f"{key.kind}:{key.digest}")
        except CacheUnavailableError:
            return Lookup(None, None)
        answer = found.answer
        cached = Cached(answer.value, "redis", True, answer.age_seconds, 3600) if answer else None
        return Lookup(found.fence, cached)

    async def store(
        self,
        tenant: str,
        key: Key,
        value: bytes,
        *,
        fence: Fence | None,
        lifetime: Lifetime,
        about: About | None = None,
    ) -> bool:
        """Store if the fence still holds."""
        del about
        if fence is None:
            return False
        ttl = max(1, int(lifetime.fresh_seconds))
        try:
            return await self._answers.store(tenant, f"{key.kind}:{key.digest}", value, fence, ttl)
        except CacheUnavailableError:
            return False

    def writing(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """As the cache does."""
        return self._answers.writing(tenant)

    async def drop(self, tenant: str, selector: Selector) -> int:
        """Everything of the tenant goes."""
        del selector
        await self._answers.clear(tenant)
        return 0

    async def disown(self, tenant: str, key: Key) -> bool:
        """Everything of the tenant goes."""
        del key
        await self._answers.clear(tenant)
        return True

    async def entries(self, tenant: str, *, since: float = 0.0, limit: int = 1000) -> Sequence[EntryNote]:
        """It cannot list."""
        del tenant, since, limit
        return []

    async def tally(self, tenant: str, asked: Mapping[bytes, int]) -> None:
        """It cannot count."""

    async def most_asked(self, tenant: str, limit: int) -> Sequence[tuple[bytes, int]]:
        """It cannot count."""
        del tenant, limit
        return []

    async def statistics(self, tenant: str) -> Sequence[LevelStatistics]:
        """It cannot count."""
        del tenant
        return []

    async def ping(self) -> None:
        """As the cache does."""
        await self._answers.ping()
