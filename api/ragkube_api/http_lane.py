"""The HTTP protocol with the fast lane in it: what is cached is answered where the request was parsed.

A question whose head leaves nothing open is read whole before anything is made for it. If the lane has its answer, that
is written at once; if the shared level has to be asked, when its reply comes: no scope, no task, no ASGI. Everything
else goes the ordinary way of the server, a moment later: with its ``Visit`` when the lane has understood it, as if
nothing had happened when it has not. What will probably have to be made goes there while the shared level is asked.
A head that this connection has sent before, byte by byte, is not parsed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ragkube_api.fastlane import MOST_BYTES, FastLane, Whole, may_be_plain
from ragkube_api.http_protocol import MOST_HEADERS, BoundedHttp
from ragkube_api.telemetry import Telemetry
from ragkube_api.visits import QUERY_PATH, RequestHeaders, Visit

# Clients that send the head first send the body right after it. The application waits for others, under its deadline.
PATIENCE_SECONDS: Final = 0.05
# One client's pipeline must not keep the others waiting.
_MOST_AT_ONCE: Final = 8
# Heads of one connection differ in the length of the body.
_MOST_HEADS: Final = 8
_MOST_HEAD_BYTES: Final = 1024
_PATH: Final = QUERY_PATH.encode()
_STATUS: Final = b"HTTP/1.1 200 OK\r\n"
_END: Final = b"\r\n\r\n"


class _Head(NamedTuple):
    """What the parser has made of these bytes: a plain question with a body of so many bytes behind it."""

    headers: RequestHeaders
    length: int


class LaneHttp(BoundedHttp):
    """One connection. ``_visit`` is the request that is being read for the lane, or ``_waits`` for the shared level.

    ``_came`` is what came of it so far: to hand a request over that waits is to parse it once more.
    """

    def __init__(self, *arguments: Any, lane: FastLane, telemetry: Telemetry, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._lane = lane
        self._telemetry = telemetry
        self._visit: Visit | None = None
        self._waits = False
        self._handed: Visit | None = None
        self._body = b""
        self._came = b""
        self._between = True
        self._alone = True
        self._heads: dict[bytes, _Head] = {}
        self._patience: asyncio.TimerHandle | None = None
        self._at_once = 0

    def data_received(self, data: bytes) -> None:
        """Reads on; a body that is not here yet is waited for a moment."""
        self._at_once = 0
        if self._waits:
            self._hand_over()
        if self._between and self._known(data):
            return
        if self._visit is None:
            self._came, self._alone = data, self._between
        else:
            self._came += data
        super().data_received(data)
        if self._visit is None:
            self._came = b""
        elif self._patience is None and not self._waits:
            self._patience = self.loop.call_later(PATIENCE_SECONDS, self._go_the_ordinary_way)

    def on_message_begin(self) -> None:
        """The parser is in the middle of a request now."""
        super().on_message_begin()
        self._between = False

    def on_headers_complete(self) -> None:
        """Read on if this may be a question for the lane."""
        if self._handed is not None:
            self.scope["state"]["visit"], self._handed = self._handed, None
            super().on_headers_complete()
            return
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
        """Answer at once or when the shared level has replied, or hand over."""
        self._between = self.parser.should_keep_alive() and not self.parser.should_upgrade()
        visit = self._visit
        if visit is None:
            super().on_message_complete()
            return
        body, alone = self._body, self._is_alone(visit)
        if self._answered(visit, body):
            self._forget()
        elif alone and self._asked(visit):
            self._forget()
            self._visit, self._waits = visit, True
        else:
            self.scope["state"]["visit"] = visit
            self._go_the_ordinary_way()
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Who leaves before the answer is counted like everybody else."""
        self._go_the_ordinary_way()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """A request of which the head is here is answered."""
        self._go_the_ordinary_way()
        super().shutdown()

    def _known(self, data: bytes) -> bool:
        """Whether this is one whole request with a head that was parsed before; it is taken care of then."""
        end = data.find(_END) + len(_END)
        head = self._heads.get(data[:end])
        if head is None or len(data) != end + head.length or not self._is_free():
            return False
        self._unset_keepalive_if_required()
        self._head_began = self._idle_since = None
        visit = Visit("POST", QUERY_PATH, head.headers, self.client[0] if self.client else "")
        if self._answered(visit, data[end:]):
            return True
        self._visit, self._came = visit, data
        self._waits = self._asked(visit)
        if not self._waits:
            self._hand_over()
        return True

    def _is_alone(self, visit: Visit) -> bool:
        """Whether ``_came`` is this request and nothing else; its head is known then."""
        came, length = self._came, len(self._body)
        end = came.find(_END) + len(_END)
        if not self._alone or len(came) != end + length:
            return False
        # a head with a trace of its own does not come again
        if end <= _MOST_HEAD_BYTES and b"traceparent" not in visit.headers.values:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[came[:end]] = _Head(visit.headers, length)
        return True

    def _plain_headers(self) -> RequestHeaders | None:
        """Of a question that nothing stands in the way of."""
        parser = self.parser
        if self.url != _PATH or parser.get_method() != b"POST" or len(self.headers) > MOST_HEADERS:
            return None
        if parser.get_http_version() != "1.1" or not parser.should_keep_alive() or parser.should_upgrade():
            return None
        if not self._is_free() or self._at_once >= _MOST_AT_ONCE:
            return None
        headers = RequestHeaders(self.headers)
        return headers if may_be_plain(headers) else None

    def _is_free(self) -> bool:
        """Whether an answer could be written now: no earlier one is to come, and the client takes what is sent."""
        cycle: Any = self.cycle  # there is none before the first request
        earlier = self._waits or (cycle is not None and not cycle.response_complete)
        return not (earlier or self.flow.write_paused or self.transport.is_closing())

    def _answered(self, visit: Visit, body: bytes) -> bool:
        """Whether the answer was in this process; it is written then."""
        whole = self._tried(self._lane.now, visit, body)
        if whole is not None:
            self._at_once += 1
            self._write(whole)
        return whole is not None

    def _asked(self, visit: Visit) -> bool:
        """Whether the shared level is; it is sent first what it is asked, then what a miss takes is prepared."""
        asked = self._lane.ask(visit, self._told)
        if asked and self._lane.foresees_miss:
            self.loop.call_soon(self._prepare, visit)
        return asked

    def _prepare(self, visit: Visit) -> None:
        if self._waits and visit is self._visit:
            self._hand_over()

    def _told(self, visit: Visit) -> None:
        """The shared level has replied: ``visit.lookup``."""
        if visit is not self._visit:
            return  # handed over meanwhile
        self._waits = False
        whole = self._tried(self._lane.found, visit) if self._is_free() else None
        if whole is None:
            self._hand_over()
        else:
            self._visit, self._came = None, b""
            self._write(whole)

    def _tried(self, answer: Callable[..., Whole | None], *asked: Any) -> Whole | None:
        try:
            return answer(*asked)
        except Exception:
            # a fault of ours: the application meets it again, answers and counts it
            self._telemetry.log.exception("request_failed")
            return None

    def _write(self, whole: Whole) -> None:
        headers, body = whole
        lines = [b"%b: %b\r\n" % pair for pair in (*self.server_state.default_headers, *headers)]
        self.transport.write(b"".join((_STATUS, *lines, b"\r\n", body)))
        self.server_state.total_requests += 1
        self.is_idle()

    def _go_the_ordinary_way(self) -> None:
        """Give the server what was kept from it."""
        if self._waits:
            self._hand_over()
        if self._visit is None:
            return
        body = self._body
        self._forget()
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def _hand_over(self) -> None:
        """A whole request: the parser makes of it what the server needs, and the visit goes with it."""
        self._handed, self._visit, self._waits = self._visit, None, False
        if self._handed is not None and self._handed.asking:
            self._handed.asked = self.loop.create_future()
        came, self._came = self._came, b""
        super().data_received(came)

    def _forget(self) -> None:
        self._visit, self._body = None, b""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
