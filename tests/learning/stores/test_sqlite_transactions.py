"""Transactions of several workers on one file."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clipper.learning.stores import sqlite_transactions
from clipper.learning.stores.sqlite_transactions import BUSY_TIMEOUT_S, is_busy, transaction


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "s", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
    return tmp_path / "s"


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        yield database


def rows(database: sqlite3.Connection) -> list[int]:
    return [x for (x,) in database.execute("SELECT x FROM t ORDER BY x")]


def busy_timeout_s(database: sqlite3.Connection) -> float:
    (ms,) = database.execute("PRAGMA busy_timeout").fetchone()
    return ms / 1000


def test_all_or_nothing(database: sqlite3.Connection) -> None:
    with transaction(database):
        database.execute("INSERT INTO t VALUES (1)")
        database.execute("INSERT INTO t VALUES (2)")
    with pytest.raises(sqlite3.OperationalError), transaction(database):
        database.execute("INSERT INTO t VALUES (3)")
        database.execute("INSERT INTO nowhere VALUES (4)")
    assert rows(database) == [1, 2] and not database.in_transaction


def test_an_error_of_the_block_itself_undoes_it_and_frees_the_file(path: Path, database: sqlite3.Connection) -> None:
    with pytest.raises(ValueError, match="no array"), transaction(database):
        database.execute("INSERT INTO t VALUES (1)")
        raise ValueError("no array")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other, transaction(other):
        assert rows(other) == []


def test_workers_write_one_after_another(path: Path) -> None:
    def write(number: int) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as own:
            for step in range(50):
                with transaction(own):
                    own.execute("INSERT INTO t VALUES (?)", (number * 50 + step,))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with closing(sqlite3.connect(path)) as found:
        assert rows(found) == [*range(200)]


def test_who_waits_for_too_long_is_told_and_can_go_on(
    path: Path, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_transactions, "BUSY_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as found, transaction(database):
            raise AssertionError("it has not begun")
        assert is_busy(found.value)
        with transaction(database, "DEFERRED"):
            assert rows(database) == [], "who only reads does not wait"
        other.execute("ROLLBACK")
    with transaction(database):
        database.execute("INSERT INTO t VALUES (1)")
    assert rows(database) == [1]


def test_other_statements_wait_as_before(database: sqlite3.Connection) -> None:
    with transaction(database):
        assert busy_timeout_s(database) == BUSY_TIMEOUT_S
    assert busy_timeout_s(database) == BUSY_TIMEOUT_S


def test_another_error_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"this is no database" * 100)
    with closing(sqlite3.connect(tmp_path / "none", isolation_level=None)) as database:
        with pytest.raises(sqlite3.DatabaseError) as found, transaction(database):
            raise AssertionError("it has not begun")
        assert not is_busy(found.value)
