"""Both stores, by the same tests, on real servers."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.errors import StoreUnavailable
from clipper.selection import stores
from clipper.selection.stores.redis import RedisStore
from clipper.selection.stores.sqlite import SCHEMA_VERSION, SqliteStore
from clipper.selection.stores.store import EVERYONE, TOLD_FOR_S, Amount, Observation, Store
from redis_server import RedisServer

MakeStore = Callable[[], Store]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        server.start()
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Opens the same store again each time, as another worker or a restarted one does."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "selection.sqlite3")
    server: RedisServer = request.getfixturevalue("redis_server")
    subprocess.run(["redis-cli", "-p", str(server.port), "flushall"], check=True, stdout=subprocess.DEVNULL)
    return lambda: RedisStore(server.url)


def observation(name: str, context: str = "", application: str = "app-1", **increments: float) -> Observation:
    contexts = {EVERYONE: increments} | ({context: increments} if context else {})
    return Observation(name, application, contexts)


@asynccontextmanager
async def opened(make_store: MakeStore) -> AsyncIterator[Store]:
    store = make_store()
    try:
        yield store
    finally:
        await store.close()


def run(make_store: MakeStore, *commits: list[Observation]) -> list[list[bool]]:
    async def commit_all() -> list[list[bool]]:
        async with opened(make_store) as store:
            return [await store.commit(commit) for commit in commits]

    return asyncio.run(commit_all())


def load(make_store: MakeStore, application: str = "app-1", context: str = EVERYONE) -> dict[str, Amount]:
    async def load_one() -> dict[str, Amount]:
        async with opened(make_store) as store:
            return await store.load(application, context)

    return asyncio.run(load_one())


def test_increments_add_up(make_store: MakeStore) -> None:
    run(make_store, [observation("a", x=1.0, y=0.5), observation("b", x=2.0)], [observation("c", y=-0.25)])

    assert load(make_store) == {"x": 3.0, "y": 0.25}


def test_a_state_that_was_never_added_to_is_empty(make_store: MakeStore) -> None:
    assert load(make_store) == {}


def test_the_same_feedback_counts_once_within_a_batch_and_over_batches(make_store: MakeStore) -> None:
    answers = run(make_store, [observation("a", x=1.0), observation("a", x=1.0)], [observation("a", x=1.0)])

    assert answers == [[True, False], [False]]
    assert load(make_store) == {"x": 1.0}


def test_the_same_id_in_another_application_is_other_feedback(make_store: MakeStore) -> None:
    run(make_store, [observation("a", x=1.0), observation("a", application="app-2", x=5.0)])

    assert load(make_store, "app-2") == {"x": 5.0}


def test_contexts_are_apart_whatever_they_are_called(make_store: MakeStore) -> None:
    names = ["user/7", "user*", "user?[1]", "üser ☃", "a" * 500, '"', "\\"]
    run(make_store, [observation(name, name, x=float(index)) for index, name in enumerate(names)])

    assert [load(make_store, context=name) for name in names] == [{"x": float(index)} for index in range(len(names))]


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


def test_each_id_is_kept_for_as_long_as_its_sender_said(tmp_path: Path, redis_server: RedisServer) -> None:
    """Whoever clears up: of two Clippers on one store, neither knows how long the other's feedback may come."""

    async def scenario(here: Store, there: Store, clock: list[float]) -> list[list[bool]]:
        short, long = observation("a", x=1.0), Observation("a", "app-2", {EVERYONE: {"x": 1.0}}, keep_s=5000.0)
        await there.commit([short, long])
        are_new = []
        for passed_s in (500.0, 200.0, 4000.0, 1000.0):
            clock[0] += passed_s
            await here.expire()
            are_new.append(await there.commit([short, long]))
        await here.close()
        await there.close()
        return are_new

    for make in (partial(SqliteStore, tmp_path / "timed.sqlite3"), partial(RedisStore, redis_server.url)):
        subprocess.run(["redis-cli", "-p", str(redis_server.port), "flushall"], check=True, stdout=subprocess.DEVNULL)
        clock = [1000.0]
        here, there = (make(wall_clock_s=lambda: clock[0]) for _ in range(2))  # noqa: B023  # used up in this round
        expected = [[False, False], [True, False], [True, False], [True, True]]
        assert asyncio.run(scenario(here, there, clock)) == expected


