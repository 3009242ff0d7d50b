"""``spec.autoscaling``: how many API pods run, by how much there is to do."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from ragkube_operator.crd.base import Part, Quantity, Url, amount, part
from ragkube_operator.crd.rules import Rule

Latency = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}(ms|s)$")]
Window = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,3})(s|m|h)$")]

_LONGEST_WINDOW = 3600
_WINDOW_SECONDS = {"s": 1, "m": 60, "h": 3600}


def milliseconds(latency: str) -> int:
    """The milliseconds of a latency like ``500ms`` or ``2s``."""
    return int(latency[:-2]) if latency.endswith("ms") else int(latency[:-1]) * 1000


def window_seconds(window: str) -> int:
    """The seconds of a window like ``30s`` or ``5m``."""
    return int(window[:-1]) * _WINDOW_SECONDS[window[-1]]


def _positive(field: str, attribute: str) -> Rule:
    return Rule(
        cel=f"!quantity(string(self.{field})).isLessThan(quantity('1m'))",
        message=f"{field} must be at least 1m: a pod always does some work",
        holds=lambda self: amount(getattr(self, attribute)) >= Decimal("0.001"),
        field=field,
    )


class Targets(Part):
    """What one pod should have to do on average; the signal that wants the most pods decides."""

    in_flight: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Requests a pod works on at the same time; absent: half of `api.maxConcurrency`."""
    misses_per_second: Quantity = "25"
    """Questions a second that the cache does not answer: they cost retrieval and a call of the model."""
    local_latency_p95: Latency = "500ms"
    """95th percentile of a question's time without the model, like `500ms`; it counts only while pods are busy."""
    cpu: Quantity = "700m"
    """CPU that a pod uses, in cores; a pod cannot use more than about one."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _positive("missesPerSecond", "misses_per_second"),
        _positive("cpu", "cpu"),
    )


def _short(field: str, attribute: str) -> Rule:
    return Rule(
        cel=f"duration(self.{field}) <= duration('1h')",
        message=f"{field} can be at most 1h",
        holds=lambda self: window_seconds(getattr(self, attribute)) <= _LONGEST_WINDOW,
        field=field,
    )


class Behavior(Part):
    """How soon the number of pods follows."""

    scale_up_window: Window = "0s"
    """The least that was wanted within this time is added: longer ignores short peaks."""
    scale_down_window: Window = "5m"
    """The most that was wanted within this time stays: pods leave only when none of them was needed that long."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _short("scaleUpWindow", "scale_up_window"),
        _short("scaleDownWindow", "scale_down_window"),
    )


class Autoscaling(Part):
    """API pods follow the load. While it is on, `api.replicas` is only what a new deployment starts with."""

    enabled: bool = False
    """True: the number of API pods is the autoscaler's."""
    min_replicas: Annotated[int, Field(ge=1, le=100)] = 2
    """Pods at least. One alone cannot be moved to another node without a gap."""
    max_replicas: Annotated[int, Field(ge=1, le=100)] = 10
    """Pods at most, whatever the load."""
    engine: Literal["Auto", "KEDA", "Metrics", "CPU"] = "Auto"
    """`KEDA`: a ScaledObject. `Metrics`: a HorizontalPodAutoscaler on the custom or external metrics API. `CPU`: one on
    CPU alone. `Auto`: the first of these that the cluster offers."""
    prometheus_url: Url | None = None
    """Prometheus that KEDA asks, like `http://prometheus.monitoring.svc:9090`; it must have the series of this
    deployment. Absent: the one of `monitoring`."""
    targets: Targets = part(Targets)
    """What one pod should have to do."""
    behavior: Behavior = part(Behavior)
    """How soon the number of pods follows."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.minReplicas <= self.maxReplicas",
            message="minReplicas is above maxReplicas: lower minReplicas or raise maxReplicas",
            holds=lambda self: self.min_replicas <= self.max_replicas,
            field="minReplicas",
        ),
    )
