"""What runs on the Redis server, in one slot a tenant, atomically.

Keys of a tenant, all under ``{prefix:tenant}``:

* ``state``: a hash. ``epoch``: random, new whenever documents may have changed. ``primary``: the replication id of the
  server that the epoch belongs to. ``drops``: random, new whenever entries were dropped. ``replicas``: how many of the
  primary's replicas were heard of. ``unsettled`` and ``doubt``: until when (ms) leases of a lost primary may live, and
  until when this server may be one that was replaced without knowing it.
* ``writers``: pending writes and the ends of their leases (ms).
* ``readers``: replicas that may hold a lease, each with the number of its latest look-up. No clock is involved.
* ``disowned``: marks of answers that are never stored again. ``asked``: requests by how often they were asked.
* ``<kind>:<digest>``: an entry. ``index:<kind>`` and ``expiry:<kind>``: their digests by time of storing (µs) and of ending (ms).

Names of tenants may come from outside, so nothing of a tenant that was only asked for stays for ever: ``state`` goes after
``FORGOTTEN_MS`` without a script, and ``readers`` when the replicas have given up what they were granted. A state that is gone,
for whatever reason, is followed by a new epoch, new drops, and writers that wait for leases that nobody knows of. ``readers``
and ``writers`` carry no TTL, so that none of them goes alone; ``index`` and ``expiry`` go with their last entry, and
count as used whenever an entry is.

A key of a foreign type is dropped and counted as corrupt; it breaks no script.
"""

from __future__ import annotations

from typing import Final

from ragkube_api.adapters.redis_client import Script

MOST_DISOWNED: Final = 10_000
MOST_ASKED: Final = 1_000
FORGOTTEN_MS: Final = 7 * 24 * 3600 * 1000
"""After so long without a script on a tenant its state goes; at most half as long after one."""

SAFE: Final = """
local corrupt = 0
local function on(key, ...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then
    corrupt = corrupt + 1
    redis.call('UNLINK', key)
  end
  return redis.call(...)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
"""Lua: ``on(key, command …)`` drops a key of a foreign type and counts it in ``corrupt``; ``now`` is the server's (ms)."""

# KEYS: state, writers, readers. ARGV: a random token, the lease of readers (ms).
_STATE: Final = (
    SAFE
    + f"local forgotten = {FORGOTTEN_MS}\n"
    + """local lease = tonumber(ARGV[2])
local info = redis.call('INFO', 'replication')
local primary = string.match(info, 'master_replid:(%x+)')
if not primary then return redis.error_reply('ERR no replication id') end
local state = on(KEYS[1], 'HMGET', KEYS[1], 'epoch', 'primary', 'drops', 'replicas', 'unsettled', 'doubt', 'ends')
local epoch, drops, known = state[1], state[3] or '', tonumber(state[4]) or 0
local function ahead(moment)
  local left = (tonumber(moment) or 0) - now
  if left <= 0 then return 0 end
  return math.min(left, lease)
end
local unsettled, doubt = ahead(state[5]), ahead(state[6])
local function begin_epoch()
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'primary', primary)
end
local function unsettle()
  unsettled = lease
  redis.call('HSET', KEYS[1], 'unsettled', now + lease)
end
local heard = 0
for lag in string.gmatch(info, 'state=online,offset=%d+,lag=(%d+)') do
  if tonumber(lag) < 3 then heard = heard + 1 end
end
if not epoch then
  drops = ARGV[1]
  redis.call('HSET', KEYS[1], 'drops', drops)
end
if not epoch or state[2] ~= primary then
  begin_epoch()
  unsettle()
  redis.call('HSET', KEYS[1], 'replicas', heard)
elseif heard ~= known then
  redis.call('HSET', KEYS[1], 'replicas', heard)
  if heard == 0 then
    begin_epoch()
    doubt = lease
    redis.call('HSET', KEYS[1], 'doubt', now + lease)
  end
end
local first = on(KEYS[2], 'ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local pending = first[1] ~= nil
if corrupt > 0 then begin_epoch() end
if pending and tonumber(first[2]) <= now then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  begin_epoch()
  pending = redis.call('ZCARD', KEYS[2]) > 0
end
if (tonumber(state[7]) or 0) - now < forgotten / 2 then
  redis.pcall('HSET', KEYS[1], 'ends', now + forgotten)
  redis.pcall('PEXPIRE', KEYS[1], forgotten)
end
local serves = not pending and doubt == 0
local function readers()
  local before = corrupt
  local found = on(KEYS[3], 'ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
  if corrupt > before then unsettle() end
  return found
end
local function acknowledge(reader, number)
  local seen = redis.pcall('ZSCORE', KEYS[3], reader)
  if type(seen) == 'string' and tonumber(seen) < tonumber(number) then redis.call('ZREM', KEYS[3], reader) end
end
local function revoke(channel, tenant, found)
  local names = {}
  for i = 1, #found, 2 do names[#names + 1] = found[i] end
  redis.pcall('PUBLISH', channel, tenant .. ' ' .. drops .. ' ' .. table.concat(names, ','))
end
"""
)

