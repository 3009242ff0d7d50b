"""Counts what is asked, so that the most asked questions can be answered ahead of time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import orjson

from ragkube_api.errors import CacheUnavailableError
from ragkube_api.ports import FencedCache
from ragkube_api.services.answering import Question
from ragkube_api.settings import RetrievalSettings

FLUSH_SECONDS: Final = 5.0
MAX_DISTINCT: Final = 20_000
"""Different questions that are counted between two flushes; further ones are not counted."""
MAX_BYTES: Final = 8 * 1024 * 1024
"""Of their texts and filters together."""
MOST_AT_ONCE: Final = 200
"""That are handed over together: half a millisecond of this process and of Redis, in which nobody else is served."""

_Asked: TypeAlias = tuple[str, str, int, float, bytes, str | None]


class AskedQuestions:
    """``note`` only counts in memory; what was counted goes to the cache every few seconds."""

    def __init__(self, cache: FencedCache, defaults: RetrievalSettings) -> None:
        self._cache = cache
        self._defaults = defaults
        self._counts: dict[_Asked, int] = {}
        self._bytes = 0

    def note(self, question: Question) -> None:
        """Count one request, unless it wants to leave no trace. Takes about a microsecond."""
        if not question.write_cache:
            return
        filters = orjson.dumps(question.filters, option=orjson.OPT_SORT_KEYS) if question.filters else b""
        asked = (question.tenant, question.text, question.k, question.alpha, filters, question.model)
        counts = self._counts
        if asked in counts:
            counts[asked] += 1
        elif len(counts) < MAX_DISTINCT and self._bytes < MAX_BYTES:
            counts[asked] = 1
            self._bytes += len(question.text) + len(filters)

    async def flush(self) -> None:
        """Hand over what was counted, in parts that keep nobody waiting; what cannot be handed over now is kept."""
        counted, self._counts, self._bytes = self._counts, {}, 0
        rows, away = list(counted.items()), set[str]()
        for start in range(0, len(rows), MOST_AT_ONCE):
            part = dict(rows[start : start + MOST_AT_ONCE])
            by_tenant: dict[str, dict[bytes, int]] = defaultdict(dict)
            for asked, count in part.items():
                by_tenant[asked[0]][self._request(asked)] = count
            for tenant, requests in by_tenant.items():
                if tenant in away or not await self._handed_over(tenant, requests):
                    away.add(tenant)
                    self._put_back(tenant, part)
            await asyncio.sleep(0)

    async def run(self) -> None:
        """Flush every few seconds until cancelled, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush()
        finally:
            await self.flush()

    async def _handed_over(self, tenant: str, requests: Mapping[bytes, int]) -> bool:
        try:
            await self._cache.tally(tenant, requests)
        except CacheUnavailableError:
            return False
        return True

    def _put_back(self, tenant: str, counted: Mapping[_Asked, int]) -> None:
        for asked, count in counted.items():
            if asked[0] == tenant and (asked in self._counts or len(self._counts) < MAX_DISTINCT):
                self._counts[asked] = self._counts.get(asked, 0) + count

    def _request(self, asked: _Asked) -> bytes:
        """The body of ``POST /v1/query`` that asks this; what is as the deployment says is left out."""
        _, question, k, alpha, filters, model = asked
        body: dict[str, Any] = {"question": question}
        if k != self._defaults.k:
            body["k"] = k
        if alpha != self._defaults.alpha:
            body["alpha"] = alpha
        if filters:
            body["filters"] = orjson.loads(filters)
        if model is not None:
            body["model"] = model
        return orjson.dumps(body)