def test_a_dropped_application_leaves_nothing_and_takes_nothing_along(make_store: MakeStore) -> None:
    async def drop() -> None:
        async with opened(make_store) as store:
            await store.commit([observation("a", "user", x=1.0), observation("b", application="app-10", x=2.0)])
            await store.drop("app-1")

    asyncio.run(drop())

    assert load(make_store) == load(make_store, context="user") == {}
    assert load(make_store, "app-10") == {"x": 2.0}
    assert run(make_store, [observation("a", x=1.0)]) == [[True]]


def test_numbers_keep_their_digits(make_store: MakeStore) -> None:
    """Redis keeps 17 after the point, so small numbers lose some."""
    numbers = {"x": 0.1, "y": 1.0 / 3, "z": 2.0**52 + 1}
    run(make_store, [observation("a", small=1e-6 / 3, **numbers)])

    kept = load(make_store)

    assert kept.pop("small") == pytest.approx(1e-6 / 3, rel=1e-9)
    assert kept == numbers


def test_many_writers_at_once_lose_nothing(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # All at once is more than workers do: on a slow disk the last one's turn comes late.
    monkeypatch.setattr("clipper.selection.stores.sqlite.BUSY_TIMEOUT_S", 60.0)

    async def write() -> None:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(make_store)) for _ in range(4)]
            await asyncio.gather(
                *(
                    store.commit([observation(f"{writer}-{batch}-{index}", x=1.0) for index in range(10)])
                    for batch in range(10)
                    for writer, store in enumerate(stores)
                )
            )

    asyncio.run(write())

    assert load(make_store) == {"x": 400.0}


def test_a_file_of_a_newer_clipper_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "selection.sqlite3"

    async def use() -> dict[str, float]:
        async with opened(lambda: SqliteStore(path)) as store:
            await store.commit([Observation("one", "a", {"": {"x": 1.0}})])
            return await store.load("a", "")

    asyncio.run(use())
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreUnavailable, match=rf"schema version {SCHEMA_VERSION + 1}.*run the Clipper that wrote it"):
        asyncio.run(use())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT amount FROM sums").fetchall() == [(1.0,)]
        database.execute("PRAGMA user_version = 0")  # as one from before versions were noted
    asyncio.run(use())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_workers_that_open_a_new_file_at_once_all_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.selection.stores.sqlite.BUSY_TIMEOUT_S", 60.0)

    async def open_all(path: Path) -> list[dict[str, float]]:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(lambda: SqliteStore(path))) for _ in range(4)]
            return await asyncio.gather(*(store.load("app-1", EVERYONE) for store in stores))

    for number in range(40):
        assert asyncio.run(open_all(tmp_path / f"{number}.sqlite3")) == [{}] * 4


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1000, 1000)), max_size=20), st.randoms())
def test_the_order_of_increments_does_not_matter(increments: list[tuple[str, int]], random: Random) -> None:
    shuffled = increments.copy()
    random.shuffle(shuffled)

    assert _sums_of(increments) == _sums_of(shuffled)


def _sums_of(increments: list[tuple[str, int]]) -> dict[str, float]:
    async def add() -> dict[str, float]:
        async with opened(lambda: SqliteStore(Path(":memory:"))) as store:
            await store.commit([observation(str(i), **{name: float(n)}) for i, (name, n) in enumerate(increments)])
            return await store.load("app-1", EVERYONE)

    return asyncio.run(add())


WRITER = """
import asyncio, sys
from pathlib import Path
from clipper.selection.stores.redis import RedisStore
from clipper.selection.stores.sqlite import SqliteStore
from clipper.selection.stores.store import Observation

async def write():
    store = RedisStore(sys.argv[1]) if sys.argv[1].startswith("redis:") else SqliteStore(Path(sys.argv[1]))
    for number in range(100_000):
        await store.commit([Observation(f"{number}", "app-1", {"": {"x": 1.0}})])
        print(number + 1, flush=True)

asyncio.run(write())
"""


