"""One connection to one Redis server: commands of all callers in one pipeline.

Replies come in the order of the commands, so a connection keeps one *waiter* a command, in that order. A caller that
was cancelled or timed out leaves its waiter behind: its reply is taken off the line and thrown away, never handed to
the next one. When the order can no longer be trusted (a broken reply, a lost or silent connection) every waiter
fails and the connection is gone for good.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias, cast

import hiredis

Word: TypeAlias = str | int | bytes
Deliver: TypeAlias = Callable[[Any], None]
"""Takes a reply (a ``RespError`` is one) or the ``ConnectionLostError`` that came instead, in the turn in which it came."""
pack = cast("Callable[[tuple[Word, ...]], bytes]", hiredis.pack_command)
"""A command as it goes over the line."""

# Kept low: whoever has so many commands on the line waits for a server that does not keep up.
_MOST_WAITERS: Final = 20_000
_GRACE_SECONDS: Final = 0.02
_PING_SECONDS: Final = 1.0
_PING: Final = pack(("PING",))


class RespError(Exception):
    """An error that the server replied: the connection is fine. ``kind`` is its first word (``MOVED``, ``ERR``)."""

    @property
    def kind(self) -> str:
        """The code of the error."""
        return str(self).partition(" ")[0]


class ConnectionLostError(ConnectionError):
    """The reply did not come; the command may have been carried out."""


class RespConnection(asyncio.Protocol):
    """Made by ``connect``. ``call`` never blocks: what is called in one turn of the loop leaves in one write.

    It is pinged every second. So none lives through a server that stood still for as long as a failover takes:
    such a server answers what lies in its connections before it learns that another has taken over.
    """

    def __init__(self, host: str, timeout_seconds: float, lost: Callable[[], None] | None = None) -> None:
        self.host = host
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout_seconds
        self._reader = hiredis.Reader(replyError=RespError)
        self._waiters: deque[tuple[Deliver, float]] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._pinging: asyncio.TimerHandle | None = None
        self._retired = False
        self.usable = False

    def call(self, *commands: bytes) -> asyncio.Future[Any]:
        """The reply to the last of these packed commands; a ``RespError`` is a result, not raised.

        The future fails with ``ConnectionLostError`` within the timeout, whatever the server does.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        for command in commands[:-1]:
            self.send(command, _ignore)
        self.send(commands[-1], partial(_settle, future))
        return future

    def send(self, command: bytes, deliver: Deliver) -> None:
        """The same without a future; ``deliver`` is called once and must not fail. Raises ``ConnectionLostError``."""
        if not self.usable or len(self._waiters) >= _MOST_WAITERS:
            raise ConnectionLostError("the connection is closed or has too much to do")
        deadline = self._loop.time() + self._timeout
        self._waiters.append((deliver, deadline))
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(command)
        if self._watch is None:
            self._watch = self._loop.call_at(deadline, self._look_at_the_clock)

    def retire(self) -> None:
        """Close as soon as every waiter has its reply; nobody new is taken."""
        self.usable = False
        self._retired = True
        if not self._waiters:
            self.abort("retired")

    def abort(self, reason: str) -> None:
        """Close at once; every waiter fails, and ``lost`` is told unless the connection was retired."""
        if self.usable and self._lost is not None:
            self._lost()
        self.usable = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._pinging is not None:
            self._pinging.cancel()
            self._pinging = None
        if self._transport is not None:
            self._transport.abort()
        waiters, self._waiters = self._waiters, deque()
        self._unsent.clear()
        for deliver, _ in waiters:
            deliver(ConnectionLostError(reason))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for ``call``."""
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True
        self._pinging = self._loop.call_later(_PING_SECONDS, self._ping)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server, the network or we have closed it."""
        self.abort(f"connection lost: {exc or 'closed by the server'}")

    def data_received(self, data: bytes) -> None:
        """Hand out every whole reply."""
        reader = self._reader
        reader.feed(data)
        while True:
            try:
                reply = reader.gets()
                if reply is False:
                    break
                deliver, _ = self._waiters.popleft()
            except (hiredis.ProtocolError, IndexError):
                self.abort("the server sent what nobody asked for")
                return
            deliver(reply)
        if self._retired and not self._waiters:
            self.abort("retired")

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None:
            self._transport.write(b"".join(unsent) if len(unsent) > 1 else unsent[0])

    def _ping(self) -> None:
        self._pinging = None
        if not self.usable:
            return
        if not self._waiters:
            self.call(_PING)
        self._pinging = self._loop.call_later(_PING_SECONDS, self._ping)

    def _look_at_the_clock(self) -> None:
        """One timer a connection: waiters stand in the order of their deadlines."""
        self._watch = None
        if not self._waiters:
            return
        first = self._waiters[0]
        deadline = first[1]
        if deadline <= self._loop.time():
            # After a turn in which our own process stood still its reply may be waiting to be read.
            self._watch = self._loop.call_later(_GRACE_SECONDS, self._give_up_on, first)
        else:
            self._watch = self._loop.call_at(deadline, self._look_at_the_clock)

    def _give_up_on(self, first: tuple[Deliver, float]) -> None:
        self._watch = None
        if self._waiters and self._waiters[0] is first:
            self.abort("no reply in time")
        else:
            self._look_at_the_clock()


def _settle(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():
        return  # the caller is gone
    if isinstance(reply, ConnectionLostError):
        future.set_exception(reply)
        future.exception()  # a caller that is gone does not come for it
    else:
        future.set_result(reply)


def _ignore(_: Any) -> None:
    """Somebody waits for a later one."""


async def connect(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None,
    credentials: tuple[str, ...],
    timeout_seconds: float,
    lost: Callable[[], None] | None = None,
) -> RespConnection:
    """A connection that is authenticated; ``lost`` is called when it breaks. Raises ``OSError``, ``TimeoutError`` or ``RespError``."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_seconds):
        _, connection = await loop.create_connection(
            lambda: RespConnection(host, timeout_seconds, lost), host, port, ssl=tls
        )
        try:
            if credentials:
                await _expect_ok(connection, ("AUTH", *credentials))
            await connection.call(pack(("CLIENT", "SETNAME", "ragkube")))
        except BaseException:
            connection.abort("not authenticated")
            raise
    return connection


async def _expect_ok(connection: RespConnection, command: tuple[str, ...]) -> None:
    reply = await connection.call(pack(command))
    if isinstance(reply, RespError):
        raise reply
