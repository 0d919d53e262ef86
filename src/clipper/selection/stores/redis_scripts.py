"""The scripts of the store in Redis. Redis runs each as a whole, and nothing in between."""

# Number of arguments of a commit before the first array.
BEFORE_ARRAYS = 6

# ARGV: prefix, wall clock, name of the commit, observations as MessagePack, cursor that is followed, own revisions
# since then, then arrays of little-endian doubles, which observations reference by context, name and index.
# All that a batch adds to a number or an array is added at once.
# A sum that somebody else has replaced by something else begins anew; a state that is no hash, or a sum that would
# become infinite, stays as it is: a script that fails midway is not undone.
# Doubles are packed and unpacked 200 at a time, since Lua's stack has room for some thousand.
# It always writes something: WAITAOF waits for the writes of its own connection, and the first attempt at a batch may
# have been on another one. What that one answered is kept for 30 s, and answered again.
COMMIT = """
local prefix, now_s, commit = ARGV[1], ARGV[2], ARGV[1] .. 'commit:' .. ARGV[3]
local known = redis.call('GET', commit)
if known then
  redis.call('SET', prefix .. 'last_commit', now_s)
  return known
end
local are_new, revision, sums, totals = {}, nil, {}, {}
local function add(numbers, packed)
  local count = #packed / 8
  for first = 1, count, 200 do
    local size = math.min(200, count - first + 1)
    local part = {struct.unpack('<' .. string.rep('d', size), packed, 8 * first - 7)}
    for place = 1, size do
      numbers[first + place - 1] = (numbers[first + place - 1] or 0) + part[place]
    end
  end
end
local function pack(numbers)
  local parts = {}
  for first = 1, #numbers, 200 do
    local last = math.min(first + 199, #numbers)
    parts[#parts + 1] = struct.pack('<' .. string.rep('d', last - first + 1), unpack(numbers, first, last))
  end
  return table.concat(parts)
end
local function add_sums(key, increments)
  local names = {}
  for name in pairs(increments) do names[#names + 1] = name end
  for first = 1, #names, 1000 do
    local last = math.min(first + 999, #names)
    local known, set = redis.pcall('HMGET', key, unpack(names, first, last)), {}
    for place = first, known.err and 0 or last do
      local total = (tonumber(known[place - first + 1] or 0) or 0) + increments[names[place]]
      if total - total == 0 then
        set[#set + 1] = names[place]
        set[#set + 1] = string.format('%.17g', total)
      end
    end
    if #set > 0 then redis.call('HSET', key, unpack(set)) end
  end
end
for index, each in ipairs(cmsgpack.unpack(ARGV[4])) do
  local id, application, keep_s = each[1], each[2], each[3]
  are_new[index] = 1
  if id ~= '' then
    local until_s = string.format('%.17g', now_s + keep_s)
    are_new[index] = redis.call('ZADD', prefix .. 'seen:' .. application, 'NX', until_s, id)
  end
  if are_new[index] == 1 then
    local of_application = sums[application]
    if not of_application then
      of_application = {}
      sums[application] = of_application
    end
    for _, array in ipairs(each[5]) do
      local key = prefix .. 'arrays:' .. application .. '/' .. array[1]
      totals[key] = totals[key] or {}
      totals[key][array[2]] = totals[key][array[2]] or {}
      add(totals[key][array[2]], ARGV[array[3]])
    end
    for context, increments in pairs(each[4]) do
      local state = of_application[context]
      if not state then
        of_application[context] = increments
      else
        for name, amount in pairs(increments) do state[name] = (state[name] or 0) + amount end
      end
    end
  end
end
local own, others = {}, {}
for _, each in ipairs(cmsgpack.unpack(ARGV[6])) do own[each] = true end
local followed = tonumber(ARGV[5])
for application, contexts in pairs(sums) do
  revision = revision or redis.call('INCR', prefix .. 'revision')
  redis.call('SADD', prefix .. 'applications', application)
  for context, increments in pairs(contexts) do
    local state = application .. '/' .. context
    add_sums(prefix .. 'sums:' .. state, increments)
    local before = tonumber(redis.call('ZSCORE', prefix .. 'changes', state) or -1)
    if before > followed and not own[before] then others[#others + 1] = state end
    redis.call('ZADD', prefix .. 'changes', revision, state)
    if context ~= '' then redis.call('ZADD', prefix .. 'contexts:' .. application, revision, context) end
  end
end
for key, arrays in pairs(totals) do
  for name, numbers in pairs(arrays) do
    local known = redis.call('HGET', key, name)
    if known then add(numbers, known) end
    redis.call('HSET', key, name, pack(numbers))
  end
end
local answer = cmsgpack.pack({are_new, revision or -1, others})
redis.call('SET', commit, answer, 'EX', 30)
return answer
"""

