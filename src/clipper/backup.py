"""A home in one file, and back: what should exist, what was learned, the models, and the server's token.

The file is a tar: ``backup.json`` first, the databases, the token, the artifacts, and ``end`` last, by which one that
was cut short is known. Databases are copied as SQLite does it, so a server may run meanwhile. The registry comes first,
and then the artifacts that it names: they never change, and are removed only once no record names them.
"""

import io
import os
import random
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from clipper import __version__
from clipper.errors import ClipperError, Conflict, InvalidArgument, Unavailable
from clipper.home import ARTIFACTS_NAME, REGISTRY_NAME, RUN_NAME, SELECTION_NAME, TOKEN_NAME, lock_home
from clipper.processes.proc import start_time
from clipper.processes.process import ProcessRecord
from clipper.registry.sqlite import SqliteRegistry
from clipper.selection.stores.sqlite_schema import SCHEMA_VERSION
from clipper.trees import remove_tree, seal_tree

FORMAT = 1
_INFO, _END = "backup.json", "end"
# An artifact may be removed, with its version, between the registry's copy and its own.
TRIES = 3
# Query ids begin with a number of the worker's start, which has so much room: ``supervisor.workers.worker.INSTANCES``.
INSTANCES = 2**20


class Backup(Struct, frozen=True):
    """What a backup says of itself, and what was done with it.

    Attributes:
        format: of the file.
        clipper: the version that wrote it.
        at: when, in seconds since 1970.
        artifacts: the models' and policies' that are in it.
        missing: those that records name and that were not there.
        learned: whether what applications learned is in it; else another store than the home's own has it.
    """

    format: int
    clipper: str
    at: float
    artifacts: tuple[str, ...]
    missing: tuple[str, ...]
    learned: bool


def back_up(home: Path, target: Path) -> Backup:
    """Write a backup of ``home`` to ``target``, whether its server runs or not.

    Raises:
        Conflict: there is such a file.
        Unavailable: there is nothing to back up, or it cannot be read or written.
        RegistryUnavailable: the registry cannot be read.
    """
    if target.exists():
        raise Conflict(f"{target} is there already: choose another name, or remove it")
    if not (home / REGISTRY_NAME).exists():
        raise Unavailable(f"there is nothing to back up in {home}: no Clipper has been started there; give --home")
    with _explained(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as name:
        folder = Path(name)
        partial = folder / "backup"
        for tries_left in reversed(range(TRIES)):
            info = _copy_databases(home, folder)
            try:
                _write(home, folder, info, partial)
                break
            except FileNotFoundError:
                if not tries_left:
                    raise
        partial.replace(target)
        return info


def restore(home: Path, source: Path) -> tuple[Backup, Path | None]:
    """Make ``home`` what it was when the backup was written.

    What is replaced is kept. Artifacts that are there stay; those that nothing names are removed by the server, later.

    Returns:
        What the backup says of itself, and the folder with the databases that were there before; None if none were.

    Raises:
        Conflict: a server, or processes that one has left, run there.
        InvalidArgument: the file is no backup, is cut short or damaged, or is of a newer Clipper.
        RegistryUnavailable: its registry cannot be used by this Clipper.
        Unavailable: the home cannot be written.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = lock_home(home)
    try:
        _check_nothing_runs(home)
        with _explained(home), tempfile.TemporaryDirectory(dir=home, prefix="restoring.") as name:
            folder = Path(name)
            info = _read(source, folder)
            with closing(SqliteRegistry(folder / REGISTRY_NAME)) as registry:
                registry.load()
                # Clients may still hold ids of queries that were answered after the backup. See ``Numbers``.
                registry.reserve("worker", random.randrange(1, INSTANCES))
            if info.learned:
                _check_store(folder / SELECTION_NAME, source)
            kept = _install(home, folder, info)
        return info, kept
    finally:
        os.close(lock)


def _copy_databases(home: Path, folder: Path) -> Backup:
    _copy(home / REGISTRY_NAME, folder / REGISTRY_NAME)
    learned = (home / SELECTION_NAME).exists()
    if learned:
        _copy(home / SELECTION_NAME, folder / SELECTION_NAME)
    # A copy of the copy is looked at: an older one would be migrated.
    _copy(folder / REGISTRY_NAME, folder / "looked-at")
    with closing(SqliteRegistry(folder / "looked-at")) as registry:
        contents = registry.load()
    named = {version.spec.artifact for version in contents.versions}
    named |= {application.code for application in contents.applications if application.code is not None}
    there = {path.name for path in (home / ARTIFACTS_NAME).iterdir() if path.is_dir() and len(path.name) == 64}
    # What a record names that cannot be read is not to be lost.
    named |= {digest for digest in there if any(digest.encode() in one.text for one in contents.unreadable)}
    found, missing = tuple(sorted(named & there)), tuple(sorted(named - there))
    return Backup(FORMAT, __version__, time.time(), found, missing, learned)


def _copy(source: Path, target: Path) -> None:
    """As it is at one moment, with what is in its log and not yet in its file."""
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def _write(home: Path, folder: Path, info: Backup, target: Path) -> None:
    target.touch(mode=0o600)
    with target.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, _INFO, msgspec.json.encode(info))
            tar.add(folder / REGISTRY_NAME, REGISTRY_NAME)
            if info.learned:
                tar.add(folder / SELECTION_NAME, SELECTION_NAME)
            if (home / TOKEN_NAME).exists():
                tar.add(home / TOKEN_NAME, TOKEN_NAME)
            for digest in info.artifacts:
                tar.add(home / ARTIFACTS_NAME / digest, f"{ARTIFACTS_NAME}/{digest}")
            _add(tar, _END, b"")
        file.flush()
        os.fsync(file.fileno())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
    tar.addfile(member, io.BytesIO(content))


def _check_nothing_runs(home: Path) -> None:
    """A worker that runs would go on writing what it learns, and show other queries' ids."""
    for path in (home / RUN_NAME).glob("*.json"):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=ProcessRecord)
        except (OSError, msgspec.MsgspecError):
            continue  # nothing that could be taken over
        if start_time(record.pid) == record.start_time:
            raise Conflict(
                f"{record.name} (pid {record.pid}) of {home} still runs, though its server does not: "
                "run clipper start and clipper stop, and restore then"
            )


