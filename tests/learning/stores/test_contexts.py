"""Which contexts both stores keep, and what they say of changes."""

import asyncio
import subprocess
from pathlib import Path

import pytest
import redis

from clipper.learning import stores
from clipper.learning.stores.gathered_reads import State
from clipper.learning.stores.redis import PREFIX, RedisStore
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import EVERYONE, TOLD_FOR_S
from tests.learning.stores.kept_states import MakeStore, load, observation, opened, run
from tests.redis_server import RedisServer


def test_changes_name_the_states_that_were_added_to(make_store: MakeStore) -> None:
    async def follow() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        async with opened(make_store) as reader, opened(make_store) as writer:
            await writer.commit([observation("a", "before", x=1.0)])
            cursor, nothing = await reader.changes(-1)
            await writer.commit([observation("b", "after", x=1.0)])
            _, changed = await reader.changes(cursor)
            return nothing, changed

    nothing, changed = asyncio.run(follow())

    assert nothing == []
    assert sorted(changed) == [("app-1", ""), ("app-1", "after")]


def test_contexts_beyond_the_bound_go_in_the_order_of_their_last_feedback(make_store: MakeStore) -> None:
    async def evict() -> tuple[list[int], list[tuple[str, str]]]:
        async with opened(make_store) as store, opened(make_store) as reader:
            for number, context in enumerate(["a", "b", "c", "", "a", "d"]):
                await store.commit([observation(str(number), context, x=1.0)])
            await store.commit([observation("other", "b", application="app-10", x=1.0)])
            cursor, _ = await reader.changes(-1)
            went = [await store.evict("app-1", keep) for keep in (4, 2, 2)]
            _, changed = await reader.changes(cursor)
            return went, changed

    went, changed = asyncio.run(evict())
    assert went == [0, 2, 0]
    assert sorted(changed) == [("app-1", "b"), ("app-1", "c")]
    assert [bool(load(make_store, context=context)) for context in ("a", "b", "c", "d", "")] == [1, 0, 0, 1, 1]
    assert load(make_store, "app-10", "b") == {"x": 1.0}
    # One that comes back begins anew, as the youngest.
    run(make_store, [observation("again", "b", x=5.0)])
    assert load(make_store, context="b") == {"x": 5.0}


def test_very_many_contexts_go_in_pieces(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stores.sqlite, stores.redis):
        monkeypatch.setattr(module, "EVICT_CHUNK", 10)

    async def evict() -> list[int]:
        async with opened(make_store) as store:
            await store.commit([observation(str(number), f"user {number}", x=1.0) for number in range(25)])
            return [await store.evict("app-1", 3) for _ in range(4)]

    assert asyncio.run(evict()) == [10, 10, 2, 0]


def test_what_was_told_is_kept_for_a_while_only(tmp_path: Path) -> None:
    async def scenario() -> list[list[State]]:
        clock = [1000.0]
        async with opened(lambda: SqliteStore(tmp_path / "timed.sqlite3", lambda: clock[0])) as store:
            for context in ("a", "b"):
                await store.commit([observation(context, context, x=1.0)])
            cursor, _ = await store.changes(-1)
            await store.evict("app-1", 1)
            found = []
            for later_s in (TOLD_FOR_S - 1, 2.0):
                clock[0] += later_s
                await store.evict("app-1", 1)
                await store.expire()
                found.append((await store.changes(cursor))[1])
            return found

    assert asyncio.run(scenario()) == [[("app-1", "a")], []]


