"""The scripts of the store in Redis. Redis runs each as a whole, and nothing in between.

Each change has a revision, and a key with the names of the states that it changed, divided by a byte that no text has.
Redis removes that key after a while. So nothing that reports changes grows with the number of contexts.
"""

# Number of arguments of a commit before the first array.
BEFORE_ARRAYS = 5
# The error of a script that is told the id of another store than this.
ANOTHER = "ANOTHER"
# Revisions that a worker looks at in one step: some milliseconds. Between two looks there are about a hundred.
REVISIONS_AT_ONCE = 2000

# The last argument of COMMIT, READ and CHANGES is the id of the store that their caller has known; empty if it has
# known none. The first commit into a store gives it its own name as an id.
_ONLY_THE_KNOWN = f"""
local prefix, known_id = ARGV[1], table.remove(ARGV)
local id = redis.call('GET', prefix .. 'id') or ''
if known_id ~= '' and known_id ~= id then return redis.error_reply('{ANOTHER}') end
"""

# ARGV: prefix, wall clock, name of the commit, sets of names and observations as MessagePack, how long others are told,
# then arrays of little-endian doubles, which observations reference by context, name and index. For each context an
# observation has the number of a set of names, and the amounts in its order.
# All that a batch adds to an array, or to the numbers of one set of names, is added at once.
# A sum that somebody else has replaced by something else begins anew; a state that is no hash, or a sum that would
# become infinite, stays as it is: a script that fails midway is not undone.
# Doubles are packed and unpacked 200 at a time, since Lua's stack has room for some thousand.
# A batch is sent again if the answer to it was lost. The answer is kept for 30 s, and given again; WRITTEN
# looks for it, too. The answer has whether each observation was new, the revision or -1, and the store's id.
COMMIT = (
    _ONLY_THE_KNOWN
    + """
local now_s, commit, told_for_s = ARGV[2], prefix .. 'commit:' .. ARGV[3], ARGV[5]
local known = redis.call('GET', commit)
if known then return known end
if id == '' then
  id = ARGV[3]
  redis.call('SET', prefix .. 'id', id)
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
local function add_sums(key, names, amounts)
  for first = 1, #names, 1000 do
    local last = math.min(first + 999, #names)
    local known, set = redis.pcall('HMGET', key, unpack(names, first, last)), {}
    for place = first, known.err and 0 or last do
      local total = (tonumber(known[place - first + 1] or 0) or 0) + amounts[place]
      if total - total == 0 then
        set[#set + 1] = names[place]
        set[#set + 1] = string.format('%.17g', total)
      end
    end
    if #set > 0 then redis.call('HSET', key, unpack(set)) end
  end
end
local sets_of_names, batch = unpack(cmsgpack.unpack(ARGV[4]))
for index, each in ipairs(batch) do
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
    for _, added in ipairs(each[4]) do
      local context, names, amounts = unpack(added)
      local of_context = of_application[context] or {}
      of_application[context] = of_context
      local known = of_context[names]
      if not known then
        of_context[names] = amounts
      else
        for place, amount in ipairs(amounts) do known[place] = known[place] + amount end
      end
    end
  end
end
local changed = {}
for application, contexts in pairs(sums) do
  revision = revision or redis.call('INCR', prefix .. 'revision')
  redis.call('SADD', prefix .. 'applications', application)
  local scored = {}
  for context, of_context in pairs(contexts) do
    local state = application .. '/' .. context
    for names, amounts in pairs(of_context) do add_sums(prefix .. 'sums:' .. state, sets_of_names[names], amounts) end
    changed[#changed + 1] = state
    if context ~= '' then
      scored[#scored + 1] = revision
      scored[#scored + 1] = context
    end
  end
  for first = 1, #scored, 2000 do
    redis.call('ZADD', prefix .. 'contexts:' .. application, unpack(scored, first, math.min(first + 1999, #scored)))
  end
end
if revision then
  redis.call('SET', prefix .. 'change:' .. revision, table.concat(changed, '\\255'), 'EX', told_for_s)
end
for key, arrays in pairs(totals) do
  for name, numbers in pairs(arrays) do
    local known = redis.call('HGET', key, name)
    if known then add(numbers, known) end
    redis.call('HSET', key, name, pack(numbers))
  end
end
local answer = cmsgpack.pack({are_new, revision or -1, id})
redis.call('SET', commit, answer, 'EX', 30)
return answer
"""
)

