"""Answered queries in Redis: feedback finds them there when the worker that answered has ended.

The queries of a thousand ids are one hash, with what they share. Redis removes it when its last query is too old for
feedback. Writes do not wait for the disk: if Redis itself fails, the latest queries may be lost.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

# The ids of a hash: so many that keys take little, and so few that evicted queries are removed soon.
BLOCK_IDS = 1024


class RedisQueries:
    """See ``stores.store.Queries``. ``attempt`` turns Redis' errors into StoreUnavailable."""

    def __init__(
        self, client: Any, prefix: str, attempt: Callable[[Awaitable[list[Any]]], Awaitable[list[Any]]]
    ) -> None:
        self._client = client
        self._prefix = f"{prefix}queries:"
        self._attempt = attempt
        # The hashes of this worker, the oldest first.
        self._blocks: deque[int] = deque()

    async def keep(
        self, queries: Mapping[int, tuple[bytes, bytes]], shared: Mapping[bytes, bytes], keep_s: float, evicted: int
    ) -> None:
        blocks: dict[int, dict[bytes, bytes]] = {}
        for id_, (name, text) in queries.items():
            blocks.setdefault(id_ // BLOCK_IDS, {})[b"%d" % id_] = name + b" " + text
        pipeline = self._client.pipeline(transaction=False)
        for block, fields in blocks.items():
            key = self._key(block)
            pipeline.hset(key, mapping=fields)
            for name in {text.partition(b" ")[0] for text in fields.values()}:
                pipeline.hsetnx(key, name, shared[name])
            # The first sets a time, the second makes it longer: a hash has queries of several applications.
            pipeline.expire(key, int(keep_s) + 1, nx=True)
            pipeline.expire(key, int(keep_s) + 1, gt=True)
        self._blocks += sorted(blocks.keys() - set(self._blocks))
        while self._blocks and (self._blocks[0] + 1) * BLOCK_IDS - 1 <= evicted:
            pipeline.unlink(self._key(self._blocks.popleft()))
        await self._attempt(pipeline.execute())

    async def find(self, ids: Collection[int]) -> dict[int, tuple[bytes, bytes]]:
        texts = await self._read([(id_ // BLOCK_IDS, b"%d" % id_) for id_ in ids])
        split = {id_: text.partition(b" ") for id_, text in zip(ids, texts) if text is not None}
        places = list({(id_ // BLOCK_IDS, name) for id_, (name, _, _) in split.items()})
        shared = dict(zip(places, await self._read(places)))
        found = {id_: (text, shared[id_ // BLOCK_IDS, name]) for id_, (name, _, text) in split.items()}
        return {id_: (text, part) for id_, (text, part) in found.items() if part is not None}

    async def _read(self, places: list[tuple[int, bytes]]) -> list[bytes | None]:
        pipeline = self._client.pipeline(transaction=False)
        for block, field in places:
            pipeline.hget(self._key(block), field)
        return await self._attempt(pipeline.execute()) if places else []

    def _key(self, block: int) -> str:
        return f"{self._prefix}{block}"
