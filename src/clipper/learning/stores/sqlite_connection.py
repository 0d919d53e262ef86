"""A connection to the file of the store, on a thread of its own, with a bound on how long a call waits for it."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from clipper.errors import StoreUnavailable
from clipper.learning.stores.sqlite_schema import MOVING_VERSION, SCHEMA_VERSION, schema
from clipper.learning.stores.sqlite_transactions import BUSY_TIMEOUT_S, is_busy

T = TypeVar("T")

# Pages of the file that a connection holds; SQLite's default of 2 MB is little for a file with millions of contexts.
CACHE_KIB = 8 * 1024
# The store copies the write-ahead log to the file once it is this long, so that a page changed by many pieces of
# feedback is written once. A slow disk may take seconds for the copy, so others go on writing meanwhile. SQLite begins
# the log anew when a commit finds that all of it was copied. While several workers commit, no commit finds that, and
# the log would grow by 12 KB for each piece. So one worker then makes the others wait while it copies the rest, but not
# for long: somebody may be reading the file for a backup.
LOG_BYTES = 64 * 1024 * 1024
LOG_WAIT_S = 0.5
# A call waits for this long: for a transaction of upkeep, for other workers' transactions, and for a slow disk. A disk
# that hangs would otherwise leave whoever waits without an answer.
ANSWER_WITHIN_S = 10.0
# If two workers make a new file a WAL file at once, one fails without waiting; it tries again after this.
OPEN_AGAIN_S = 0.01


class Connection:
    """A connection to the file and the thread that it belongs to."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        # A call that had begun and was not done in time.
        self._overdue: Future[Any] | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Raises StoreUnavailable if the file cannot be used within ``ANSWER_WITHIN_S``; it may be used later."""
        if self._overdue is not None and not self._overdue.done():
            raise StoreUnavailable(self._late)
        attempt = self._executor.submit(self._attempt, work)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):  # wait_for drops a cancellation that comes with the answer
                return await asyncio.wrap_future(attempt)
        except TimeoutError as error:
            if not attempt.cancelled():
                self._overdue = attempt
            raise StoreUnavailable(self._late) from error

    @property
    def _late(self) -> str:
        return f"selection store {self._path} did not answer within {ANSWER_WITHIN_S:g} s: its disk is busy, or gone"

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._disconnect)
        self._executor.shutdown()

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._database is None:
                self._database = _connect(self._path)
            return work(self._database)
        except sqlite3.Error as error:
            # The next use opens the file again, which may have been repaired or replaced.
            self._disconnect()
            raise StoreUnavailable(f"selection store {self._path} cannot be used: {error}") from error

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _connect(path: Path) -> sqlite3.Connection:
    give_up_s = monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return _open(path)
        except sqlite3.Error as error:
            if not is_busy(error) or monotonic() > give_up_s:
                raise
        sleep(OPEN_AGAIN_S)


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        (can_give_back,) = database.execute("PRAGMA auto_vacuum").fetchone()
        if not can_give_back:  # in force from the beginning of a new file, or once an earlier Clipper's is written anew
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        # An acknowledged observation survives a power failure, not only a kill.
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        database.execute("PRAGMA wal_autocheckpoint = 0")  # commits would do it, and their senders wait for it
        # A log that grew while somebody read the file is cut once it can begin anew.
        database.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"selection store {path} has schema version {found}, this Clipper knows {SCHEMA_VERSION}: run the "
                "Clipper that wrote it, or a newer one; or restore a backup of it"
            )
        if found < MOVING_VERSION:
            database.executescript(schema(is_new=not found))
    except (sqlite3.Error, StoreUnavailable):
        database.close()
        raise
    return database


def copy_log(database: sqlite3.Connection) -> None:
    """Copy the write-ahead log to the file while others write."""
    database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def begin_log_anew(database: sqlite3.Connection) -> None:
    """Copy the rest of the write-ahead log and empty it, unless a reader takes longer than ``LOG_WAIT_S``."""
    database.execute(f"PRAGMA busy_timeout = {LOG_WAIT_S * 1000:.0f}")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    database.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")
