"""Counts what is asked, so that the most asked questions can be answered ahead of time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Final, TypeAlias

import orjson

from ragkube_api.domain import Filters
from ragkube_api.errors import CacheUnavailableError
from ragkube_api.ports import FencedCache

FLUSH_SECONDS: Final = 5.0
MAX_DISTINCT: Final = 20_000
"""Different questions that are counted between two flushes; further ones are not counted."""

_Asked: TypeAlias = tuple[str, str, int | None, float | None, bytes, str | None]


class AskedQuestions:
    """``note`` only counts in memory; what was counted goes to the cache every few seconds."""

    def __init__(self, cache: FencedCache) -> None:
        self._cache = cache
        self._counts: dict[_Asked, int] = {}

    def note(
        self,
        tenant: str,
        question: str,
        *,
        k: int | None = None,
        alpha: float | None = None,
        filters: Filters | None = None,
        model: str | None = None,
    ) -> None:
        """Count one request as it came: what it left open stays open. Takes less than a microsecond."""
        conditions = orjson.dumps(filters, option=orjson.OPT_SORT_KEYS) if filters else b""
        asked = (tenant, question, k, alpha, conditions, model)
        counts = self._counts
        if asked in counts:
            counts[asked] += 1
        elif len(counts) < MAX_DISTINCT:
            counts[asked] = 1

    async def flush(self) -> None:
        """Hand over what was counted; what cannot be handed over now is kept for the next time."""
        counted, self._counts = self._counts, {}
        by_tenant: dict[str, dict[bytes, int]] = defaultdict(dict)
        for asked, count in counted.items():
            by_tenant[asked[0]][_request(asked)] = count
        for tenant, requests in by_tenant.items():
            try:
                await self._cache.tally(tenant, requests)
            except CacheUnavailableError:
                self._put_back(tenant, counted)

    async def run(self) -> None:
        """Flush every few seconds until cancelled, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush()
        finally:
            await self.flush()

    def _put_back(self, tenant: str, counted: Mapping[_Asked, int]) -> None:
        for asked, count in counted.items():
            if asked[0] == tenant and (asked in self._counts or len(self._counts) < MAX_DISTINCT):
                self._counts[asked] = self._counts.get(asked, 0) + count


def _request(asked: _Asked) -> bytes:
    """The body of ``POST /v1/query`` that asks this, always written in the same way."""
    _, question, k, alpha, conditions, model = asked
    body = {"question": question, "k": k, "alpha": alpha, "model": model}
    given = {name: value for name, value in body.items() if value is not None}
    return orjson.dumps(given | ({"filters": orjson.loads(conditions)} if conditions else {}))
