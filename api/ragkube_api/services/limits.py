"""Rate limits by client, shared by all replicas, without asking anybody for most requests.

The shared bucket of a client holds ``burst`` tokens and is filled at the tier's rate. A replica does not take a token
a request: it reserves a few in the background and spends those, so a request costs no round trip while its client has
tokens here. In total never more is spent than one bucket would have allowed:

* a reservation counts as spent from its first moment, in one atomic step on the shared level;
* tokens that replicas hold keep the shared bucket from filling up by as many;
* a reservation ends after ``HOLD_SECONDS``, counted here from before it was asked for.

The price is that a client may be refused a little early, while another replica holds its tokens: half of the burst at
most is reserved in advance. With the shared level away each replica limits by itself: a client then gets at most the
limit times the replicas.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from ragkube_api.errors import DependencyUnavailableError
from ragkube_api.settings import RateTier

HOLD_SECONDS: Final = 10.0
_SAFETY: Final = 0.9
_BATCH_SECONDS: Final = 0.2
_TRY_AGAIN_SECONDS: Final = 1.0
_MOST_ACCOUNTS: Final = 20_000


class Allowance(NamedTuple):
    """What a request is told. ``limit`` is the burst, ``remaining`` what this replica knows of it, ``reset`` the
    seconds until the bucket is full again; ``retry_after`` is 0 when the request is allowed."""

    limit: int
    remaining: int
    reset: int
    retry_after: float = 0.0


class Grant(NamedTuple):
    """Answer of the shared level: tokens given, tokens left in the bucket, seconds to the next when none was given."""

    tokens: int
    remaining: float
    retry_after: float


class Reservations(Protocol):
    """The shared buckets. Raises ``DependencyUnavailableError``."""

    async def reserve(self, client: str, tier: RateTier, *, wanted: int, left: int) -> Grant:
        """Up to ``wanted`` tokens; with the ``left`` ones of earlier reservations they end in ``HOLD_SECONDS``."""


class Bucket:
    """What one replica knows of one client's bucket: the tokens it holds, or all of it where nobody shares it."""

    def __init__(self, tier: RateTier, now: float) -> None:
        self.tier = tier
        self.rate = tier.requests_per_minute / 60
        self.held = 0
        self.denied_until = 0.0
        self._debt = 0.0
        self._since = now
        self._ends = now

    def debt(self, now: float) -> float:
        """Tokens that the bucket lacks, by what is known here."""
        self._debt = max(0.0, self._debt - self.rate * max(0.0, now - self._since))
        self._since = now
        return self._debt

    def left(self, now: float) -> int:
        """Tokens that are held and may be spent."""
        if now >= self._ends:
            self.held = 0
        return self.held

    def receive(self, grant: Grant, asked: float) -> None:
        """Take a reservation over that was asked for at ``asked``."""
        self.held += grant.tokens
        self._debt, self._since = self.tier.burst - grant.remaining, asked
        self._ends = asked + HOLD_SECONDS * _SAFETY
        self.denied_until = asked + grant.retry_after if grant.tokens < 1 else 0.0

    def spend_alone(self, now: float) -> float:
        """Use one token of a bucket that nobody shares; 0 or the seconds to wait."""
        wait = (self.debt(now) + 1 - self.tier.burst) / self.rate
        if wait <= 0:
            self._debt += 1
        return max(0.0, wait)

    def told(self, now: float, retry_after: float = 0.0) -> Allowance:
        """For the headers of the response."""
        debt = self.debt(now) - self.held
        if debt <= 0:
            return Allowance(self.tier.burst, 0 if retry_after else self.tier.burst, 0, retry_after)
        remaining = 0 if retry_after else max(0, int(self.tier.burst - debt))
        return Allowance(self.tier.burst, remaining, math.ceil(debt / self.rate), retry_after)

    def may_reserve_ahead(self, now: float) -> bool:
        """Whether enough is left for the other replicas."""
        return self.debt(now) <= self.tier.burst / 2


