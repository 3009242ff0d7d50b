"""Flights of every replica: a lease with a fencing token in the tenant's slot.

A flight is one hash. Its leader holds it for ``lease_seconds`` by the server's clock and renews that; who asks the same
waits and looks again, a few times a second at most, until the result is there or the lease has run out: then one of
those who wait leads. Only the holder of the lease may put a result there. It is kept for a moment for those who wait,
and for those who looked for an answer elsewhere while it was made.

Inside one process all askers are one (``MemoryFlights``), so that a flight costs each replica a few commands, however
many ask. Without Redis every process computes for itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import structlog

from ragkube_api import go_ahead
from ragkube_api.adapters.memory_flights import KEPT_SECONDS, MemoryFlights
from ragkube_api.adapters.redis_client import RedisClient, Script
from ragkube_api.adapters.redis_keys import slot_tag
from ragkube_api.errors import CacheUnavailableError

log = structlog.get_logger(__name__)

_KEPT: Final = int(KEPT_SECONDS * 1000)
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.1
_STILL_WAITING_SECONDS: Final = 1.0
_AWAY_SECONDS: Final = 1.0
# With so many under way Redis is slow, and callers wait until theirs is stored.
MOST_SETTLING: Final = 256

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
# token, lease, how long ago the asker began to look, how long a flight is kept; all times in milliseconds
CLAIM = Script(
    _NOW
    + """
local flight = redis.call('HMGET', KEYS[1], 'owner', 'until', 'done', 'result')
if flight[3] and now - flight[3] <= tonumber(ARGV[3]) then return {'done', flight[4]} end
if flight[1] and flight[1] ~= ARGV[1] and tonumber(flight[2]) > now then
  redis.call('HSET', KEYS[1], 'waited', now)
  return {'wait', flight[2] - now}
end
redis.call('HDEL', KEYS[1], 'done', 'result', 'waited')
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', now + ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2] + ARGV[4])
return {'lead'}
"""
)
# token, lease, how long a flight is kept
RENEW = Script(
    _NOW
    + """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'until', now + ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2] + ARGV[3])
return 1
"""
)
# token, how long a flight is kept, result
FINISH = Script(
    _NOW
    + """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'owner', 'until', 'waited')
redis.call('HSET', KEYS[1], 'done', now, 'result', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)
# token, how long ago somebody who still waits has looked; 1: nobody needs the flight any more
RELEASE = Script(
    _NOW
    + """
local flight = redis.call('HMGET', KEYS[1], 'owner', 'waited')
if flight[1] ~= ARGV[1] then return 1 end
if flight[2] and now - flight[2] <= tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[1])
return 1
"""
)


class _Work(NamedTuple):
    compute: Callable[[], Awaitable[bytes]]
    settle: Callable[[], Awaitable[None]]


