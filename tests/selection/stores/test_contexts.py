"""Which contexts both stores keep, and what they say of changes."""

import asyncio
import subprocess
from functools import partial
from pathlib import Path

import pytest
from kept_states import MakeStore, load, observation, opened, run

from clipper.selection import stores
from clipper.selection.stores.redis import RedisStore
from clipper.selection.stores.sqlite import SqliteStore
from clipper.selection.stores.store import EVERYONE, TOLD_FOR_S, Store
from redis_server import RedisServer


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


def test_those_that_went_are_told_of_for_a_while_only(tmp_path: Path, redis_server: RedisServer) -> None:
    async def scenario(store: Store, clock: list[float]) -> list[tuple[str, str]]:
        for context in ("a", "b"):
            await store.commit([observation(context, context, x=1.0)])
        cursor, _ = await store.changes(-1)
        await store.evict("app-1", 1)
        clock[0] += TOLD_FOR_S + 1
        await store.evict("app-1", 1)
        _, changed = await store.changes(cursor)
        await store.close()
        return changed

    for make in (partial(SqliteStore, tmp_path / "timed.sqlite3"), partial(RedisStore, redis_server.url)):
        subprocess.run(["redis-cli", "-p", str(redis_server.port), "flushall"], check=True, stdout=subprocess.DEVNULL)
        clock = [1000.0]
        assert asyncio.run(scenario(make(wall_clock_s=lambda: clock[0]), clock)) == []  # noqa: B023  # it is over then


def test_contexts_are_listed_by_their_last_feedback_and_forgotten_one_by_one(make_store: MakeStore) -> None:
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


def test_what_others_change_is_told_and_what_only_this_worker_changed_is_not(make_store: MakeStore) -> None:
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
    for module in (stores.sqlite, stores.redis):
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
    # Redis counts those that went by themselves.
    assert all(len(each) < 2 * 7 for each in told) and len([each for each in told if each]) > 1 and told[-1] == []
    contexts = [context for each in told for context in each if context]
    assert sorted(contexts) == sorted(f"{number}{one}" for number in range(6) for one in "ab")
