"""Adapters that can be taken away: real ones with a switch in front."""

from __future__ import annotations

import inspect
from contextlib import AbstractAsyncContextManager
from typing import Any

from ragkube_api.domain import Cached, Fence, Fill, Key, Lookup
from ragkube_api.errors import CacheUnavailableError


class Away:
    """Passes every call on, or raises ``error`` while it is set."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.error: Exception | None = None
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.inner, name)
        if not callable(member):
            return member
        return self._guarded(name, member)

    def _guarded(self, name: str, member: Any) -> Any:
        if not inspect.iscoroutinefunction(member):

            def plain(*arguments: Any, **named: Any) -> Any:
                self._pass(name)
                return member(*arguments, **named)

            return plain

        async def guarded(*arguments: Any, **named: Any) -> Any:
            self._pass(name)
            return await member(*arguments, **named)

        return guarded

    def _pass(self, name: str) -> None:
        self.calls.append(name)
        if self.error is not None:
            raise self.error


class CutOff(Away):
    """A cache whose shared level can be taken away: what the process itself holds stays, with nothing to vouch for it."""

    away = False

    def peek(self, tenant: str, key: Key) -> Cached | None:
        found: Cached | None = None if self.away else self.inner.peek(tenant, key)
        return found

    async def lookup(self, tenant: str, key: Key, beside: Key | None = None) -> Lookup:
        lookup: Lookup = await self.inner.lookup(tenant, key, beside)
        if not self.away:
            return lookup
        return Lookup(None, lookup.found._replace(current=False) if lookup.found else None)

    async def store(self, tenant: str, *fills: Fill, fence: Fence | None) -> bool:
        stored = await self.inner.store(tenant, *fills, fence=None if self.away else fence)
        return bool(stored) and not self.away

    def writing(self, tenant: str) -> AbstractAsyncContextManager[None]:
        self._check()
        inner: AbstractAsyncContextManager[None] = self.inner.writing(tenant)
        return inner

    async def ping(self) -> None:
        self._check()

    def _check(self) -> None:
        if self.away:
            raise CacheUnavailableError("The cache cannot be reached.")
