"""The scripts of the registry in Redis. Redis runs each as a whole, and nothing in between.

Whether the epoch is the latest has to be decided in the same step as the change. With MULTI and WATCH that takes
another round trip, and another try after each renewal.

``lease`` is a hash with the latest epoch and its holder. It never expires. ``held`` expires: while it is there, nobody
else gets the lease. ``standby`` expires, too: it has the address of the last server that asked in vain.
"""

# ARGV: prefix, known schema version, duration in ms, holder, address, a random id for a new registry, whether to take
# the lease, the id that the registry has to have or nothing.
# An epoch is above all before, also if somebody else has removed the counter.
# A registry of an older schema is copied, so that an operator can go back to a Clipper of that version.
ACQUIRE = """
local prefix, known, holder = ARGV[1], tonumber(ARGV[2]), ARGV[4]
local schema = tonumber(redis.call('GET', prefix .. 'schema') or 0)
if schema > known then return {'newer', redis.call('GET', prefix .. 'schema')} end
local id = redis.call('GET', prefix .. 'id') or ''
if ARGV[8] ~= '' and id ~= ARGV[8] then return {'another'} end
local lease = redis.call('HMGET', prefix .. 'lease', 'epoch', 'address', 'since', 'ready', 'holder')
if ARGV[7] == '0' or (redis.call('EXISTS', prefix .. 'held') == 1 and lease[5] ~= holder) then
  redis.call('SET', prefix .. 'standby', ARGV[5], 'PX', ARGV[3])
  return {'led', lease[1] or '0', lease[2] or '', lease[3] or '0', lease[4] or '0', id}
end
if redis.call('GET', prefix .. 'standby') == ARGV[5] then redis.call('DEL', prefix .. 'standby') end
if schema > 0 and schema < known then
  for _, name in ipairs({'applications', 'models', 'versions', 'to_forget', 'tokens', 'keys', 'counters'}) do
    redis.call('COPY', prefix .. name, prefix .. 'schema-' .. schema .. ':' .. name, 'REPLACE')
  end
end
redis.call('SET', prefix .. 'schema', known)
redis.call('SETNX', prefix .. 'id', ARGV[6])
local epoch = redis.call('HINCRBY', prefix .. 'counters', 'supervisor', 1)
local before = tonumber(lease[1] or 0)
if before and before >= epoch and before < 2 ^ 52 then
  epoch = math.floor(before) + 1
  redis.call('HSET', prefix .. 'counters', 'supervisor', string.format('%d', epoch))
end
redis.call('HSET', prefix .. 'lease', 'epoch', string.format('%d', epoch), 'holder', holder, 'address', ARGV[5],
  'since', redis.call('TIME')[1], 'ready', '0')
redis.call('SET', prefix .. 'held', string.format('%d', epoch), 'PX', ARGV[3])
return {'leads', string.format('%d', epoch), redis.call('GET', prefix .. 'id')}
"""

# ARGV: prefix, epoch, duration in ms, and what a script adds. Every change renews the lease, so that a supervisor that
# makes many changes does not lose it meanwhile.
_FENCE = """
local prefix = ARGV[1]
local lease = redis.call('HMGET', prefix .. 'lease', 'epoch', 'address', 'since', 'ready')
if lease[1] ~= ARGV[2] then return {'led', lease[1] or '0', lease[2] or '', lease[3] or '0', lease[4] or '0'} end
redis.call('SET', prefix .. 'held', ARGV[2], 'PX', ARGV[3])
"""

# Adds: whether the leader is ready.
RENEW = (
    _FENCE
    + """
redis.call('HSET', prefix .. 'lease', 'ready', ARGV[4])
return {'leads', redis.call('GET', prefix .. 'standby') or ''}
"""
)

# The rest of the script makes a change, of the name in ARGV[4]. The name is kept for long enough for SYNCED to find it.
_CHANGE = (
    _FENCE
    + """
redis.call('SET', prefix .. 'change:' .. ARGV[4], '', 'EX', 60)
"""
)

# ARGV: prefix, then names of changes. It returns how many of them Redis still knows. WAITAOF waits for the writes of
# its own connection, and Redis writes its file in order: so this writes, too.
SYNCED = """
local known = 0
redis.call('SET', ARGV[1] .. 'synced', #ARGV, 'EX', 60)
for at = 2, #ARGV do known = known + redis.call('EXISTS', ARGV[1] .. 'change:' .. ARGV[at]) end
return known
"""

# Adds: operations, each with its kind, key, name and text. A Lua script that fails midway is not undone, so everything
# that can be refused is checked before the first change.
WRITE = (
    _CHANGE
    + """
local models = {}
for at = 5, #ARGV, 4 do
  local kind, key, name = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if key == 'models' then
    models[name] = kind == 'put'
  elseif kind == 'put' and key == 'versions' then
    local model = string.match(name, '^[^:]*')
    local is_known = models[model]
    if is_known == nil then is_known = redis.call('HEXISTS', prefix .. 'models', model) == 1 end
    if not is_known then return {'no model', model} end
  end
end
for at = 5, #ARGV, 4 do
  local kind, key, name = ARGV[at], prefix .. ARGV[at + 1], ARGV[at + 2]
  if kind == 'put' then redis.call('HSET', key, name, ARGV[at + 3])
  elseif kind == 'delete' then redis.call('HDEL', key, name)
  elseif kind == 'add' then redis.call('SADD', key, name)
  elseif kind == 'remove' then redis.call('SREM', key, name)
  end
  if kind == 'delete' and ARGV[at + 1] == 'models' then
    for _, version in ipairs(redis.call('HKEYS', prefix .. 'versions')) do
      if string.sub(version, 1, #name + 1) == name .. ':' then redis.call('HDEL', prefix .. 'versions', version) end
    end
  end
end
return {'done'}
"""
)

# Adds: counter, count.
RESERVE = (
    _CHANGE
    + """
return {'done', string.format('%d', redis.call('HINCRBY', prefix .. 'counters', ARGV[5], ARGV[6]))}
"""
)

# Adds: name, secret.
KEEP = (
    _CHANGE
    + """
redis.call('HSETNX', prefix .. 'secrets', ARGV[5], ARGV[6])
return {'done', redis.call('HGET', prefix .. 'secrets', ARGV[5])}
"""
)

# ARGV: prefix, epoch.
RELEASE = """
if redis.call('HGET', ARGV[1] .. 'lease', 'epoch') == ARGV[2] then redis.call('DEL', ARGV[1] .. 'held') end
"""

# Adds: digest, size in bytes, number of pieces.
COMPLETE = (
    _CHANGE
    + """
for number = 0, ARGV[7] - 1 do
  if redis.call('EXISTS', prefix .. 'artifact:' .. ARGV[5] .. ':' .. number) == 0 then return {'no piece'} end
end
for number = 0, ARGV[7] - 1 do redis.call('PERSIST', prefix .. 'artifact:' .. ARGV[5] .. ':' .. number) end
redis.call('HSET', prefix .. 'artifacts', ARGV[5], ARGV[6])
return {'done'}
"""
)

# Adds: digest.
REMOVE = (
    _CHANGE
    + """
redis.call('HDEL', prefix .. 'artifacts', ARGV[5])
local number = 0
while redis.call('UNLINK', prefix .. 'artifact:' .. ARGV[5] .. ':' .. number) == 1 do number = number + 1 end
return {'done'}
"""
)