# The reader gets a lease when it asks for one, and nobody writes. A full server or an ACL grants none.
_GRANT: Final = """
local granted = 0
if ARGV[3] ~= '' and serves then
  local done = redis.pcall('ZADD', KEYS[3], 'GT', ARGV[4], ARGV[3])
  if type(done) ~= 'table' then
    granted = 1
  elseif string.find(done.err, 'WRONGTYPE', 1, true) then
    corrupt = corrupt + 1
    redis.call('UNLINK', KEYS[3])
    unsettle()
  end
end
local marks = {}
if ARGV[5] ~= drops then marks = on(KEYS[4], 'ZREVRANGE', KEYS[4], 0, -1) end
local token = epoch .. ':' .. drops
"""

# KEYS: + disowned. ARGV: + reader or '', number of the look-up, drops that the reader knows.
LEASE: Final = Script(_STATE + _GRANT + "return {token, granted, corrupt, marks}")

# KEYS: + disowned, entry, and another one that is wanted where the first is not current.
LOOKUP: Final = Script(
    _STATE
    + _GRANT
    + """
local reply = {token, granted, corrupt, marks, now}
local function read(key)
  local entry = redis.pcall('HMGET', key, 'fence', 'meta', 'value')
  if entry.err then
    redis.call('UNLINK', key)
    reply[3] = reply[3] + 1
    entry = {}
  end
  if entry[1] then
    local kind = ':(%a+):%x+$'
    redis.pcall('TOUCH', (string.gsub(key, kind, ':index:%1')), (string.gsub(key, kind, ':expiry:%1')))
  end
  local current = serves and entry[1] == epoch
  for _, word in ipairs({current and 1 or 0, entry[2] or '', entry[3] or ''}) do reply[#reply + 1] = word end
  return current
end
if not read(KEYS[5]) and KEYS[6] then read(KEYS[6]) end
return reply
"""
)

