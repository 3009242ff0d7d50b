"""Adapters that can be taken away: real ones with a switch in front."""

from __future__ import annotations

import inspect
from typing import Any

from ragkube_api.errors import RagkubeError


class Away:
    """Passes every call on, or raises ``error`` while it is set."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.error: RagkubeError | None = None
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
