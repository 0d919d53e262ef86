"""Transactions of the file that workers share: one worker writes at a time."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Literal

# Other workers' transactions, each of up to a thousand pieces of feedback, may come first; with millions of contexts a
# transaction takes a slow disk half a second. If the wait is longer, something is wrong with the disk.
BUSY_TIMEOUT_S = 5.0
# SQLite itself waits for up to 100 ms before it tries again to begin a transaction. That is as long as a transaction
# takes, and nobody would write meanwhile. A try costs 20 µs.
BEGIN_AGAIN_S = 0.002


@contextmanager
def transaction(database: sqlite3.Connection, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[None]:
    """Do everything in the block, or nothing."""
    if kind == "IMMEDIATE":
        _begin_writing(database)
    else:
        database.execute("BEGIN")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:  # an error that is not SQLite's would leave the file locked for other workers
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _begin_writing(database: sqlite3.Connection) -> None:
    """Begin a writing transaction as soon as no other connection has one."""
    give_up_s = monotonic() + BUSY_TIMEOUT_S
    database.execute(f"PRAGMA busy_timeout = {BEGIN_AGAIN_S * 1000:.0f}")
    try:
        while True:
            try:
                database.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or monotonic() > give_up_s:
                    raise
    finally:
        database.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")


def is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
