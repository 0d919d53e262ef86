"""Backs a home up to a file, and restores it: the registry, the learned state, the artifacts, and the server's token.

The file is a tar: ``backup.json``, the databases, the token, the artifacts, and finally ``end``; without that the file
is truncated. SQLite's own backup copies the databases, so the server may run meanwhile. The registry is copied before
the artifacts that it names: artifacts never change, and are removed only once no record names them.
"""

import io
import os
import random
import re
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
from clipper.base.processes.folder import running
from clipper.base.trees import remove_tree, seal_tree
from clipper.errors import ClipperError, Conflict, InvalidArgument, Unavailable
from clipper.learning.stores.sqlite_schema import SCHEMA_VERSION
from clipper.settings import home as homes
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.workers.settings import INSTANCES

FORMAT = 1
_INFO, _END = "backup.json", "end"
# A digest names a folder: without this check, another text could name any folder.
_DIGEST = re.compile(r"[0-9a-f]{64}")
# The year 9000: a calendar ends soon after.
_END_OF_TIMES_S = 221_845_392_000
# Attempts at a copy: after the registry was copied, an artifact may be removed with its version.
TRIES = 3


class Backup(Struct, frozen=True):
    """The first member of a backup.

    Attributes:
        at: when it was written, in seconds since 1970.
        artifacts: digests of the artifacts of models and policies in it.
        missing: digests that records name, but whose artifacts were not in the home.
        learned: whether it contains the applications' learned state; if not, that is in a store outside the home.
    """

    format: int
    clipper: str
    at: float
    artifacts: tuple[str, ...]
    missing: tuple[str, ...]
    learned: bool


def back_up(home: Path, target: Path) -> Backup:
    """Write a backup of ``home`` to ``target``, whether its server runs or not. Raises Conflict if ``target`` exists;
    Unavailable or RegistryUnavailable if there is nothing to back up, or something cannot be read or written.
    """
    if target.exists():
        raise Conflict(f"{target} exists already: choose another name, or remove it")
    if (home / homes.ID_NAME).exists():
        raise Unavailable(
            f"the registry and the models of {home} are in the Redis of --registry: back that up by Redis's own means, "
            "BGSAVE or a copy of its append-only file"
        )
    if not (home / homes.REGISTRY_NAME).exists():
        raise Unavailable(
            f"there is nothing to back up in {home}: no server has been started there; name another home with --home"
        )
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
    """Restore ``home`` to its state when the backup was written.

    Artifacts in the home stay; the server later removes those that no record names. Return the backup's first member,
    and the folder that keeps the replaced files, if any.

    Raises:
        Conflict: a server, or processes that a server has left, run in the home.
        InvalidArgument: the file is not a backup, is cut short or damaged, or was written by a newer Clipper.
        RegistryUnavailable, Unavailable: this Clipper cannot use its registry, or cannot write the home.
    """
    homes.make_home(home)
    with _explained(home):
        lock = homes.lock_home(home)
    try:
        _check_nothing_runs(home)
        with _explained(home), tempfile.TemporaryDirectory(dir=home, prefix="restoring.") as name:
            folder = Path(name)
            info = _read(source, folder)
            with closing(SqliteRegistry(folder / homes.REGISTRY_NAME)) as registry:
                registry.load()
                # Clients may still hold ids of queries that were answered after the backup. See ``Numbers``.
                registry.reserve("worker", random.randrange(1, INSTANCES))
            if info.learned:
                _check_store(folder / homes.SELECTION_NAME, source)
            kept = _install(home, folder, info)
        return info, kept
    finally:
        os.close(lock)