def _read(source: Path, folder: Path) -> Backup:
    """Unpack all of it, and check it, before anything is replaced."""
    info = None
    try:
        with source.open("rb") as file, tarfile.open(fileobj=_checked(file, source), mode="r:") as tar:
            member = None
            for member in tar:
                if info is None:
                    info = _info(tar, member, source)
                elif member.name != _END:
                    _check_member(member, info, source)
                    if member.isdir():
                        member.mode = 0o700  # a sealed one could not be filled
                    tar.extract(member, folder, filter="tar")
            if info is None or member is None or member.name != _END:
                raise InvalidArgument(f"{source} is cut short: the backup was not written to its end, or not copied so")
    except tarfile.TarError as error:
        raise InvalidArgument(f"{source} is not a backup, or is damaged: {error}") from error
    except FileNotFoundError:
        raise InvalidArgument(f"there is no file {source}") from None
    if not (folder / REGISTRY_NAME).is_file():
        raise InvalidArgument(f"{source} has no {REGISTRY_NAME} in it: it is not a backup")
    return info


def _checked(file: IO[bytes], source: Path) -> IO[bytes]:
    if not file.read(1):
        raise InvalidArgument(f"{source} is empty: it is not a backup")
    file.seek(0)
    return file


def _info(tar: tarfile.TarFile, member: tarfile.TarInfo, source: Path) -> Backup:
    file = tar.extractfile(member) if member.name == _INFO and member.size < 1 << 26 else None
    try:
        info = msgspec.json.decode(b"" if file is None else file.read(), type=Backup)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"{source} does not begin as a backup does: clipper backup FILE makes one") from error
    if info.format > FORMAT:
        raise InvalidArgument(f"{source} is of Clipper {info.clipper}, whose backups this one does not know: use that")
    return info


def _check_member(member: tarfile.TarInfo, info: Backup, source: Path) -> None:
    parts = Path(member.name).parts
    is_file = member.name in (REGISTRY_NAME, SELECTION_NAME, TOKEN_NAME) and member.isreg()
    is_artifact = parts[0] == ARTIFACTS_NAME and len(parts) > 1 and parts[1] in info.artifacts and ".." not in parts
    if not is_file and not (is_artifact and (member.isreg() or member.isdir() or member.issym())):
        raise InvalidArgument(f"{source} has {member.name!r} in it, which no backup has")


def _check_store(store: Path, source: Path) -> None:
    with closing(sqlite3.connect(store)) as database:
        (found,) = database.execute("PRAGMA user_version").fetchone()
    if found > SCHEMA_VERSION:
        raise InvalidArgument(
            f"what was learned has schema version {found} in {source}, this Clipper knows {SCHEMA_VERSION}: "
            "restore with the Clipper that wrote it, or a newer one"
        )


def _install(home: Path, folder: Path, info: Backup) -> Path | None:
    artifacts = home / ARTIFACTS_NAME
    artifacts.mkdir(mode=0o700, exist_ok=True)
    for digest in info.artifacts:
        unpacked = folder / ARTIFACTS_NAME / digest
        if not (artifacts / digest).exists():
            seal_tree(unpacked)
            unpacked.chmod(0o755)  # else it cannot be moved
            unpacked.rename(artifacts / digest)
            (artifacts / digest).chmod(0o555)
        else:
            remove_tree(unpacked)
    kept = home / time.strftime("replaced-%Y%m%d-%H%M%S")
    # The registry last: until then the home is what it was.
    for name in (SELECTION_NAME, TOKEN_NAME, REGISTRY_NAME):
        if (folder / name).exists():
            _replace(home / name, folder / name, kept)
    return kept if kept.exists() else None


def _replace(place: Path, new: Path, kept: Path) -> None:
    """Keep what is there, with a database's log, and put the new in its place."""
    new.chmod(0o600)
    if place.exists():
        kept.mkdir(mode=0o700, exist_ok=True)
        for suffix in ("", "-wal", "-shm"):
            old = place.with_name(place.name + suffix)
            if old.exists():
                shutil.copy2(old, kept / old.name)
    for suffix in ("-wal", "-shm"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    # A log that stayed would be taken for the new one's.
    for suffix in ("-shm", "-wal"):
        place.with_name(place.name + suffix).unlink(missing_ok=True)
    new.replace(place)


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    try:
        yield
    except ClipperError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(f"{place}: {error}; check the disk, and that this is the server's user") from error
