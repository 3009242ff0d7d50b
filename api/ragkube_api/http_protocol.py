"""uvicorn's HTTP protocol with bounds on what comes before a request reaches the application."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ragkube_api import problems
from ragkube_api.errors import BadRequestError, HeadersTooLargeError, RagkubeError, RequestTimeoutError
from ragkube_api.telemetry import new_trace_id

MOST_HEADERS: Final = 100
MOST_HEAD_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 20.0


class BoundedHttp(HttpToolsProtocol):
    """A connection must send the head of a request in time and of a reasonable size; it is refused and closed else."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_began: float | None = None
        self._head_bytes = 0
        self._refusal: RagkubeError | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is waited for from now on."""
        super().connection_made(transport)
        self._head_began = self.loop.time()
        self._watch = self.loop.call_later(HEAD_SECONDS, self._look_at_the_clock)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        if self._watch is not None:
            self._watch.cancel()

    def data_received(self, data: bytes) -> None:
        """Counts what comes while the head of a request is not complete."""
        waited = self._head_began is not None
        super().data_received(data)
        # data that brought the end of another request before this head does not count
        if not waited or self._head_began is None:
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self._refuse(HeadersTooLargeError(f"The headers may have at most {MOST_HEAD_BYTES:,} bytes."))

    def on_message_begin(self) -> None:
        """The head of another request begins."""
        super().on_message_begin()
        self._head_began = self.loop.time()
        self._head_bytes = 0
        self._idle_since = None

    def on_headers_complete(self) -> None:
        """Hands the request to the application, unless it has too many headers."""
        self._head_began = None
        if len(self.headers) > MOST_HEADERS:
            self._refusal = HeadersTooLargeError(f"A request may have at most {MOST_HEADERS} headers.")
            # the parser gives up on an error in a callback, and so nothing of the body is read
            raise self._refusal
        super().on_headers_complete()

    def is_idle(self) -> None:
        """A response is out and nothing else is asked; cheaper than the server's timer for every response."""
        self._idle_since = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """The parser has given up."""
        self._refuse(BadRequestError(msg) if self._refusal is None else self._refusal)

    def _look_at_the_clock(self) -> None:
        self._watch = self.loop.call_later(HEAD_SECONDS, self._look_at_the_clock)
        now = self.loop.time()
        if self._idle_since is not None and now - self._idle_since >= self.timeout_keep_alive:
            self.timeout_keep_alive_handler()
        elif self._head_began is not None and now - self._head_began >= HEAD_SECONDS:
            self._refuse(RequestTimeoutError("The headers did not arrive in time."))

    def _refuse(self, error: RagkubeError) -> None:
        if self.transport.is_closing():
            return
        if self._may_answer():
            self.transport.write(_response(error))
        self.transport.close()

    def _may_answer(self) -> bool:
        """Not into an answer, nor instead of one that an earlier request waits for."""
        cycle: Any = self.cycle  # there is none before the first request
        if cycle is None or cycle.response_complete:
            return True
        in_its_body = self._head_began is None and cycle.more_body and not self.pipeline
        return in_its_body and not cycle.response_started


def _response(error: RagkubeError) -> bytes:
    body = orjson.dumps(problems.body(error, new_trace_id()))
    status = HTTPStatus(error.status)
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {problems.MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
