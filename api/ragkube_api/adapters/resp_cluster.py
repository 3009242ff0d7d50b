"""Commands to the primaries of a Redis Cluster (or Valkey), one pipelined connection each.

A command goes to the primary that the slot map names. The map follows redirections at once and is read again, in the
background and from the names in the settings too (resolved anew), after any failure and when an idle connection breaks:
a cluster whose every pod has a new address is found again without a restart, and before somebody asks.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from binascii import crc_hqx
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import structlog

from ragkube_api.adapters.resp_connection import ConnectionLostError, RespConnection, RespError, connect, pack
from ragkube_api.settings import RedisCacheBackend

log = structlog.get_logger(__name__)

SLOTS: Final = 16384
Address: TypeAlias = tuple[str, int]

_MOST_REDIRECTIONS: Final = 5
_PAUSE_SECONDS: Final = 0.02
_HEAL_PAUSE_SECONDS: Final = (0.05, 1.0)
_ASKING: Final = pack(("ASKING",))
_CLUSTER_SLOTS: Final = pack(("CLUSTER", "SLOTS"))
_NOT_NOW: Final = frozenset({"TRYAGAIN", "LOADING", "CLUSTERDOWN", "MASTERDOWN", "READONLY"})


def slot_of(key: str) -> int:
    """The slot of a key: only what stands in its first braces counts."""
    start = key.find("{")
    if start >= 0:
        end = key.find("}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key.encode(), 0) % SLOTS


class RespCluster:
    """Raises ``OSError`` (``ConnectionLostError`` among them), ``TimeoutError`` or ``RespError``."""

    def __init__(self, settings: RedisCacheBackend) -> None:
        self._settings = settings
        self._names = [address_of(node) for node in settings.nodes]
        self._tls = tls_context(settings)
        self._primaries: dict[int, Address] = {}
        self._connections: dict[Address, RespConnection] = {}
        self._connecting: dict[Address, asyncio.Task[RespConnection]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._healing: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Reach every primary before somebody asks; without an answer in time it goes on in the background."""
        self.heal()
        if self._healing is not None:
            await asyncio.wait((self._healing,), timeout=self._settings.timeout_seconds)

    def ready(self, slot: int) -> RespConnection | None:
        """The connection to the slot's primary, when one can be used right now."""
        address = self._primaries.get(slot)
        connection = self._connections.get(address) if address is not None else None
        return connection if connection is not None and connection.usable else None

    async def execute(self, slot: int, command: bytes) -> Any:
        """The reply, after redirections and one more try on a new connection where that was lost.

        So it may be carried out twice: then counts of what was asked and rates may be one too high, and the number of
        entries that were removed too low. A ``RespError`` that is no redirection is a result.
        """
        lost = False
        for _ in range(_MOST_REDIRECTIONS):
            try:
                connection = await self._connection(slot)
                reply = await connection.call(command)
            except ConnectionLostError:
                if lost:
                    raise
                lost = True
                continue
            if not isinstance(reply, RespError):
                return reply
            if reply.kind == "ASK":
                asked = await self._open(_target(reply, connection))
                return await asked.call(_ASKING, command)
            if not await self._worth_another_try(slot, reply, connection):
                return reply
        raise ConnectionLostError("too many redirections")

    async def _worth_another_try(self, slot: int, error: RespError, connection: RespConnection) -> bool:
        match error.kind:
            case "MOVED":
                self._primaries[slot] = _target(error, connection)
                self.heal()
            case "NOAUTH":
                connection.abort("the server wants a password now")
            case kind if kind in _NOT_NOW:
                self.heal()
                await asyncio.sleep(_PAUSE_SECONDS)
            case _:
                return False
        return True

    async def _connection(self, slot: int) -> RespConnection:
        ready = self.ready(slot)
        if ready is not None:
            return ready
        if slot not in self._primaries:
            await self._read_once()
        address = self._primaries.get(slot)
        if address is None:
            raise ConnectionLostError("no node serves this slot")
        return await self._open(address)

    async def _open(self, address: Address) -> RespConnection:
        """One attempt for all who want it; a caller that leaves does not take it from the others."""
        found = self._connections.get(address)
        if found is not None and found.usable:
            return found
        task = self._connecting.get(address)
        if task is None:
            task = asyncio.create_task(self._connect(address), name="redis-connect")
            self._connecting[address] = task
            task.add_done_callback(lambda done: self._connected(address, done))
        return await asyncio.shield(task)

    def _connected(self, address: Address, task: asyncio.Task[RespConnection]) -> None:
        del self._connecting[address]
        if not task.cancelled() and task.exception() is None:
            self._connections[address] = task.result()

    async def _connect(self, address: Address) -> RespConnection:
        # the file is read off the loop: it may be on a slow volume
        access = await asyncio.to_thread(credentials, self._settings)
        return await connect(
            *address, tls=self._tls, credentials=access,
            timeout_seconds=self._settings.timeout_seconds / 2, lost=self.heal,
        )  # fmt: skip

    def heal(self) -> None:
        """Read the slot map in the background until each primary that it names is reached."""
        if self._closed:
            return
        if self._healing is None or self._healing.done():
            self._healing = asyncio.create_task(self._heal(), name="redis-topology")

    async def _heal(self) -> None:
        pause, most = _HEAL_PAUSE_SECONDS
        while True:
            try:
                await self._read_once()
                # a map from before a failover names one that is gone
                await asyncio.gather(*map(self._open, set(self._primaries.values())))
            except (OSError, TimeoutError, RespError) as error:
                log.debug("redis.away", error=type(error).__name__, detail=str(error)[:300])
                await asyncio.sleep(pause)
                pause = min(2 * pause, most)
            else:
                return

    async def _read_once(self) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_topology(), name="redis-slots")
            self._reading.add_done_callback(_seen)
        await asyncio.shield(self._reading)

    async def _read_topology(self) -> None:
        """From any node that tells: known ones in any order, so that one that lags behind is not asked each time."""
        known = list(dict.fromkeys(self._primaries.values()))
        random.shuffle(known)
        failure: Exception = ConnectionLostError("no node is known")
        for address in dict.fromkeys([*known, *self._names]):
            try:
                connection = await self._open(address)
                reply = await connection.call(_CLUSTER_SLOTS)
            except (OSError, TimeoutError, RespError) as error:
                failure = error
                continue
            if isinstance(reply, RespError):
                failure = reply
            elif reply:
                self._take_over(_slot_map(reply, address[0]))
                return
        raise failure

    def _take_over(self, primaries: dict[int, Address]) -> None:
        self._primaries = primaries
        in_use = set(primaries.values())
        for address in [address for address in self._connections if address not in in_use]:
            self._connections.pop(address).retire()

    async def close(self) -> None:
        """Close every connection; who still waits gets ``ConnectionLostError``."""
        self._closed = True
        tasks = [task for task in (self._healing, self._reading, *self._connecting.values()) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self._connections.values():
            connection.abort("closed")
        self._connections.clear()


def _seen(task: asyncio.Task[None]) -> None:
    """All who waited may have left; nobody needs to hear of its failure then."""
    if not task.cancelled():
        task.exception()


def _slot_map(reply: Iterable[Any], asked: str) -> dict[int, Address]:
    primaries: dict[int, Address] = {}
    for first, last, primary, *_ in reply:
        host = primary[0].decode() if primary[0] else ""
        address = (host if host not in {"", "?"} else asked, int(primary[1]))
        primaries.update(dict.fromkeys(range(int(first), int(last) + 1), address))
    return primaries


def _target(error: RespError, connection: RespConnection) -> Address:
    """Of ``MOVED 3999 host:port`` and ``ASK 3999 host:port``; without a host it is the one that said so."""
    host, port = address_of(str(error).split(" ")[2])
    return host or connection.host, port


def address_of(text: str) -> Address:
    """Of ``host:port``, also of an IPv6 address in brackets."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def credentials(settings: RedisCacheBackend) -> tuple[str, ...]:
    """Read at every new connection, so that a rotated password is taken up without a restart."""
    if settings.password_file is None:
        return ()
    password = settings.password_file.read_text().strip()
    return (settings.username, password) if settings.username else (password,)


def tls_context(settings: RedisCacheBackend) -> ssl.SSLContext | None:
    """None without TLS."""
    if not settings.tls:
        return None
    return ssl.create_default_context(cafile=str(settings.tls_ca_file) if settings.tls_ca_file else None)