@dataclass(slots=True)
class _Account:
    bucket: Bucket
    batch: int = 1
    asked: float = -math.inf
    spent: int = 0
    waiting: int = 0
    asking: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Limiter:
    """All clients of this replica. ``shared`` is None where there is but one process."""

    shared: Reservations | None
    clock: Callable[[], float] = time.monotonic
    _accounts: dict[str, _Account] = field(default_factory=dict)
    _away: bool = False
    _look_again: float = 0.0

    def take(self, client: str, tier: RateTier) -> Allowance | None:
        """Charge one request; None when the shared level must be asked first, which ``ask`` does."""
        now = self.clock()
        account = self._accounts.get(client)
        if account is None or account.bucket.tier is not tier:
            account = self._open(client, tier, now)
        bucket = account.bucket
        if self.shared is None or self._away:
            if self.shared is not None and now >= self._look_again:
                self._look_again = now + _TRY_AGAIN_SECONDS
                self._reserve(client, account)
            return bucket.told(now, bucket.spend_alone(now))
        if bucket.left(now) >= 1:
            bucket.held -= 1
            account.spent += 1
            if bucket.held < account.batch / 2 and account.asking is None and bucket.may_reserve_ahead(now):
                self._reserve(client, account)
            return bucket.told(now)
        return bucket.told(now, bucket.denied_until - now) if now < bucket.denied_until else None

    async def ask(self, client: str, tier: RateTier) -> Allowance:
        """Charge one request, with a round trip. Requests of one client share it."""
        while (allowance := self.take(client, tier)) is None:
            account = self._accounts[client]
            with _counted(account):
                await asyncio.shield(self._reserve(client, account))
        return allowance

    async def close(self) -> None:
        """End what runs in the background."""
        tasks = [account.asking for account in self._accounts.values() if account.asking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _open(self, client: str, tier: RateTier, now: float) -> _Account:
        if len(self._accounts) >= _MOST_ACCOUNTS:
            self._forget(now)
        account = self._accounts[client] = _Account(Bucket(tier, now))
        return account

    def _forget(self, now: float) -> None:
        """A tenth at least, for it looks at all: clients whose bucket is full, then those that came first."""
        accounts = self._accounts.items()
        idle = [
            name for name, account in accounts if account.asking is None and account.bucket.debt(now) == 0
        ]
        for name in idle:
            del self._accounts[name]
        for name in list(self._accounts)[: max(0, _MOST_ACCOUNTS // 10 - len(idle))]:
            del self._accounts[name]

    def _reserve(self, client: str, account: _Account) -> asyncio.Task[None]:
        if account.asking is None:
            account.asking = asyncio.create_task(self._asking(client, account), name="rate-limit")
        return account.asking

    async def _asking(self, client: str, account: _Account) -> None:
        """Does not fail: an outage is a state of the limiter."""
        assert self.shared is not None  # noqa: S101 - alone there is nobody to ask
        bucket, now = account.bucket, self.clock()
        account.batch = _batch(account, now)
        account.asked, account.spent = now, 0
        wanted = max(account.batch, account.waiting)
        try:
            grant = await self.shared.reserve(client, bucket.tier, wanted=wanted, left=bucket.left(now))
        except DependencyUnavailableError:
            self._away, self._look_again = True, self.clock() + _TRY_AGAIN_SECONDS
        else:
            self._away = False
            bucket.receive(grant, now)
        finally:
            account.asking = None


def _batch(account: _Account, now: float) -> int:
    """What the client uses in a moment, a quarter of the burst at most: others want tokens too."""
    pace = account.spent / max(now - account.asked, 0.001)
    most = max(1, account.bucket.tier.burst // 4)
    return min(most, max(1, math.ceil(pace * _BATCH_SECONDS)))


@contextmanager
def _counted(account: _Account) -> Iterator[None]:
    account.waiting += 1
    try:
        yield
    finally:
        account.waiting -= 1
