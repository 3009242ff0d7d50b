"""One Redis Cluster (or Valkey) client that heals by itself.

Everything goes over our own pipelined connections (``resp_cluster``): one round trip and a tenth of redis-py's work a
call, and 20 MB less in each process. Revocations come by a socket of their own (``redis_subscription``).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
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


class _Run:
    """A script with its keys and arguments, ready to be sent; ``began`` is when."""

    __slots__ = ("_words", "began", "command", "script", "slot")

    def __init__(self, script: Script, keys: Sequence[str], arguments: Sequence[Word]) -> None:
        self.script = script
        self._words = (len(keys), *keys, *arguments)
        self.slot = slot_of(keys[0])
        self.command = pack(("EVALSHA", script.sha, *self._words))
        self.began = time.monotonic()

    def text(self) -> bytes:
        """For a server that does not know the script."""
        return pack(("EVAL", self.script.text, *self._words))


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
        self._again: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def open(self) -> None:
        """Connect, if Redis is there: the first callers need not, within their own deadlines."""
        await self._cluster.open()

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

    async def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Word]) -> Any:
        """Run a script in one round trip; the server is sent its text only when it does not know it yet."""
        run = _Run(script, keys, arguments)
        connection = self._cluster.ready(run.slot)
        if connection is not None:
            with contextlib.suppress(ConnectionLostError):
                reply = await connection.call(run.command)
                if not isinstance(reply, RespError):
                    self._failing = False
                    return reply
        return await self._insisted(run)

    def begin(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Word], deliver: Callable[[Any], None]
    ) -> bool:
        """``script`` without a task: ``deliver`` is called later with the reply or the ``CacheUnavailableError``.

        False, and nothing was sent, when no connection can be used right now.
        """
        return self._sent(_Run(script, keys, arguments), deliver)

    def send(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Word], deliver: Callable[[Any], None]
    ) -> None:
        """``begin`` that waits for a connection where there is none: ``deliver`` is called in any case."""
        run = _Run(script, keys, arguments)
        if not self._sent(run, deliver):
            self._insist(run, deliver)

    def _sent(self, run: _Run, deliver: Callable[[Any], None]) -> bool:
        connection = self._cluster.ready(run.slot)
        if connection is None:
            return False
        try:
            connection.send(run.command, partial(self._begun, run, deliver))
        except ConnectionLostError:
            return False
        return True

    def _begun(self, run: _Run, deliver: Callable[[Any], None], reply: Any) -> None:
        if not isinstance(reply, RespError | ConnectionLostError):
            self._failing = False
            deliver(reply)
        else:
            self._insist(run, deliver)

    def _insist(self, run: _Run, deliver: Callable[[Any], None]) -> None:
        if self._closed:
            deliver(_unavailable())
        else:
            task = asyncio.create_task(self._insisted(run), name="redis-again")
            self._again.add(task)
            task.add_done_callback(partial(self._ended, deliver))

    def _ended(self, deliver: Callable[[Any], None], task: asyncio.Task[Any]) -> None:
        self._again.discard(task)
        error = _unavailable() if task.cancelled() else task.exception()
        deliver(task.result() if error is None else _unavailable())
        if error is not None and not isinstance(error, CacheUnavailableError):
            raise error  # ours

    async def _insisted(self, run: _Run) -> Any:
        """Whatever it takes, within what is left of the timeout."""
        try:
            async with asyncio.timeout(max(0.0, run.began + self._timeout - time.monotonic())):
                reply = await self._cluster.execute(run.slot, run.command)
                if isinstance(reply, RespError) and reply.kind == "NOSCRIPT":
                    reply = await self._cluster.execute(run.slot, run.text())
            if isinstance(reply, RespError):
                raise reply
        except FAILURES as error:
            self._cluster.heal()
            raise self._failure(error) from error
        self._failing = False
        return reply

    async def close(self) -> None:
        """Close every connection; who still waits hears that the cache is unavailable."""
        self._closed = True
        await self._cluster.close()
        for task in self._again:
            task.cancel()
        await asyncio.gather(*self._again, return_exceptions=True)

    def _failure(self, error: Exception) -> CacheUnavailableError:
        write = log.debug if self._failing else log.warning  # one line an outage, not one a request
        write("redis.failed", error=type(error).__name__, detail=str(error)[:300])
        self._failing = True
        return _unavailable()


def _unavailable() -> CacheUnavailableError:
    return CacheUnavailableError("The cache does not answer.", retry_after=2)
