"""A server's home on this machine, and how commands find the server."""

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from clipper.errors import Conflict, Unavailable

_DEFAULT = "~/.clipper"
# Files and folders of a home: see README.md.
ARTIFACTS_NAME = "artifacts"
CERTIFICATE_NAME = "certificate.pem"
DECISIONS_NAME = "decisions"
EVENTS_NAME = "events.jsonl"
ID_NAME = "supervisor.id"
OPTIONS_NAME = "options.json"
PLACE_NAME = "supervisor.json"
REGISTRY_NAME = "registry.sqlite3"
RUN_NAME = "run"
SELECTION_NAME = "selection.sqlite3"
TOKEN_NAME = "token"
_LOCK_NAME = "supervisor.lock"
# A supervisor tries to take the lock for this long: a command that checks the home holds the lock for microseconds.
_LOOKED_AT_S = 0.25
_LOOK_AGAIN_S = 0.01
# An operator's own token has at most 512 characters.
_MAX_TOKEN_BYTES = 4096
# The mode bits that let other users change a folder.
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Place(Struct, frozen=True):
    """The content of ``supervisor.json``.

    Attributes:
        started_at: in seconds since 1970.
        grpc_address: HOST:PORT.
        started_by: see ``StartOptions.started_by``; empty if an older Clipper started the server.
    """

    pid: int
    management_url: str
    query_url: str
    started_at: float
    grpc_address: str | None = None
    started_by: str = ""


class Orphan(Struct, frozen=True):
    """A worker or container that runs in a home although its supervisor is gone.

    Attributes:
        name: ``worker 0``, or a replica as ``m:1#0``.
        runs: the manager that runs it: ``local`` for a process of this machine, ``docker`` or ``ray``.
        pid: None if it is not a known process of this machine.
        address: HOST:PORT of a worker's query port; None for a replica.
    """

    name: str
    runs: str
    pid: int | None = None
    address: str | None = None


def find_home(home: Path | str | None = None) -> Path:
    """Return ``home`` if given, else ``CLIPPER_HOME``, else ``~/.clipper``. It need not exist."""
    return Path(home or os.environ.get("CLIPPER_HOME") or _DEFAULT).expanduser().absolute()


def make_home(root: Path) -> None:
    """Make the folder of a home if it is missing, and ensure that only this user and root can write in it.

    A user who can write there can replace the token, and so become an admin of the server. Raises Unavailable if it
    cannot be made, or it or something in it belongs to another user.
    """
    ours = (os.geteuid(), 0)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.stat()
        for owner in (root.lstat().st_uid, found.st_uid):
            if owner not in ours:
                raise Unavailable(
                    f"home {root} belongs to user {owner}, and this is user {os.geteuid()}: run this as user {owner}, "
                    "or choose another home with --home"
                )
        # Before the entries are checked, so that nobody adds one after that.
        if found.st_mode & _OTHERS_WRITE:
            root.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS_WRITE)
        with os.scandir(root) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # a running server has just replaced or removed it
                    if (owner := entry.stat(follow_symlinks=False).st_uid) not in ours:
                        raise Unavailable(
                            f"{entry.path} belongs to user {owner}, who may have put it into the home: remove it, or "
                            f"give it to user {os.geteuid()} if you know what is in it (chown)"
                        )
    except OSError as error:
        what = f"let user {os.geteuid()} write there, or choose" if isinstance(error, PermissionError) else "choose"
        raise Unavailable(f"home {root} cannot be used: {error}; {what} another with --home") from error


def open_token(path: Path) -> BinaryIO:
    """Open the file of a token, which must be a regular file: a symlink may lead to something that is no token.

    Raises Unavailable if it is something else, OSError if it cannot be opened, and FileNotFoundError if there is none.
    """
    try:
        # Without blocking: the opening of a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise Unavailable(f"{path} is a symlink: expected a file with the token in it, or none") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unavailable(f"{path} is not a file: expected one with the token in it, or none")
    return os.fdopen(descriptor, "rb")


def token_text(file: BinaryIO) -> str:
    """Read the text of a token from its file's content. Raises UnicodeDecodeError if it is not ASCII."""
    return file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()


def read_token(home: Path) -> str | None:
    """Return the token of the server of ``home``; None if there is none. Raises Unavailable if it cannot be read."""
    try:
        with open_token(home / TOKEN_NAME) as file:
            return token_text(file) or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(
            f"{home / TOKEN_NAME} cannot be read: {error}; run this as the server's user, or give CLIPPER_TOKEN"
        ) from error


def read_place(home: Path) -> Place:
    """Return the addresses of the server of ``home``, or of the last one there. Raises Unavailable without one."""
    path = home / PLACE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Place)
    except FileNotFoundError:
        raise Unavailable(f"no Clipper runs in {home}: start it with clipper start, or give --home or --url") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise Unavailable(f"{path} cannot be read: {error}") from error


def lock_path(root: Path) -> Path:
    """Return the lock's file, which exists as long as the home does."""
    return root / _LOCK_NAME


def lock_home(root: Path) -> int:
    """Take the home for this process, for as long as it lives; return the lock's descriptor.

    No child process inherits the lock, and the kernel releases it when this process ends. So the holder knows that no
    other process is starting workers or models here. Raises Conflict if a supervisor has it, or another command.
    """
    descriptor = os.open(lock_path(root), os.O_RDWR | os.O_CREAT, 0o600)
    if not take_lock(descriptor, _LOOKED_AT_S):
        os.close(descriptor)
        raise Conflict(
            f"a Clipper server (pid {lock_holder(root) or 'unknown'}) runs already in {root}: stop it with "
            "clipper stop, or choose another home with --home"
        )
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def is_locked(root: Path) -> bool:
    """Whether a supervisor holds the home, even if it does not answer. Raises Unavailable for another user's home."""
    try:
        with lock_path(root).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise Unavailable(f"{root} cannot be looked at: {error}; run this as the server's user") from error
    return False


def lock_holder(root: Path) -> int | None:
    """Return the process id of the home's present or last holder; None if it is not known."""
    try:
        return int(lock_path(root).read_bytes()[:20])
    except (OSError, ValueError):
        return None


def take_lock(descriptor: int, seconds: float) -> bool:
    """Lock an open file for this process alone; return whether that was possible in time."""
    deadline_s = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                return False
        time.sleep(_LOOK_AGAIN_S)
