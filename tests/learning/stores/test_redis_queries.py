"""Answered queries in Redis."""

import asyncio

import pytest

from clipper.errors import StoreUnavailable
from clipper.learning.stores.redis import PREFIX, RedisStore
from clipper.learning.stores.redis_queries import BLOCK_IDS
from tests.redis_server import RedisServer

FIRST = 7 * BLOCK_IDS


def test_queries_are_found_with_what_they_share_until_they_are_evicted(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        store = RedisStore(redis_server.url)
        writer, reader = store.queries(), store.queries()
        first, next_, last = FIRST, FIRST + 1, FIRST + BLOCK_IDS
        await writer.keep({first: (b"a", b"one two")}, {b"a": b"A"}, 60.0, -1)
        await writer.keep({next_: (b"b", b""), last: (b"a", b"\x00")}, {b"a": b"A", b"b": b"B"}, 600.0, -1)
        everything = {first: (b"one two", b"A"), next_: (b"", b"B"), last: (b"\x00", b"A")}
        assert await reader.find([last, first, 1, next_]) == everything
        assert await reader.find([]) == {}
        # Another output has come.
        await writer.keep({first: (b"a", b"again")}, {b"a": b"A"}, 1.0, -1)
        assert (await reader.find([first]))[first] == (b"again", b"A")
        # A hash lives as long as the longest of its queries.
        key = f"{PREFIX}queries:{FIRST // BLOCK_IDS}"
        assert await store._client.ttl(key) > 500
        await writer.keep({last + 1: (b"a", b"x")}, {b"a": b"A"}, 60.0, last - 1)
        assert await reader.find([first, last]) == {last: (b"\x00", b"A")}
        # The part that queries share is gone, as in a Redis that was restored from an older file.
        await store._client.hdel(f"{PREFIX}queries:{last // BLOCK_IDS}", "a")
        assert await reader.find([last]) == {}
        await store.close()

    asyncio.run(scenario())


def test_a_redis_that_is_away_is_told() -> None:
    async def scenario() -> None:
        store = RedisStore("redis://127.0.0.1:1/0")
        with pytest.raises(StoreUnavailable):
            await store.queries().find([FIRST])
        with pytest.raises(StoreUnavailable):
            await store.queries().keep({FIRST: (b"a", b"")}, {b"a": b""}, 1.0, -1)
        await store.close()

    asyncio.run(scenario())
