"""One HTTP request on its way through the process, and what is written down when it leaves."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

from structlog.contextvars import STRUCTLOG_KEY_PREFIX

from ragkube_api.context import Runtime
from ragkube_api.domain import Identity, Lookup
from ragkube_api.loop_metrics import Count, Distribution
from ragkube_api.model_time import ModelTime
from ragkube_api.services.answering import Question
from ragkube_api.services.limits import Allowance
from ragkube_api.telemetry import trace_id_of

HeaderList: TypeAlias = list[tuple[bytes, bytes]]
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"})
QUERY_PATH: Final = "/v1/query"
TRACE_ID: Final[ContextVar[Any]] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}trace_id", default=Ellipsis)
"""Stands in every line that is logged while it is set; setting it so costs a twentieth of structlog's own way."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestHeaders:
    """The first value of each header, by its name in lower case."""

    __slots__ = ("values",)

    def __init__(self, pairs: HeaderList) -> None:
        self.values = dict(reversed(pairs))

    def get(self, name: bytes) -> str | None:
        """The value as text, or None."""
        value = self.values.get(name)
        return None if value is None else value.decode("latin-1")


class Visit:
    """What a request's response, its metrics and its log line are made of.

    ``admitted``: it was not refused at the door, and has its place among those that are answered. ``question`` is set
    when its body was read and is a plain one, ``lookup`` is what the cache said of it. While it is ``asking``, ``asked`` is done
    when the reply has come, for who has to wait for it.
    """

    __slots__ = (
        "address", "admitted", "allowance", "asked", "asking", "facts", "headers", "identity", "lookup", "method", "model", "path", "question",
        "route", "started", "status", "trace_id",
    )  # fmt: skip

    def __init__(self, method: str, path: str, headers: RequestHeaders, address: str) -> None:
        self.started = time.perf_counter()
        self.method = method
        self.path = path
        self.headers = headers
        self.address = address
        self.trace_id = trace_id_of(headers.get(b"traceparent"))
        self.admitted = False
        self.identity: Identity | None = None
        self.allowance: Allowance | None = None
        self.question: Question | None = None
        self.asking = False
        self.asked: asyncio.Future[None] | None = None
        self.lookup: Lookup | None = None
        self.model: ModelTime | None = None
        self.route: str | None = None
        self.facts: dict[str, Any] = {}
        # What a client gets when the application ends without a response.
        self.status = 500

    @property
    def elapsed_ms(self) -> float:
        """Since it came."""
        return (time.perf_counter() - self.started) * 1000


class Visits:
    """Those that are here now, and the headers, metrics and log lines that are common to all."""

    def __init__(self, runtime: Runtime) -> None:
        self._telemetry = runtime.telemetry
        self._health = runtime.health
        self._limit = runtime.settings.server.max_concurrency
        self._slow = runtime.settings.server.slow_request_seconds
        self._series: dict[tuple[str, str, int], tuple[Count, Distribution]] = {}
        self._local_latency = runtime.telemetry.local_latency.labels()
        self.busy = 0
        self._telemetry.limit.set(self._limit)
        self._telemetry.in_flight.set_function(lambda: self.busy)

    @property
    def full(self) -> bool:
        """Whether as many are being answered as the process takes at a time."""
        return self.busy >= self._limit

    @property
    def draining(self) -> bool:
        """Whether clients should leave."""
        return self._health.draining

    def headers(self, visit: Visit) -> HeaderList:
        """The trace id, the limits, and the wish that the client leaves while the process drains."""
        headers = [(b"x-trace-id", visit.trace_id.encode())]
        allowance = visit.allowance
        if allowance is not None:
            headers += _allowance_headers(allowance)
        if self._health.draining:
            headers.append((b"connection", b"close"))
        return headers

    def end(self, visit: Visit) -> None:
        """Count it and write its line."""
        seconds = time.perf_counter() - visit.started
        path, status = visit.path, visit.status
        route = visit.route or (path if path in OPEN_PATHS else "unmatched")
        method = visit.method if visit.method in _METHODS else "other"
        counter, histogram = self._series.get((route, method, status)) or self._open_series(
            route, method, status
        )
        counter.inc()
        histogram.observe(seconds)
        if path == QUERY_PATH and visit.admitted:
            waited = 0.0 if visit.model is None else visit.model.seconds
            self._local_latency.observe(max(0.0, seconds - waited))
        fields = {
            "trace_id": visit.trace_id, "method": method, "route": route, "path": path, "status": status,
            "latency_ms": round(seconds * 1000, 2), **visit.facts,
        }  # fmt: skip
        if seconds > self._slow:
            fields["slow"] = True
        self._telemetry.request_line(fields, quiet=path in OPEN_PATHS)

    def _open_series(self, route: str, method: str, status: int) -> tuple[Count, Distribution]:
        counter = self._telemetry.requests.labels(route, method, str(status))
        found = self._series[route, method, status] = counter, self._telemetry.request_latency.labels(route)
        return found


def _allowance_headers(allowance: Allowance) -> HeaderList:
    """``RateLimit-*`` as in the IETF draft: the burst, what is left of it, seconds until it is whole again."""
    return [
        (b"ratelimit-limit", b"%d" % allowance.limit),
        (b"ratelimit-remaining", b"%d" % allowance.remaining),
        (b"ratelimit-reset", b"%d" % allowance.reset),
    ]