def acknowledged_before_kill(address: str, count: int, kill_also: Callable[[], None]) -> int:
    """Let another process commit one by one, kill it and what it writes to; return what it was told is durable."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ
    ) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(count)]
        kill_also()
        writer.kill()
        lines += writer.stdout.readlines()
    return max(int(line) for line in lines if line.endswith(b"\n"))


def test_acknowledged_feedback_survives_a_kill_of_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "selection.sqlite3"

    acknowledged = acknowledged_before_kill(str(path), 200, lambda: None)

    assert load(lambda: SqliteStore(path))["x"] >= acknowledged


def test_acknowledged_feedback_survives_a_kill_of_redis(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.start("--appendfsync", "everysec")

        acknowledged = acknowledged_before_kill(server.url, 3, server.kill)
        server.start()

        assert load(lambda: RedisStore(server.url))["x"] >= acknowledged


def test_a_store_that_is_down_says_so_and_recovers_by_itself(tmp_path: Path) -> None:
    async def use(server: RedisServer) -> dict[str, float]:
        async with opened(lambda: RedisStore(server.url)) as store:
            with pytest.raises(StoreUnavailable):
                await store.commit([observation("a", x=1.0)])
            server.start()
            await store.commit([observation("a", x=1.0)])
            return await store.load("app-1", EVERYONE)

    with RedisServer(tmp_path) as server:
        assert asyncio.run(use(server)) == {"x": 1.0}


def test_a_redis_that_keeps_nothing_on_disk_is_refused(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, pytest.raises(StoreUnavailable, match="appendonly"):
        server.start("--appendonly", "no")
        run(lambda: RedisStore(server.url), [observation("a", x=1.0)])


def test_a_broken_file_is_reported_and_used_again_once_it_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "selection.sqlite3"
    path.write_bytes(b"this is not a database" * 100)

    async def use() -> list[bool]:
        async with opened(lambda: SqliteStore(path)) as store:
            with pytest.raises(StoreUnavailable, match="not a database"):
                await store.commit([observation("a", x=1.0)])
            path.unlink()
            return await store.commit([observation("a", x=1.0)])

    assert asyncio.run(use()) == [True]


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


def test_many_states_are_read_at_once(make_store: MakeStore) -> None:
    """As a list of feedback in new contexts does: more than Redis's client opens connections."""
    names = [f"c{number}" for number in range(500)]

    async def read() -> list[dict[str, Amount]]:
        async with opened(make_store) as store:
            await store.commit([observation(name, name, x=1.0) for name in names])
            return await asyncio.gather(*(store.load("app-1", name) for name in names))

    assert asyncio.run(read()) == [{"x": 1.0}] * 500


