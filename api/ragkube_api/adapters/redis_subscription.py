"""Hears on one connection what every replica is told, and knows when it may have missed something."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog
from redis.asyncio.client import PubSub

from ragkube_api.adapters.redis_client import FAILURES, open_node
from ragkube_api.settings import RedisCacheBackend

log = structlog.get_logger(__name__)

_PROBE_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 0.05
_MOST_PAUSE_SECONDS: Final = 2.0


class Subscription:
    """Messages of one channel from any node of the cluster: every node passes on what is published at any other.

    Nothing that must not be wrong rests on it: a message may be lost at any time. ``alive`` says whether it is worth
    to rely on it for speed.
    """

    def __init__(self, settings: RedisCacheBackend, channel: str) -> None:
        self._settings = settings
        self._channel = channel
        self._renewed = asyncio.Event()
        self.alive = False

    async def run(self, heard: Callable[[bytes], None]) -> None:
        """Pass on every message until it is cancelled."""
        pause = _PAUSE_SECONDS
        while True:
            try:
                await self._listen(random.choice(self._settings.nodes), heard)  # noqa: S311 - no secret
            except FAILURES as error:
                log.debug("redis.away", error=type(error).__name__, detail=str(error)[:300])
            pause = _PAUSE_SECONDS if self.alive else min(2 * pause, _MOST_PAUSE_SECONDS)
            self.alive = False
            await asyncio.sleep(pause)

    def renew(self) -> None:
        """Something was missed: listen to another node."""
        self.alive = False
        self._renewed.set()

    async def _listen(self, node: str, heard: Callable[[bytes], None]) -> None:
        self._renewed.clear()
        client = open_node(self._settings, node)
        try:
            async with client.pubsub() as messages:
                await messages.subscribe(self._channel)
                while not self._renewed.is_set():
                    await self._next(messages, heard)
        finally:
            await client.aclose()

    async def _next(self, messages: PubSub, heard: Callable[[bytes], None]) -> None:
        message = await messages.get_message(timeout=_PROBE_SECONDS)
        if message is None:
            await messages.ping()
            async with asyncio.timeout(_PROBE_SECONDS):
                while (message := await messages.get_message(timeout=_PROBE_SECONDS)) is None:
                    pass
        match message["type"]:
            case "subscribe":
                self.alive = True
            case "message":
                heard(bytes(message["data"]))
            case _:
                pass
