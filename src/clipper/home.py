"""A server's home on this machine, and how commands find the server."""

import fcntl
import os
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from clipper.errors import Conflict, Unavailable

_DEFAULT = "~/.clipper"
# The file with the home's name among those that share a registry.
ID_NAME = "supervisor.id"
# The file of the server's own token.
TOKEN_NAME = "token"
# The options of the server's last start.
OPTIONS_NAME = "options.json"
# What should exist, and what was learned.
REGISTRY_NAME = "registry.sqlite3"
SELECTION_NAME = "selection.sqlite3"
# The folders of unpacked artifacts, and of processes' notes and sockets.
ARTIFACTS_NAME = "artifacts"
RUN_NAME = "run"
_LOCK_NAME = "supervisor.lock"
# Commands that look whether the home is taken share its lock for microseconds. Whoever takes it tries for so long.
_LOOKED_AT_S = 0.25
_LOOK_AGAIN_S = 0.01
# The folder of the decision log.
DECISIONS_NAME = "decisions"
# The file of events.
EVENTS_NAME = "events.jsonl"
# The file of the certificate that the server shows, if it has one.
CERTIFICATE_NAME = "certificate.pem"


class Place(Struct, frozen=True):
    """The content of ``supervisor.json``.

    Attributes:
        started_at: in seconds since 1970.
        grpc_address: HOST:PORT.
        started_by: as ``StartOptions.started_by``; empty if an older Clipper started it.
    """

    pid: int
    management_url: str
    query_url: str
    started_at: float
    grpc_address: str | None = None
    started_by: str = ""


class Orphan(Struct, frozen=True):
    """What runs in a home although its supervisor is gone.

    Attributes:
        name: ``worker 0``, or a replica as ``m:1#0``.
        runs: what runs it: ``local``, which is a process of this machine, ``docker`` or ``ray``.
        pid: None if it is no process of this machine that is known.
        address: HOST:PORT where a worker answers queries; None for a replica.
    """

    name: str
    runs: str
    pid: int | None = None
    address: str | None = None


def find_home(home: Path | str | None = None) -> Path:
    """``home`` if given, else ``CLIPPER_HOME``, else ``~/.clipper``; need not exist."""
    return Path(home or os.environ.get("CLIPPER_HOME") or _DEFAULT).expanduser().absolute()


def read_token(home: Path) -> str | None:
    """The token of the server of ``home``; None if there is none.

    Raises:
        Unavailable: the file cannot be read.
    """
    try:
        return (home / TOKEN_NAME).read_text("ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(
            f"cannot read {home / TOKEN_NAME}: {error}; run this as the server's user, or give CLIPPER_TOKEN"
        ) from error


def read_place(home: Path) -> Place:
    """Return where the server of ``home`` is, or last was.

    Raises:
        Unavailable: none was started there, or its file cannot be read.
    """
    path = home / "supervisor.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Place)
    except FileNotFoundError:
        raise Unavailable(f"no Clipper runs in {home}: start it with clipper start, or give --home or --url") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise Unavailable(f"cannot read {path}: {error}") from error


def lock_path(root: Path) -> Path:
    """A file that is there as long as a server's home is."""
    return root / _LOCK_NAME


def lock_home(root: Path) -> int:
    """Take the home for this process, for as long as it lives; return the lock's descriptor.

    No process that we start inherits it, and the kernel releases it when we die. So whoever gets the lock knows that no
    process is being started.

    Raises:
        Conflict: a supervisor has it, or another command.
    """
    descriptor = os.open(lock_path(root), os.O_RDWR | os.O_CREAT, 0o600)
    if not _is_taken_within(descriptor, _LOOKED_AT_S):
        os.close(descriptor)
        raise Conflict(
            f"a Clipper server (pid {lock_holder(root) or 'unknown'}) already runs in {root}: stop it with "
            "clipper stop, or choose another home with --home"
        )
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def is_locked(root: Path) -> bool:
    """Whether a supervisor has the home, whether it answers or not.

    Raises:
        Unavailable: the home belongs to another user.
    """
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
    """The process id of whoever has the home, or had it last; None if that is not known."""
    try:
        return int(lock_path(root).read_bytes()[:20])
    except (OSError, ValueError):
        return None


def _is_taken_within(descriptor: int, seconds: float) -> bool:
    deadline_s = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                return False
        time.sleep(_LOOK_AGAIN_S)
