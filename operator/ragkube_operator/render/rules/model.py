"""Rules as values, and how Prometheus wants them written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

RUNBOOKS: Final = "https://github.com/ragkube/ragkube/blob/main/docs/runbooks.md"


@dataclass(frozen=True, slots=True)
class Goals:
    """What the deployment promises; alerts compare with it.

    ``availability`` is a share of requests, ``local_latency`` seconds of a request without the model,
    ``daily_cost`` dollars (None: not watched).
    """

    slow_budget: ClassVar[float] = 0.05
    """The share of questions that may be slower than ``local_latency``: its 95th percentile is promised."""

    availability: float = 0.999
    local_latency: float = 1.0
    daily_cost: float | None = None

    @property
    def budget(self) -> float:
        """The share of requests that may fail."""
        return round(1 - self.availability, 9)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording rule."""

    record: str
    expr: str

    def manifest(self) -> dict[str, Any]:
        """As in a rule file."""
        return {"record": str(self.record), "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert; its runbook is the section of docs/runbooks.md with its name.

    ``summary`` and ``description`` are Prometheus templates.
    """

    name: str
    expr: str
    severity: Literal["critical", "warning", "info"]
    summary: str
    description: str
    lasting: str = "5m"

    def manifest(self) -> dict[str, Any]:
        """As in a rule file."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasting,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}#{self.name.lower()}",
            },
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated together, in this order."""

    name: str
    rules: list[Recording] | list[Alert]
    interval: str = "30s"

    def manifest(self) -> dict[str, Any]:
        """As in a rule file."""
        return {
            "name": self.name,
            "interval": self.interval,
            "rules": [rule.manifest() for rule in self.rules],
        }
