"""``AuditBook`` on Redis Cluster: one value a record, in the tenant's slot, one round trip a call."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ragkube_api.adapters.redis_client import RedisClient, Script
from ragkube_api.adapters.redis_keys import slot_tag

_NAME: Final = re.compile(r"[0-9a-z.-]{1,40}")
_KEPT_MS: Final = 90 * 24 * 3600 * 1000
"""After the last audit. A record that Redis evicts costs hits, until as many audits are there again."""

# KEYS: the record. ARGV: old, new ('': only read), time to live (ms). Returns corrupt, done, what is there.
_RECORD: Final = Script("""
local corrupt, done = 0, 0
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'table' and held.err then
  redis.call('UNLINK', KEYS[1])
  corrupt, held = 1, false
end
if ARGV[2] ~= '' and (held or '') == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  done, held = 1, ARGV[2]
end
return {corrupt, done, held or ''}
""")


class RedisAuditBook:
    """All replicas that have the same ``prefix`` share it; ``damaged`` is called for a foreign value that was dropped."""

    def __init__(self, client: RedisClient, prefix: str, damaged: Callable[[], None]) -> None:
        self._client = client
        self._prefix = prefix
        self._damaged = damaged

    async def read(self, tenant: str, name: str) -> bytes | None:
        """What is there."""
        _, held = await self._run(tenant, name, b"", b"")
        return held

    async def replace(
        self, tenant: str, name: str, old: bytes | None, new: bytes
    ) -> tuple[bool, bytes | None]:
        """Compared and set on the server."""
        return await self._run(tenant, name, old or b"", new)

    async def _run(self, tenant: str, name: str, old: bytes, new: bytes) -> tuple[bool, bytes | None]:
        if not _NAME.fullmatch(name):
            msg = f"not a name: {name!r}"
            raise ValueError(msg)
        key = f"{slot_tag(self._prefix, tenant)}:audits:{name}"
        corrupt, done, held = await self._client.script(_RECORD, [key], [old, new, _KEPT_MS])
        if corrupt:
            self._damaged()
        return bool(done), bytes(held) or None
