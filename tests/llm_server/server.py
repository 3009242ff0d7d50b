"""The server: answers, streams, counts tokens, and misbehaves as scripted.

A script is a list of behaviours, one a request; when it is used up, every request is answered. Over HTTP:
``PUT /control`` with ``[{"kind": "fail", "status": 429, "retry_after": 1}, …]``, ``GET /control/requests``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llm_server import answers

_ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 529: "overloaded_error",
}  # fmt: skip


@dataclass(frozen=True)
class Behaviour:
    """What to do with one request.

    ``fail`` answers with ``status`` (and ``retry_after``), ``cut`` ends the connection in mid-answer, ``garbage``
    sends no JSON, ``answer`` answers; each after ``delay`` seconds. ``overrides`` replaces fields of the message.
    """

    kind: Literal["answer", "fail", "cut", "garbage"] = "answer"
    status: int = 500
    retry_after: str | None = None
    delay: float = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Recorded:
    """One request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]
    moment: float


class LLMServer:
    """Scripts and records; ``url`` is what goes into ``base_url``."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Recorded] = []
        self.api_key: str | None = None
        self._script: deque[Behaviour] = deque()

    def script(self, *behaviours: Behaviour) -> None:
        """Replace what is left of the script, and forget the requests."""
        self._script = deque(behaviours)
        self.requests.clear()

    def app(self) -> Starlette:
        routes = [
            Route("/v1/messages", self._messages, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/control", self._control, methods=["PUT"]),
            Route("/control/requests", self._requests),
            Route("/healthz", self._health),
        ]
        return Starlette(routes=routes)

    async def _messages(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(Recorded(body, dict(request.headers), time.monotonic()))
        if not self._admits(request):
            return _error(401, None)
        behaviour = self._script.popleft() if self._script else Behaviour()
        await asyncio.sleep(behaviour.delay)
        if behaviour.kind == "fail":
            return _error(behaviour.status, behaviour.retry_after)
        if behaviour.kind == "garbage":
            return Response(b'{"id": "msg_1", "content": [', media_type="application/json")
        message = {**answers.reply(body), **behaviour.overrides}
        if behaviour.kind == "cut":
            return _Cut(json.dumps(message).encode())
        if body.get("stream"):
            return StreamingResponse(_stream(message), media_type="text/event-stream")
        return JSONResponse(message, headers={"request-id": "req_test"})

    async def _models(self, request: Request) -> Response:
        if not self._admits(request):
            return _error(401, None)
        model = {"type": "model", "id": "test", "display_name": "test", "created_at": "2026-01-01T00:00:00Z"}
        return JSONResponse({"data": [model], "has_more": False, "first_id": "test", "last_id": "test"})

    def _admits(self, request: Request) -> bool:
        keys = {
            request.headers.get("x-api-key"),
            request.headers.get("authorization", "").removeprefix("Bearer "),
        }
        return self.api_key is None or self.api_key in keys

    async def _control(self, request: Request) -> Response:
        self.script(*(Behaviour(**each) for each in await request.json()))
        return Response(status_code=204)

    async def _requests(self, _: Request) -> Response:
        return JSONResponse([each.body for each in self.requests])

    async def _health(self, _: Request) -> Response:
        return Response(status_code=204)


class _Cut(Response):
    """Half of what was promised, then the connection ends."""

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        half = self.body[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        raise ConnectionAbortedError


def _error(status: int, retry_after: str | None) -> Response:
    error = {"type": _ERRORS.get(status, "api_error"), "message": f"scripted {status} with internal detail"}
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return JSONResponse({"type": "error", "error": error}, status_code=status, headers=headers)


async def _stream(message: Mapping[str, Any]) -> AsyncIterator[str]:
    for name, data in answers.events(message):
        yield f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"
        await asyncio.sleep(0)


@contextmanager
def running(host: str = "127.0.0.1", port: int = 0) -> Iterator[LLMServer]:
    """A server in a thread of its own, on a free port."""
    server = LLMServer()
    with socket.create_server((host, port)) as listener:
        server.url = f"http://{host}:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            server.app(), log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        engine = uvicorn.Server(config)
        thread = threading.Thread(target=engine.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            engine.should_exit = True
            thread.join(timeout=10)
