"""Whether the process serves, and how each dependency does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ragkube_api.errors import RagkubeError
from ragkube_api.telemetry import Telemetry

Check = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Dependency:
    """One part; without a ``required`` one the process is not ready.

    One that is needed ``to_start`` keeps the process unready until it has answered once. Losing it later degrades
    the process but does not take it out of service: what is cached goes on.
    """

    name: str
    check: Check
    required: bool = False
    to_start: bool = False


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What ``/readyz`` shows."""

    status: str
    dependencies: Mapping[str, Mapping[str, Any]]

    @property
    def ready(self) -> bool:
        """Whether traffic may be sent here."""
        return self.status in {"ready", "degraded"}


class Health:
    """Asks every dependency, each with a limit."""

    def __init__(
        self, dependencies: tuple[Dependency, ...], telemetry: Telemetry, *, timeout_seconds: float = 1.0
    ) -> None:
        self._dependencies = dependencies
        self._telemetry = telemetry
        self._timeout = timeout_seconds
        self._answered: set[str] = set()
        self.draining = False

    async def report(self) -> HealthReport:
        """Ask all of them at the same time."""
        details = await asyncio.gather(*(self._ask(dependency) for dependency in self._dependencies))
        states: dict[str, dict[str, Any]] = {}
        missing: set[str] = set()
        for dependency, detail in zip(self._dependencies, details, strict=True):
            up = detail is None
            self._telemetry.dependency_up.labels(dependency.name).set(up)
            if up:
                self._answered.add(dependency.name)
            required = dependency.required or dependency.to_start
            states[dependency.name] = {"up": up, "required": required, "detail": detail}
            if required and not up:
                missing.add(dependency.name)
        return HealthReport(self._status(missing), states)

    def _status(self, missing: set[str]) -> str:
        if self.draining:
            return "draining"
        if not missing:
            return "ready"
        lost = {d.name for d in self._dependencies if d.to_start and d.name in self._answered}
        return "degraded" if missing <= lost else "not-ready"

    async def _ask(self, dependency: Dependency) -> str | None:
        try:
            async with asyncio.timeout(self._timeout):
                await dependency.check()
        except RagkubeError as error:
            return error.message
        except TimeoutError:
            return f"No answer within {self._timeout:g} seconds."
        return None
