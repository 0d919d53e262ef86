"""Seals trees of files, so that nobody writes to them any more, and removes such trees."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Each level costs a descriptor. Packages have about ten levels, and a path with more than this is too long to be used.
MAX_DEPTH = 100


def seal_tree(root: Path, taken_from: int | None = None) -> None:
    """Make all files and folders read-only, and readable for everybody.

    Of their modes only whether a file is a program is kept. Symlinks are not followed. The root is sealed last, so that
    it shows whether everything is.

    Args:
        taken_from: the user who owns the files. This process's user owns them afterwards. Files of other users stay as
            they are: ``taken_from`` may mean harm, and have linked them there.

    Raises:
        OSError: it cannot be done, or it is nested too deeply.
    """
    folder = os.open(root, _FOLDER)
    try:
        _seal(folder, taken_from, MAX_DEPTH)
    finally:
        os.close(folder)


def is_sealed(root: Path) -> bool:
    return stat.S_IMODE(root.lstat().st_mode) == 0o555


def remove_tree(root: Path) -> None:
    """Remove a tree, sealed or not, as far as that is possible."""
    with suppress(OSError):
        for _, _, _, folder in os.fwalk(root, follow_symlinks=False):
            os.fchmod(folder, 0o700)
    shutil.rmtree(root, ignore_errors=True)


def _seal(folder: int, taken_from: int | None, depth: int) -> None:
    if depth == 0:
        raise OSError(f"its folders are nested more than {MAX_DEPTH} levels deep")
    if taken_from is not None:
        os.fchown(folder, os.geteuid(), os.getegid())
    # From here on its former owner can replace nothing in it between a look and a change.
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