# KEYS: + disowned, then entry, index, expiry of each. ARGV: + fence, then digest, value, mark, about, fresh (ms), kept (ms)
# and checksum of each. Returns how much was corrupt, then 1 for each that is stored.
STORE: Final = Script(
    _STATE
    + """
local holds = serves and ARGV[3] == epoch .. ':' .. drops
local moment = string.format('%.0f', time[1] * 1000000 + time[2])
local function store(entry, index, expiry, digest, value, mark, about, fresh, kept, checksum)
  if not holds or (mark ~= '' and on(KEYS[4], 'ZSCORE', KEYS[4], mark)) then return 0 end
  redis.call('UNLINK', entry)
  local meta = table.concat({moment, fresh, kept, checksum, mark}, ' ')
  redis.call('HSET', entry, 'fence', epoch, 'meta', meta, 'value', value, 'about', about)
  redis.call('PEXPIRE', entry, kept)
  on(index, 'ZADD', index, moment, digest)
  on(expiry, 'ZADD', expiry, now + kept, digest)
  local over = redis.call('ZRANGEBYSCORE', expiry, '-inf', now, 'LIMIT', 0, 20)
  if #over > 0 then
    redis.call('ZREM', index, unpack(over))
    redis.call('ZREM', expiry, unpack(over))
  end
  local last = redis.call('ZRANGE', expiry, -1, -1, 'WITHSCORES')
  for _, key in ipairs({index, expiry}) do redis.call('PEXPIREAT', key, string.format('%.0f', last[2])) end
  return 1
end
local done = {}
for n = 0, (#KEYS - 4) / 3 - 1 do
  done[n + 1] = store(KEYS[3 * n + 5], KEYS[3 * n + 6], KEYS[3 * n + 7], unpack(ARGV, 7 * n + 4, 7 * n + 10))
end
return {corrupt, unpack(done)}
"""
)

# Begins a write, goes on with it, and asks who still has to acknowledge.
# ARGV: + write, its lease (ms), channel, tenant, own reader and number, readers that were waited for (name, number) ...
# Returns: ms to wait for leases that nobody knows of, corrupt, then readers (name, number) ...
HOLD: Final = Script(
    _STATE
    + """
local begins = not redis.call('ZSCORE', KEYS[2], ARGV[3])
if begins then begin_epoch() end
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[3])
acknowledge(ARGV[7], ARGV[8])
for i = 9, #ARGV, 2 do
  local seen = redis.pcall('ZSCORE', KEYS[3], ARGV[i])
  if type(seen) == 'string' and tonumber(seen) == tonumber(ARGV[i + 1]) then
    redis.call('ZREM', KEYS[3], ARGV[i])
  end
end
local found = readers()
if begins and #found > 0 then revoke(ARGV[5], ARGV[6], found) end
return {math.max(unsettled, doubt), corrupt, unpack(found)}
"""
)

# ARGV: + write. Returns 1: ended; 0: first somebody has to be waited for; -1: the mark was lost, hold again.
END: Final = Script(
    _STATE
    + """
if not redis.call('ZSCORE', KEYS[2], ARGV[3]) then return -1 end
if #readers() > 0 or unsettled > 0 or doubt > 0 then return 0 end
begin_epoch()
redis.call('ZREM', KEYS[2], ARGV[3])
return 1
"""
)

# ARGV: + reader, number: whatever was granted before that number is given up.
ACKNOWLEDGE: Final = Script(_STATE + "acknowledge(ARGV[3], ARGV[4])\nreturn 1")

# New drops: fills that are under way are not stored, and nobody serves from its memory what was there before.
# ARGV: + drops, channel, tenant, own reader and number. Returns as HOLD.
DROPPED: Final = Script(
    _STATE
    + """
drops = ARGV[3]
redis.call('HSET', KEYS[1], 'drops', drops)
acknowledge(ARGV[6], ARGV[7])
local found = readers()
revoke(ARGV[4], ARGV[5], found)
return {math.max(unsettled, doubt), corrupt, unpack(found)}
"""
)

# Returns as HOLD, and changes nothing.
READERS: Final = Script(
    _STATE + "local found = readers()\nreturn {math.max(unsettled, doubt), corrupt, unpack(found)}"
)

