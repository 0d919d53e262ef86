"""Makes trees of files read-only, and removes such trees."""

import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Levels of nested folders. Each costs a descriptor. Packages have about ten levels; a longer path could not be used.
MAX_DEPTH = 100


def seal_tree(root: Path, taken_from: int | None = None) -> None:
    """Make all files and folders read-only, and readable for everybody.

    Programs stay executable; all other mode bits are dropped. Symlinks are not followed. The root is sealed last,
    so that a sealed root means a sealed tree. ``taken_from`` is the user who owns the files; this process's user
    owns them afterwards. Files of other users are left alone: a hostile ``taken_from`` may have hard-linked them there.
    Raises OSError if it cannot be done, or if the tree is nested too deeply.
    """
    folder = os.open(root, _FOLDER)
    try:
        _seal(folder, taken_from, MAX_DEPTH)
    finally:
        os.close(folder)


def is_sealed(root: Path) -> bool:
    return stat.S_IMODE(root.lstat().st_mode) == 0o555


def remove_tree(root: Path) -> None:
    """Remove a tree, sealed or not, as far as that is possible, however deeply its folders are nested.

    The contents of a folder are moved up to the root first, so only the root and one folder are ever open, and no path
    is longer than two names. Nobody may write to the tree meanwhile. Symlinks are not followed.
    """
    with suppress(OSError):
        root_folder = _writable(os.fspath(root), None)
        try:
            _empty(root_folder)
        finally:
            os.close(root_folder)
        root.rmdir()


def _empty(root: int) -> None:
    # No file of a user has such a name.
    prefix = f".removing-{secrets.token_hex(8)}-"
    names = (f"{prefix}{number}" for number in itertools.count())
    left = os.listdir(root)
    while left:
        name = left.pop()
        if _is_removed(name, root):
            continue
        with suppress(OSError):  # what cannot be removed stays, as do the folders above
            folder = _writable(name, root)
            try:
                left += _raised(folder, root, names)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=root)


def _raised(folder: int, root: int, names: Iterator[str]) -> list[str]:
    """Remove what can be removed at once from a folder, and move the rest to the root; return their names there."""
    raised = []
    for inner in os.listdir(folder):
        if _is_removed(inner, folder):
            continue
        with suppress(OSError):
            # Moving a folder also needs write permission on the folder itself.
            os.close(_writable(inner, folder))
            name = next(names)
            os.rename(inner, name, src_dir_fd=folder, dst_dir_fd=root)
            raised.append(name)
    return raised


def _is_removed(name: str, above: int) -> bool:
    """Remove a file or an empty folder; return whether that was possible."""
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            os.rmdir(name, dir_fd=above)
        else:
            os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _writable(name: str, above: int | None) -> int:
    """Open a folder, and make it writable, which it may not have been even for its owner."""
    held = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        # Through the descriptor: the name may meanwhile belong to another file.
        with suppress(OSError):
            os.chmod(f"/proc/self/fd/{held}", 0o700)  # noqa: PTH101
        return os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(held)


def _seal(folder: int, taken_from: int | None, depth: int) -> None:
    if depth == 0:
        raise OSError(f"its folders are nested more than {MAX_DEPTH} levels deep")
    if taken_from is not None:
        os.fchown(folder, os.geteuid(), os.getegid())
    # From here on its former owner cannot replace files in it between our check and our change.
    os.fchmod(folder, 0o700)
    for name in os.listdir(folder):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            below = os.open(name, _FOLDER, dir_fd=folder)
            try:
                _seal(below, taken_from, depth - 1)
            finally:
                os.close(below)
        elif stat.S_ISREG(found.st_mode) and taken_from in (None, found.st_uid):
            if taken_from is not None:
                os.chown(name, os.geteuid(), os.getegid(), dir_fd=folder, follow_symlinks=False)
            os.chmod(name, 0o555 if found.st_mode & 0o111 else 0o444, dir_fd=folder)
    os.fchmod(folder, 0o555)
