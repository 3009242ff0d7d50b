"""The HTTP protocol with the fast lane in it: what this process has cached is answered where the request was parsed.

A question whose head leaves nothing open is read whole before anything is made for it. If the lane has its answer, that
is written at once: no scope, no task, no ASGI. Everything else goes the ordinary way of the server, a moment later: with
its ``Visit`` when the lane has understood it, as if nothing had happened when it has not.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ragkube_api.errors import RagkubeError
from ragkube_api.fastlane import MOST_BYTES, FastLane, may_be_plain
from ragkube_api.http_protocol import MOST_HEADERS, BoundedHttp
from ragkube_api.telemetry import Telemetry
from ragkube_api.visits import QUERY_PATH, HeaderList, RequestHeaders, Visit

# Clients that send the head first send the body right after it. The application waits for others, under its deadline.
PATIENCE_SECONDS: Final = 0.05
# One client's pipeline must not keep the others waiting.
_MOST_AT_ONCE: Final = 8
_PATH: Final = QUERY_PATH.encode()
_STATUS: Final = b"HTTP/1.1 200 OK\r\n"


class LaneHttp(BoundedHttp):
    """One connection. ``_visit`` is the request whose body is being read for the lane."""

    def __init__(self, *arguments: Any, lane: FastLane, telemetry: Telemetry, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._lane = lane
        self._telemetry = telemetry
        self._visit: Visit | None = None
        self._body = b""
        self._patience: asyncio.TimerHandle | None = None
        self._at_once = 0

    def data_received(self, data: bytes) -> None:
        """Reads on; a body that is not here yet is waited for a moment."""
        self._at_once = 0
        super().data_received(data)
        if self._visit is not None and self._patience is None:
            self._patience = self.loop.call_later(PATIENCE_SECONDS, self._go_the_ordinary_way)

    def on_headers_complete(self) -> None:
        """Read on if this may be a question for the lane."""
        headers = self._plain_headers()
        if headers is None:
            super().on_headers_complete()
            return
        self._head_began = None
        self._visit = Visit("POST", QUERY_PATH, headers, self.client[0] if self.client else "")

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        if self._visit is None:
            super().on_body(body)
            return
        self._body += body
        if len(self._body) > MOST_BYTES:
            self._go_the_ordinary_way()

    def on_message_complete(self) -> None:
        """Answer at once, or hand over."""
        visit = self._visit
        if visit is None:
            super().on_message_complete()
            return
        whole = self._whole_answer(visit)
        if whole is None:
            self.scope["state"]["visit"] = visit
            self._go_the_ordinary_way()
            super().on_message_complete()
            return
        self._forget()
        self._at_once += 1
        self.transport.write(self._response(*whole))
        self.server_state.total_requests += 1
        self.is_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Who leaves in the middle of a body is counted like everybody else."""
        self._go_the_ordinary_way()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """A request of which the head is here is answered."""
        self._go_the_ordinary_way()
        super().shutdown()

    def _plain_headers(self) -> RequestHeaders | None:
        """Of a question that nothing stands in the way of."""
        parser = self.parser
        cycle: Any = self.cycle  # there is none before the first request
        if self.url != _PATH or parser.get_method() != b"POST" or len(self.headers) > MOST_HEADERS:
            return None
        if parser.get_http_version() != "1.1" or not parser.should_keep_alive() or parser.should_upgrade():
            return None
        if cycle is not None and not cycle.response_complete:
            return None  # its turn has not come
        if self.flow.write_paused or self.transport.is_closing() or self._at_once >= _MOST_AT_ONCE:
            return None
        headers = RequestHeaders(self.headers)
        return headers if may_be_plain(headers) else None

    def _whole_answer(self, visit: Visit) -> tuple[HeaderList, bytes] | None:
        try:
            return self._lane.now(visit, self._body)
        except Exception:
            # the parser takes any error for the client's
            self._telemetry.log.exception("request_failed")
            self._refusal = RagkubeError("Something went wrong here. Report the trace id.")
            raise

    def _response(self, headers: HeaderList, body: bytes) -> bytes:
        lines = [b"%b: %b\r\n" % pair for pair in (*self.server_state.default_headers, *headers)]
        return b"".join((_STATUS, *lines, b"\r\n", body))

    def _go_the_ordinary_way(self) -> None:
        """Give the server what was kept from it."""
        if self._visit is None:
            return
        body = self._body
        self._forget()
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def _forget(self) -> None:
        self._visit, self._body = None, b""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
