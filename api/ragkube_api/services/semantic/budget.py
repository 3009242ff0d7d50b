"""Which tenants may be served paraphrase hits: those whose bound on the error rate is within the budget.

Fail closed: a tenant begins without hits. What would have been served is compared with the answer that is made anyway,
until so many comparisons were right that the bound is within the budget. Then hits are served and a sample of them is
audited. When the bound leaves the budget the tenant has exact hits only, and begins again.

All replicas count together, in one record of the ``AuditBook``. A replica reads it in the background while it is asked, and
serves by nothing that is older than ``TRUST_SECONDS``: so long it takes at most until all of them have heard that a budget
is spent, and so long they go on when the book is away. A record that went back in time or was lost is made good by any
replica that knows more.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ragkube_api.errors import CacheUnavailableError
from ragkube_api.ports import AuditBook
from ragkube_api.services.semantic.standing import Standing, decode
from ragkube_api.telemetry import Telemetry

POLL_SECONDS: Final = 0.5
TRUST_SECONDS: Final = 2.0
SHOWN_SECONDS: Final = 5.0
"""Between two readings for the metrics of tenants that are not asked here."""
_TENANTS: Final = 1_000
_CLOSE_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Known:
    """What this replica knows of a tenant. ``since``: when it asked for that; ``record``: what it saw in the book then."""

    standing: Standing = field(default_factory=Standing)
    record: bytes | None = None
    since: float = -math.inf
    failed: float = -math.inf
    pending: list[bool] = field(default_factory=list)
    exchange: asyncio.Task[None] | None = None


class ErrorBudget:
    """Of each tenant, over all replicas. ``max_error_rate`` names the record: another budget begins anew."""

    def __init__(
        self,
        max_error_rate: float,
        book: AuditBook,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget = max_error_rate
        self._book = book
        self._telemetry = telemetry
        self._clock = clock
        self._tenants: OrderedDict[str, _Known] = OrderedDict()
        self._watching: asyncio.Task[None] | None = None

    async def serving(self, tenant: str) -> bool:
        """Whether paraphrase hits are served. Waits for the book only when nothing recent is known."""
        known, now = self._of(tenant), self._clock()
        trusted = now - known.since < TRUST_SECONDS
        if now - max(known.since, known.failed) >= POLL_SECONDS:
            exchange = self._start(tenant, known)
            if not trusted and known.failed <= known.since:
                await asyncio.wait([exchange])
                trusted = self._clock() - known.since < TRUST_SECONDS
        return trusted and known.standing.serving

    def record(self, tenant: str, *, wrong: bool) -> None:
        """One audit: of a hit that was served, or of one that would have been."""
        known = self._of(tenant)
        known.pending.append(wrong)
        self._telemetry.semantic_audits.labels(tenant, "wrong" if wrong else "right").inc()
        self._start(tenant, known)

    async def settled(self) -> None:
        """Wait until what was recorded is in the book, or could not be brought there."""
        await asyncio.gather(*self._exchanges())

    async def close(self) -> None:
        """Give what is under way a last moment."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        exchanges = self._exchanges()
        if exchanges:
            _, late = await asyncio.wait(exchanges, timeout=_CLOSE_SECONDS)
            for exchange in late:
                exchange.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _watch(self) -> None:
        """What others have counted shows here too: an alert need not know which replica is asked."""
        while True:
            await asyncio.sleep(SHOWN_SECONDS)
            for tenant, known in list(self._tenants.items()):
                if self._clock() - max(known.since, known.failed) >= SHOWN_SECONDS:
                    await asyncio.wait([self._start(tenant, known)])

    def _exchanges(self) -> list[asyncio.Task[None]]:
        return [known.exchange for known in self._tenants.values() if known.exchange is not None]

    def _start(self, tenant: str, known: _Known) -> asyncio.Task[None]:
        if known.exchange is None or known.exchange.done():
            known.exchange = asyncio.create_task(self._exchange(tenant, known), name="semantic-budget")
        return known.exchange

    async def _exchange(self, tenant: str, known: _Known) -> None:
        try:
            await self._agree(tenant, known)
            while known.pending:
                await self._agree(tenant, known)
        except CacheUnavailableError:
            known.failed = self._clock()
            # Perhaps they did arrive: then a wrong one counts twice, but never a right one.
            known.pending = [wrong for wrong in known.pending if wrong]

    async def _agree(self, tenant: str, known: _Known) -> None:
        """Add what was counted here to what is in the book. One round trip, unless another replica comes in between."""
        asked, count = self._clock(), len(known.pending)
        name, pending = f"{self._budget:g}", known.pending[:count]
        held = known.record if pending else await self._book.read(tenant, name)
        while True:
            standing, known_there = self._added(held, known.standing, pending)
            if known_there:
                break
            record = standing.encode()
            done, held = await self._book.replace(tenant, name, held, record)
            if done:
                held = record
                break
        del known.pending[:count]
        before, known.standing, known.record = known.standing, standing, held
        known.since = asked
        self._tell(tenant, before, standing)

    def _added(self, held: bytes | None, own: Standing, pending: list[bool]) -> tuple[Standing, bool]:
        """The later of both with the audits that are due, and whether the book says the same already."""
        shared = None if held is None else decode(held)
        if held is not None and shared is None:
            self._telemetry.cache_errors.labels("corrupt").inc()
        standing = own if shared is None or shared.audits < own.audits else shared
        there = standing.audits == 0 if held is None else shared is standing
        for wrong in pending:
            standing = standing.after(self._budget, wrong=wrong)
        return standing, there and not pending

    def _of(self, tenant: str) -> _Known:
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Known()
            self._show(tenant, known.standing)
            self._watching = self._watching or asyncio.create_task(self._watch(), name="semantic-bounds")
            if len(self._tenants) > _TENANTS:
                self._forget(*self._tenants.popitem(last=False))
        else:
            self._tenants.move_to_end(tenant)
        return known

    def _tell(self, tenant: str, before: Standing, now: Standing) -> None:
        if now is before:
            return
        if now.serving != before.serving:
            event = "semantic_serving" if now.serving else "semantic_budget_spent"
            write = self._telemetry.log.info if now.serving else self._telemetry.log.warning
            write(event, tenant=tenant, bound=round(now.bound, 4))
        if tenant in self._tenants:
            self._show(tenant, now)

    def _show(self, tenant: str, standing: Standing) -> None:
        self._telemetry.semantic_bound.labels(tenant).set(standing.bound)
        self._telemetry.semantic_serving.labels(tenant).set(standing.serving)

    def _forget(self, tenant: str, _: _Known) -> None:
        for metric in (self._telemetry.semantic_bound, self._telemetry.semantic_serving):
            metric.remove(tenant)
