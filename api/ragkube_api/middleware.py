"""What surrounds every request: trace id, authentication, the concurrency limit, metrics and the request's log line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragkube_api import problems
from ragkube_api.context import Runtime
from ragkube_api.errors import OverloadedError, RagkubeError
from ragkube_api.origins import OriginGuard
from ragkube_api.telemetry import trace_id_of

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Gateway:
    """The outermost ASGI layer. A path that is not open needs an identity before anything of it is read."""

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime
        self._limit = runtime.settings.server.max_concurrency
        self._slow = runtime.settings.server.slow_request_seconds
        runtime.telemetry.limit.set(self._limit)
        self._busy = 0
        self._origins = OriginGuard(runtime.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        trace_id = trace_id_of(headers.get("traceparent"))
        facts: dict[str, Any] = {}
        scope["state"] = {**scope.get("state", {}), "trace_id": trace_id, "facts": facts}
        exchange = _Exchange(send, trace_id, self._runtime)
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            try:
                await self._serve(scope, headers, receive, exchange)
            finally:
                self._record(scope, exchange.status, time.perf_counter() - started, facts)

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, exchange: _Exchange) -> None:
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, exchange.send)
            return
        refusal = self._admit(scope, headers)
        if refusal is not None:
            # The body was not read, so the connection cannot be used again.
            response = problems.respond(refusal, scope["state"]["trace_id"], close=_has_body(headers))
            await response(scope, receive, exchange.send)
            return
        self._busy += 1
        try:
            with self._runtime.telemetry.in_flight.track_inprogress():
                await self._app(scope, receive, exchange.send)
        finally:
            self._busy -= 1

    def _admit(self, scope: Scope, headers: Headers) -> RagkubeError | None:
        if self._busy >= self._limit:
            return OverloadedError("Too many requests are being answered; try again in a moment.")
        try:
            self._origins.check(headers)
            authorization = headers.get("authorization")
            scope["state"]["identity"] = self._runtime.authenticator.authenticate(authorization)
        except RagkubeError as error:
            return error
        return None

    def _record(self, scope: Scope, status: int, seconds: float, facts: Mapping[str, Any]) -> None:
        telemetry = self._runtime.telemetry
        route = getattr(scope.get("route"), "path", None)
        if route is None:
            route = scope["path"] if scope["path"] in OPEN_PATHS else "unmatched"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        telemetry.requests.labels(route, method, str(status)).inc()
        telemetry.request_latency.labels(route).observe(seconds)
        write = telemetry.log.debug if scope["path"] in OPEN_PATHS else telemetry.log.info
        extra = {**facts, "slow": True} if seconds > self._slow else facts
        write(
            "request", method=method, route=route, path=scope["path"], status=status,
            latency_ms=round(seconds * 1000, 2), **extra,
        )  # fmt: skip


class _Exchange:
    """Notes the status, adds the trace id, and asks clients to leave while the process drains."""

    def __init__(self, send: Send, trace_id: str, runtime: Runtime) -> None:
        self._send = send
        self._trace_id = trace_id.encode()
        self._runtime = runtime
        # What a client gets when the application ends without a response.
        self.status = 500

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = [*message.get("headers", ()), (b"x-trace-id", self._trace_id)]
            if self._runtime.health.draining:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
