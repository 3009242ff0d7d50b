"""One Redis Cluster (or Valkey) client that heals by itself.

Everything goes over our own pipelined connections (``resp_cluster``): one round trip and a tenth of redis-py's work a
call, and 20 MB less in each process. Revocations come by a socket of their own (``redis_subscription``).
"""

from __future__ import annotations

import asyncio
import contextlib
from hashlib import sha1
from typing import Any

import structlog

from ragkube_api.adapters.resp_cluster import RespCluster, slot_of
from ragkube_api.adapters.resp_connection import ConnectionLostError, RespError, Word, pack
from ragkube_api.errors import CacheUnavailableError
from ragkube_api.settings import RedisCacheBackend

log = structlog.get_logger(__name__)
FAILURES = (RespError, OSError, TimeoutError)
"""What a server, the network or their absence can do to a call."""


class Script:
    """A Lua script and its digest."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisClient:
    """Runs commands with a deadline and turns every failure into ``CacheUnavailableError``.

    A failed one starts one background task that reads the cluster's topology again from the given node names
    (resolved anew), without the deadline of the request: one unreachable address does not keep it from healing, nor
    does a cluster whose every pod has a new one.
    """

    def __init__(self, settings: RedisCacheBackend) -> None:
        self._timeout = settings.timeout_seconds
        self._cluster = RespCluster(settings)
        self._failing = False

    async def command(self, slot: int, *words: Word) -> Any:
        """The reply of the slot's primary; it may be carried out twice (``RespCluster.execute``)."""
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._cluster.execute(slot, pack(words))
            if isinstance(reply, RespError):
                raise reply
        except FAILURES as error:
            self._cluster.heal()
            raise self._failure(error) from error
        self._failing = False
        return reply

    async def script(self, script: Script, keys: list[str], arguments: list[bytes | str | int]) -> Any:
        """Run a script in one round trip; the server is sent its text only when it does not know it yet."""

        slot = slot_of(keys[0])
        command = pack(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        ends = asyncio.get_running_loop().time() + self._timeout
        connection = self._cluster.ready(slot)
        try:
            if connection is not None:
                with contextlib.suppress(ConnectionLostError):
                    reply = await connection.call(command)
                    if not isinstance(reply, RespError):
                        self._failing = False
                        return reply
            async with asyncio.timeout_at(ends):
                reply = await self._cluster.execute(slot, command)
                if isinstance(reply, RespError) and reply.kind == "NOSCRIPT":
                    text = pack(("EVAL", script.text, len(keys), *keys, *arguments))
                    reply = await self._cluster.execute(slot, text)
            if isinstance(reply, RespError):
                raise reply
        except FAILURES as error:
            self._cluster.heal()
            raise self._failure(error) from error
        self._failing = False
        return reply

    async def close(self) -> None:
        """Close every connection."""
        await self._cluster.close()

    def _failure(self, error: Exception) -> CacheUnavailableError:
        write = log.debug if self._failing else log.warning  # one line an outage, not one a request
        write("redis.failed", error=type(error).__name__, detail=str(error)[:300])
        self._failing = True
        return CacheUnavailableError("The cache does not answer.", retry_after=2)
