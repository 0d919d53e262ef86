"""A store in Redis, for Clippers on several machines: the extra ``clipper-serving[redis]``.

A state is a hash that HINCRBYFLOAT adds to, and its arrays, as packed doubles, are another hash. A script makes each
batch of observations atomic. Redis must keep an append-only file: an observation is acknowledged once WAITAOF reports
it on disk. With ``appendfsync everysec`` that takes up to a second; with ``always``, as long as the disk does.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from time import time
from typing import Any, TypeVar

import msgspec
import numpy as np
import redis.asyncio as redis
from msgspec import msgpack
from redis.exceptions import RedisError

from clipper.errors import StoreUnavailable
from clipper.selection.stores.gathered_reads import GatheredReads, Read, State
from clipper.selection.stores.own_changes import OwnChanges
from clipper.selection.stores.store import EVICT_CHUNK, FLOAT, TOLD_FOR_S, Amount, Observation

T = TypeVar("T")

# All keys begin with this, so that Clipper can share a Redis with others.
PREFIX = "clipper:selection:"
# Redis answers in well under a millisecond; after this it counts as unreachable.
TIMEOUT_S = 2.0
DISK_TIMEOUT_MS = 2000
# Keys in one step of a scan, so that Redis serves others in between.
SCAN_CHUNK = 1000

# Number of arguments of a commit before the first array.
_BEFORE_ARRAYS = 6

# ARGV: prefix, wall clock, name of the commit, observations as MessagePack, cursor that is followed, own revisions
# since then, then arrays of little-endian doubles, which observations reference by context, name and index.
# All that a batch adds to a number or an array is added at once.
# Doubles are packed and unpacked 200 at a time, since Lua's stack has room for some thousand.
# It always writes something: WAITAOF waits for the writes of its own connection, and the first attempt at a batch may
# have been on another one. What that one answered is kept for 30 s, and answered again.
_COMMIT = """
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
    local key = prefix .. 'sums:' .. state
    for name, amount in pairs(increments) do
      redis.call('HINCRBYFLOAT', key, name, string.format('%.17g', amount))
    end
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
_READ = """
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

# ARGV: prefix, cursor, revisions that need not be told, as MessagePack. A byte that no text has divides the names.
_CHANGES = """
local prefix, cursor, known, changed = ARGV[1], tonumber(ARGV[2]), {}, {}
local last = tonumber(redis.call('GET', prefix .. 'revision') or 0)
if cursor ~= -1 and cursor ~= last then
  for _, each in ipairs(cmsgpack.unpack(ARGV[3])) do known[each] = true end
  for _, key in ipairs({'changes', 'forgotten'}) do
    local found = redis.call('ZRANGE', prefix .. key, '(' .. cursor, last, 'BYSCORE', 'WITHSCORES')
    for at = 1, #found, 2 do
      if not known[tonumber(found[at + 1])] then changed[#changed + 1] = found[at] end
    end
  end
end
return {last, table.concat(changed, '\\255')}
"""

# ARGV: prefix, wall clock, application, contexts to keep, bound of this call, time until which others have been told.
_EVICT = """
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
_FORGET_CONTEXT = """
local prefix, state = ARGV[1], ARGV[3] .. '/' .. ARGV[4]
redis.call('DEL', prefix .. 'sums:' .. state, prefix .. 'arrays:' .. state)
redis.call('ZREM', prefix .. 'changes', state)
redis.call('ZADD', prefix .. 'forgotten', redis.call('INCR', prefix .. 'revision'), state)
redis.call('ZADD', prefix .. 'forgotten_at', ARGV[2], state)
return redis.call('ZREM', prefix .. 'contexts:' .. ARGV[3], ARGV[4])
"""

# What the scripts answer. A commit answers whether each observation was new, its revision or -1, and which states
# others changed before it: see ``OwnChanges.commit``.
_COMMITTED = msgpack.Decoder(tuple[list[int], int, list[str]])
_NUMBERS = msgpack.Decoder(list[dict[str, float] | list[float] | bool])


class RedisStore:
    """See ``Store``. An application's id must not contain '/'; a context may."""

    def __init__(self, url: str, wall_clock_s: Callable[[], float] = time) -> None:
        self._url = url
        self._wall_clock_s = wall_clock_s
        self._own = OwnChanges()
        # Any: redis-py declares its results for both kinds of decoding and of waiting at once.
        self._client: Any = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        self._reads = GatheredReads(lambda states: self._attempt(self._read(states)))
        self._scripts: dict[str, Any] = {
            name: self._client.register_script(text)
            for name, text in {
                "commit": _COMMIT,
                "read": _READ,
                "changes": _CHANGES,
                "evict": _EVICT,
                "forget": _FORGET_CONTEXT,
            }.items()
        }

    async def commit(self, observations: Sequence[Observation]) -> list[bool]:
        batch: list[tuple[Any, ...]] = []
        packed: list[bytes] = []
        for each in observations:
            arrays: list[tuple[str, str, int]] = []
            numbers: dict[str, dict[str, float]] = {}
            for context, increments in each.increments.items():
                of_context = numbers[context] = {}
                for name, amount in increments.items():
                    if isinstance(amount, np.ndarray):
                        packed.append(amount.astype(FLOAT).tobytes())
                        arrays.append((context, name, _BEFORE_ARRAYS + len(packed)))
                    else:
                        of_context[name] = amount
            batch.append((each.id or "", each.application, each.keep_s, numbers, arrays))
        return await self._attempt(self._commit(msgpack.encode(batch), packed))

    async def load(self, application: str, context: str) -> dict[str, Amount]:
        return await self._reads.load(application, context)

    async def load_many(self, application: str, contexts: Sequence[str]) -> list[Read]:
        return await self._reads.load_many(application, contexts)

    async def changes(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        return await self._attempt(self._changes(cursor))

    async def forget(self, application: str, context: str, names: Sequence[str]) -> None:
        for kind in ("sums", "arrays"):
            await self._attempt(self._client.hdel(f"{PREFIX}{kind}:{application}/{context}", *names))

    async def expire(self) -> None:
        await self._attempt(self._expire(self._wall_clock_s()))

    async def evict_ids(self, application: str, keep: int) -> int:
        return await self._attempt(self._evict_ids(application, keep))

    async def contexts(self, application: str, limit: int) -> tuple[int, list[str]]:
        key = f"{PREFIX}contexts:{application}"
        found = await self._attempt(self._client.zrange(key, 0, limit - 1, desc=True))
        return int(await self._attempt(self._client.zcard(key))), [
            context.decode(errors="replace") for context in found
        ]

    async def forget_context(self, application: str, context: str) -> bool:
        arguments: list[str | int | float] = [PREFIX, self._wall_clock_s(), application, context]
        return bool(await self._attempt(self._scripts["forget"](args=arguments)))

    async def evict(self, application: str, keep: int) -> int:
        now_s = self._wall_clock_s()
        arguments: list[str | int | float] = [PREFIX, now_s, application, keep, EVICT_CHUNK, now_s - TOLD_FOR_S]
        return int(await self._attempt(self._scripts["evict"](args=arguments)))

    async def drop(self, application: str) -> None:
        await self._attempt(self._drop(application))

    async def close(self) -> None:
        await self._reads.close()
        await self._client.aclose()

    async def _read(self, states: Sequence[State]) -> list[Read]:
        names = [f"{application}/{context}" for application, context in states]
        numbers, *arrays = await self._scripts["read"](args=[PREFIX, *names])
        try:
            found: list[Read] = [
                StoreUnavailable(f"selection store {self._shown_url()} has no state at {name!r}")
                if isinstance(each, bool)
                else dict(each)
                for name, each in zip(names, _NUMBERS.decode(numbers))
            ]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # Somebody else wrote a name that is no text, which costs its own state alone.
            if len(states) > 1:
                return [each for state in states for each in await self._read([state])]
            return [StoreUnavailable(f"selection store {self._shown_url()} has no state at {names[0]!r}")]
        for place, flat in zip(arrays[::2], arrays[1::2]):
            amounts = found[place]
            assert isinstance(amounts, dict)
            try:
                named = {name.decode(): np.frombuffer(packed, FLOAT) for name, packed in zip(flat[::2], flat[1::2])}
            except ValueError:
                found[place] = StoreUnavailable(f"selection store {self._shown_url()} has no state at {names[place]!r}")
            else:
                amounts.update(named)
        return found

    async def _attempt(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"selection store {self._shown_url()} cannot be used: {error}") from error

    async def _commit(self, batch: bytes, arrays: Sequence[bytes]) -> list[bool]:
        own = self._own
        known = [own.followed, msgpack.encode(list(own.revisions))]
        arguments = [PREFIX, self._wall_clock_s(), secrets.token_hex(8), batch, *known, *arrays]
        # WAITAOF refers to the writes of its own connection.
        async with self._client.client() as connection:
            answer = await self._scripts["commit"](args=arguments, client=connection)
            are_new, revision, others = _COMMITTED.decode(answer)
            if revision >= 0:
                own.commit(revision, map(_state, others))
            try:
                synced, _ = await connection.execute_command("WAITAOF", 1, 0, DISK_TIMEOUT_MS)
                if not synced:
                    raise StoreUnavailable(f"Redis did not write to disk within {DISK_TIMEOUT_MS} ms")
            except BaseException:
                own.distrust()
                raise
        return [bool(is_new) for is_new in are_new]

    async def _changes(self, cursor: int) -> tuple[int, list[State]]:
        known, overlapped = self._own.known(cursor)
        arguments = [PREFIX, cursor, msgpack.encode(list(known))]
        last, changed = await self._scripts["changes"](args=arguments)
        self._own.follow(last)
        return last, list(overlapped.union(_states(changed)))

    async def _expire(self, now_s: float) -> None:
        for application in await self._client.smembers(PREFIX + "applications"):
            seen = f"{PREFIX}seen:{application.decode(errors='replace')}"
            # By name and not by rank: several workers do this at once.
            while over := await self._client.zrange(seen, "-inf", f"({now_s}", byscore=True, offset=0, num=EVICT_CHUNK):
                await self._client.zrem(seen, *over)

    async def _evict_ids(self, application: str, keep: int) -> int:
        key = f"{PREFIX}seen:{application}"
        over = min(await self._client.zcard(key) - keep, EVICT_CHUNK)
        # If two do this at once, both remove ids: what may be counted again was about to be forgotten anyway.
        return int(await self._client.zremrangebyrank(key, 0, over - 1)) if over > 0 else 0

    async def _drop(self, application: str) -> None:
        async for key in self._client.scan_iter(match=f"{PREFIX}sums:{_escaped(application)}/*", count=SCAN_CHUNK):
            state = key.decode(errors="replace").removeprefix(PREFIX + "sums:")
            await self._client.delete(key, f"{PREFIX}arrays:{state}")
            await self._client.zrem(PREFIX + "changes", state)
        await self._client.delete(f"{PREFIX}seen:{application}", f"{PREFIX}contexts:{application}")
        await self._client.srem(PREFIX + "applications", application)

    def _shown_url(self) -> str:
        scheme, _, rest = self._url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"


def _state(name: str) -> State:
    application, _, context = name.partition("/")
    return application, context


def _states(names: bytes) -> list[State]:
    return [_state(name.decode(errors="replace")) for name in names.split(b"\xff")] if names else []


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in text)
