"""The upkeep of the SQLite file: replaces long contexts by digests, and gives free pages back."""

import contextlib
import sqlite3

import numpy as np

from clipper.learning.stores.sqlite_rows import LONGEST_IN_FULL, Key, add_array, keep_texts, key_of
from clipper.learning.stores.sqlite_schema import MOVING_VERSION, SCHEMA_VERSION
from clipper.learning.stores.sqlite_transactions import transaction
from clipper.learning.stores.store import FLOAT

# Workers of an earlier Clipper are gone this long after the first worker of this one. While they share the file, they
# look for long contexts in full.
UPGRADED_AFTER_S = 600.0
# Contexts that are looked at, and long contexts that are moved, in a transaction: some tens of milliseconds.
LOOKED_AT_ONCE = 2000
MOVED_AT_ONCE = 200

PAGE_BYTES = 4096
# Free pages are used for new rows. The file is made shorter only if most of it is free, which does not pass by itself.
LEAST_FREE_BYTES = 64 * 1024 * 1024
LEAST_FREE_SHARE = 0.25
# Pages that are given back in a transaction: some tens of milliseconds.
GIVEN_BACK_AT_ONCE = 1000
# A file of an earlier Clipper can only be rewritten as a whole, while commits wait, for 5 s at most: a slow disk took
# 1.8 s for 108 MB. With the default bound, an application's contexts with the longest names take 220 MB.
REWRITTEN_BYTES = 256 * 1024 * 1024


def is_moving(database: sqlite3.Connection) -> bool:
    """Whether there may be long contexts in full, by earlier Clippers. These are read, too, and added up."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return bool(version == MOVING_VERSION)


def move_some(database: sqlite3.Connection, after: tuple[str, Key]) -> tuple[str, Key] | None:
    """Replace the next long contexts that are stored in full by their digests.

    Return the place to go on from; None once all are done. The file is consistent after each call, and a kill during a
    call undoes it. ``after``: the result of the last call; at first two empty texts.
    """
    with transaction(database):
        if not is_moving(database):
            return None
        query = "SELECT application, context FROM changes WHERE (application, context) > (?, ?) ORDER BY 1, 2 LIMIT ?"
        found = database.execute(query, (*after, LOOKED_AT_ONCE)).fetchall()
        left = MOVED_AT_ONCE
        for application, context in found:
            if isinstance(context, str) and len(context) > LONGEST_IN_FULL:
                _move(database, application, context)
                left -= 1
                if not left:
                    return application, context
        if len(found) == LOOKED_AT_ONCE:
            return found[-1][0], found[-1][1]
        # By this table, earlier Clippers told each other what was evicted.
        database.execute("DROP TABLE IF EXISTS forgotten")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return None


def _move(database: sqlite3.Connection, application: str, context: str) -> None:
    key = key_of(context)
    keep_texts(database, [(application, context)])
    moved = (key, application, context)
    database.execute(
        "INSERT INTO sums SELECT application, ?, name, amount FROM sums WHERE application = ? AND context = ? "
        "ON CONFLICT (application, context, name) DO UPDATE SET amount = amount + excluded.amount",
        moved,
    )
    arrays = "SELECT name, amounts FROM arrays WHERE application = ? AND context = ?"
    for name, packed in database.execute(arrays, moved[1:]).fetchall():
        add_array(database, (application, key, name), np.frombuffer(packed, FLOAT))
    database.execute(
        "INSERT INTO changes SELECT application, ?, revision FROM changes WHERE application = ? AND context = ? "
        "ON CONFLICT (application, context) DO UPDATE SET revision = max(revision, excluded.revision)",
        moved,
    )
    for table in ("sums", "arrays", "changes"):
        database.execute(f"DELETE FROM {table} WHERE application = ? AND context = ?", moved[1:])


def give_back(database: sqlite3.Connection) -> bool:
    """Give free pages back to the system, some at a time; return whether there may be more."""
    pages, free, keeps_track = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "auto_vacuum")
    )
    if free * PAGE_BYTES < LEAST_FREE_BYTES or free < LEAST_FREE_SHARE * pages:
        return False
    with contextlib.suppress(sqlite3.OperationalError):  # the disk is full, or others write for long: there is no hurry
        if keeps_track:
            # ``execute`` would take only the first step, which is one page.
            database.executescript(f"PRAGMA incremental_vacuum({GIVEN_BACK_AT_ONCE})")
            return True
        if (pages - free) * PAGE_BYTES <= REWRITTEN_BYTES:
            database.execute("VACUUM")
    return False
