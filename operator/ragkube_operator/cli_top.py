"""``kubectl ragkube top``: what each API pod is doing, from its own metrics."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.request import urlopen

from ragkube_operator.cli_kube import Kubectl, pods
from ragkube_operator.cli_output import CliError, Output
from ragkube_operator.client import JSON

HEADER = (
    "POD",
    "READY",
    "RESTARTS",
    "IN-FLIGHT",
    "REQ/S",
    "HITS",
    "MISS/S",
    "P50",
    "P95",
    "MEMORY",
)
_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_QUERY = "/v1/query"
_ANSWERS = frozenset({"exact", "semantic"})
"""Kinds of look-ups for answers; the others are parts of making one."""
Sample = tuple[str, dict[str, str], float]


def parse(text: str) -> list[Sample]:
    """Samples of the Prometheus text format: name, labels, value."""
    found = (_LINE.match(line) for line in text.splitlines() if not line.startswith("#"))
    return [(m[1], dict(_LABEL.findall(m[2] or "")), float(m[3])) for m in found if m]


def total(samples: Sequence[Sample], name: str, **labels: str | frozenset[str]) -> float | None:
    """The sum of a metric's samples with these labels, or one of several values; None when there is none."""
    values = [value for found, has, value in samples if found == name and _fits(has, labels)]
    return sum(values) if values else None


def _fits(has: Mapping[str, str], labels: Mapping[str, str | frozenset[str]]) -> bool:
    return all(has.get(k) in v if isinstance(v, frozenset) else has.get(k) == v for k, v in labels.items())


def quantile(samples: Sequence[Sample], name: str, share: float, **labels: str) -> float | None:
    """The upper bound of the bucket that holds the quantile, in seconds; None without observations."""
    buckets: dict[float, float] = {}
    for found, has, value in samples:
        if found == f"{name}_bucket" and labels.items() <= has.items():
            bound = float(has["le"])
            buckets[bound] = buckets.get(bound, 0) + value
    count = buckets.get(float("inf"), 0)
    return next((bound for bound in sorted(buckets) if count and buckets[bound] >= share * count), None)


@dataclass(frozen=True)
class Reading:
    """The metrics of one pod at two moments; ``trouble`` when they cannot be had."""

    pod: JSON
    before: Sequence[Sample] = ()
    after: Sequence[Sample] = ()
    seconds: float = 1.0
    trouble: str = ""

    def rate(self, name: str, **labels: str | frozenset[str]) -> float | None:
        """Increase a second between the two moments."""
        last, first = total(self.after, name, **labels), total(self.before, name, **labels)
        if last is None or not self.before:
            return None
        return max(0.0, last - (first or 0.0)) / self.seconds

    def hit_share(self) -> float | None:
        """Answers from the cache among all answers since the pod started; None without any."""
        hits, misses = (
            total(self.after, f"rag_cache_{name}_total", kind=_ANSWERS) or 0 for name in ("hits", "misses")
        )
        return hits / (hits + misses) if hits + misses else None

    def figures(self) -> JSON:
        """Numbers by name: seconds, bytes, shares; None where nothing was counted."""
        latency = "rag_request_latency_seconds"
        return {
            "in_flight": total(self.after, "rag_requests_in_flight"),
            "requests_per_second": self.rate("rag_requests_total", route=_QUERY),
            "hit_share": self.hit_share(),
            "misses_per_second": self.rate("rag_cache_misses_total", kind=_ANSWERS),
            "p50_s": quantile(self.after, latency, 0.5, route=_QUERY),
            "p95_s": quantile(self.after, latency, 0.95, route=_QUERY),
            "memory_bytes": total(self.after, "process_resident_memory_bytes"),
        }


def top(kubectl: Kubectl, output: Output, found: JSON, *, seconds: float, as_json: bool) -> None:
    """Print a line for each API pod."""
    name = found["metadata"]["name"]
    readings = read(kubectl, pods(kubectl, name, "api"), seconds)
    if not readings:
        raise CliError(f"{name} has no API pods: kubectl ragkube status {name}")
    if as_json:
        body = [
            {"pod": each.pod["metadata"]["name"], "trouble": each.trouble or None, **each.figures()}
            for each in readings
        ]
        output.console.out(json.dumps(body, indent=2), highlight=False)
        return
    output.table(HEADER, [line(each) for each in readings])
    output.line(
        f"REQ/S and MISS/S over the last {seconds:g} s; HITS, P50 and P95 (of questions) since the pod started"
    )
    for each in readings:
        if each.trouble:
            output.warn(f"{each.pod['metadata']['name']}: {each.trouble}")


def read(kubectl: Kubectl, found: Sequence[JSON], seconds: float) -> list[Reading]:
    """Every pod twice, that many seconds apart."""
    first, started = [scrape(kubectl, pod) for pod in found], time.monotonic()
    time.sleep(seconds)
    second, apart = [scrape(kubectl, pod) for pod in found], time.monotonic() - started
    return [
        Reading(pod, trouble=after) if isinstance(after, str)
        else Reading(pod, before if not isinstance(before, str) else (), after, apart)
        for pod, before, after in zip(found, first, second, strict=True)
    ]  # fmt: skip


def scrape(kubectl: Kubectl, pod: JSON) -> list[Sample] | str:
    """Its metrics, through the API server's proxy or else a forwarded port; or why not."""
    meta = pod["metadata"]
    try:
        return parse(
            kubectl.raw(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:8080/proxy/metrics")
        )
    except CliError:
        pass  # no right to the proxy, or a NetworkPolicy that keeps the API server out
    try:
        with (
            kubectl.forwarded(f"pod/{meta['name']}", 8080) as url,
            urlopen(f"{url}/metrics", timeout=10) as answer,  # noqa: S310  # always http
        ):
            return parse(answer.read().decode())
    except (CliError, OSError) as error:
        return f"no metrics: {error}"


def line(reading: Reading) -> tuple[str, ...]:
    """A row of the table."""
    pod, figures = reading.pod, reading.figures()
    states = pod["status"].get("containerStatuses") or []
    share = figures["hit_share"]
    memory = figures["memory_bytes"]
    return (
        pod["metadata"]["name"],
        f"{sum(1 for state in states if state['ready'])}/{len(pod['spec']['containers'])}",
        str(sum(state["restartCount"] for state in states)),
        _number(figures["in_flight"], "{:.0f}"),
        _number(figures["requests_per_second"], "{:.1f}"),
        "-" if share is None else f"{share:.0%}",
        _number(figures["misses_per_second"], "{:.1f}"),
        _seconds(figures["p50_s"]),
        _seconds(figures["p95_s"]),
        "-" if memory is None else f"{memory / 2**20:.0f}Mi",
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _seconds(value: float | None) -> str:
    """An upper bound, as buckets give it."""
    if value is None:
        return "-"
    if value == float("inf"):
        return ">max"
    return f"<{value * 1000:g}ms" if value < 1 else f"<{value:g}s"
