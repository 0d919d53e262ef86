import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from clipper.errors import StoreUnavailable
from clipper.learning.stores import sqlite, sqlite_connection
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.sqlite_schema import MOVING_VERSION, SCHEMA_VERSION
from clipper.learning.stores.store import EVERYONE, Observation, Store
from tests.learning.stores.kept_states import observation, opened, run
from tests.waiting import until_async


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
        database.execute("PRAGMA user_version = 4")  # the oldest
    asyncio.run(use())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (MOVING_VERSION,)


@pytest.mark.long
def test_workers_that_open_a_new_file_at_once_all_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.learning.stores.sqlite_connection.BUSY_TIMEOUT_S", 60.0)
    monkeypatch.setattr("clipper.learning.stores.sqlite_connection.ANSWER_WITHIN_S", 600.0)

    async def open_all(path: Path) -> list[dict[str, float]]:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(lambda: SqliteStore(path))) for _ in range(4)]
            return await asyncio.gather(*(store.load("app-1", EVERYONE) for store in stores))

    for number in range(40):
        assert asyncio.run(open_all(tmp_path / f"{number}.sqlite3")) == [{}] * 4


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


def test_a_worker_held_up_for_long_hears_of_all_contexts(tmp_path: Path) -> None:
    path = tmp_path / "selection.sqlite3"

    def make_store() -> Store:
        return SqliteStore(path)

    run(make_store, [observation(f"{number}", f"c{number}", x=1.0) for number in range(3)])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM told")

    async def changed() -> tuple[int, list[tuple[str, str]]]:
        async with opened(make_store) as store:
            return await store.changes(0)

    last, told = asyncio.run(changed())
    assert last == 1 and sorted(told) == [("app-1", ""), *(("app-1", f"c{number}") for number in range(3))]


def test_reads_do_not_wait_for_commits(tmp_path: Path) -> None:
    """A commit takes as long as the disk, and the transactions of other workers that come first."""
    path = tmp_path / "selection.sqlite3"

    async def scenario() -> None:
        async with opened(lambda: SqliteStore(path)) as store:
            await store.commit([observation("before", "ada", x=1.0)])
            cursor, _ = await store.changes(-1)
            with closing(sqlite3.connect(path, isolation_level=None)) as another:
                another.execute("BEGIN IMMEDIATE")
                committing = asyncio.ensure_future(store.commit([observation("after", "ada", x=1.0)]))
                assert await store.load("app-1", "ada") == {"x": 1.0}
                assert await store.load_many("app-1", ["ada", "none"]) == [{"x": 1.0}, {}]
                assert await store.contexts("app-1", 10) == (1, ["ada"])
                assert await store.changes(cursor) == (cursor, [])
                assert not committing.done()
                another.execute("COMMIT")
            assert await committing == [True]

    asyncio.run(scenario())


def test_the_write_ahead_log_has_a_bound_though_somebody_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipper.learning.stores.sqlite.LOG_BYTES", 200_000)
    monkeypatch.setattr("clipper.learning.stores.sqlite_connection.LOG_WAIT_S", 0.001)
    path, log = tmp_path / "selection.sqlite3", tmp_path / "selection.sqlite3-wal"

    async def scenario() -> int:
        async with opened(lambda: SqliteStore(path)) as store:
            await store.commit([observation("first", x=1.0)])
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM sums").fetchone()
                for number in range(30):
                    await store.commit([observation(f"a{number}", f"a{number}", x=1.0)])
                read_bytes = log.stat().st_size
            for number in range(30):
                await store.commit([observation(f"b{number}", f"b{number}", x=1.0)])
            assert len(await store.load("app-1", "b29")) == 1
            await until_async(lambda: log.stat().st_size < 400_000)
            return read_bytes

    assert asyncio.run(scenario()) > 400_000


class Disk:
    """A disk on which commits hang while they are ``held``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
        self._go_on, self.begun = threading.Event(), threading.Event()
        monkeypatch.setattr(sqlite, work, self._wait_for(getattr(sqlite, work)))

    def _wait_for(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def waiting(*arguments: Any, **others: Any) -> Any:
            self.begun.set()
            self._go_on.wait()
            return work(*arguments, **others)

        return waiting

    def go_on(self) -> None:
        self._go_on.set()


def test_a_disk_that_hangs_leaves_nobody_without_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, "_commit")

    async def scenario() -> None:
        store = SqliteStore(tmp_path / "selection.sqlite3")
        async with opened(lambda: store):
            cursor, _ = await store.changes(-1)
            monkeypatch.setattr(sqlite_connection, "ANSWER_WITHIN_S", 0.05)
            with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.05 s"):
                await store.commit([observation("late", x=1.0)])
            # Nobody waits for a call that is overdue already.
            monkeypatch.setattr(sqlite_connection, "ANSWER_WITHIN_S", 1e6)
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await store.commit([observation("refused", x=10.0)])
            disk.go_on()
            await until_async(lambda: store._writing._overdue is not None and store._writing._overdue.done())
            assert await store.commit([observation("late", x=1.0), observation("after", x=100.0)]) == [False, True]
            # The worker is told of the late write, whose success it did not see; the refused write was never made.
            assert await store.changes(cursor) == (2, [("app-1", EVERYONE)])
            assert await store.load("app-1", EVERYONE) == {"x": 101.0}

    asyncio.run(scenario())


def test_what_waited_behind_a_call_for_too_long_is_not_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, "_expire")

    async def scenario() -> None:
        async with opened(lambda: SqliteStore(tmp_path / "selection.sqlite3")) as store:
            upkeep = asyncio.ensure_future(store.expire())
            await until_async(disk.begun.is_set)
            monkeypatch.setattr(sqlite_connection, "ANSWER_WITHIN_S", 0.05)
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await store.commit([observation("gone", x=1.0)])
            monkeypatch.setattr(sqlite_connection, "ANSWER_WITHIN_S", 1e6)
            disk.go_on()
            await upkeep
            assert await store.load("app-1", EVERYONE) == {}
            assert await store.commit([observation("gone", x=1.0)]) == [True]

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("work", ["copy_log", "begin_log_anew"])
def test_no_commit_waits_for_the_log_to_be_copied_or_fails_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, work: str, fails: bool
) -> None:
    def no_room(database: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    if fails:
        monkeypatch.setattr(sqlite, work, no_room)
    monkeypatch.setattr(sqlite, "LOG_BYTES", 0)
    disk = Disk(monkeypatch, work)

    async def scenario() -> None:
        async with opened(lambda: SqliteStore(tmp_path / "selection.sqlite3")) as store:
            assert await store.commit([observation("first", x=1.0)]) == [True]
            await until_async(disk.begun.is_set)
            if work == "copy_log":
                assert await store.commit([observation("meanwhile", x=1.0)]) == [True]
            disk.go_on()
            assert await store.commit([observation("after", x=1.0)]) == [True]
            assert await store.load("app-1", EVERYONE) == {"x": 3.0 if work == "copy_log" else 2.0}

    asyncio.run(scenario())
    assert ("could not be copied" in caplog.text) is fails
