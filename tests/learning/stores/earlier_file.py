"""A SQLite file of the fourth version of the tables, and a worker of that Clipper, which names all contexts in full."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
from msgspec import msgpack

from clipper.learning.stores.store import EVERYONE, Amount

SCHEMA = """
CREATE TABLE sums (
    application TEXT, context TEXT, name TEXT, amount REAL NOT NULL,
    PRIMARY KEY (application, context, name)
) WITHOUT ROWID;
CREATE TABLE arrays (
    application TEXT, context TEXT, name TEXT, amounts BLOB NOT NULL,
    PRIMARY KEY (application, context, name)
);
CREATE TABLE changes (
    application TEXT, context TEXT, revision INTEGER NOT NULL,
    PRIMARY KEY (application, context)
) WITHOUT ROWID;
CREATE INDEX changes_of_application ON changes (application, revision);
CREATE TABLE forgotten (
    application TEXT, context TEXT, revision INTEGER NOT NULL, at_s REAL NOT NULL,
    PRIMARY KEY (application, context)
) WITHOUT ROWID;
CREATE INDEX forgotten_by_revision ON forgotten (revision);
CREATE INDEX forgotten_by_time ON forgotten (at_s);
CREATE TABLE revision (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), last INTEGER NOT NULL);
INSERT INTO revision VALUES (0, 0);
CREATE TABLE told (revision INTEGER PRIMARY KEY, at_s REAL NOT NULL, states BLOB NOT NULL);
CREATE TABLE seen_until (
    application TEXT, id TEXT, until_s REAL NOT NULL,
    PRIMARY KEY (application, id)
) WITHOUT ROWID;
CREATE INDEX seen_until_by_time ON seen_until (until_s);
CREATE INDEX seen_until_of_application ON seen_until (application, until_s);
CREATE TABLE counted (
    application TEXT, kind TEXT, count INTEGER NOT NULL,
    PRIMARY KEY (application, kind)
) WITHOUT ROWID;
CREATE TRIGGER context_added AFTER INSERT ON changes WHEN new.context != '' BEGIN
    INSERT INTO counted VALUES (new.application, 'contexts', 1)
    ON CONFLICT (application, kind) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER context_deleted AFTER DELETE ON changes WHEN old.context != '' BEGIN
    UPDATE counted SET count = count - 1 WHERE application = old.application AND kind = 'contexts';
END;
CREATE TRIGGER id_added AFTER INSERT ON seen_until BEGIN
    INSERT INTO counted VALUES (new.application, 'ids', 1)
    ON CONFLICT (application, kind) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER id_deleted AFTER DELETE ON seen_until BEGIN
    UPDATE counted SET count = count - 1 WHERE application = old.application AND kind = 'ids';
END;
PRAGMA user_version = 4;
"""


class EarlierWorker:
    """Uses the earlier statements on a connection of its own, which is open before a newer Clipper comes."""

    def __init__(self, path: Path, application: str = "app-1") -> None:
        self._application = application
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute("PRAGMA journal_mode = WAL")
        if not self.database.execute("PRAGMA user_version").fetchone()[0]:
            self.database.executescript(SCHEMA)

    def commit(self, contexts: Iterable[str], id_: str | None = None, **increments: Amount) -> None:
        """Add to the application's state and to all of these contexts; the id is kept for ever."""
        own, states = self._application, [EVERYONE, *contexts]
        with self.database:
            self.database.execute("BEGIN IMMEDIATE")
            if id_ is not None:
                self.database.execute("INSERT INTO seen_until VALUES (?, ?, 1e12)", (own, id_))
            for context in states:
                for name, amount in increments.items():
                    self._add(context, name, amount)
            one = self.database.execute("UPDATE revision SET last = last + 1 RETURNING last").fetchone()[0]
            told = msgpack.encode([(own, context) for context in states])
            self.database.execute("INSERT INTO told VALUES (?, 1e12, ?)", (one, told))
            self.database.executemany(
                "INSERT INTO changes VALUES (?, ?, ?) "
                "ON CONFLICT (application, context) DO UPDATE SET revision = excluded.revision",
                [(own, context, one) for context in states],
            )

    def load(self, context: str) -> dict[str, float]:
        query = "SELECT name, amount FROM sums WHERE application = ? AND context IN (?)"
        return dict(self.database.execute(query, (self._application, context)))

    def told_since(self, cursor: int) -> set[str]:
        """The contexts of which it hears that they have changed."""
        found = self.database.execute("SELECT states FROM told WHERE revision > ?", (cursor,))
        return {context for (states,) in found for _, context in msgpack.decode(states)}

    def close(self) -> None:
        self.database.close()

    def _add(self, context: str, name: str, amount: Amount) -> None:
        key = self._application, context, name
        if isinstance(amount, np.ndarray):
            self.database.execute("REPLACE INTO arrays VALUES (?, ?, ?, ?)", (*key, amount.tobytes()))
            return
        self.database.execute(
            "INSERT INTO sums VALUES (?, ?, ?, ?) "
            "ON CONFLICT (application, context, name) DO UPDATE SET amount = amount + excluded.amount",
            (*key, amount),
        )


def names_in_rows(path: Path) -> set[str | bytes]:
    """The texts and keys that stand for contexts in the rows of the file."""
    with closing(sqlite3.connect(path)) as database:
        tables = ("sums", "arrays", "changes")
        return {name for table in tables for (name,) in database.execute(f"SELECT context FROM {table}")}
