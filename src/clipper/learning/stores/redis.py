"""A store in Redis, for Clippers on several machines: the extra ``clipper-serving[redis]``.

A state is a hash of numbers, and its arrays, as packed doubles, are another hash. A script adds some observations as a
whole. An observation is acknowledged once Redis has it on disk: see ``durable_redis``.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from time import time
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import msgpack
from redis.exceptions import RedisError, ResponseError

from clipper.base.durable_redis import check_on_disk, disk_wait, open_async_client, why_it_evicts
from clipper.base.known_ids import Known
from clipper.base.masking import without_password
from clipper.errors import StoreUnavailable
from clipper.learning.stores import redis_scripts
from clipper.learning.stores.gathered_reads import GatheredReads, Read, State
from clipper.learning.stores.own_changes import OwnChanges
from clipper.learning.stores.redis_mailbox import RedisMailbox
from clipper.learning.stores.redis_queries import RedisQueries
from clipper.learning.stores.store import EVICT_CHUNK, FLOAT, TOLD_AT_ONCE, TOLD_FOR_S, Amount, Observation

T = TypeVar("T")

log = logging.getLogger(__name__)

# All keys begin with this, so that Clipper can share a Redis with others.
PREFIX = "clipper:selection:"
# The file of a home with the address and the id of the store that its workers knew last.
STORE_ID_NAME = "store.id"
# Keys in one step of a scan, so that Redis serves others in between.
SCAN_CHUNK = 1000

# The types of the amounts of an observation without arrays; arrays are sent separately.
_NUMBERS_ALONE = frozenset({float})

# The answers of the scripts.
_COMMITTED = msgpack.Decoder(tuple[list[int], int, str])
_NUMBERS = msgpack.Decoder(list[dict[str, float] | list[tuple[str, float]] | bool])


class RedisStore:
    """See ``Store``. An application's id must not contain '/'; a context may."""

    # While a script of some milliseconds runs, Redis reads nothing for queries.
    commit_at_once = 200

    def __init__(self, url: str, wall_clock_s: Callable[[], float] = time, known: Known | None = None) -> None:
        """Open nothing yet. ``known`` keeps the store's id. Raises ValueError if the address is malformed."""
        self._address = without_password(url)
        self._known = known or Known()
        self._wall_clock_s = wall_clock_s
        self._own = OwnChanges()
        self._was_looked_at = False
        self._client: Any = open_async_client(url)
        self._reads = GatheredReads(lambda states: self._attempt(self._read(states)))
        # The names of commits that may not be on disk yet.
        self._unsynced: list[str] = []
        self._scripts: dict[str, Any] = {
            name: self._client.register_script(text)
            for name, text in {
                "commit": redis_scripts.COMMIT,
                "written": redis_scripts.WRITTEN,
                "read": redis_scripts.READ,
                "changes": redis_scripts.CHANGES,
                "evict": redis_scripts.EVICT,
                "forget": redis_scripts.FORGET_CONTEXT,
            }.items()
        }

    async def commit(self, observations: Sequence[Observation]) -> list[bool]:
        return await self._attempt(self._commit(observations))

    async def sync(self) -> None:
        unsynced, self._unsynced = self._unsynced, []
        if unsynced:
            await self._attempt(self._sync(unsynced))

    async def _commit(self, observations: Sequence[Observation]) -> list[bool]:
        if not self._was_looked_at:
            if why := why_it_evicts(await self._client.info("memory")):
                log.error(
                    "selection store %(address)s forgets learned state: %(reason)s",
                    {"address": self._address, "reason": why},
                )
            self._was_looked_at = True
        batch: list[tuple[Any, ...]] = []
        packed: list[bytes] = []
        # Most observations add to the same few sets of names, which are sent once.
        sets_of_names: dict[tuple[str, ...], int] = {}
        for each in observations:
            arrays: list[tuple[str, str, int]] = []
            sums: list[tuple[str, int, list[Amount]]] = []
            for context, increments in each.increments.items():
                amounts = increments
                if not _NUMBERS_ALONE.issuperset(map(type, increments.values())):
                    amounts = {}
                    for name, amount in increments.items():
                        if isinstance(amount, np.ndarray):
                            packed.append(amount.astype(FLOAT).tobytes())
                            arrays.append((context, name, redis_scripts.BEFORE_ARRAYS + len(packed)))
                        else:
                            amounts[name] = float(amount)
                names = sets_of_names.setdefault(tuple(amounts), len(sets_of_names) + 1)
                sums.append((context, names, list(amounts.values())))
            batch.append((each.id or "", each.application, each.keep_s, sums, arrays))
        name, encoded = secrets.token_hex(8), msgpack.encode((list(sets_of_names), batch))
        arguments = [PREFIX, self._wall_clock_s(), name, encoded, int(TOLD_FOR_S), *packed]
        are_new, revision, id_ = _COMMITTED.decode(await self._run("commit", arguments))
        self._known.write(self._address, id_)
        self._unsynced.append(name)
        if revision >= 0:
            self._own.commit(revision)
        return [bool(is_new) for is_new in are_new]

    async def _sync(self, names: Sequence[str]) -> None:
        # Redis writes its file in order, but WAITAOF waits only for the writes of its own connection: so it is sent
        # with a write. If the connection breaks, both are sent again.
        pipeline = self._client.pipeline(transaction=False)
        await self._scripts["written"](args=[PREFIX, self._wall_clock_s(), *names], client=pipeline)
        pipeline.execute_command(*disk_wait())
        known, written = await pipeline.execute()
        if known < len(names):
            raise StoreUnavailable(
                f"selection store {self._address} has lost the latest feedback: Redis was restarted or replaced"
            )
        check_on_disk(written)

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
        arguments = [PREFIX, application, int(TOLD_FOR_S), context]
        return bool(await self._attempt(self._scripts["forget"](args=arguments)))

    async def evict(self, application: str, keep: int) -> int:
        arguments = [PREFIX, application, int(TOLD_FOR_S), keep, EVICT_CHUNK]
        return int(await self._attempt(self._scripts["evict"](args=arguments)))

    async def drop(self, application: str) -> None:
        await self._attempt(self._drop(application))

    def mailbox(self, instance: int) -> RedisMailbox:
        return RedisMailbox(self._client, PREFIX, instance)

    def queries(self) -> RedisQueries:
        return RedisQueries(self._client, PREFIX, self._attempt)

    async def close(self) -> None:
        await self._reads.close()
        await self._client.aclose()

    async def _read(self, states: Sequence[State]) -> list[Read]:
        names = [f"{application}/{context}" for application, context in states]
        numbers, *arrays = await self._run("read", [PREFIX, *names])
        try:
            found: list[Read] = [
                StoreUnavailable(f"selection store {self._address} has no state at {name!r}")
                if isinstance(each, bool)
                else dict[str, Amount](each)
                for name, each in zip(names, _NUMBERS.decode(numbers))
            ]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # Somebody else wrote a name that is no text: only its own state cannot be read.
            if len(states) > 1:
                return [each for state in states for each in await self._read([state])]
            return [StoreUnavailable(f"selection store {self._address} has no state at {names[0]!r}")]
        for place, flat in zip(arrays[::2], arrays[1::2]):
            amounts = found[place]
            assert isinstance(amounts, dict)
            try:
                named = {name.decode(): np.frombuffer(packed, FLOAT) for name, packed in zip(flat[::2], flat[1::2])}
            except ValueError:
                found[place] = StoreUnavailable(f"selection store {self._address} has no state at {names[place]!r}")
            else:
                amounts.update(named)
        return found

    async def _attempt(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"selection store {self._address} cannot be used: {error}") from error

    async def _run(self, name: str, arguments: Sequence[Any]) -> Any:
        """Run a script in the store that this home has known. An emptied store takes nothing: it would be gone once an
        operator has given Redis its file back. Raises StoreUnavailable if it is another store."""
        known = self._known.read(self._address)
        while True:
            try:
                return await self._scripts[name](args=[*arguments, known])
            except ResponseError as error:
                if redis_scripts.ANOTHER not in str(error):
                    raise
                before, known = known, self._known.read_again(self._address)
                if known == before:
                    raise StoreUnavailable(
                        f"selection store {self._address} is not the store that this server knows: Redis was emptied, "
                        "or another Redis has its address. Restore its data; or, to begin anew, remove the file "
                        f"{STORE_ID_NAME} from the server's home"
                    ) from error

    async def _changes(self, cursor: int) -> tuple[int, list[State]]:
        bounds = [TOLD_AT_ONCE, redis_scripts.REVISIONS_AT_ONCE]
        arguments = [PREFIX, cursor, msgpack.encode(list(self._own.known(cursor))), *bounds]
        last, changed, id_ = await self._run("changes", arguments)
        self._known.write(self._address, id_.decode(errors="replace"))
        self._own.follow(last)
        return last, _states(changed)

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
        await self._client.delete(f"{PREFIX}seen:{application}", f"{PREFIX}contexts:{application}")
        await self._client.srem(PREFIX + "applications", application)


def _states(names: bytes) -> list[State]:
    """Return the states that the names stand for, each only once."""
    split = (name.decode(errors="replace").partition("/") for name in names.split(b"\xff"))
    return list(dict.fromkeys((application, context) for application, _, context in split)) if names else []


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in text)