# As DROPPED in the same step, whether there was one or not: a replica may hold what Redis has lost.
# KEYS: + disowned, entry, index, expiry. ARGV: as DROPPED, then digest, mark where the caller knows it.
# Returns: ms to wait and corrupt as HOLD, 1 when there was one (also when the same command comes again), readers ...
DISOWN: Final = Script(
    _STATE
    + f"""
local meta = redis.pcall('HGET', KEYS[5], 'meta')
local mark = type(meta) == 'string' and string.match(meta, '(%S*)$') or ARGV[9]
local there = drops == ARGV[3] .. '+' or ARGV[9] ~= ''
there = redis.call('UNLINK', KEYS[5]) > 0 or there
on(KEYS[6], 'ZREM', KEYS[6], ARGV[8])
on(KEYS[7], 'ZREM', KEYS[7], ARGV[8])
if mark ~= '' then
  on(KEYS[4], 'ZADD', KEYS[4], now, mark)
  redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -{MOST_DISOWNED + 1})
end
drops = ARGV[3] .. (there and '+' or '')
redis.call('HSET', KEYS[1], 'drops', drops)
acknowledge(ARGV[6], ARGV[7])
local found = readers()
revoke(ARGV[4], ARGV[5], found)
return {{math.max(unsettled, doubt), corrupt, there and 1 or 0, unpack(found)}}
"""
)

# KEYS: index. ARGV: since (µs), limit. Returns how much was corrupt, and digest and time (µs) ... in the order of time.
PAGE: Final = Script(
    SAFE
    + "local found = on(KEYS[1], 'ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])\n"
    "return {corrupt, found}"
)

# KEYS: index, expiry, entries. ARGV: their digests. Returns digest, meta and about of each that is there; the index
# forgets the others.
NOTES: Final = Script(
    SAFE
    + """
local notes = {}
for i, digest in ipairs(ARGV) do
  local key = KEYS[i + 2]
  local entry = redis.pcall('HMGET', key, 'meta', 'about')
  if entry.err or not entry[1] then
    redis.call('ZREM', KEYS[1], digest)
    redis.call('ZREM', KEYS[2], digest)
  else
    notes[#notes + 1] = {digest, entry[1], entry[2] or ''}
  end
end
return notes
"""
)

# KEYS: index, expiry, entries. ARGV: their digests. Returns how many there are and the bytes of their values; the index
# forgets the others.
SIZES: Final = Script(
    """
local entries, bytes = 0, 0
for i, digest in ipairs(ARGV) do
  local size = redis.pcall('HSTRLEN', KEYS[i + 2], 'value')
  if type(size) == 'number' and size > 0 then
    entries, bytes = entries + 1, bytes + size
  else
    redis.pcall('ZREM', KEYS[1], digest)
    redis.pcall('ZREM', KEYS[2], digest)
  end
end
return {entries, bytes}
"""
)

# KEYS: index, expiry, entries. ARGV: their digests. Returns how many there were.
REMOVE: Final = Script(
    SAFE
    + """
local removed = 0
for i, digest in ipairs(ARGV) do
  removed = removed + redis.call('UNLINK', KEYS[i + 2])
  on(KEYS[1], 'ZREM', KEYS[1], digest)
  on(KEYS[2], 'ZREM', KEYS[2], digest)
end
return removed
"""
)

# KEYS: asked. ARGV: time to live (ms), then count and request ...
TALLY: Final = Script(
    SAFE
    + f"""
for i = 2, #ARGV, 2 do on(KEYS[1], 'ZINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
local most = redis.call('ZCARD', KEYS[1])
if most > {2 * MOST_ASKED} then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, most - {MOST_ASKED + 1}) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return corrupt
"""
)

# KEYS: asked. ARGV: how many. Returns how much was corrupt, and request and count ...
ASKED: Final = Script(
    SAFE
    + "local found = on(KEYS[1], 'ZREVRANGE', KEYS[1], 0, ARGV[1] - 1, 'WITHSCORES')\nreturn {corrupt, found}"
)

# KEYS: a value. ARGV: value, time to live (ms).
PUT_VALUE: Final = Script("redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\nreturn 1")
GET_VALUE: Final = Script(
    """
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' and value.err then
  redis.call('UNLINK', KEYS[1])
  return {1, ''}
end
return {0, value or ''}
"""
)
