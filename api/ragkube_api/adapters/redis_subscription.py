"""Hears on one connection what every replica is told, and knows when it may have missed something."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import hiredis
import structlog

from ragkube_api.adapters.resp_cluster import address_of, credentials, tls_context
from ragkube_api.adapters.resp_connection import RespError, pack
from ragkube_api.settings import RedisCacheBackend

log = structlog.get_logger(__name__)

_PROBE_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 0.05
_MOST_PAUSE_SECONDS: Final = 2.0
_READ_BYTES: Final = 65536
_PING: Final = pack(("PING",))


class Subscription:
    """Messages of one channel from any node of the cluster: every node passes on what is published at any other.

    Nothing that must not be wrong rests on it: a message may be lost at any time. ``alive`` says whether it is worth
    to rely on it for speed.
    """

    def __init__(self, settings: RedisCacheBackend, channel: str) -> None:
        self._settings = settings
        self._channel = channel
        self._tls = tls_context(settings)
        self._renewed = False
        self.alive = False

    async def run(self, heard: Callable[[bytes], None]) -> None:
        """Pass on every message until it is cancelled."""
        pause = _PAUSE_SECONDS
        while True:
            try:
                await self._listen(random.choice(self._settings.nodes), heard)  # noqa: S311 - no secret
            except (OSError, TimeoutError, RespError, hiredis.HiredisError) as error:
                log.debug("redis.away", error=type(error).__name__, detail=str(error)[:300])
            pause = _PAUSE_SECONDS if self.alive else min(2 * pause, _MOST_PAUSE_SECONDS)
            self.alive = False
            await asyncio.sleep(pause)

    def renew(self) -> None:
        """Something was missed: listen to another node."""
        self.alive = False
        self._renewed = True

    async def _listen(self, node: str, heard: Callable[[bytes], None]) -> None:
        self._renewed = False
        access = await asyncio.to_thread(credentials, self._settings)
        async with asyncio.timeout(self._settings.timeout_seconds):
            reader, writer = await asyncio.open_connection(*address_of(node), ssl=self._tls)
        try:
            commands = [("AUTH", *access)] if access else []
            writer.write(b"".join(map(pack, [*commands, ("SUBSCRIBE", self._channel)])))
            await self._pass_on(reader, writer, heard)
        finally:
            writer.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: Callable[[bytes], None]
    ) -> None:
        parser = hiredis.Reader(replyError=RespError)
        asked = False
        while not self._renewed:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    data = await reader.read(_READ_BYTES)
            except TimeoutError:
                if asked:
                    raise
                writer.write(_PING)
                asked = True
                continue
            if not data:
                raise ConnectionResetError("closed by the server")
            asked = False
            parser.feed(data)
            while (reply := parser.gets()) is not False:
                self._take(reply, heard)

    def _take(self, reply: Any, heard: Callable[[bytes], None]) -> None:
        if isinstance(reply, RespError):
            raise reply
        match reply:
            case [b"subscribe", _, _]:
                self.alive = True
            case [b"message", _, message]:
                heard(bytes(message))
            case _:
                pass