def _copy_databases(home: Path, folder: Path) -> Backup:
    _copy(home / homes.REGISTRY_NAME, folder / homes.REGISTRY_NAME)
    learned = (home / homes.SELECTION_NAME).exists()
    if learned:
        _copy(home / homes.SELECTION_NAME, folder / homes.SELECTION_NAME)
    # Open a copy of the copy: opening an older registry would migrate it.
    _copy(folder / homes.REGISTRY_NAME, folder / "looked-at")
    with closing(SqliteRegistry(folder / "looked-at")) as registry:
        contents = registry.load()
    named = {version.spec.artifact for version in contents.versions}
    named |= {application.code for application in contents.applications if application.code is not None}
    there = {
        path.name for path in (home / homes.ARTIFACTS_NAME).iterdir() if path.is_dir() and _DIGEST.fullmatch(path.name)
    }
    # Artifacts that an unreadable record names must not be lost either.
    named |= {digest for digest in there if any(digest.encode() in one.text for one in contents.unreadable)}
    found, missing = tuple(sorted(named & there)), tuple(sorted(named - there))
    return Backup(FORMAT, __version__, time.time(), found, missing, learned)


def _copy(source: Path, target: Path) -> None:
    """Copy a database as of one moment, including the content of its log."""
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def _write(home: Path, folder: Path, info: Backup, target: Path) -> None:
    target.touch(mode=0o600)
    with target.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, _INFO, msgspec.json.encode(info))
            tar.add(folder / homes.REGISTRY_NAME, homes.REGISTRY_NAME)
            if info.learned:
                tar.add(folder / homes.SELECTION_NAME, homes.SELECTION_NAME)
            if (home / homes.TOKEN_NAME).exists():
                tar.add(home / homes.TOKEN_NAME, homes.TOKEN_NAME)
            for digest in info.artifacts:
                tar.add(home / homes.ARTIFACTS_NAME / digest, f"{homes.ARTIFACTS_NAME}/{digest}")
            _add(tar, _END, b"")
        file.flush()
        os.fsync(file.fileno())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
    tar.addfile(member, io.BytesIO(content))


def _check_nothing_runs(home: Path) -> None:
    """Check that no worker runs: it would continue to write learned state and to assign query ids."""
    for record in running(home / homes.RUN_NAME):
        raise Conflict(
            f"{record.name} (pid {record.pid}) of {home} still runs, though its server does not: "
            "run clipper stop before you restore"
        )


def _read(source: Path, folder: Path) -> Backup:
    """Unpack and check all before anything is replaced; symlinks come last, so that nothing goes through one."""
    info = None
    symlinks: list[tarfile.TarInfo] = []
    with _opened(source) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                member = None
                for member in tar:
                    if info is None:
                        info = _info(tar, member, source)
                    elif member.name != _END:
                        _check_member(member, info, folder, source)
                        if member.isdir():
                            member.mode = 0o700  # a sealed folder could not be filled
                        if member.issym():
                            symlinks.append(member)
                        else:
                            tar.extract(member, folder, filter="tar")
                if info is None or member is None or member.name != _END:
                    raise InvalidArgument(f"{source} is cut short: it was not written or copied to its end")
                for member in symlinks:
                    place = folder.resolve() / member.name
                    # A path that is not resolved strictly may be resolved wrongly: see CVE-2025-4517.
                    is_in_folder = place.parent.is_dir() and place.parent.resolve(strict=True) == place.parent
                    if os.path.lexists(place) or not is_in_folder:
                        raise InvalidArgument(f"{source} has {member.name!r} in it, which is not part of any backup")
                    place.symlink_to(member.linkname)
        except (tarfile.TarError, ValueError, OverflowError) as error:  # also names with a NUL, and times without end
            raise InvalidArgument(f"{source} is not a backup, or is damaged: {error}") from error
    if not (folder / homes.REGISTRY_NAME).is_file():
        raise InvalidArgument(f"{source} is not a backup: it has no {homes.REGISTRY_NAME} in it")
    return info


@contextmanager
def _opened(source: Path) -> Iterator[IO[bytes]]:
    if not source.exists():
        raise InvalidArgument(f"there is no file {source}")
    if not source.is_file():
        raise InvalidArgument(f"{source} is not a backup: expected a file")
    with source.open("rb") as file:
        if not file.read(1):
            raise InvalidArgument(f"{source} is not a backup: it is empty")
        file.seek(0)
        yield file


