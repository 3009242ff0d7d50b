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
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, cast

import structlog

from ragkube_api import go_ahead
from ragkube_api.adapters.memory_flights import KEPT_SECONDS, MemoryFlights
from ragkube_api.adapters.redis_client import RedisClient, Script
from ragkube_api.adapters.redis_keys import slot_tag
from ragkube_api.adapters.resp_connection import Word
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
# token, lease, how long a flight is kept, when the asker looked, if that is known, and else how long ago; milliseconds
CLAIM = Script(
    _NOW
    + """
local flight = redis.call('HMGET', KEYS[1], 'owner', 'until', 'done', 'result')
local looked = tonumber(ARGV[4]) or now - ARGV[5]
if flight[3] and tonumber(flight[3]) >= looked then return {'done', flight[4]} end
if flight[1] and flight[1] ~= ARGV[1] and tonumber(flight[2]) > now then
  redis.call('HSET', KEYS[1], 'waited', now)
  return {'wait', flight[2] - now, now}
end
redis.call('HDEL', KEYS[1], 'done', 'result', 'waited')
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', now + ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2] + ARGV[3])
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


class _Flight:
    """One computation that is wanted here, and what Redis says of it.

    ``go`` is done when it is ours, and cancelled when it is not. With Redis away it is ours without a lease to renew.
    """

    __slots__ = (
        "began", "compute", "go", "key", "looked_at", "renewal", "reply", "result", "settle", "token",
    )  # fmt: skip

    def __init__(
        self,
        key: str,
        compute: Callable[[], Awaitable[bytes]],
        settle: Callable[[], Awaitable[None]],
        began: float,
        looked_at: int | None,
    ) -> None:
        self.key = key
        self.compute = compute
        self.settle = settle
        self.began = began
        self.looked_at = looked_at
        self.token = secrets.token_hex(16)
        self.go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reply: Sequence[Any] = ()
        self.renewal: _Renewal | None = None
        self.result: bytes | None = None


class RedisFlights:
    """``Flights`` over all replicas of one Redis Cluster."""

    def __init__(self, client: RedisClient, prefix: str, *, lease_seconds: float = 5.0) -> None:
        self._client = client
        self._prefix = prefix
        self._lease = lease_seconds
        self._local = MemoryFlights(abandon=self._abandoned)
        self._flights: dict[asyncio.Task[Any], _Flight] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._away: dict[str, float] = {}
        self._settling = 0

    async def once(
        self,
        tenant: str,
        flight: str,
        compute: Callable[[], Awaitable[bytes]],
        *,
        settle: Callable[[], Awaitable[None]] | None = None,
        looked_seconds: float = 0.0,
        looked_at: int | None = None,
    ) -> tuple[bytes, bool]:
        """The result of one ``compute()`` over all replicas, and whether it was ours."""
        began = time.monotonic() - looked_seconds
        wanted = _Flight(self._key(tenant, flight), compute, settle or _nothing, began, looked_at)
        result, led = await self._local.once(
            tenant, flight, partial(self._shared, wanted), behind=partial(self._landed, wanted),
            looked_seconds=looked_seconds,
        )  # fmt: skip
        return result, led and wanted.result is not None

    async def close(self) -> None:
        """Give results that are on their way a last moment; end what is computed for others."""
        tasks = {*self._tasks, *self._flights}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=1)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _shared(self, flight: _Flight) -> bytes:
        """In the flight's own task, in which ``_landed`` follows."""
        pause, task = _FIRST_PAUSE, _this_task()
        self._flights[task] = flight
        task.add_done_callback(self._flights.pop)
        # It is prepared meanwhile: while that waits for a file or a thread the claim is sent.
        asyncio.get_running_loop().call_soon(self._claim, flight)
        try:
            while True:
                result = await self._computed(flight)
                if result is not None:
                    return result
                word, *more = flight.reply
                if word == b"done":
                    return bytes(more[0])
                if flight.looked_at is None:
                    flight.looked_at = int(more[1])  # what is finished after this was under way when we asked
                await asyncio.sleep(min(pause, max(0.001, int(more[0]) / 1000)))
                pause = min(1.5 * pause, _LONGEST_PAUSE)
                flight.go = asyncio.get_running_loop().create_future()
                self._claim(flight)
                await asyncio.wait((flight.go,))  # who has waited prepares nothing
        finally:
            flight.go.cancel()

    def _claim(self, flight: _Flight) -> None:
        """Send it; who asks where somebody has waited for Redis in vain just now computes alone."""
        if flight.go.done():
            return  # nobody is here any more
        if not self._asks(flight.key):
            flight.go.set_result(None)
            return
        looked = min(int((time.monotonic() - flight.began) * 1000), _KEPT)
        known = "" if flight.looked_at is None else flight.looked_at
        arguments: list[Word] = [flight.token, self._milliseconds, _KEPT, known, looked]
        self._client.send(CLAIM, [flight.key], arguments, partial(self._claimed, flight))

    def _claimed(self, flight: _Flight, reply: Any) -> None:
        away = isinstance(reply, CacheUnavailableError)
        self._note(flight.key, away=away)
        if not away and reply[0] != b"lead":
            flight.reply = reply
            flight.go.cancel()
        elif not flight.go.done():
            if not away:
                flight.renewal = _Renewal(self._lease / 4, lambda: self._renew(flight))
            flight.go.set_result(None)
        elif not away:  # nobody is here any more
            self._start(self._release(flight, 0))

    def _asks(self, key: str) -> bool:
        """Not where Redis was away a moment ago; after that one asks for all of the tenant."""
        tenant, now = _tenant_of(key), time.monotonic()
        if tenant in self._away:
            if now < self._away[tenant]:
                return False
            self._away[tenant] = now + _AWAY_SECONDS
        return True

    def _note(self, key: str, *, away: bool) -> None:
        tenant = _tenant_of(key)
        if away:
            now = time.monotonic()
            self._away = {name: until for name, until in self._away.items() if until > now}
            self._away[tenant] = now + _AWAY_SECONDS
        else:
            self._away.pop(tenant, None)

    async def _computed(self, flight: _Flight) -> bytes | None:
        """None when somebody else computes it, or has."""
        if flight.go.cancelled():
            return None
        try:
            result = await _prepared(flight)
        except BaseException as error:
            if _is_refusal(error, flight.go):
                return None
            if flight.renewal is not None:
                flight.renewal.cancel()
                self._start(self._release(flight, 0))  # who waits need not wait for the lease
            raise
        flight.result = result
        if self._settling >= MOST_SETTLING:
            await self._settle(flight)
        return result

    async def _landed(self, flight: _Flight) -> None:
        """Everybody here has it."""
        if flight.result is not None:
            await self._settle(flight)

    async def _settle(self, flight: _Flight) -> None:
        """Once. Handed on only when it lies where the next one looks for it: until then they wait here."""
        settle, flight.settle = flight.settle, _nothing
        self._settling += 1
        try:
            await settle()
        finally:
            self._settling -= 1
            renewal, flight.renewal = flight.renewal, None
            if renewal is not None:
                renewal.cancel()
                await self._finish(flight, flight.result or b"")

    async def _renew(self, flight: _Flight) -> bool:
        try:
            return bool(
                await self._client.script(RENEW, [flight.key], [flight.token, self._milliseconds, _KEPT])
            )
        except CacheUnavailableError:
            return True  # for all we know

    async def _finish(self, flight: _Flight, result: bytes) -> None:
        try:
            await self._client.script(FINISH, [flight.key], [flight.token, _KEPT, result])
        except CacheUnavailableError:
            log.debug("redis.away", detail="a flight's result was not handed on")

    async def _release(self, flight: _Flight, waiting_seconds: float) -> bool:
        """Whether nobody waits any more; then the flight is over."""
        arguments: list[Word] = [flight.token, int(waiting_seconds * 1000) - 1]
        try:
            reply = await self._client.script(RELEASE, [flight.key], arguments)
        except CacheUnavailableError:
            return True
        return bool(reply)

    def _abandoned(self, task: asyncio.Task[None]) -> None:
        """Nobody here waits for it; those of other processes may."""
        flight = self._flights.get(task)
        if flight is None or (flight.renewal is None and flight.result is None):
            task.cancel()
        elif flight.result is None:
            self._start(self._end_if_alone(flight, task))

    async def _end_if_alone(self, flight: _Flight, leading: asyncio.Task[None]) -> None:
        if await self._release(flight, _STILL_WAITING_SECONDS):
            leading.cancel()

    def _start(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _key(self, tenant: str, flight: str) -> str:
        digest = hashlib.blake2b(flight.encode(), digest_size=16).hexdigest()
        return f"{slot_tag(self._prefix, tenant)}:flight:{digest}"

    @property
    def _milliseconds(self) -> int:
        return int(self._lease * 1000)


async def _nothing() -> None:
    """Nothing to settle."""


def _this_task() -> asyncio.Task[Any]:
    return cast("asyncio.Task[Any]", asyncio.current_task())


def _tenant_of(key: str) -> str:
    return key.rpartition(":flight:")[0]


def _is_refusal(error: BaseException, go: asyncio.Future[None]) -> bool:
    """Whether it was only the go-ahead that was cancelled."""
    return isinstance(error, asyncio.CancelledError) and go.cancelled() and not _this_task().cancelling()


async def _prepared(flight: _Flight) -> bytes:
    """The result, or what went wrong, not before the go-ahead."""
    go = flight.go
    go_ahead.awaits(go)
    try:
        result = await flight.compute()
    except Exception:
        await asyncio.shield(go)
        raise
    await asyncio.shield(go)
    return result
