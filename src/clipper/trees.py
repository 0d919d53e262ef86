"""Trees of files that nobody is to write to any more: sealed, and removed all the same."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Each level is a descriptor. Packages have some ten; a path of more than this the kernel would not take whole.
MAX_DEPTH = 100


def seal_tree(root: Path, taken_from: int | None = None) -> None:
    """Take the right to write from all files and folders, and let everybody read them; of modes only that is kept
    whether a file is a program. Symlinks are not followed. The root comes last: it tells whether all is done.

    Args:
        taken_from: the user whose the files are. They are this process's user's then, and what that user, who may mean
            harm, has put there of others stays as it is.

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
    """Remove a tree, sealed or not, as far as that can be done."""
    with suppress(OSError):
        for _, _, _, folder in os.fwalk(root, follow_symlinks=False):
            os.fchmod(folder, 0o700)
    shutil.rmtree(root, ignore_errors=True)


def _seal(folder: int, taken_from: int | None, depth: int) -> None:
    if depth == 0:
        raise OSError(f"it has folders more than {MAX_DEPTH} levels deep")
    if taken_from is not None:
        os.fchown(folder, os.geteuid(), os.getegid())
    # Whoever had it can put nothing in the place of what is looked at from here on.
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
