"""The default store: one SQLite file in the home, shared by the workers.

Each batch of observations is one transaction, on a thread, so that the event loop never waits for a disk.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from time import time
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipper.errors import StoreUnavailable
from clipper.learning.stores.gathered_reads import GatheredReads, Read, State
from clipper.learning.stores.own_changes import OwnChanges
from clipper.learning.stores.sqlite_changes import changes, tell
from clipper.learning.stores.sqlite_connection import LOG_BYTES, Connection, begin_log_anew, copy_log
from clipper.learning.stores.sqlite_ids import note_ids
from clipper.learning.stores.sqlite_rows import (
    TEXTS,
    Key,
    add_array,
    by_application,
    delete_contexts,
    insert,
    keep_texts,
    key_of,
    names_of,
    select,
)
from clipper.learning.stores.sqlite_transactions import transaction
from clipper.learning.stores.sqlite_upkeep import UPGRADED_AFTER_S, give_back, is_moving, move_some
from clipper.learning.stores.store import EVERYONE, EVICT_CHUNK, FLOAT, TOLD_FOR_S, Amount, Observation

log = logging.getLogger(__name__)

# Transactions of upkeep in one call of ``expire``, so that its caller soon goes on.
UPKEEP_AT_ONCE = 10


class SqliteStore:
    """See ``Store``. It opens the file when it is first used, and again after an error.

    Reads, commits and copies of the log have a thread and a connection each: queries wait for reads, senders of
    feedback for commits, and nobody for copies.
    """

    # One transaction: some tens of milliseconds, of which the disk takes most, during which other workers wait.
    commit_at_once = 1000

    def __init__(self, path: Path, wall_clock_s: Callable[[], float] = time) -> None:
        self._wall_clock_s = wall_clock_s
        self._reading = Connection(path, "selection-store-reads")
        self._writing = Connection(path, "selection-store-writes")
        self._copying = Connection(path, "selection-store-log")
        self._log = path.with_name(f"{path.name}-wal")
        self._log_bound_bytes = LOG_BYTES
        self._beginning_log: asyncio.Task[None] | None = None
        self._opened_s = wall_clock_s()
        # The last long context of earlier Clippers that was moved; None if there are none left.
        self._moved: tuple[str, Key] | None = ("", EVERYONE)
        self._own = OwnChanges()
        self._reads = GatheredReads(lambda states: self._reading.run(lambda database: _load(database, states)))

    async def commit(self, observations: Sequence[Observation]) -> list[bool]:
        work = partial(_commit, observations=observations, now_s=self._wall_clock_s())
        are_new, revision = await self._writing.run(work)
        if revision is not None:
            self._own.commit(revision)
        log_bytes = self._log_bytes()
        if log_bytes > self._log_bound_bytes and self._beginning_log is None:
            self._beginning_log = asyncio.get_running_loop().create_task(self._begin_log_anew())
        self._log_bound_bytes = min(self._log_bound_bytes, log_bytes + LOG_BYTES)
        return are_new

    async def _begin_log_anew(self) -> None:
        try:
            await self._copying.run(copy_log)
            await self._writing.run(begin_log_anew)
        except StoreUnavailable as error:
            log.warning("the log of the selection store could not be copied: %(reason)s", {"reason": error})
        self._log_bound_bytes = self._log_bytes() + LOG_BYTES
        self._beginning_log = None

    async def sync(self) -> None:
        """Return at once: each commit has waited for the disk."""

    async def load(self, application: str, context: str) -> dict[str, Amount]:
        return await self._reads.load(application, context)

    async def load_many(self, application: str, contexts: Sequence[str]) -> list[Read]:
        return await self._reads.load_many(application, contexts)

    async def changes(self, cursor: int) -> tuple[int, list[State]]:
        own = self._own.known(cursor)
        last, changed = await self._reading.run(lambda database: changes(database, cursor, own))
        self._own.follow(last)
        return last, changed

    async def forget(self, application: str, context: str, names: Sequence[str]) -> None:
        rows = [(application, key, name) for key in names_of(context) for name in names]
        await self._writing.run(lambda database: _forget_names(database, rows))

    async def expire(self) -> None:
        now_s = self._wall_clock_s()
        while await self._writing.run(lambda database: _expire(database, now_s)) == EVICT_CHUNK:
            pass  # a chunk at a time, so that others commit in between
        for _ in range(UPKEEP_AT_ONCE):
            after = self._moved
            if after is None or now_s - self._opened_s < UPGRADED_AFTER_S:
                break
            self._moved = await self._writing.run(partial(move_some, after=after))
        for _ in range(UPKEEP_AT_ONCE):
            if not await self._writing.run(give_back):
                break

    async def evict_ids(self, application: str, keep: int) -> int:
        return await self._writing.run(lambda database: _evict_ids(database, application, keep))

    async def contexts(self, application: str, limit: int) -> tuple[int, list[str]]:
        return await self._reading.run(lambda database: _contexts(database, application, limit))

    async def forget_context(self, application: str, context: str) -> bool:
        now_s = self._wall_clock_s()
        return await self._writing.run(lambda database: _forget(database, [(application, context)], now_s)) > 0

    async def evict(self, application: str, keep: int) -> int:
        return await self._writing.run(lambda database: _evict(database, application, keep, self._wall_clock_s()))

    async def drop(self, application: str) -> None:
        while await self._writing.run(lambda database: _drop_some(database, application)):
            pass  # a chunk at a time, so that others commit in between
        await self._writing.run(lambda database: _drop_rest(database, application))

    def mailbox(self, instance: int) -> None:
        """Return None: the workers of its one server reach each other directly."""

    def queries(self) -> None:
        """Return None, for the same reason."""

    async def close(self) -> None:
        await self._reads.close()
        if self._beginning_log is not None:
            await self._beginning_log
        for connection in (self._reading, self._writing, self._copying):
            await connection.close()

    def _log_bytes(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0


def _commit(
    database: sqlite3.Connection, observations: Sequence[Observation], now_s: float
) -> tuple[list[bool], int | None]:
    """Commit observations; return which are new, and the revision if anything has changed."""
    with transaction(database):
        are_new = note_ids(database, observations, now_s)
        fresh = [each for each, is_new in zip(observations, are_new) if is_new]
        return are_new, _add(database, fresh, now_s) if fresh else None


def _add(database: sqlite3.Connection, observations: Iterable[Observation], now_s: float) -> int:
    """Add increments; return the revision."""
    sums: dict[tuple[str, Key, str], float] = {}
    arrays: dict[tuple[str, Key, str], NDArray[np.float64]] = {}
    states: dict[State, Key] = {}
    for observation in observations:
        for context, increments in observation.increments.items():
            if not increments:
                continue
            state = observation.application, context
            context_key = states.get(state)
            if context_key is None:
                context_key = states[state] = key_of(context)
            for name, amount in increments.items():
                key = observation.application, context_key, name
                if not isinstance(amount, np.ndarray):
                    sums[key] = sums.get(key, 0.0) + amount
                else:
                    arrays[key] = arrays[key] + amount if key in arrays else amount
    insert(
        database,
        "INSERT INTO sums VALUES {rows} "
        "ON CONFLICT (application, context, name) DO UPDATE SET amount = amount + excluded.amount",
        [(*key, amount) for key, amount in sums.items()],
    )
    for key, amounts in arrays.items():
        add_array(database, key, amounts)
    keep_texts(database, states)
    revision = tell(database, states, now_s)
    insert(
        database,
        "INSERT INTO changes VALUES {rows} "
        "ON CONFLICT (application, context) DO UPDATE SET revision = excluded.revision",
        [(application, key, revision) for (application, _), key in states.items()],
    )
    if any(isinstance(key, bytes) for key in states.values()) and is_moving(database):
        # The part of a context that an earlier Clipper wrote is as young as the rest of it.
        full = [(revision, *state) for state, key in states.items() if isinstance(key, bytes)]
        database.executemany("UPDATE changes SET revision = ? WHERE application = ? AND context = ?", full)
    return revision


def _load(database: sqlite3.Connection, states: Sequence[State]) -> list[Read]:
    """Read both tables at one moment."""
    found: dict[State, dict[str, Amount]] = {state: {} for state in states}
    with transaction(database, "DEFERRED"):
        for application, contexts in by_application(found).items():
            of_keys = {key_of(context): found[application, context] for context in contexts}
            if any(isinstance(key, bytes) for key in of_keys) and is_moving(database):
                of_keys |= {context: found[application, context] for context in contexts}
            names, where = list(of_keys), "WHERE application = ? AND context IN"
            for key, name, amount in select(
                database, f"SELECT context, name, amount FROM sums {where}", application, names
            ):
                amounts = of_keys[key]
                amounts[name] = amounts[name] + amount if name in amounts else amount
            for key, name, packed in select(
                database, f"SELECT context, name, amounts FROM arrays {where}", application, names
            ):
                amounts, array = of_keys[key], np.frombuffer(packed, FLOAT)
                amounts[name] = amounts[name] + array if name in amounts else array
    return [found[state] for state in states]


def _evict(database: sqlite3.Connection, application: str, keep: int, now_s: float) -> int:
    over = _count(database, application, "contexts") - keep
    if over <= 0:
        return 0
    # The state that was added to last has the highest revision.
    oldest = database.execute(f"{TEXTS} ORDER BY revision LIMIT ?", (application, EVERYONE, min(over, EVICT_CHUNK)))
    return _forget(database, [(application, context) for (context,) in oldest], now_s)


def _expire(database: sqlite3.Connection, now_s: float) -> int:
    database.execute("DELETE FROM told WHERE at_s < ?", (now_s - TOLD_FOR_S,))
    over = (
        "DELETE FROM seen_until WHERE (application, id) IN (SELECT application, id FROM seen_until "
        "INDEXED BY seen_until_by_time WHERE until_s < ? LIMIT ?)"
    )
    return database.execute(over, (now_s, EVICT_CHUNK)).rowcount


def _evict_ids(database: sqlite3.Connection, application: str, keep: int) -> int:
    over = _count(database, application, "ids") - keep
    if over <= 0:
        return 0
    soonest = (
        "DELETE FROM seen_until WHERE application = ?1 AND id IN (SELECT id FROM seen_until "
        "INDEXED BY seen_until_of_application WHERE application = ?1 ORDER BY until_s LIMIT ?2)"
    )
    return database.execute(soonest, (application, min(over, EVICT_CHUNK))).rowcount


def _forget(database: sqlite3.Connection, states: Sequence[State], now_s: float) -> int:
    """Forget states, with everything that was added to them in the meantime."""
    names = [(application, name) for application, context in states for name in names_of(context)]
    with transaction(database):
        gone = delete_contexts(database, names)
        tell(database, states, now_s)
    return gone


def _contexts(database: sqlite3.Connection, application: str, limit: int) -> tuple[int, list[str]]:
    latest = f"{TEXTS} ORDER BY revision DESC, changes.context LIMIT ?"
    found = dict.fromkeys(context for (context,) in database.execute(latest, (application, EVERYONE, limit)))
    return _count(database, application, "contexts"), list(found)


def _count(database: sqlite3.Connection, application: str, kind: Literal["contexts", "ids"]) -> int:
    counted = "SELECT count FROM counted WHERE application = ? AND kind = ?"
    found = database.execute(counted, (application, kind)).fetchone()
    return 0 if found is None else int(found[0])


def _forget_names(database: sqlite3.Connection, rows: Sequence[tuple[str, Key, str]]) -> None:
    with transaction(database):
        for table in ("sums", "arrays"):
            database.executemany(f"DELETE FROM {table} WHERE application = ? AND context = ? AND name = ?", rows)


def _drop_some(database: sqlite3.Connection, application: str) -> int:
    """Forget some rows of a removed application; return their number."""
    with transaction(database):
        some = "SELECT context FROM changes WHERE application = ? AND context != ? LIMIT ?"
        found = database.execute(some, (application, EVERYONE, EVICT_CHUNK))
        names = [(application, name) for (name,) in found]
        delete_contexts(database, names)
        ids = (
            "DELETE FROM seen_until WHERE application = ?1 AND id IN "
            "(SELECT id FROM seen_until WHERE application = ?1 LIMIT ?2)"
        )
        return len(names) + database.execute(ids, (application, EVICT_CHUNK)).rowcount


def _drop_rest(database: sqlite3.Connection, application: str) -> None:
    for table in ("sums", "arrays", "changes", "long_contexts", "seen_until", "counted"):
        database.execute(f"DELETE FROM {table} WHERE application = ?", (application,))
