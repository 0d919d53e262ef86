"""A home's folders and files, and the lock that keeps a second supervisor out of them."""

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

import clipper
from clipper.errors import Conflict, Unavailable
from clipper.home import CERTIFICATE_NAME, DECISIONS_NAME, TOKEN_NAME, Place

# The kernel's bound on a unix socket's path.
MAX_SOCKET_PATH_BYTES = 107
# The longest name of a socket: c or w, and a number.
_SOCKET_NAME_BYTES = len("/w4294967295.sock")


@dataclass(frozen=True, slots=True)
class Home:
    """Where everything of one server is. ``sockets`` is ``run`` unless that path is too long for a socket."""

    root: Path
    sockets: Path

    @property
    def registry(self) -> Path:
        return self.root / "registry.sqlite3"

    @property
    def selection_store(self) -> Path:
        return self.root / "selection.sqlite3"

    @property
    def place(self) -> Path:
        return self.root / "supervisor.json"

    @property
    def token(self) -> Path:
        return self.root / TOKEN_NAME

    @property
    def certificate(self) -> Path:
        return self.root / CERTIFICATE_NAME

    @property
    def lock(self) -> Path:
        return self.root / "supervisor.lock"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def decisions(self) -> Path:
        return self.root / DECISIONS_NAME

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def scratch(self) -> Path:
        return self.run / "scratch"

    @property
    def python_path(self) -> Path:
        """Holds a link to Clipper and nothing else: a container's Python gets none of our other packages."""
        return self.run / "pythonpath"

    def write_place(self, place: Place) -> None:
        """Tell commands where the server is: they see all of it or nothing."""
        temporary = self.place.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(place))
        temporary.replace(self.place)

    def remove_stale(self, processes: set[str], sockets: set[str]) -> None:
        """Remove records, scratch folders and sockets of processes that are gone; those named are kept."""
        for record in self.run.glob("*.json"):
            if record.stem not in processes:
                record.unlink()
        for scratch in self.scratch.iterdir():
            if scratch.name not in processes:
                shutil.rmtree(scratch, ignore_errors=True)  # a model may have made what we cannot remove
        for socket in self.sockets.glob("*.sock"):
            if str(socket) not in sockets:
                socket.unlink()

    def remove_sockets_folder(self) -> None:
        if self.sockets != self.run:
            shutil.rmtree(self.sockets)


def open_home(root: Path) -> Home:
    """Make the folders that are missing.

    Raises:
        Unavailable: they cannot be made, or are not ours.
    """
    root = root.resolve()
    try:
        home = Home(root, _sockets_folder(root / "run"))
        for folder in (root, home.artifacts, home.logs, home.run, home.scratch, home.python_path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)
        _link_package(home.python_path / "clipper")
    except OSError as error:
        raise Unavailable(f"home {root} cannot be used: {error}; choose another with --home") from error
    return home


def lock_home(home: Home) -> int:
    """Take the home for this process, for as long as it lives; return the lock's descriptor.

    No process of ours has a copy of it, and the kernel lets go of it when we die. So whoever gets the lock knows that
    no start of a process is under way.

    Raises:
        Conflict: another supervisor has it.
    """
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode() or "unknown"
        os.close(descriptor)
        raise Conflict(
            f"a Clipper server (pid {holder}) already runs in {home.root}: stop it with clipper stop, "
            "or choose another home with --home"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def _sockets_folder(run: Path) -> Path:
    if len(os.fsencode(run)) + _SOCKET_NAME_BYTES <= MAX_SOCKET_PATH_BYTES:
        return run
    # The same for each supervisor of this home, so that the next one finds the sockets.
    name = f"clipper-{hashlib.sha256(os.fsencode(run)).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private folder of this user")
    return folder


def _link_package(link: Path) -> None:
    package = Path(clipper.__file__).parent
    if link.is_symlink() and link.readlink() == package:
        return
    temporary = link.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(package)
    # In one step: a container that is just starting finds the old link or the new one.
    temporary.replace(link)
