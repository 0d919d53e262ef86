"""Long contexts and ids of feedback: as any others to whoever uses a store, and of little weight in the SQLite file."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clipper.learning.stores import sqlite_upkeep
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.sqlite_rows import LONGEST_IN_FULL
from clipper.learning.stores.sqlite_schema import MOVING_VERSION, SCHEMA_VERSION
from clipper.learning.stores.sqlite_upkeep import UPGRADED_AFTER_S
from clipper.learning.stores.store import EVERYONE, Observation
from tests.learning.stores.earlier_file import EarlierWorker, names_in_rows
from tests.learning.stores.kept_states import MakeStore, load, observation, opened, run

# Those that a store may treat in two ways, and what would be the same if only their beginnings counted.
LONG = ["x" * LONGEST_IN_FULL, "x" * (LONGEST_IN_FULL + 1), "x" * 1000, "x" * 999 + "y", "ü/" * 400]


def test_a_long_context_is_as_any_other(make_store: MakeStore) -> None:
    async def scenario() -> None:
        async with opened(make_store) as here, opened(make_store) as there:
            cursor, _ = await there.changes(-1)
            for number, context in enumerate(LONG):
                await here.commit([observation(str(number), context, x=number + 1.0, y=1.0)])
            await here.commit([observation("again", LONG[2], x=10.0)])
            assert await there.contexts("app-1", 9) == (5, [LONG[2], LONG[4], LONG[3], LONG[1], LONG[0]])
            assert await there.load("app-1", LONG[2]) == {"x": 13.0, "y": 1.0}
            found = await there.load_many("app-1", [*LONG, "x", ""])
            assert [each and each["x"] for each in found] == [1.0, 2.0, 13.0, 4.0, 5.0, {}, 25.0]  # type: ignore[index]
            assert {context for _, context in (await there.changes(cursor))[1]} == {"", *LONG}
            cursor, _ = await there.changes(-1)
            assert await here.forget_context("app-1", LONG[2]) and not await here.forget_context("app-1", LONG[2])
            assert await here.evict("app-1", 2) == 2, "those whose last feedback is the oldest"
            assert await there.contexts("app-1", 9) == (2, [LONG[4], LONG[3]])
            assert {context for _, context in (await there.changes(cursor))[1]} == set(LONG[:3])
            await here.forget("app-1", LONG[3], ["x"])
            assert await there.load_many("app-1", LONG) == [{}, {}, {}, {"y": 1.0}, {"x": 5.0, "y": 1.0}]
            # One that comes back begins anew.
            await here.commit([observation("back", LONG[2], x=1.0)])
            assert await there.load("app-1", LONG[2]) == {"x": 1.0}
            await here.drop("app-1")
            assert await there.contexts("app-1", 9) == (0, []) and await there.load("app-1", LONG[4]) == {}

    asyncio.run(scenario())


def test_a_long_id_counts_once(make_store: MakeStore) -> None:
    ids = ["i" * 1000, "i" * 999 + "j", "i" * LONGEST_IN_FULL]
    first = [observation(id_, x=1.0) for id_ in (*ids, *ids)]
    assert run(make_store, first, first) == [[True] * 3 + [False] * 3, [False] * 6]
    assert load(make_store) == {"x": 3.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "selection.sqlite3"


def size_bytes(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
    return int(pages) * sqlite_upkeep.PAGE_BYTES


def contexts(first: int, count: int) -> list[str]:
    return [f"{number:1000d}" for number in range(first, first + count)]


def taught(context: str, id_: str | None = None) -> Observation:
    """With as many numbers as a policy keeps of two models."""
    numbers = {f"~/model-{model}:1/number-{number}": 1.0 for model in "ab" for number in range(6)}
    return Observation(id_, "app-1", {EVERYONE: numbers, context: numbers})


def test_the_text_of_a_context_and_of_an_id_is_in_the_file_once_at_most(path: Path) -> None:
    """In each row it took 66 KB of a context, and the id in three places some 13 KB."""
    run(lambda: SqliteStore(path), [taught(context) for context in contexts(0, 500)])
    a_context = size_bytes(path) / 500
    assert a_context < 5000
    # Its text, what is told of it for a minute, and twelve rows.
    run(lambda: SqliteStore(path), [taught("known", id_) for id_ in contexts(0, 500)])
    assert size_bytes(path) / 500 - a_context < 500


def test_contexts_that_come_and_go_take_what_those_before_them_have_left(path: Path) -> None:
    clock = [0.0]

    async def scenario() -> list[int]:
        sizes = []
        async with opened(lambda: SqliteStore(path, lambda: clock[0])) as store:
            for first in range(0, 3000, 300):
                await store.commit([taught(context) for context in contexts(first, 300)])
                clock[0] += 100.0  # what was told is kept for a minute
                await store.expire()
                while await store.evict("app-1", 300):
                    pass
                sizes.append(size_bytes(path))
            assert (await store.contexts("app-1", 0))[0] == 300
        return sizes

    sizes = asyncio.run(scenario())
    assert max(sizes) < 1.2 * sizes[2]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM long_contexts").fetchone() == (300,)


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bound in (("LEAST_FREE_BYTES", 1), ("LOOKED_AT_ONCE", 7), ("MOVED_AT_ONCE", 2)):
        monkeypatch.setattr(sqlite_upkeep, name, bound)
    monkeypatch.setattr("clipper.learning.stores.sqlite.UPKEEP_AT_ONCE", 10_000)


@pytest.mark.parametrize("is_of_earlier", [False, True])
def test_a_file_that_much_was_removed_from_becomes_shorter(
    path: Path, is_of_earlier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "LEAST_FREE_BYTES", 1)
    if is_of_earlier:
        with closing(EarlierWorker(path)):
            pass

    async def scenario() -> tuple[int, int]:
        async with opened(lambda: SqliteStore(path)) as store:
            await store.commit([taught(context) for context in contexts(0, 500)])
            await store.commit([observation("other", application="app-2", x=1.0)])
            before = size_bytes(path)
            await store.drop("app-1")
            await store.expire()
            assert await store.load("app-2", EVERYONE) == {"x": 1.0}
            return before, size_bytes(path)

    before, after = asyncio.run(scenario())
    # The file still holds the changes that workers were told of a moment ago.
    assert after < before / 2


@pytest.fixture
def earlier(path: Path) -> Iterator[EarlierWorker]:
    """It has taught contexts of all lengths, with an array, and goes on."""
    with closing(EarlierWorker(path)) as worker:
        worker.commit(LONG, "an id " * 20, x=1.0, y=2.0, a=np.array([1.0, 2.0]))
        worker.commit(["short", *contexts(0, 20)], x=1.0)
        yield worker


def test_workers_of_an_earlier_clipper_and_this_one_share_a_file(path: Path, earlier: EarlierWorker) -> None:
    """While a server is upgraded."""

    async def scenario() -> None:
        async with opened(lambda: SqliteStore(path)) as store:
            cursor, _ = await store.changes(-1)
            state = await store.load("app-1", LONG[2])
            assert (state["x"], state["y"], list(state["a"])) == (1.0, 2.0, [1.0, 2.0])  # type: ignore[arg-type]
            assert await store.commit([observation("an id " * 20, LONG[2], x=9.0)]) == [False]
            await store.commit([observation("new", LONG[2], x=10.0)])
            earlier.commit([LONG[2], LONG[0]], x=100.0)
            await store.expire()
            assert (await store.load("app-1", LONG[2]))["x"] == 111.0
            assert earlier.load(LONG[2]) == {"x": 101.0, "y": 2.0}, "it has not lost what it goes by"
            assert {("app-1", LONG[2]), ("app-1", LONG[0])} <= set((await store.changes(cursor))[1])
            assert {"", LONG[2]} <= earlier.told_since(cursor)
            _, listed = await store.contexts("app-1", 100)
            assert len(listed) == 26 and set(LONG) <= set(listed)
            # The context that was taught last is not evicted as old because of earlier feedback on it.
            evicted = await store.evict("app-1", 3)
            assert evicted and (await store.load("app-1", LONG[2]))["x"] == 111.0
            assert await store.forget_context("app-1", LONG[2]) and await store.load("app-1", LONG[2]) == {}
            assert earlier.load(LONG[2]) == {}

    asyncio.run(scenario())


@pytest.mark.usefixtures("small_bounds")
def test_after_the_upgrade_long_contexts_get_digests(path: Path, earlier: EarlierWorker) -> None:
    clock = [0.0]

    async def scenario() -> None:
        async with opened(lambda: SqliteStore(path, lambda: clock[0])) as store:
            await store.commit([observation("new", LONG[2], x=10.0)])
            names = [*LONG, "short", *contexts(0, 20), ""]
            before, listed = await store.load_many("app-1", names), await store.contexts("app-1", 100)
            clock[0] += UPGRADED_AFTER_S - 1
            await store.expire()
            assert LONG[3] in names_in_rows(path), "an earlier worker may still look for it"
            clock[0] += 1
            await store.expire()
            for found, known in zip(await store.load_many("app-1", names), before, strict=True):
                assert isinstance(found, dict) and isinstance(known, dict)
                assert found.keys() == known.keys()
                assert all(np.array_equal(found[name], known[name]) for name in found)
            counted, still_listed = await store.contexts("app-1", 100)
            assert (counted, sorted(still_listed)) == (26, sorted(listed[1]))
            assert listed[0] == 27, "it was counted twice while there was something of it under both"

    asyncio.run(scenario())
    in_rows = names_in_rows(path)
    assert len(in_rows) == 27 and {name for name in in_rows if isinstance(name, str)} == {"", LONG[0], "short"}
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert not database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'forgotten'").fetchall()


MOVER = """
import asyncio, sys
from pathlib import Path
from clipper.learning.stores import sqlite, sqlite_upkeep
from clipper.learning.stores.sqlite import SqliteStore

