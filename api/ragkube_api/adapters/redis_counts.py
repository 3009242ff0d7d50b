"""``CountBoard`` on Redis Cluster: one hash of sums and one of the replicas, in one slot, one round trip a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ragkube_api.adapters.redis_client import RedisClient, Script
from ragkube_api.adapters.redis_scripts import SAFE
from ragkube_api.domain import Totals
from ragkube_api.ports import HEARD_SECONDS

_KEPT_MS: Final = 90 * 24 * 3600 * 1000
_REPLICA_MS: Final = 24 * 3600 * 1000
"""So long a replica that does not say goodbye may repeat what it was not sure to have handed over."""

# KEYS: sums, replicas. ARGV: replica, its number, 1 when it is its last, time to live of both and of a replica (ms), then
# name and count ... Returns how much was foreign.
_ADD: Final = Script(
    SAFE
    + """
on(KEYS[1], 'HSETNX', KEYS[1], 'since', now)
local seen = on(KEYS[2], 'HGET', KEYS[2], ARGV[1])
if (seen and tonumber(string.match(seen, '^%d+')) or -1) < tonumber(ARGV[2]) then
  for i = 6, #ARGV, 2 do
    local reply = redis.pcall('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
    if type(reply) == 'table' and reply.err then
      corrupt = corrupt + 1
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    end
  end
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. now)
if ARGV[3] == '1' then redis.call('HDEL', KEYS[2], ARGV[1]) end
local replicas = redis.call('HGETALL', KEYS[2])
for i = 1, #replicas, 2 do
  local at = tonumber(string.match(replicas[i + 1], ' (%d+)$')) or 0
  if now - at > tonumber(ARGV[5]) then redis.call('HDEL', KEYS[2], replicas[i]) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return corrupt
"""
)

# KEYS: as _ADD. Returns how much was foreign, now (ms), sums and replicas as names and values.
_READ: Final = Script(
    SAFE
    + "local sums, replicas = on(KEYS[1], 'HGETALL', KEYS[1]), on(KEYS[2], 'HGETALL', KEYS[2])\n"
    + "return {corrupt, now, sums, replicas}"
)


class RedisCountBoard:
    """All replicas with the same ``prefix`` share it; ``damaged`` is called for what was somebody else's."""

    def __init__(self, client: RedisClient, prefix: str, damaged: Callable[[], None]) -> None:
        self._client = client
        self._keys = [f"{{{prefix}}}:counted", f"{{{prefix}}}:counting"]
        self._damaged = damaged

    async def add(self, replica: str, number: int, counts: Mapping[str, int], *, last: bool = False) -> None:
        """The server knows the last number of each replica."""
        arguments: list[bytes | str | int] = [replica, number, int(last), _KEPT_MS, _REPLICA_MS]
        for name, count in counts.items():
            arguments += [name, count]
        self._count(await self._client.script(_ADD, self._keys, arguments))

    async def read(self) -> Totals:
        """By the server's clock."""
        corrupt, now, sums, replicas = await self._client.script(_READ, self._keys, [])
        self._count(corrupt)
        counts = {name: int(count) for name, count in _texts(sums).items() if count.isdecimal()}
        since = counts.pop("since", int(now)) / 1000
        heard = [int(now) - int(at) for _, _, at in map(_parted, _texts(replicas).values()) if at.isdecimal()]
        ages = [max(0, age) / 1000 for age in heard if age <= HEARD_SECONDS * 1000]
        return Totals(since, len(ages), max(ages, default=0.0), counts)

    def _count(self, corrupt: int) -> None:
        for _ in range(int(corrupt)):
            self._damaged()


def _texts(flat: Sequence[Any]) -> dict[str, str]:
    words = [bytes(word).decode(errors="replace") for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


def _parted(text: str) -> tuple[str, str, str]:
    return text.partition(" ")
