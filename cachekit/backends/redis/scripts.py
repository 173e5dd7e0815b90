"""The Lua scripts: every write that needs more than one command, or a guard, is one atomic step on the server.

Keys: ``v`` a value, ``l`` its lease, ``t`` a stamp. ``NA`` is the last argument of writes that nothing else fences: the
instant in the server's own time after which the script must do nothing, because its caller has given up and may have
returned. Such a script then answers {-1, now}.
"""

from dataclasses import dataclass, field
from hashlib import sha1

from cachekit.codec.envelope import MAGIC, STALE_MARK

LATE = -1  # first element of the answer of a script that came too late


@dataclass(frozen=True, slots=True)
class Script:
    """Source, and the digest under which the server keeps it."""

    source: bytes
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.source, usedforsecurity=False).hexdigest().encode())


def script(source: str) -> Script:
    lines = [line.strip() for line in source.strip().splitlines()]
    return Script("\n".join(lines).encode())


# As Lua writes bytes.
ENTRY = "".join(f"\\{byte}" for byte in MAGIC)

# What the scripts share. SET_V stores `data` for `ttl` milliseconds; "0" is for ever.
GUARD = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if now > tonumber(ARGV[#ARGV]) then return {-1, now} end
"""
SET_V = """
if ttl == '0' then redis.call('SET', KEYS[1], data) else redis.call('SET', KEYS[1], data, 'PX', ttl) end
"""
# A server that deletes nothing tells its trackers nothing, and whoever waits for this key would sleep on.
PUSH_V = """
redis.call('SET', KEYS[1], '', 'PX', 1)
redis.call('DEL', KEYS[1])
"""
TAKE_LEASE = """
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {2} end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('PEXPIRE', KEYS[2], ARGV[2]) return {2} end
return {3, redis.call('PTTL', KEYS[2])}
"""

# v l; token, lease_ms, NA
GET_OR_LEASE = script(f"""
local x = redis.call('GET', KEYS[1])
if x then return {{1, x, redis.call('PTTL', KEYS[1])}} end
{GUARD}
{TAKE_LEASE}
""")

# v l; token, lease_ms, seen ("" = whatever lies there), steal ("1"), NA
LEASE = script(f"""
local x = redis.call('GET', KEYS[1])
local seen = ARGV[3]
if x and seen ~= '' and string.sub(x, 1, #seen) ~= seen then return {{1, x, redis.call('PTTL', KEYS[1])}} end
{GUARD}
if ARGV[4] == '1' then redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) return {{2}} end
{TAKE_LEASE}
""")

# v l; token, data, ttl
STORE = script(f"""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local data, ttl = ARGV[2], ARGV[3]
{SET_V}
redis.call('DEL', KEYS[2])
return 1
""")

# v l; data, ttl, NA. SET comes first: after any write a script is past the server's memory limit.
SET = script(f"""
{GUARD}
local data, ttl = ARGV[1], ARGV[2]
{SET_V}
redis.call('DEL', KEYS[2])
return 1
""")

# v l; data, ttl, seen ("" = does not matter), absent ("1" = also when nothing lies there), NA. Without absent it is the
# same value once more, and a load in flight keeps its right to bring a newer one.
SET_IF = script(f"""
{GUARD}
local x = redis.call('GET', KEYS[1])
local seen = ARGV[3]
if x then
    if seen == '' or string.sub(x, 1, #seen) ~= seen then return 0 end
elseif ARGV[4] ~= '1' then
    return 0
end
local data, ttl = ARGV[1], ARGV[2]
{SET_V}
if ARGV[4] == '1' then redis.call('DEL', KEYS[2]) end
return 1
""")

# v1 l1 v2 l2 ... DEL comes first, so that it works when memory is full; it always pushes.
INVALIDATE = script("""
for i = 1, #KEYS, 2 do
    redis.call('DEL', KEYS[i + 1])
    if redis.call('DEL', KEYS[i]) == 0 then
        redis.call('SET', KEYS[i], '', 'PX', 1)
        redis.call('DEL', KEYS[i])
    end
end
return 1
""")

# v1 l1 v2 l2 ... DEL comes first, as above. SETRANGE keeps the life, but would make what is absent and fill up what is
# short. The type is no matter: what is no string is no entry.
EXPIRE_SOFT = script(f"""
for i = 1, #KEYS, 2 do
    redis.call('DEL', KEYS[i + 1])
    local head = redis.pcall('GETRANGE', KEYS[i], 0, {STALE_MARK})
    if #head > {STALE_MARK} and string.sub(head, 1, {len(MAGIC)}) == '{ENTRY}' then
        redis.call('SETRANGE', KEYS[i], {STALE_MARK}, '\\1')
    else
        redis.call('DEL', KEYS[i])
    end
end
return 1
""")

# v l; token
RELEASE = script(f"""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 then
    {PUSH_V}
end
return 1
""")

# l; token, lease_ms
RENEW = script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

# t1..tn; ttl, fresh1..freshn. A renewal is pushed to everybody who tracks the stamp, hence only below half its life.
STAMPS = script("""
local answer = {}
local ttl = tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
    local stamp = redis.call('GET', key)
    if not stamp then
        stamp = ARGV[i + 1]
        redis.call('SET', key, stamp, 'PX', ttl)
    elseif redis.call('PTTL', key) < ttl / 2 then
        redis.call('PEXPIRE', key, ttl)
    end
    answer[i] = stamp
end
return answer
""")

# v l; by, ttl, mark, create ("1"), NA. The server adds, since Lua's numbers have 53 bits; GET tells the exact sum.
INCR = script(f"""
{GUARD}
local x, ttl, mark = redis.call('GET', KEYS[1]), ARGV[2], ARGV[3]
if not x and ARGV[4] ~= '1' then return false end
local data = x and string.match(x, '^-?%d+') or '0'
if x and x ~= data .. mark then return false end
if x then redis.call('SET', KEYS[1], data, 'KEEPTTL') else {SET_V} end
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(sum) == 'table' then
    if x then redis.call('SET', KEYS[1], x, 'KEEPTTL') else redis.call('DEL', KEYS[1]) end
    return sum
end
sum = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], sum .. mark, 'KEEPTTL')
redis.call('DEL', KEYS[2])
return sum
""")

# v; ttl, NA
TOUCH = script(f"""
{GUARD}
if ARGV[1] ~= '0' then return redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
redis.call('PERSIST', KEYS[1])
return redis.call('EXISTS', KEYS[1])
""")

# v; seen. The lease stays: whoever has it is about to store something new.
RECLAIM = script("""
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

# Any keys; a command and what follows its keys. pcall hands the server's own error on, in every version.
COMMAND = """
local words = {ARGV[1]}
for _, key in ipairs(KEYS) do words[#words + 1] = key end
for i = 2, #ARGV - %d do words[#words + 1] = ARGV[i] end
return redis.pcall(unpack(words))
"""
QUERY = script(COMMAND % 0)

# As above, and NA.
ALTER = script(GUARD + COMMAND % 1)