sqlite.UPKEEP_AT_ONCE = sqlite_upkeep.MOVED_AT_ONCE = 1
clock = [0.0]

async def move():
    store = SqliteStore(Path(sys.argv[1]), lambda: clock[0])
    clock[0] = sqlite_upkeep.UPGRADED_AFTER_S
    while sys.stdin.readline():
        await store.expire()
        print("moved", flush=True)

asyncio.run(move())
"""


def test_a_kill_while_long_contexts_are_moved_loses_nothing(path: Path) -> None:
    names = contexts(0, 400)
    with closing(EarlierWorker(path)) as earlier:
        earlier.commit(names, x=1.0, y=2.0)

    def version() -> int:
        with closing(sqlite3.connect(path)) as database:
            return int(database.execute("PRAGMA user_version").fetchone()[0])

    async def states() -> list[object]:
        async with opened(lambda: SqliteStore(path)) as store:
            assert sorted((await store.contexts("app-1", 1000))[1]) == sorted(names)
            return [*await store.load_many("app-1", names)]

    for _ in range(5):
        command = [sys.executable, "-c", MOVER, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as mover:
            assert mover.stdin is not None and mover.stdout is not None
            mover.stdin.write(b"\n" * 20)
            mover.stdin.flush()
            for _ in range(10):  # it is killed while it moves the next ones
                assert mover.stdout.readline()
            mover.kill()
        assert asyncio.run(states()) == [{"x": 1.0, "y": 2.0}] * 400
        assert version() == MOVING_VERSION
    in_full = [name for name in names_in_rows(path) if isinstance(name, str) and name]
    assert 0 < len(in_full) < 400 - 10