class _Renewal:
    """Renews a lease every so often until it is lost; most flights are over before the first time."""

    def __init__(self, seconds: float, renew: Callable[[], Awaitable[bool]]) -> None:
        """``renew`` tells whether the lease is still ours."""
        self._seconds = seconds
        self._renew = renew
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def cancel(self) -> None:
        """No more."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._run(), name="flight-lease")

    async def _run(self) -> None:
        while True:
            if not await self._renew():
                return
            await asyncio.sleep(self._seconds)


class RedisFlights:
    """``Flights`` over all replicas of one Redis Cluster."""

    def __init__(self, client: RedisClient, prefix: str, *, lease_seconds: float = 5.0) -> None:
        self._client = client
        self._prefix = prefix
        self._lease = lease_seconds
        self._local = MemoryFlights()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._away: dict[str, float] = {}
        self._settling: set[asyncio.Task[Any]] = set()

    async def once(
        self,
        tenant: str,
        flight: str,
        compute: Callable[[], Awaitable[bytes]],
        *,
        settle: Callable[[], Awaitable[None]] | None = None,
        looked_seconds: float = 0.0,
    ) -> tuple[bytes, bool]:
        """The result of one ``compute()`` over all replicas, and whether it was ours."""
        ours = False
        work = _Work(compute, settle or _nothing)
        began = time.monotonic() - looked_seconds

        async def shared() -> bytes:
            nonlocal ours
            result, ours = await self._shared(self._key(tenant, flight), work, began)
            return result

        result, led = await self._local.once(tenant, flight, shared, looked_seconds=looked_seconds)
        return result, led and ours

    async def close(self) -> None:
        """Give results that are on their way a last moment; end what is computed for others."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=1)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _shared(self, key: str, work: _Work, began: float) -> tuple[bytes, bool]:
        token = secrets.token_hex(16)
        pause = _FIRST_PAUSE
        go, leading = self._begin(key, token, work)
        try:
            while True:
                looked = int((time.monotonic() - began) * 1000)
                reply = await self._claim(key, token, min(looked, _KEPT))
                match bytes(reply[0]):
                    case b"done":
                        return bytes(reply[1]), False
                    case b"lead":
                        if leading.cancelling():
                            go, leading = self._begin(key, token, work)
                        go.set_result(None)
                        return await self._led(key, token, leading), True
                leading.cancel()  # who waits prepares nothing more
                await asyncio.sleep(min(pause, max(0.001, int(reply[1]) / 1000)))
                pause = min(1.5 * pause, _LONGEST_PAUSE)
        except CacheUnavailableError:
            leading.cancel()
            result = await work.compute()
            await work.settle()
            return result, True
        finally:
            if not go.done():
                leading.cancel()

    def _begin(self, key: str, token: str, work: _Work) -> tuple[asyncio.Future[None], asyncio.Task[bytes]]:
        """Prepare it while the claim is on its way; the future is the go-ahead."""
        go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # in a task of its own: the others may need it when nobody here does
        return go, self._start(self._computed(key, token, work, go))

    async def _claim(self, key: str, token: str, looked: int) -> Any:
        """Raises ``CacheUnavailableError``; at once where somebody has waited for this tenant's slot in vain just now."""
        tenant = key.rpartition(":flight:")[0]
        now = time.monotonic()
        if tenant in self._away:
            if now < self._away[tenant]:
                raise CacheUnavailableError("The cache does not answer.", retry_after=2)
            self._away[tenant] = now + _AWAY_SECONDS  # one asks for all
        try:
            reply = await self._client.script(CLAIM, [key], [token, self._milliseconds, looked, _KEPT])
        except CacheUnavailableError:
            now = time.monotonic()
            self._away = {name: until for name, until in self._away.items() if until > now}
            self._away[tenant] = now + _AWAY_SECONDS
            raise
        self._away.pop(tenant, None)
        return reply

    async def _led(self, key: str, token: str, leading: asyncio.Task[bytes]) -> bytes:
        try:
            return await asyncio.shield(leading)
        except asyncio.CancelledError:
            if not leading.done():
                self._start(self._end_if_alone(key, token, leading))
            raise

    async def _computed(self, key: str, token: str, work: _Work, go: asyncio.Future[None]) -> bytes:
        await asyncio.sleep(0)  # first the claim is sent
        renewal = _Renewal(self._lease / 4, lambda: self._renew(key, token))
        try:
            result = await _prepared(work, go)
        except BaseException:
            renewal.cancel()
            if go.done():
                self._start(self._release(key, token, 0))  # who waits need not wait for the lease
            raise
        settling = asyncio.create_task(self._settled(key, token, work, result, renewal))
        for kept in (self._settling, self._tasks):
            kept.add(settling)
            settling.add_done_callback(kept.discard)
        if len(self._settling) > MOST_SETTLING:
            await asyncio.shield(settling)
        return result

    async def _settled(self, key: str, token: str, work: _Work, result: bytes, renewal: _Renewal) -> None:
        """Handed on only when it lies where the next one looks for it: until then they wait here."""
        try:
            await work.settle()
        finally:
            renewal.cancel()
            await self._finish(key, token, result)

    async def _renew(self, key: str, token: str) -> bool:
        try:
            return bool(await self._client.script(RENEW, [key], [token, self._milliseconds, _KEPT]))
        except CacheUnavailableError:
            return True  # for all we know

    async def _finish(self, key: str, token: str, result: bytes) -> None:
        try:
            await self._client.script(FINISH, [key], [token, _KEPT, result])
        except CacheUnavailableError:
            log.debug("redis.away", detail="a flight's result was not handed on")

    async def _release(self, key: str, token: str, waiting_seconds: float) -> bool:
        """Whether nobody waits any more; then the flight is over."""
        try:
            reply = await self._client.script(RELEASE, [key], [token, int(waiting_seconds * 1000) - 1])
        except CacheUnavailableError:
            return True
        return bool(reply)

    async def _end_if_alone(self, key: str, token: str, leading: asyncio.Task[bytes]) -> None:
        if await self._release(key, token, _STILL_WAITING_SECONDS):
            leading.cancel()

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it has it

    def _key(self, tenant: str, flight: str) -> str:
        digest = hashlib.blake2b(flight.encode(), digest_size=16).hexdigest()
        return f"{slot_tag(self._prefix, tenant)}:flight:{digest}"

    @property
    def _milliseconds(self) -> int:
        return int(self._lease * 1000)


async def _nothing() -> None:
    """Nothing to settle."""


async def _prepared(work: _Work, go: asyncio.Future[None]) -> bytes:
    """The result, or what went wrong, not before the go-ahead."""
    try:
        with go_ahead.awaiting(go):
            result = await work.compute()
    except Exception:
        await asyncio.shield(go)
        raise
    await asyncio.shield(go)
    return result