def _info(tar: tarfile.TarFile, member: tarfile.TarInfo, source: Path) -> Backup:
    file = tar.extractfile(member) if member.name == _INFO and member.size < 1 << 26 else None
    try:
        info = msgspec.json.decode(b"" if file is None else file.read(), type=Backup)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"{source} is not a backup: expected a file that clipper backup has written") from error
    if info.format > FORMAT:
        raise InvalidArgument(
            f"{source} is a backup of Clipper {info.clipper}, which this version cannot read: restore it with that one"
        )
    if not all(map(_DIGEST.fullmatch, info.artifacts)) or not 0 <= info.at < _END_OF_TIMES_S:
        raise InvalidArgument(f"{source} is not a backup, or is damaged: {_INFO} names an impossible artifact or time")
    return info


def _check_member(member: tarfile.TarInfo, info: Backup, folder: Path, source: Path) -> None:
    """Check a member. ``folder`` has the members before it, except for symlinks."""
    is_file = member.name in (homes.REGISTRY_NAME, homes.SELECTION_NAME, homes.TOKEN_NAME) and member.isreg()
    is_kept = member.isdir() and _is_in_artifact(member.name, info, 2)
    if _is_in_artifact(member.name, info, 3):
        is_kept = member.isreg() or member.isdir() or member.issym()
        # An artifact may have two names of one file.
        is_kept |= member.islnk() and _is_in_artifact(member.linkname, info, 3) and (folder / member.linkname).is_file()
    if not is_file and not is_kept:
        raise InvalidArgument(f"{source} has {member.name!r} in it, which is not part of any backup")


def _is_in_artifact(name: str, info: Backup, least_parts: int) -> bool:
    parts = name.split("/")
    is_plain = not {"", ".", ".."}.intersection(parts)
    return is_plain and len(parts) >= least_parts and parts[0] == homes.ARTIFACTS_NAME and parts[1] in info.artifacts


def _check_store(store: Path, source: Path) -> None:
    with closing(sqlite3.connect(store)) as database:
        (found,) = database.execute("PRAGMA user_version").fetchone()
    if found > SCHEMA_VERSION:
        raise InvalidArgument(
            f"the learned state in {source} has schema version {found}, but this Clipper knows {SCHEMA_VERSION}: "
            "restore it with the Clipper that wrote it, or a newer one"
        )


def _install(home: Path, folder: Path, info: Backup) -> Path | None:
    artifacts = home / homes.ARTIFACTS_NAME
    artifacts.mkdir(mode=0o700, exist_ok=True)
    for digest in info.artifacts:
        unpacked = folder / homes.ARTIFACTS_NAME / digest
        if not (artifacts / digest).exists():
            seal_tree(unpacked)
            unpacked.chmod(0o755)  # a read-only folder cannot be moved
            unpacked.rename(artifacts / digest)
            (artifacts / digest).chmod(0o555)
        else:
            remove_tree(unpacked)
    kept = home / time.strftime("replaced-%Y%m%d-%H%M%S")
    # The registry last: until it is replaced, the home is unchanged.
    for name in (homes.SELECTION_NAME, homes.TOKEN_NAME, homes.REGISTRY_NAME):
        if (folder / name).exists():
            _replace(home / name, folder / name, kept)
    return kept if kept.exists() else None


def _replace(place: Path, new: Path, kept: Path) -> None:
    """Keep the old file, with a database's log, and put the new file in its place."""
    new.chmod(0o600)
    if place.exists():
        kept.mkdir(mode=0o700, exist_ok=True)
        for suffix in ("", "-wal", "-shm"):
            old = place.with_name(place.name + suffix)
            if old.exists():
                shutil.copy2(old, kept / old.name)
    for suffix in ("-wal", "-shm"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    # SQLite would take the old log for the new database's.
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
