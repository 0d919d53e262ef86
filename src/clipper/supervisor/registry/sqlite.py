"""The registry in one SQLite file.

Records are few and are read once, at the start; so each is a row of JSON. Calls block for an fsync: the supervisor,
which makes them, is on no query's path.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from clipper.errors import RegistryUnavailable
from clipper.supervisor.registry.records import TABLES, Record, VersionRecord, name_of
from clipper.supervisor.registry.store import (
    SCHEMA_VERSION,
    Change,
    Contents,
    Delete,
    ForgetLater,
    Forgotten,
    Put,
    read_contents,
)

# The supervisor's lock keeps other supervisors out, so only an operator's own sqlite3 can hold the file.
BUSY_TIMEOUT_S = 1.0

_SCHEMA = """
CREATE TABLE schema (version INTEGER NOT NULL) STRICT;
CREATE TABLE applications (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE models (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE versions (
    model TEXT NOT NULL REFERENCES models (name) ON DELETE CASCADE,
    version TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (model, version)
) STRICT;
CREATE TABLE counters (name TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT;
"""

# Statements that migrate each schema version to the next. They only add tables.
_MIGRATIONS = {
    1: (
        "CREATE TABLE IF NOT EXISTS to_forget (application_id TEXT PRIMARY KEY) STRICT",
        "CREATE TABLE IF NOT EXISTS tokens (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT",
        "CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT",
    )
}

# The remedies for SQLite's errors, by the name of the primary result code.
_REMEDIES = {
    "SQLITE_FULL": "the disk is full: free some space",
    "SQLITE_BUSY": "another program holds it locked: close that program",
    "SQLITE_LOCKED": "another program holds it locked: close that program",
    "SQLITE_READONLY": "it is read-only: check the owner and mode of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened: check that the folder exists and may be written",
    "SQLITE_PERM": "permission is denied: check the owner and mode of the file and its folder",
    "SQLITE_CORRUPT": "it is damaged: restore it from a backup, or move it away to start empty",
    "SQLITE_NOTADB": "it is not a registry: restore it from a backup, or move it away to start empty",
    "SQLITE_IOERR": "reading or writing failed: check the disk, its free space and its quotas",
}


class SqliteRegistry:
    """A ``Registry`` in the file ``path``, made if it does not exist. Raises RegistryUnavailable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._explained():
            self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self._prepare()
        except RegistryUnavailable:
            self._connection.close()
            raise

    def load(self) -> Contents:
        with self._explained():
            to_forget = self._connection.execute("SELECT application_id FROM to_forget ORDER BY 1")
            return read_contents({kind: self._rows(kind) for kind in TABLES}, (id_ for (id_,) in to_forget))

    def write(self, *changes: Change) -> None:
        with self._transaction():
            for change in changes:
                self._make(change)

    async def sync(self) -> None:
        """Return at once: a transaction waits for the disk itself, for some milliseconds."""

    def reserve(self, counter: str, count: int) -> int:
        with self._transaction():
            (last,) = self._connection.execute(
                "INSERT INTO counters (name, last) VALUES (?1, ?2)"
                " ON CONFLICT (name) DO UPDATE SET last = last + ?2 RETURNING last",
                (counter, count),
            ).fetchone()
        return int(last) - count + 1

    def close(self) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        with self._explained():
            # FULL: an acknowledged change is on the disk even after a power cut.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            found = self._schema_version()
        if found is not None and found > SCHEMA_VERSION:
            raise RegistryUnavailable(
                f"registry {self._path} has schema version {found}, this Clipper knows {SCHEMA_VERSION}: "
                "run the Clipper that wrote it, or a newer one. To go back, and lose later changes, restore a backup "
                f"or the copy {self._copy_path(SCHEMA_VERSION).name}, if there is one"
            )
        if found is not None and found < SCHEMA_VERSION:
            self._keep_copy(found)
        with self._transaction():
            if found is None:
                # Not executescript: it would commit the transaction that makes this all or nothing.
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO schema VALUES (1)")
            for version in range(found or 1, SCHEMA_VERSION):
                for statement in _MIGRATIONS[version]:
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO schema VALUES (?)", (version + 1,))

    def _copy_path(self, version: int) -> Path:
        return self._path.with_name(f"{self._path.name}.schema-{version}")

    def _keep_copy(self, version: int) -> None:
        """Copy the file before it is migrated, so that an operator can go back to a Clipper of that version."""
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        with self._explained():
            temporary.unlink(missing_ok=True)
            with closing(sqlite3.connect(temporary)) as copy:
                self._connection.backup(copy)
            temporary.chmod(0o600)
            temporary.replace(self._copy_path(version))

    def _schema_version(self) -> int | None:
        query = "SELECT count(*) FROM sqlite_schema WHERE name = 'schema'"
        if not self._connection.execute(query).fetchone()[0]:
            return None
        row = self._connection.execute("SELECT max(version) FROM schema").fetchone()
        return int(row[0] or 0)

    def _make(self, change: Change) -> None:
        execute = self._connection.execute
        match change:
            case Put(VersionRecord() as version):
                row = (version.model, version.version, _to_json(version))
                execute("REPLACE INTO versions VALUES (?, ?, ?)", row)
            case Put(record):
                # Not REPLACE: that deletes the row first, and a model's versions with it.
                execute(
                    f"INSERT INTO {TABLES[type(record)]} VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET record = ?2",
                    (name_of(record), _to_json(record)),
                )
            case Delete(kind, name) if kind is VersionRecord:
                model, _, version_name = name.partition(":")
                execute("DELETE FROM versions WHERE model = ? AND version = ?", (model, version_name))
            case Delete(kind, name):
                execute(f"DELETE FROM {TABLES[kind]} WHERE name = ?", (name,))
            case ForgetLater(application_id):
                execute("INSERT OR IGNORE INTO to_forget VALUES (?)", (application_id,))
            case Forgotten(application_id):
                execute("DELETE FROM to_forget WHERE application_id = ?", (application_id,))

    def _rows(self, kind: type[Record]) -> Iterable[tuple[bytes, bytes]]:
        name = "model || ':' || version" if kind is VersionRecord else "name"
        # As bytes: SQLite keeps texts that are not valid UTF-8.
        return self._connection.execute(
            f"SELECT CAST({name} AS BLOB), CAST(record AS BLOB) FROM {TABLES[kind]} ORDER BY 1"
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                # A full disk can have rolled it back already; a failed COMMIT leaves it open.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, msgspec.MsgspecError, OSError) as error:
            raise RegistryUnavailable(f"registry {self._path}: {_remedy(error)} ({error})") from error


def _remedy(error: Exception) -> str:
    if isinstance(error, OSError):
        return "a copy of it cannot be kept: check the disk, and the owner and mode of its folder"
    # An extended code's name begins with its primary code's, e.g. SQLITE_IOERR_WRITE.
    name: str = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
    for primary, remedy in _REMEDIES.items():
        if name == primary or name.startswith(primary + "_"):
            return remedy
    return f"it cannot be used ({name})"


def _to_json(record: Record) -> str:
    return msgspec.json.encode(record).decode()
