"""What surrounds every request: trace id, admission, the concurrency limit, metrics and the request's log line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from ragkube_api import model_time, problems
from ragkube_api.admission import Admission, HeaderList, RequestHeaders, allowance_headers
from ragkube_api.context import Runtime
from ragkube_api.errors import OverloadedError, RagkubeError
from ragkube_api.fastlane import FastLane
from ragkube_api.loop_metrics import Count, Distribution
from ragkube_api.telemetry import trace_id_of

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"})
QUERY_PATH: Final = "/v1/query"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Gateway:
    """The outermost ASGI layer. A path that is not open needs an identity before anything of it is read.

    ``lane`` answers what is cached; whatever it leaves goes on to ``app``.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime, lane: FastLane | None = None) -> None:
        self._app = app
        self._runtime = runtime
        self._lane = lane
        self._limit = runtime.settings.server.max_concurrency
        self._slow = runtime.settings.server.slow_request_seconds
        runtime.telemetry.limit.set(self._limit)
        self._busy = 0
        runtime.telemetry.in_flight.set_function(lambda: self._busy)
        self._admission = Admission(runtime)
        self._series: dict[tuple[str, str, int], tuple[Count, Distribution]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, model = time.perf_counter(), model_time.start()
        headers = RequestHeaders(scope["headers"])
        trace_id = trace_id_of(headers.get(b"traceparent"))
        facts: dict[str, Any] = {}
        state = scope["state"] = {**scope.get("state", {}), "trace_id": trace_id, "facts": facts}
        exchange = Exchange(send, trace_id, state, self._runtime)
        tokens = bind_contextvars(trace_id=trace_id)
        try:
            await self._serve(scope, headers, receive, exchange)
        finally:
            seconds = time.perf_counter() - started
            self._record(scope, trace_id, exchange.status, seconds, facts)
            if scope["path"] == QUERY_PATH:
                self._runtime.telemetry.local_latency.observe(max(0.0, seconds - model.seconds))
            reset_contextvars(**tokens)

    async def _serve(
        self, scope: Scope, headers: RequestHeaders, receive: Receive, exchange: Exchange
    ) -> None:
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, exchange.send)
            return
        try:
            if self._busy >= self._limit:
                raise OverloadedError("Too many requests are being answered; try again in a moment.")
            await self._admission.admit(scope, headers, scope["state"])
        except RagkubeError as refusal:
            # The body was not read, so the connection cannot be used again.
            response = problems.respond(refusal, scope["state"]["trace_id"], close=_has_body(headers))
            await response(scope, receive, exchange.send)
            return
        self._busy += 1
        try:
            if self._lane is not None and self._lane.takes(scope):
                unread = await self._lane.serve(scope, headers, receive, exchange)
                if unread is None:
                    return
                receive = unread
            await self._app(scope, receive, exchange.send)
        finally:
            self._busy -= 1

    def _record(
        self, scope: Scope, trace_id: str, status: int, seconds: float, facts: Mapping[str, Any]
    ) -> None:
        path = scope["path"]
        route = getattr(scope.get("route"), "path", None)
        if route is None:
            route = path if path in OPEN_PATHS else "unmatched"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        counter, histogram = self._series.get((route, method, status)) or self._open_series(
            route, method, status
        )
        counter.inc()
        histogram.observe(seconds)
        fields = {
            "trace_id": trace_id, "method": method, "route": route, "path": path, "status": status,
            "latency_ms": round(seconds * 1000, 2), **facts,
        }  # fmt: skip
        if seconds > self._slow:
            fields["slow"] = True
        self._runtime.telemetry.request_line(fields, quiet=path in OPEN_PATHS)

    def _open_series(self, route: str, method: str, status: int) -> tuple[Count, Distribution]:
        telemetry = self._runtime.telemetry
        counter = telemetry.requests.labels(route, method, str(status))
        found = self._series[route, method, status] = counter, telemetry.request_latency.labels(route)
        return found


class Exchange:
    """Notes the status, adds the trace id and the limits, and asks clients to leave while the process drains."""

    __slots__ = ("_health", "_send", "_state", "_trace_id", "status")

    def __init__(self, send: Send, trace_id: str, state: Mapping[str, Any], runtime: Runtime) -> None:
        self._send = send
        self._trace_id = trace_id.encode()
        self._state = state
        self._health = runtime.health
        # What a client gets when the application ends without a response.
        self.status = 500

    async def send(self, message: Message) -> None:
        """An ASGI message of the application."""
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            message = {**message, "headers": [*message.get("headers", ()), *self._own_headers()]}
        await self._send(message)

    async def answer(self, headers: HeaderList, body: bytes) -> None:
        """A whole response with status 200."""
        self.status = 200
        headers += self._own_headers()
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _own_headers(self) -> HeaderList:
        headers = [(b"x-trace-id", self._trace_id)]
        allowance = self._state.get("allowance")
        if allowance is not None:
            headers += allowance_headers(allowance)
        if self._health.draining:
            headers.append((b"connection", b"close"))
        return headers


def _has_body(headers: RequestHeaders) -> bool:
    return headers.get(b"transfer-encoding") is not None or (headers.get(b"content-length") or "0") != "0"