# ARGV: prefix, wall clock, names of commits. How many of them this Redis knows of: one that was started again may have
# lost some. It always writes something, for WAITAOF.
WRITTEN = """
local known = 0
redis.call('SET', ARGV[1] .. 'last_commit', ARGV[2])
for place = 3, #ARGV do known = known + redis.call('EXISTS', ARGV[1] .. 'commit:' .. ARGV[place]) end
return known
"""

# ARGV: prefix, states. Numbers as MessagePack, with false for a state that is none; then the places of states with
# arrays, each followed by these. Few states have arrays, so one command says whether any does.
READ = (
    _ONLY_THE_KNOWN
    + """
local numbers, answer, keys = {}, {''}, {}
for place = 2, #ARGV do keys[place - 1] = prefix .. 'arrays:' .. ARGV[place] end
local have_arrays = redis.call('EXISTS', unpack(keys)) > 0
for place, key in ipairs(keys) do
  local sums = redis.pcall('HGETALL', prefix .. 'sums:' .. ARGV[place + 1])
  local arrays = have_arrays and redis.pcall('HGETALL', key) or {}
  local found = not (sums.err or arrays.err) and {}
  for at = 1, found and #sums or 0, 2 do
    local number = tonumber(sums[at + 1])
    if number and found then found[sums[at]] = number else found = false end
  end
  numbers[place] = found
  if found and #arrays > 0 then
    answer[#answer + 1] = place - 1
    answer[#answer + 1] = arrays
  end
end
answer[1] = cmsgpack.pack(numbers)
return answer
"""
)

# ARGV: prefix, cursor, revisions that need not be told, as MessagePack, how many states and how many revisions are told
# at once. The rest is told the next time: all of a revision, or nothing of it. If a revision has no key any more,
# contexts are found by their last revisions, and each application's own state is told as well. The answer ends with
# the store's id.
CHANGES = (
    _ONLY_THE_KNOWN
    + """
local cursor, most, own, told, count = tonumber(ARGV[2]), tonumber(ARGV[4]), {}, {}, 0
local newest = tonumber(redis.call('GET', prefix .. 'revision') or 0)
if cursor == -1 or cursor >= newest then return {newest, '', id} end
for _, each in ipairs(cmsgpack.unpack(ARGV[3])) do own[each] = true end
local last, end_ = cursor, math.min(newest, cursor + tonumber(ARGV[5]))
while last < end_ and count < most do
  if not own[last + 1] then
    local states = redis.call('GET', prefix .. 'change:' .. last + 1)
    if not states then break end
    told[#told + 1] = states
    count = count + 1 + select(2, string.gsub(states, '\\255', ''))
  end
  last = last + 1
end
if last > cursor then return {last, table.concat(told, '\\255'), id} end
last = newest
local found = {}
for _, application in ipairs(redis.call('SMEMBERS', prefix .. 'applications')) do
  local key = prefix .. 'contexts:' .. application
  local contexts = redis.call('ZRANGE', key, '(' .. cursor, last, 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
  if #contexts == 2 * most then last = tonumber(contexts[2 * most]) - 1 end
  found[application] = contexts
  told[#told + 1] = application .. '/'
end
for application, contexts in pairs(found) do
  for at = 1, #contexts, 2 do
    if tonumber(contexts[at + 1]) <= last then told[#told + 1] = application .. '/' .. contexts[at] end
  end
end
return {last, table.concat(told, '\\255'), id}
"""
)

# The beginning of EVICT and FORGET_CONTEXT. ARGV: prefix, application, how long others are told.
_FORGET = """
local prefix, application, told_for_s = ARGV[1], ARGV[2], ARGV[3]
local contexts_key = prefix .. 'contexts:' .. application
local function forget(contexts)
  local revision, changed, count = redis.call('INCR', prefix .. 'revision'), {}, 0
  for _, context in ipairs(contexts) do
    local state = application .. '/' .. context
    changed[#changed + 1] = state
    redis.call('DEL', prefix .. 'sums:' .. state, prefix .. 'arrays:' .. state)
    count = count + redis.call('ZREM', contexts_key, context)
  end
  redis.call('SET', prefix .. 'change:' .. revision, table.concat(changed, '\\255'), 'EX', told_for_s)
  return count
end
"""

# ARGV, further: contexts to keep, bound of this call.
EVICT = f"""{_FORGET}
local over = math.min(redis.call('ZCARD', contexts_key) - tonumber(ARGV[4]), tonumber(ARGV[5]))
if over <= 0 then return 0 end
return forget(redis.call('ZRANGE', contexts_key, 0, over - 1))
"""

# ARGV, further: context.
FORGET_CONTEXT = f"""{_FORGET}
return forget({{ARGV[4]}})
"""
