"""The buckets of rate-limited clients on Redis Cluster: one hash a client, one round trip a reservation.

Why not the ``limits`` library: its strategies decide request by request, each a round trip, and it has no
reservations that expire; ``services/limits`` needs both in one atomic step. A failover may lose the last moments of
a bucket: the client is then allowed what it spent in them once more.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Final

from ragkube_api.adapters.redis_client import RedisClient, Script
from ragkube_api.services.limits import HOLD_SECONDS, Grant
from ragkube_api.settings import RateTier

# debt: tokens spent or reserved and not yet refilled. Another field a replica: what it holds, and until when. The
# debt never falls below what is held; for a hold that has ended meanwhile that is so until its end.
RESERVE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local me, rate, burst = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local wanted, left, hold = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local debt, at, holds = 0, now, {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'debt' then debt = tonumber(value)
  elseif name == 'at' then at = tonumber(value)
  else
    local tokens, ends = string.match(value, '^(%d+) (%S+)$')
    holds[#holds + 1] = {tonumber(tokens), tonumber(ends)}
    if tonumber(ends) <= now then redis.call('HDEL', KEYS[1], name) end
  end
end
debt = math.max(0, debt - rate * math.max(0, now - at))
for _, one in ipairs(holds) do
  local together = 0
  for _, other in ipairs(holds) do
    if other[2] >= one[2] then together = together + other[1] end
  end
  debt = math.max(debt, together - rate * math.max(0, now - one[2]))
end
local grant = math.max(0, math.min(wanted, math.floor(burst - debt)))
debt = debt + grant
local wait = 0
if grant < 1 then wait = math.max(0.001, (1 - burst + debt) / rate) end
local text = function(number) return string.format('%.6f', number) end
redis.call('HSET', KEYS[1], 'debt', text(debt), 'at', text(now),
  me, string.format('%d', left + grant) .. ' ' .. text(now + hold))
redis.call('PEXPIRE', KEYS[1], math.ceil((debt / rate + hold) * 1000) + 1000)
return {grant, text(burst - debt), text(wait)}
""")


class RedisReservations:
    """``Reservations``; one of these is one replica."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._me = secrets.token_hex(6)

    async def reserve(self, client: str, tier: RateTier, *, wanted: int, left: int) -> Grant:
        """One round trip; the server's clock counts."""
        name = blake2b(client.encode(), digest_size=16).hexdigest()
        rate = f"{tier.requests_per_minute / 60:.9f}"
        arguments: list[bytes | str | int] = [self._me, rate, tier.burst, wanted, left, str(HOLD_SECONDS)]
        key = f"{{{self._prefix}:limit:{name}}}"
        tokens, remaining, wait = await self._client.script(RESERVE, [key], arguments)
        return Grant(int(tokens), float(remaining), float(wait))