# ARGV: prefix, states. Numbers as MessagePack, with false for a state that is none; then the places of states with
# arrays, each followed by these.
READ = """
local prefix, numbers, answer = ARGV[1], {}, {''}
for place = 2, #ARGV do
  local sums = redis.pcall('HGETALL', prefix .. 'sums:' .. ARGV[place])
  local arrays = redis.pcall('HGETALL', prefix .. 'arrays:' .. ARGV[place])
  local found = not (sums.err or arrays.err) and {}
  for at = 1, found and #sums or 0, 2 do
    local number = tonumber(sums[at + 1])
    if number and found then found[sums[at]] = number else found = false end
  end
  numbers[place - 1] = found
  if found and #arrays > 0 then
    answer[#answer + 1] = place - 2
    answer[#answer + 1] = arrays
  end
end
answer[1] = cmsgpack.pack(numbers)
return answer
"""

# ARGV: prefix, cursor, revisions that need not be told, as MessagePack, and how many states are told at once. What is
# left is told the next time: all of a revision, or nothing of it. A byte that no text has divides the names.
CHANGES = """
local prefix, cursor, most, known, changed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]), {}, {}
local last = tonumber(redis.call('GET', prefix .. 'revision') or 0)
if cursor ~= -1 and cursor ~= last then
  for _, each in ipairs(cmsgpack.unpack(ARGV[3])) do known[each] = true end
  local found = {}
  for place, key in ipairs({'changes', 'forgotten'}) do
    found[place] = redis.call(
      'ZRANGE', prefix .. key, '(' .. cursor, last, 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
    if #found[place] == 2 * most then last = tonumber(found[place][2 * most]) - 1 end
  end
  for place = 1, 2 do
    for at = 1, #found[place], 2 do
      local revision = tonumber(found[place][at + 1])
      if revision <= last and not known[revision] then changed[#changed + 1] = found[place][at] end
    end
  end
end
return {last, table.concat(changed, '\\255')}
"""

# ARGV: prefix, wall clock, application, contexts to keep, bound of this call, time until which others have been told.
EVICT = """
local prefix, now_s, application = ARGV[1], ARGV[2], ARGV[3]
local told = redis.call('ZRANGE', prefix .. 'forgotten_at', '-inf', '(' .. ARGV[6], 'BYSCORE', 'LIMIT', 0, ARGV[5])
for _, state in ipairs(told) do
  redis.call('ZREM', prefix .. 'forgotten', state)
  redis.call('ZREM', prefix .. 'forgotten_at', state)
end
local contexts = prefix .. 'contexts:' .. application
local over = math.min(redis.call('ZCARD', contexts) - tonumber(ARGV[4]), tonumber(ARGV[5]))
if over <= 0 then return 0 end
local revision = redis.call('INCR', prefix .. 'revision')
for _, context in ipairs(redis.call('ZRANGE', contexts, 0, over - 1)) do
  local state = application .. '/' .. context
  redis.call('DEL', prefix .. 'sums:' .. state, prefix .. 'arrays:' .. state)
  redis.call('ZREM', prefix .. 'changes', state)
  redis.call('ZREM', contexts, context)
  redis.call('ZADD', prefix .. 'forgotten', revision, state)
  redis.call('ZADD', prefix .. 'forgotten_at', now_s, state)
end
return over
"""

# ARGV: prefix, wall clock, application, context.
FORGET_CONTEXT = """
local prefix, state = ARGV[1], ARGV[3] .. '/' .. ARGV[4]
redis.call('DEL', prefix .. 'sums:' .. state, prefix .. 'arrays:' .. state)
redis.call('ZREM', prefix .. 'changes', state)
redis.call('ZADD', prefix .. 'forgotten', redis.call('INCR', prefix .. 'revision'), state)
redis.call('ZADD', prefix .. 'forgotten_at', ARGV[2], state)
return redis.call('ZREM', prefix .. 'contexts:' .. ARGV[3], ARGV[4])
"""
