"""Counters and histograms for what happens in the event loop only: no locks, a tenth of the client library's cost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add."""
        self.value += amount


class LoopCounter(Collector):
    """Like ``prometheus_client.Counter``; ``name`` ends in ``_total``."""

    def __init__(self, name: str, text: str, labels: Sequence[str], *, registry: CollectorRegistry) -> None:
        self.label_names = tuple(labels)
        self._description = name, text
        self._series: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The series with these values, in the order of the labels."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Count()
        return found

    def describe(self) -> list[CounterMetricFamily]:
        """Without series."""
        return [CounterMetricFamily(*self._description, labels=self.label_names)]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """All series."""
        (family,) = self.describe()
        for values, series in list(self._series.items()):
            family.add_metric(values, series.value)
        yield family


class Distribution:
    """One series of a histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count it in its bucket."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class LoopHistogram(Collector):
    """Like ``prometheus_client.Histogram``."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self.label_names = tuple(labels)
        self._description = name, text
        self._bounds = tuple(buckets)
        self._series: dict[tuple[str, ...], Distribution] = {}
        if not labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Distribution:
        """The series with these values, in the order of the labels."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Distribution(self._bounds)
        return found

    def observe(self, value: float) -> None:
        """Of a histogram without labels."""
        self.labels().observe(value)

    def describe(self) -> list[HistogramMetricFamily]:
        """Without series."""
        return [HistogramMetricFamily(*self._description, labels=self.label_names)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """All series, with buckets that add up."""
        (family,) = self.describe()
        bounds = [*map(str, map(float, self._bounds)), "+Inf"]
        for values, series in list(self._series.items()):
            count, buckets = 0, []
            for bound, number in zip(bounds, series.counts, strict=True):
                count += number
                buckets.append((bound, count))
            family.add_metric(values, buckets, series.total)
        yield family