def test_what_was_told_is_kept_for_a_while_only_in_redis(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with opened(lambda: RedisStore(redis_server.url)) as store:
            await store.commit([observation(context, context, x=1.0) for context in "abc"])
            await store.evict("app-1", 2)
            await store.forget_context("app-1", "b")

    redis = ["redis-cli", "-p", str(redis_server.port)]
    subprocess.run([*redis, "flushall"], check=True, stdout=subprocess.DEVNULL)
    asyncio.run(scenario())
    for revision in range(1, 4):
        key = [f"clipper:selection:change:{revision}"]
        left_s = int(subprocess.run([*redis, "ttl", *key], check=True, capture_output=True, text=True).stdout)
        assert 0 < left_s <= TOLD_FOR_S


def test_contexts_are_listed_by_last_feedback_and_forgotten_singly(make_store: MakeStore) -> None:
    async def scenario() -> None:
        async with opened(make_store) as store:
            assert await store.contexts("app-1", 10) == (0, [])
            for number, context in enumerate(["a/b", "ü", "", "a/b", "c"]):
                await store.commit([observation(str(number), context, x=1.0)])
            assert await store.contexts("app-1", 2) == (3, ["c", "a/b"])
            cursor, _ = await store.changes(-1)
            assert [await store.forget_context("app-1", context) for context in ("a/b", "a/b", "none")] == [
                True,
                False,
                False,
            ]
            assert await store.contexts("app-1", 10) == (2, ["c", "ü"])
            assert await store.load("app-1", "a/b") == {} and await store.load("app-1", EVERYONE) == {"x": 5.0}
            assert ("app-1", "a/b") in (await store.changes(cursor))[1]

    asyncio.run(scenario())


def test_others_changes_are_told_and_only_this_workers_own_are_not(make_store: MakeStore) -> None:
    async def scenario() -> None:
        async with opened(make_store) as here, opened(make_store) as there:
            await there.commit([observation("0", "shared", x=1.0)])
            cursor, _ = await here.changes(-1)
            await here.commit([observation("1", "mine", x=1.0), observation("2", "new", x=1.0)])
            cursor, changed = await here.changes(cursor)
            assert changed == []
            # Theirs comes between two of its own, and would be hidden by the second.
            await here.commit([observation("3", "mine", x=1.0)])
            await there.commit([observation("4", "mine", x=1.0), observation("5", "theirs", x=1.0)])
            await here.commit([observation("6", "mine", x=1.0), observation("7", "new", x=1.0)])
            before, (cursor, changed) = cursor, await here.changes(cursor)
            assert sorted(changed) == [("app-1", ""), ("app-1", "mine"), ("app-1", "theirs")]
            # If what was told could not be read, all of it is told again, and what was changed since.
            await here.commit([observation("8", "mine", x=1.0)])
            _, changed = await here.changes(before)
            assert {context for _, context in changed} == {"", "mine", "new", "theirs"}

    asyncio.run(scenario())


def test_very_many_changes_are_told_in_pieces(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stores.sqlite_changes, stores.redis):
        monkeypatch.setattr(module, "TOLD_AT_ONCE", 7)

    async def scenario() -> list[list[str]]:
        async with opened(make_store) as reader, opened(make_store) as writer:
            cursor, _ = await reader.changes(-1)
            for number in range(6):
                await writer.commit([observation(f"{number}{one}", f"{number}{one}", x=1.0) for one in "ab"])
            await writer.evict("app-1", 9)
            told = []
            for _ in range(5):
                cursor, changed = await reader.changes(cursor)
                told.append(sorted(context for _, context in changed))
            return told

    told = asyncio.run(scenario())
    assert all(len(each) < 2 * 7 for each in told) and len([each for each in told if each]) > 1 and told[-1] == []
    contexts = {context for each in told for context in each if context}
    assert contexts == {f"{number}{one}" for number in range(6) for one in "ab"}


def test_a_worker_held_up_for_long_hears_of_all_contexts_in_redis(redis_server: RedisServer) -> None:
    """Redis has removed the keys of changes by then."""
    client = redis.Redis(port=redis_server.port)

    async def scenario() -> None:
        async with (
            opened(lambda: RedisStore(redis_server.url)) as here,
            opened(lambda: RedisStore(redis_server.url)) as there,
        ):
            await there.commit([observation("0", "before", x=1.0)])
            cursor, _ = await here.changes(-1)
            await there.commit([observation("1", "a", x=1.0), observation("2", "b", application="app-2", x=1.0)])
            await there.commit([observation("3", "c", x=1.0)])
            client.delete(*(f"{PREFIX}change:{cursor + after}" for after in (1, 2)))
            last, changed = await here.changes(cursor)
            told = {("app-1", ""), ("app-1", "a"), ("app-1", "c"), ("app-2", ""), ("app-2", "b")}
            assert (last, set(changed)) == (cursor + 2, told)
            assert await here.changes(last) == (last, [])

    with client:
        client.flushall()
        asyncio.run(scenario())
