"""One Redis Cluster (or Valkey) client that heals by itself.

Scripts, which every cached answer needs, go over our own pipelined connections (``resp_cluster``): one round trip and
a tenth of redis-py's work a call. The source board and the probe use redis-py; revocations come by a socket of their own
(``redis_subscription``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from hashlib import sha1
from typing import Any, TypeVar

import structlog
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisClusterException, RedisError

from ragkube_api.adapters.resp_cluster import RespCluster, slot_of
from ragkube_api.adapters.resp_connection import ConnectionLostError, RespError, pack
from ragkube_api.errors import CacheUnavailableError
from ragkube_api.settings import RedisCacheBackend

log = structlog.get_logger(__name__)
T = TypeVar("T")
FAILURES = (RedisError, RedisClusterException, RespError, OSError, TimeoutError)
"""What a server, the network or their absence can do to a call."""


class _PasswordFile(CredentialProvider):
    """Reads the password at every new connection, so that a rotated one is taken up without a restart."""

    def __init__(self, settings: RedisCacheBackend) -> None:
        self._username = settings.username
        self._file = settings.password_file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Without a file there is nothing to authenticate with."""
        password = self._file.read_text().strip() if self._file else ""
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same off the event loop: the file may be on a slow volume."""
        return await asyncio.to_thread(self.get_credentials)


class Script:
    """A Lua script and its digest."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisClient:
    """Runs operations with a deadline and turns every failure into ``CacheUnavailableError``.

    A failed operation starts one background task that reads the cluster's topology again from the given node
    names (resolved anew), without the deadline of the request: one unreachable address does not keep it from
    healing, nor does a cluster whose every pod has a new one.
    """

    def __init__(self, settings: RedisCacheBackend) -> None:
        self._timeout = settings.timeout_seconds
        self._client = _client(settings)
        self._scripts = RespCluster(settings)
        self._healing: asyncio.Task[None] | None = None
        self._failing = False

    async def run(self, operation: Callable[[RedisCluster], Awaitable[T]]) -> T:
        """The operation's result within the configured timeout."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._client.initialize()  # else the first commands go to any node
                result = await operation(self._client)
        except FAILURES as error:
            self._heal()
            raise self._failure(error) from error
        self._failing = False
        return result

    async def script(self, script: Script, keys: list[str], arguments: list[bytes | str | int]) -> Any:
        """Run a script in one round trip; the server is sent its text only when it does not know it yet."""

        slot = slot_of(keys[0])
        command = pack(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        ends = asyncio.get_running_loop().time() + self._timeout
        connection = self._scripts.ready(slot)
        try:
            if connection is not None:
                with contextlib.suppress(ConnectionLostError):
                    reply = await connection.call(command)
                    if not isinstance(reply, RespError):
                        self._failing = False
                        return reply
            async with asyncio.timeout_at(ends):
                reply = await self._scripts.execute(slot, command)
                if isinstance(reply, RespError) and reply.kind == "NOSCRIPT":
                    text = pack(("EVAL", script.text, len(keys), *keys, *arguments))
                    reply = await self._scripts.execute(slot, text)
            if isinstance(reply, RespError):
                raise reply
        except FAILURES as error:
            self._scripts.heal()
            raise self._failure(error) from error
        self._failing = False
        return reply

    async def close(self) -> None:
        """Close every connection."""
        await self._scripts.close()
        if self._healing is not None:
            self._healing.cancel()
            await asyncio.gather(self._healing, return_exceptions=True)
        with contextlib.suppress(*FAILURES):
            await self._client.aclose()
            await self._client.nodes_manager.aclose()
            await self._client.nodes_manager.aclose("startup_nodes")

    def _failure(self, error: Exception) -> CacheUnavailableError:
        write = log.debug if self._failing else log.warning  # one line an outage, not one a request
        write("redis.failed", error=type(error).__name__, detail=str(error)[:300])
        self._failing = True
        return CacheUnavailableError("The cache does not answer.", retry_after=2)

    def _heal(self) -> None:
        if self._healing is None or self._healing.done():
            self._healing = asyncio.create_task(self._read_topology(), name="redis-heal")

    async def _read_topology(self) -> None:
        try:
            await self._client.initialize()
        except FAILURES as error:
            log.debug("redis.away", error=type(error).__name__, detail=str(error)[:300])


def _client(settings: RedisCacheBackend) -> RedisCluster:
    return RedisCluster(
        startup_nodes=[_node(address) for address in settings.nodes],
        dynamic_startup_nodes=False,  # names outlive addresses
        reinitialize_steps=0,  # else every fifth redirection closes connections in use
        require_full_coverage=False,  # one lost shard must not take the tenants of the others along
        retry=Retry(NoBackoff(), 1),
        client_name="ragkube",
        protocol=2,
        **_access(settings),
    )


def _access(settings: RedisCacheBackend) -> dict[str, Any]:
    tls: dict[str, Any] = {}
    if settings.tls:
        tls = {"ssl": True, "ssl_ca_certs": str(settings.tls_ca_file) if settings.tls_ca_file else None}
    return {
        "credential_provider": _PasswordFile(settings) if settings.password_file else None,
        "socket_timeout": settings.timeout_seconds / 2,
        "socket_connect_timeout": settings.timeout_seconds / 2,
        **tls,
    }


def _node(address: str) -> ClusterNode:
    host, _, port = address.rpartition(":")
    return ClusterNode(host.strip("[]"), int(port))
