"""Which tenants this replica may serve from its memory right now, and what takes that away.

Look-ups and revocations are numbered by one count of this process. A revocation with number ``n`` ends what was granted
to look-ups up to ``n``, also those whose reply is still on its way. The acknowledgement carries ``n``, so that it
cannot take back what a later look-up was granted.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ragkube_api.adapters.local_level import LocalLevel
from ragkube_api.adapters.redis_level import RedisLevel, Reply, token
from ragkube_api.adapters.redis_subscription import Subscription
from ragkube_api.errors import CacheUnavailableError

log = structlog.get_logger(__name__)

MOST_TENANTS: Final = 10_000
IDLE_SECONDS: Final = 5.0
"""So long after its lease a replica stays among the readers of a tenant: the next question often comes."""
# This side calls a lease over so much earlier than the writers do: how far two clocks may drift apart in a lease.
_OURS: Final = 0.9
_MISSED_SECONDS: Final = 0.5
_UNKNOWN: Final = "?"


@dataclass(slots=True)
class Holding:
    """What is known of a tenant. ``token``: the state of its documents; valid without asking before ``until``.

    ``recorded``: Redis may have this replica among the tenant's readers.
    """

    tenant: str
    revoked: int = 0
    seen: int = 0
    token: str = ""
    until: float = 0.0
    drops: str = ""
    disowned: frozenset[str] = frozenset()
    used: bool = False
    recorded: bool = False
    away_until: float = 0.0
    pause: float = 0.0
    failed: float = 0.0

    def shared(self, token: str) -> str:
        """An equal one: ten thousand entries need not have ten thousand copies."""
        return self.token if token == self.token else token


class Leases:
    """``lease_seconds`` must be the same in every replica; 0 entries in ``local`` means that no lease is wanted."""

    def __init__(
        self,
        level: RedisLevel,
        local: LocalLevel,
        subscription: Subscription,
        *,
        lease_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.reader = token()
        self.held: OrderedDict[str, Holding] = OrderedDict()
        self._level = level
        self._local = local
        self._subscription = subscription
        self._lease = lease_seconds
        self._clock = clock
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def number(self) -> int:
        """The next one."""
        return next(self._numbers)

    def of(self, tenant: str) -> Holding:
        """What is known of the tenant; names of tenants come from outside, so idle ones are forgotten."""
        holding = self.held.get(tenant)
        if holding is None:
            holding = self.held[tenant] = Holding(tenant)
            if len(self.held) > MOST_TENANTS:
                name, oldest = next(iter(self.held.items()))
                if oldest.until <= self._clock():
                    self._leave(oldest)
                    del self.held[name]
                else:
                    self.held.move_to_end(name)
        return holding

    def wanted(self, holding: Holding) -> str:
        """Who asks for a lease with the next look-up: nobody while there is enough left, or nobody would hear its end."""
        enough = holding.until - self._clock() > self._lease / 2
        return "" if enough or not self._local.capacity or not self._subscription.alive else self.reader

    def take(self, holding: Holding, number: int, sent: float, reply: Reply) -> bool:
        """Learn from a reply; False when something later is known, and nothing of it may be kept."""
        known = self.held.get(holding.tenant) is holding
        if not known or number <= holding.revoked or number < holding.seen:
            return False
        holding.seen = number
        if reply.drops != holding.drops:
            self._local.clear(holding.tenant)
            holding.drops, holding.disowned = reply.drops, reply.disowned
        if reply.token != holding.token:
            if holding.until > self._clock():
                self._expect_revocation(holding)
            holding.token, holding.until = reply.token, 0.0
        if reply.granted:
            holding.recorded = True
            holding.until = max(holding.until, sent + self._lease * _OURS)
        return True

    def revoke(self, tenant: str) -> int:
        """Give up the lease, and what look-ups on their way will be granted; the number of that."""
        number = self.number()
        holding = self.held.get(tenant)
        if holding is not None:
            holding.revoked, holding.until = number, 0.0
        return number

    def forget_entries(self, tenant: str) -> None:
        """Some were dropped: which ones, and what was disowned, the next look-up tells."""
        self._local.clear(tenant)
        holding = self.held.get(tenant)
        if holding is not None:
            holding.drops = _UNKNOWN

    def heard(self, message: bytes) -> None:
        """``tenant drops reader,reader``: these readers have to give their lease up."""
        tenant, drops, readers = [*message.decode(errors="replace").split(" "), "", ""][:3]
        holding = self.held.get(tenant)
        if self.reader in readers.split(","):
            self._start(self._acknowledge(tenant, self.revoke(tenant)))
        if holding is not None and drops != holding.drops:
            self.forget_entries(tenant)

    async def run(self) -> None:
        """Listen, and renew the leases of tenants that are asked, until it is cancelled."""
        listening = asyncio.create_task(self._subscription.run(self.heard), name="cache-subscription")
        try:
            while True:
                await asyncio.sleep(self._lease / 5)
                now = self._clock()
                for holding in self.held.values():
                    if holding.used and now < holding.until < now + self._lease / 2:
                        holding.used = False
                        self._start(self._renew(holding))
                    elif now > holding.until + IDLE_SECONDS:
                        self._leave(holding)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def close(self, timeout_seconds: float) -> None:
        """Give everything up, so that no writer waits for a replica that has gone."""
        for holding in self.held.values():
            self._leave(holding)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _leave(self, holding: Holding) -> None:
        """Redis need not remember this reader of a tenant that is not asked for any more."""
        if holding.recorded:
            holding.recorded = False
            self._start(self._acknowledge(holding.tenant, self.revoke(holding.tenant)))

    async def _renew(self, holding: Holding) -> None:
        number, sent = self.number(), self._clock()
        reply = await self._level.lease(
            holding.tenant, reader=self.wanted(holding), number=number, drops=holding.drops
        )
        self.take(holding, number, sent, reply)

    async def _acknowledge(self, tenant: str, number: int) -> None:
        await self._level.acknowledge(tenant, self.reader, number)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_whether_or_not(work), name="cache-reader")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _expect_revocation(self, holding: Holding) -> None:
        """The state changed under a live lease: either a message is on its way, or this node does not pass them on."""
        loop = asyncio.get_running_loop()
        loop.call_later(_MISSED_SECONDS, self._listen_elsewhere, holding, holding.revoked)

    def _listen_elsewhere(self, holding: Holding, revoked: int) -> None:
        if holding.revoked == revoked:
            log.debug("redis.away", error="MissedRevocation", detail="listening to another node")
            self._subscription.renew()


async def _whether_or_not(work: Coroutine[Any, Any, None]) -> None:
    """Its failure costs a writer the rest of a lease, or a reader a round trip."""
    try:
        await work
    except CacheUnavailableError:
        log.debug("redis.away", error="LeaseNotConfirmed", detail="")
