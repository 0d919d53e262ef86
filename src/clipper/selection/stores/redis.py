"""A store in Redis, for Clippers on several machines: the extra ``clipper-serving[redis]``.

A state is a hash that HINCRBYFLOAT adds to, and its arrays, as packed doubles, are another hash. A script makes each
batch of observations atomic. Redis must keep an append-only file: an observation is acknowledged once WAITAOF reports
it on disk. With ``appendfsync everysec`` that takes up to a second; with ``always``, as long as the disk does.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from time import time
from typing import Any, TypeVar

import numpy as np
import redis.asyncio as redis
from redis.exceptions import RedisError

from clipper.errors import StoreUnavailable
from clipper.selection.stores.gathered_reads import GatheredReads, Read, State
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
_BEFORE_ARRAYS = 3

# ARGV: prefix, wall clock, observations as JSON, then arrays of little-endian doubles, which "arrays" of each
# observation references by context, name and index. All that a batch adds to an array is added at once.
# Doubles are packed and unpacked 200 at a time, since Lua's stack has room for some thousand.
# It always writes something: WAITAOF waits for the writes of its own connection, and the first attempt at a batch may
# have been on another one.
_COMMIT = """
local prefix, now_s = ARGV[1], ARGV[2]
local are_new, revision, totals = {}, nil, {}
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
redis.call('SET', prefix .. 'last_commit', now_s)
for index, each in ipairs(cjson.decode(ARGV[3])) do
  local seen = prefix .. 'seen:' .. each.application
  are_new[index] = redis.call('ZADD', seen, 'NX', string.format('%.17g', now_s + each.keep_s), each.id)
  if are_new[index] == 1 then
    redis.call('SADD', prefix .. 'applications', each.application)
    revision = revision or redis.call('INCR', prefix .. 'revision')
    for _, array in ipairs(each.arrays) do
      local key = prefix .. 'arrays:' .. each.application .. '/' .. array[1]
      totals[key] = totals[key] or {}
      totals[key][array[2]] = totals[key][array[2]] or {}
      add(totals[key][array[2]], ARGV[array[3]])
    end
    for context, increments in pairs(each.increments) do
      local state = each.application .. '/' .. context
      for name, amount in pairs(increments) do
        redis.call('HINCRBYFLOAT', prefix .. 'sums:' .. state, name, string.format('%.17g', amount))
      end
      redis.call('ZADD', prefix .. 'changes', revision, state)
      if context ~= '' then
        redis.call('ZADD', prefix .. 'contexts:' .. each.application, revision, context)
      end
    end
  end
end
for key, arrays in pairs(totals) do
  for name, numbers in pairs(arrays) do
    local known = redis.call('HGET', key, name)
    if known then add(numbers, known) end
    redis.call('HSET', key, name, pack(numbers))
  end
end
return are_new
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


class RedisStore:
    """See ``Store``. An application's id must not contain '/'; a context may."""

    def __init__(self, url: str, wall_clock_s: Callable[[], float] = time) -> None:
        self._url = url
        self._wall_clock_s = wall_clock_s
        # Any: redis-py declares its results for both kinds of decoding and of waiting at once.
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, decode_responses=True
        )
        # For arrays, which are binary.
        self._binary: Any = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        self._reads = GatheredReads(lambda states: self._attempt(self._read(states)))
        self._script = self._client.register_script(_COMMIT)
        self._evict = self._client.register_script(_EVICT)
        self._forget_context = self._client.register_script(_FORGET_CONTEXT)

    async def commit(self, observations: Sequence[Observation]) -> list[bool]:
        batch: list[dict[str, Any]] = []
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
            facts = {"id": each.id, "application": each.application, "keep_s": each.keep_s}
            batch.append({**facts, "increments": numbers, "arrays": arrays})
        return await self._attempt(self._commit(json.dumps(batch), packed))

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
        return int(await self._attempt(self._client.zcard(key))), list(found)

    async def forget_context(self, application: str, context: str) -> bool:
        arguments: list[str | int | float] = [PREFIX, self._wall_clock_s(), application, context]
        return bool(await self._attempt(self._forget_context(args=arguments)))

    async def evict(self, application: str, keep: int) -> int:
        now_s = self._wall_clock_s()
        arguments: list[str | int | float] = [PREFIX, now_s, application, keep, EVICT_CHUNK, now_s - TOLD_FOR_S]
        return int(await self._attempt(self._evict(args=arguments)))

    async def drop(self, application: str) -> None:
        await self._attempt(self._drop(application))

    async def close(self) -> None:
        await self._reads.close()
        await self._client.aclose()
        await self._binary.aclose()

    async def _read(self, states: Sequence[State]) -> list[Read]:
        pipe = self._binary.pipeline(transaction=False)
        for application, context in states:
            pipe.hgetall(f"{PREFIX}sums:{application}/{context}")
            pipe.hgetall(f"{PREFIX}arrays:{application}/{context}")
        answers = await pipe.execute(raise_on_error=False)
        found: list[Read] = []
        for state, numbers, arrays in zip(states, answers[::2], answers[1::2]):
            if isinstance(numbers, RedisError) or isinstance(arrays, RedisError):
                name = "/".join(state)
                found.append(StoreUnavailable(f"selection store {self._shown_url()} has no state at {name!r}"))
                continue
            amounts: dict[str, Amount] = {name.decode(): float(amount) for name, amount in numbers.items()}
            amounts.update((name.decode(), np.frombuffer(packed, FLOAT)) for name, packed in arrays.items())
            found.append(amounts)
        return found

    async def _attempt(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"selection store {self._shown_url()} cannot be used: {error}") from error

    async def _commit(self, batch: str, arrays: Sequence[bytes]) -> list[bool]:
        # WAITAOF refers to the writes of its own connection.
        async with self._client.client() as connection:
            are_new = await self._script(args=[PREFIX, self._wall_clock_s(), batch, *arrays], client=connection)
            synced, _ = await connection.execute_command("WAITAOF", 1, 0, DISK_TIMEOUT_MS)
        if not synced:
            raise StoreUnavailable(f"Redis did not write to disk within {DISK_TIMEOUT_MS} ms")
        return [bool(is_new) for is_new in are_new]

    async def _changes(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        last = int(await self._client.get(PREFIX + "revision") or 0)
        if cursor in (-1, last):
            return last, []
        changed = await self._client.zrange(PREFIX + "changes", f"({cursor}", last, byscore=True)
        forgotten = await self._client.zrange(PREFIX + "forgotten", f"({cursor}", last, byscore=True)
        pairs = [state.partition("/") for state in {*changed, *forgotten}]
        return last, [(application, context) for application, _, context in pairs]

    async def _expire(self, now_s: float) -> None:
        for application in await self._client.smembers(PREFIX + "applications"):
            seen = f"{PREFIX}seen:{application}"
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
            state = key.removeprefix(PREFIX + "sums:")
            await self._client.delete(key, f"{PREFIX}arrays:{state}")
            await self._client.zrem(PREFIX + "changes", state)
        await self._client.delete(f"{PREFIX}seen:{application}", f"{PREFIX}contexts:{application}")
        await self._client.srem(PREFIX + "applications", application)

    def _shown_url(self) -> str:
        scheme, _, rest = self._url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in text)
