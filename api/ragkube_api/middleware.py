"""What surrounds every request: trace id, admission, the concurrency limit, metrics and the request's log line."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragkube_api import model_time, problems
from ragkube_api.admission import Admission
from ragkube_api.context import Runtime
from ragkube_api.errors import OverloadedError, RagkubeError
from ragkube_api.fastlane import FastLane, Whole
from ragkube_api.visits import OPEN_PATHS, TRACE_ID, HeaderList, RequestHeaders, Visit, Visits


class Gateway:
    """The outermost ASGI layer. A path that is not open needs an identity before anything of it is read.

    A server that reads plain questions itself (``http_lane``) asks ``lane`` for what is cached, and hands whatever the
    lane cannot answer at once over with its ``Visit`` in ``scope["state"]["visit"]``. What the lane has understood goes
    past the application then, too.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime, *, questions: bool = True) -> None:
        """``questions``: whether this application answers any; without them there is no ``lane``."""
        self._app = app
        self._telemetry = runtime.telemetry
        self._visits = Visits(runtime)
        self._admission = Admission(runtime)
        self.lane = FastLane(runtime, self._admission, self._visits) if questions else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = scope.get("state", {})
        visit: Visit = given.get("visit") or _visit(scope)
        visit.model = model_time.start()
        scope["state"] = {**given, "trace_id": visit.trace_id, "facts": visit.facts}
        token = TRACE_ID.set(visit.trace_id)
        try:
            await self._serve(visit, scope, receive, Exchange(send, visit, self._visits))
        finally:
            visit.route = visit.route or getattr(scope.get("route"), "path", None)
            self._visits.end(visit)
            TRACE_ID.reset(token)

    async def _serve(self, visit: Visit, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        if visit.path in OPEN_PATHS:
            await self._app(scope, receive, exchange.send)
            return
        if not visit.admitted:  # else it has its place already
            try:
                if self._visits.full:
                    raise OverloadedError("Too many requests are being answered; try again in a moment.")
                await self._admission.admit(visit)
            except RagkubeError as refusal:
                # The body was not read, so the connection cannot be used again.
                response = problems.respond(refusal, visit.trace_id, close=_has_body(visit.headers))
                await response(scope, receive, exchange.send)
                return
            self._visits.busy += 1
        try:
            if self.lane is not None and visit.question is not None:
                answer = self.lane.answer(visit, visit.question)
                await self._tell(answer, visit, scope, receive, exchange)
            else:
                scope["state"]["identity"] = visit.identity
                await self._app(scope, receive, exchange.send)
        finally:
            self._visits.busy -= 1

    async def _tell(
        self, answer: Awaitable[Whole], visit: Visit, scope: Scope, receive: Receive, exchange: Exchange
    ) -> None:
        """What comes of it, as the application would tell it."""
        try:
            whole = await answer
        except RagkubeError as error:
            await problems.refused(error, visit.trace_id, self._telemetry)(scope, receive, exchange.send)
        except Exception as error:
            await problems.failed(error, visit.trace_id, self._telemetry)(scope, receive, exchange.send)
            raise
        else:
            await exchange.answer(*whole)


class Exchange:
    """Notes the status, and adds the headers that every response has."""

    __slots__ = ("_send", "_visit", "_visits")

    def __init__(self, send: Send, visit: Visit, visits: Visits) -> None:
        self._send = send
        self._visit = visit
        self._visits = visits

    async def send(self, message: Message) -> None:
        """An ASGI message of the application."""
        if message["type"] == "http.response.start":
            self._visit.status = int(message["status"])
            headers = [*message.get("headers", ()), *self._visits.headers(self._visit)]
            message = {**message, "headers": headers}
        await self._send(message)

    async def answer(self, headers: HeaderList, body: bytes) -> None:
        """A whole response with status 200, to which nothing is added."""
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _visit(scope: Scope) -> Visit:
    client = scope.get("client")
    return Visit(
        scope["method"], scope["path"], RequestHeaders(scope["headers"]), client[0] if client else ""
    )


def _has_body(headers: RequestHeaders) -> bool:
    return headers.get(b"transfer-encoding") is not None or (headers.get(b"content-length") or "0") != "0"
