"""``ValueCache`` on Redis."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from ragkube_api.adapters import redis_scripts as scripts
from ragkube_api.adapters.redis_client import RedisClient
from ragkube_api.adapters.redis_keys import slot_tag
from ragkube_api.errors import CacheUnavailableError

_CHECKSUM_BYTES: Final = 4
_AWAY_SECONDS: Final = 1.0


class RedisValueCache:
    """Values of a tenant lie in many slots: nothing binds them together."""

    def __init__(
        self,
        client: RedisClient,
        prefix: str,
        *,
        clock: Callable[[], float],
        damaged: Callable[[], None],
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock
        self._damaged = damaged
        self._away_until = 0.0

    async def get(self, tenant: str, digest: str) -> bytes | None:
        """In one round trip; None at once where Redis was away a moment ago."""
        keys = [self._key(tenant, digest)]
        if self._clock() < self._away_until:
            return None
        try:
            foreign, stored = await self._client.script(scripts.GET_VALUE, keys, [])
        except CacheUnavailableError:
            self._away_until = self._clock() + _AWAY_SECONDS
            return None
        value = bytes(stored[_CHECKSUM_BYTES:])
        if foreign or (stored and stored[:_CHECKSUM_BYTES] != _checksum(value)):
            self._damaged()
            return None
        return value if stored else None

    async def put(self, tenant: str, digest: str, value: bytes, ttl_seconds: float) -> None:
        """In one round trip; nowhere while Redis is away."""
        keys = [self._key(tenant, digest)]
        if self._clock() < self._away_until:
            return
        try:
            arguments: list[bytes | str | int] = [_checksum(value) + value, max(1, int(ttl_seconds * 1000))]
            await self._client.script(scripts.PUT_VALUE, keys, arguments)
        except CacheUnavailableError:
            self._away_until = self._clock() + _AWAY_SECONDS

    def _key(self, tenant: str, digest: str) -> str:
        return f"{slot_tag(self._prefix, tenant, digest)}:value"


def _checksum(value: bytes) -> bytes:
    return zlib.crc32(value).to_bytes(_CHECKSUM_BYTES, "big")
