"""What is known of a document: from the cache while no document was written, or from the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ragkube_api.domain import Document, Fill, Key, Lifetime, Lookup
from ragkube_api.ports import FencedCache, VectorStore
from ragkube_api.services.answer_keys import document_key
from ragkube_api.services.sealed import seal, unseal
from ragkube_api.telemetry import Telemetry


class DocumentCards:
    """Describes documents. ``cache`` is None when nothing is cached."""

    def __init__(
        self, store: VectorStore, cache: FencedCache | None, *, ttl_seconds: float, telemetry: Telemetry
    ) -> None:
        self._store = store
        self._cache = cache
        self._lifetime = Lifetime(ttl_seconds)
        self._telemetry = telemetry

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """The description of the current version, or None. Raises ``StoreUnavailableError``."""
        if self._cache is None:
            return await self._store.get(tenant, document_id)
        key = document_key(document_id)
        cached = self._cache.peek(tenant, key)
        lookup = Lookup(None, cached) if cached is not None else await self._cache.lookup(tenant, key)
        document = self._cached(tenant, key, lookup)
        if document is None:
            document = await self._store.get(tenant, document_id)
            await self._keep(tenant, key, lookup, document)
        return document

    def _cached(self, tenant: str, key: Key, lookup: Lookup) -> Document | None:
        found = lookup.found
        if found is not None and found.current and found.fresh_seconds > 0:
            payload = unseal(found.value, key.digest)
            if payload is not None:
                self._telemetry.cache_hits.labels(found.level, "document").inc()
                return _document(tenant, orjson.loads(payload))
            self._telemetry.cache_errors.labels("corrupt").inc()
        self._telemetry.cache_misses.labels("document").inc()
        return None

    async def _keep(self, tenant: str, key: Key, lookup: Lookup, document: Document | None) -> None:
        if self._cache is None or document is None or lookup.fence is None:
            return
        fields = {
            field.name: getattr(document, field.name)
            for field in dataclasses.fields(document)
            if field.name != "tenant"
        }
        value = seal(orjson.dumps({**fields, "metadata": dict(document.metadata)}), key.digest)
        await self._cache.store(tenant, Fill(key, value, self._lifetime), fence=lookup.fence)


def _document(tenant: str, fields: Mapping[str, Any]) -> Document:
    moments = {name: datetime.fromisoformat(fields[name]) for name in ("created", "updated")}
    return Document(tenant=tenant, **{**fields, **moments})