def test_expired_ids_go_in_pieces(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (stores.sqlite, stores.redis):
        monkeypatch.setattr(kind, "EVICT_CHUNK", 3)

    async def scenario(store: Store, clock: list[float]) -> list[bool]:
        told = [Observation(f"{number}", "expired", {}, keep_s=10.0) for number in range(7)]
        told.append(Observation("young", "expired", {}, keep_s=30.0))
        await store.commit(told)
        clock[0] += 20.0
        await store.expire()
        found = await store.commit(told)
        await store.close()
        return found

    for make in (partial(SqliteStore, tmp_path / "expired.sqlite3"), partial(RedisStore, redis_server.url)):
        clock = [1000.0]
        found = asyncio.run(scenario(make(wall_clock_s=lambda: clock[0]), clock))  # noqa: B023  # it is over then
        assert found == [True] * 7 + [False]


def test_a_key_of_another_kind_costs_its_own_state_alone(redis_server: RedisServer) -> None:
    async def scenario() -> list[dict[str, Amount] | BaseException]:
        store = RedisStore(redis_server.url)
        await store.commit([observation("kind", "well", x=1.0)])
        found = await asyncio.gather(*(store.load("app-1", name) for name in ("well", "ill")), return_exceptions=True)
        await store.close()
        return found

    set_text = ["redis-cli", "-p", str(redis_server.port), "set", "clipper:selection:sums:app-1/ill", "text"]
    subprocess.run(set_text, check=True, stdout=subprocess.DEVNULL)
    well, ill = asyncio.run(scenario())
    assert well == {"x": 1.0}
    assert isinstance(ill, StoreUnavailable)


def test_a_file_of_before_counts_were_kept_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "selection.sqlite3"

    def make_store() -> Store:
        return SqliteStore(path)

    run(make_store, [observation(f"{number}", f"c{number}", x=1.0) for number in range(5)])
    with closing(sqlite3.connect(path)) as database:
        for trigger in ("context_added", "context_deleted", "id_added", "id_deleted"):
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("DROP TABLE counted")
        database.execute("PRAGMA user_version = 2")
        database.execute("DELETE FROM changes WHERE context = 'c0'")
        database.commit()

    async def counted() -> list[int]:
        async with opened(make_store) as store:
            evicted = await store.evict("app-1", 2)
            return [evicted, (await store.contexts("app-1", 0))[0], await store.evict_ids("app-1", 2)]

    assert asyncio.run(counted()) == [2, 2, 3]


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


def test_ids_beyond_the_bound_go_in_the_order_of_their_time(make_store: MakeStore) -> None:
    async def scenario() -> tuple[list[int], list[bool]]:
        async with opened(make_store) as store:
            ids = [
                Observation(str(number), "app-1", {EVERYONE: {"x": 1.0}}, keep_s=900.0 - number) for number in range(5)
            ]
            other = observation("0", application="app-10", x=1.0)
            await store.commit([*ids, other])
            went = [await store.evict_ids("app-1", keep) for keep in (5, 3, 3)]
            return went, await store.commit([*ids, other])

    assert asyncio.run(scenario()) == ([0, 2, 0], [False, False, False, True, True, False])


def arrays(name: str, context: str = "", **increments: list[float] | float) -> Observation:
    amounts = {key: np.array(each) if isinstance(each, list) else each for key, each in increments.items()}
    return Observation(name, "app-1", {EVERYONE: amounts} | ({context: amounts} if context else {}))


def test_arrays_add_up_beside_numbers_and_duplicates_do_not(make_store: MakeStore) -> None:
    """Also of more doubles than Lua's stack has room for."""
    long = [float(number) / 3 for number in range(4096)]
    first = arrays("a", x=1.0, s=[0.1, -1e300], long=long)
    run(make_store, [first, first, arrays("b", s=[0.2, 1e300])], [arrays("c", s=[1e-9, 5e-324]), first])

    found = load(make_store)
    assert found.keys() == {"x", "s", "long"} and found["x"] == 1.0
    assert np.array_equal(found["s"], np.array([0.1, -1e300]) + np.array([0.2, 1e300]) + np.array([1e-9, 5e-324]))
    assert np.array_equal(found["long"], long)


def test_arrays_go_with_their_state(make_store: MakeStore) -> None:
    async def leave() -> list[dict[str, Amount]]:
        async with opened(make_store) as store:
            await store.commit([arrays("a", "ada", x=1.0, s=[1.0]), arrays("b", "bob", x=1.0, s=[1.0], t=[2.0])])
            await store.forget_context("app-1", "ada")
            await store.forget("app-1", "bob", ["s"])
            left = [await store.load("app-1", context) for context in ("ada", "bob")]
            await store.drop("app-1")
            return [*left, await store.load("app-1", "bob"), await store.load("app-1", EVERYONE)]

    ada, bob, dropped, everyone = asyncio.run(leave())
    assert (ada, dropped, everyone) == ({}, {}, {})
    assert bob == {"x": 1.0, "t": np.array([2.0])}


def test_arrays_of_many_writers_at_once_are_all_there(make_store: MakeStore) -> None:
    async def write() -> None:
        async with opened(make_store) as one, opened(make_store) as other:
            writing = [
                store.commit([arrays(f"{number}-{index}", s=[1.0, float(number)])])
                for number in range(20)
                for index, store in enumerate((one, other))
            ]
            await asyncio.gather(*writing)

    asyncio.run(write())
    assert np.array_equal(load(make_store)["s"], [40.0, 380.0])
