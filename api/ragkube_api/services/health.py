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
    """One part; without a ``required`` one the process is not ready."""

    name: str
    check: Check
    required: bool = False


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What ``/readyz`` shows."""

    status: str
    dependencies: Mapping[str, Mapping[str, Any]]

    @property
    def ready(self) -> bool:
        """Whether traffic may be sent here."""
        return self.status == "ready"


class Health:
    """Asks every dependency, each with a limit."""

    def __init__(
        self, dependencies: tuple[Dependency, ...], telemetry: Telemetry, *, timeout_seconds: float = 1.0
    ) -> None:
        self._dependencies = dependencies
        self._telemetry = telemetry
        self._timeout = timeout_seconds
        self.draining = False

    async def report(self) -> HealthReport:
        """Ask all of them at the same time."""
        details = await asyncio.gather(*(self._ask(dependency) for dependency in self._dependencies))
        ready = True
        states: dict[str, dict[str, Any]] = {}
        for dependency, detail in zip(self._dependencies, details, strict=True):
            up = detail is None
            ready = ready and (up or not dependency.required)
            self._telemetry.dependency_up.labels(dependency.name).set(up)
            states[dependency.name] = {"up": up, "required": dependency.required, "detail": detail}
        status = "draining" if self.draining else "ready" if ready else "not-ready"
        return HealthReport(status, states)

    async def _ask(self, dependency: Dependency) -> str | None:
        try:
            async with asyncio.timeout(self._timeout):
                await dependency.check()
        except RagkubeError as error:
            return error.message
        except TimeoutError:
            return f"No answer within {self._timeout:g} seconds."
        return None
