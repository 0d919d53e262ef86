"""Unpacks an untrusted tar into a new folder, and writes nothing outside of it.

No path is followed: each folder is opened from its parent and must not be a link, and each file is created in it.
Links are made last, so that nothing is written through them, and no link is made that leads out.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from clipper.api.schemas import MAX_MEMBERS
from clipper.supervisor.artifacts import tar
from clipper.supervisor.artifacts.tar import Entry, refusal, shown

# A model's folder from a hub has some tens of links. Resolving all of them takes at most a second.
MAX_SYMLINKS = 1000
MAX_HOPS = 16
COPY_BYTES = 1024 * 1024
# This many files are flushed to the disk one by one, at half a millisecond or more each. If there are more, one flush
# of the whole disk follows, which takes less time than 100,000 flushes.
FLUSHED_ALONE = 1000

# Errors that a tar can cause by its names, such as a file in place of a folder. Other errors are the disk's.
_BY_NAME = {
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.EMLINK,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EINVAL,
    errno.EPERM,
}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Stopped(Exception):
    """The unpacking was stopped by ``is_to_stop``."""


def unpack(archive: Path, into: Path, is_to_stop: Callable[[], bool]) -> None:
    """Unpack a tar into the new folder ``into``, on the disk and not only in memory, and seal it.

    A program stays executable; nothing else of the modes is kept. ``is_to_stop`` is asked at every member and megabyte.

    Raises:
        InvalidArgument: the tar may not be unpacked. The folder has the members before the fault.
        OSError: the disk is full, or cannot be written.
        Stopped: ``is_to_stop`` said so.
    """
    into.mkdir(mode=0o700)
    root = os.open(into, _FOLDER)
    try:
        with archive.open("rb") as source:
            if _unpack(source, root, is_to_stop) > FLUSHED_ALONE:
                _flush_all(root)
        _seal(root)
    finally:
        os.close(root)


def _unpack(source: BinaryIO, root: int, is_to_stop: Callable[[], bool]) -> int:
    """Unpack the members; return their number. Only ``FLUSHED_ALONE`` of them are flushed to the disk."""
    symlinks: dict[tar.Path, bytes] = {}
    number = 0
    for number, entry in enumerate(tar.entries(source), 1):
        if number > MAX_MEMBERS:
            raise refusal(f"it has over {MAX_MEMBERS} members")
        if entry.kind == "symlink":
            if entry.path in symlinks or len(symlinks) == MAX_SYMLINKS:
                raise refusal(f"it has {shown(b'/'.join(entry.path))} twice, or over {MAX_SYMLINKS} symlinks")
            symlinks[entry.path] = entry.target
            continue
        with _explained(entry.path):
            _make(source, root, entry, is_to_stop, is_flushed=number <= FLUSHED_ALONE)
    for path, target in symlinks.items():
        if leads_out(path, symlinks):
            link = f"the link {shown(b'/'.join(path))} to {shown(target)}"
            raise refusal(f"{link} leads out of it, or through over {MAX_HOPS} links")
        with _explained(path), _folder(root, path[:-1]) as folder:
            os.symlink(target, path[-1], dir_fd=folder)
    return number


def _make(source: BinaryIO, root: int, entry: Entry, is_to_stop: Callable[[], bool], *, is_flushed: bool) -> None:
    if is_to_stop():
        raise Stopped
    if entry.kind == "folder":
        with _folder(root, entry.path):
            return
    with _folder(root, entry.path[:-1]) as folder:
        if entry.kind == "file":
            _write(source, entry, folder, is_to_stop, is_flushed=is_flushed)
            return
        of = tar.path_of(entry.target) or (b".",)
        with _folder(root, of[:-1]) as other:
            os.link(of[-1], entry.path[-1], src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False)


def _write(source: BinaryIO, entry: Entry, folder: int, is_to_stop: Callable[[], bool], *, is_flushed: bool) -> None:
    with os.fdopen(os.open(entry.path[-1], _NEW_FILE, 0o600, dir_fd=folder), "wb") as file:
        source.seek(entry.offset)
        left = entry.size_bytes
        while left and not is_to_stop():
            chunk = source.read(min(left, COPY_BYTES))
            left -= len(chunk)
            file.write(chunk)
        if left:
            raise Stopped
        file.flush()
        os.fchmod(file.fileno(), 0o555 if entry.is_program else 0o444)
        if is_flushed:
            os.fsync(file.fileno())


def _flush_all(folder: int) -> None:
    """Flush everything that waits for the disk that the folder is on."""
    if ctypes.CDLL(None, use_errno=True).syncfs(folder) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def leads_out(path: tar.Path, symlinks: Mapping[tar.Path, bytes]) -> bool:
    """Whether a symlink leads out of its tree, or through more other links than are allowed.

    Where ``..`` leads depends on the links before it, so these are followed, by name alone.
    """
    at, hops = list(path[:-1]), 0
    left = [path[-1]]
    while left:
        part = left.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not at:
                return True
            at.pop()
            continue
        at.append(part)
        target = symlinks.get(tuple(at))
        if target is None:
            continue
        hops += 1
        parts = target.split(b"/")
        if target.startswith(b"/") or hops > MAX_HOPS or len(at) + len(parts) > tar.MAX_DEPTH:
            return True
        at.pop()
        left.extend(reversed(parts))
    return False


@contextmanager
def _folder(root: int, path: tar.Path) -> Iterator[int]:
    """Open a folder below ``root``, made if it is missing. No folder on the way may be a link."""
    descriptor = os.dup(root)
    try:
        for name in path:
            with suppress(FileExistsError):  # it is a folder, or else cannot be opened as a folder
                os.mkdir(name, 0o700, dir_fd=descriptor)
            below = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: tar.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _BY_NAME:
            raise
        raise refusal(f"{shown(b'/'.join(path))} cannot be made: {error.strerror}, as by another member") from error


def _seal(root: int) -> None:
    """Seal the folders and flush them to the disk: the registry names them, and a power cut must not empty them."""
    for path, _, _, folder in os.fwalk(".", topdown=False, follow_symlinks=False, dir_fd=root):
        # A folder without write permission cannot be moved.
        os.fchmod(folder, 0o700 if path == "." else 0o555)
        os.fsync(folder)
