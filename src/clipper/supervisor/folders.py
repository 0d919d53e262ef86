"""A home's folders and files. The lock that keeps a second supervisor out of them is ``home.lock_home``."""

import hashlib
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

import clipper
from clipper.base.run_as import RunAs
from clipper.base.trees import is_sealed, remove_tree, seal_tree
from clipper.base.whole_files import write_whole
from clipper.errors import Unavailable
from clipper.settings.home import (
    ARTIFACTS_NAME,
    CERTIFICATE_NAME,
    DECISIONS_NAME,
    EVENTS_NAME,
    ID_NAME,
    OPTIONS_NAME,
    REGISTRY_NAME,
    RUN_NAME,
    SELECTION_NAME,
    TOKEN_NAME,
    Place,
    make_home,
)
from clipper.settings.start_options import StartOptions, encode

# The kernel's bound on a unix socket's path.
MAX_SOCKET_PATH_BYTES = 107
# The longest name of a socket: c or w, and a number. ``m4294967295/s`` is shorter.
_SOCKET_NAME_BYTES = len("/w4294967295.sock")

# A link of the home to the folder of its sockets, if another user has made one of the usual name.
_SOCKETS_LINK = "sockets"


@dataclass(frozen=True, slots=True)
class HomeFolders:
    """Where everything of one server is. ``sockets`` is ``run`` unless that path is too long for a socket."""

    root: Path
    sockets: Path

    @property
    def registry(self) -> Path:
        return self.root / REGISTRY_NAME

    @property
    def selection_store(self) -> Path:
        return self.root / SELECTION_NAME

    @property
    def place(self) -> Path:
        return self.root / "supervisor.json"

    @property
    def id(self) -> Path:
        """A file with the home's name among those that share a registry; there while it shares one."""
        return self.root / ID_NAME

    @property
    def token(self) -> Path:
        return self.root / TOKEN_NAME

    @property
    def control_authority(self) -> Path:
        """The key of who signs for workers on nodes; there only if they are or were there."""
        return self.root / "control-authority.pem"

    @property
    def certificate(self) -> Path:
        return self.root / CERTIFICATE_NAME

    @property
    def artifacts(self) -> Path:
        return self.root / ARTIFACTS_NAME

    @property
    def environments(self) -> Path:
        """Where environments are if models run as another user, who cannot reach the server's cache."""
        return self.root / "environments"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def decisions(self) -> Path:
        return self.root / DECISIONS_NAME

    @property
    def events(self) -> Path:
        return self.root / EVENTS_NAME

    @property
    def run(self) -> Path:
        return self.root / RUN_NAME

    @property
    def scratch(self) -> Path:
        return self.run / "scratch"

    @property
    def python_path(self) -> Path:
        """A folder with only a link to Clipper: a container's Python does not get the server's other packages."""
        return self.run / "pythonpath"

    def make_id(self) -> str:
        """The home's name among those that share a registry: random, and the same over restarts."""
        try:
            if name := self.id.read_text("ascii").strip():
                return name
        except FileNotFoundError:
            pass
        name = secrets.token_hex(8)
        self.id.write_text(name + "\n", "ascii")
        return name

    def write_place(self, place: Place, options: StartOptions) -> None:
        """Write where the server is, for commands, and keep its options for the next start.

        Commands see whole files. ``clipper serve`` runs a server of its own, whose options are not those of the home.
        """
        if options.started_by != "serve":
            write_whole(self.root / OPTIONS_NAME, [encode(options)])
        write_whole(self.place, [msgspec.json.encode(place)])

    def remove_stale(self, processes: set[str], sockets: set[str]) -> None:
        """Remove records, notes, scratch folders and sockets of processes that are gone; those named are kept."""
        # The import notes of a worker that is not taken over go with it: a new start tries all policies again.
        for pattern in ("*.json", "*.importing"):
            for record in self.run.glob(pattern):
                if record.stem not in processes:
                    record.unlink()
        for scratch in self.scratch.iterdir():
            if scratch.name not in processes:
                remove_tree(scratch)  # as far as that is possible: a model may have made what we cannot remove
        for socket in self.sockets.glob("*.sock"):
            if str(socket) not in sockets:
                socket.unlink()

    def remove_sockets_folder(self) -> None:
        if self.sockets != self.run:
            remove_tree(self.sockets)


def open_home(root: Path) -> HomeFolders:
    """Make the missing folders.

    Raises:
        Unavailable: they cannot be made, or the home or something in it belongs to another user.
    """
    make_home(root)
    root = root.resolve()
    try:
        home = HomeFolders(root, _sockets_folder(root / RUN_NAME))
        for folder in (home.artifacts, home.logs, home.run, home.scratch, home.python_path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _link_package(home.python_path / "clipper")
    except OSError as error:
        raise Unavailable(f"home {root} cannot be used: {error}; choose another with --home") from error
    return home


def close_home(home: HomeFolders, run_as: RunAs | None = None) -> None:
    """Close the home to other users. It must be locked, so that no running server is disturbed.

    The files that models need are opened to the group of their user. Models pass through folders that they cannot list
    to reach these files. Everything else is closed to them, including what this process makes from now on.

    Raises:
        Unavailable: the home belongs to another user.
    """
    try:
        if run_as is None:
            for folder in (home.root, home.sockets):
                folder.chmod(0o700)
            return
        os.umask(0o077)
        home.environments.mkdir(mode=0o700, exist_ok=True)
        home.logs.chmod(0o700)
        # Before other users can pass through the folders: until now files in them may have been readable.
        for folder in (home.root, home.run, home.sockets):
            for path in folder.iterdir():
                if path.is_file() and not path.is_symlink():
                    path.chmod(0o600)
        for artifact in home.artifacts.iterdir():
            if artifact.is_dir() and not is_sealed(artifact):
                seal_tree(artifact)
        home.python_path.chmod(0o755)
        for folder in (home.artifacts, home.run, home.scratch, home.sockets, home.environments, home.root):
            os.chown(folder, -1, run_as.gid)
            folder.chmod(0o710)
    except OSError as error:
        raise Unavailable(f"home {home.root} cannot be closed to others: {error}") from error


def _sockets_folder(run: Path) -> Path:
    if len(os.fsencode(run)) + _SOCKET_NAME_BYTES <= MAX_SOCKET_PATH_BYTES:
        return run
    # The same for each supervisor of this home, so that the next one finds the sockets.
    name = f"clipper-{hashlib.sha256(os.fsencode(run)).hexdigest()[:16]}"
    link = run.with_name(_SOCKETS_LINK)
    folder = link.readlink() if link.is_symlink() else Path(tempfile.gettempdir()) / name
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if found.st_uid != os.geteuid():
        # Anyone can make a folder of that name first. Nobody can know this one's, and the home keeps it.
        folder = Path(tempfile.mkdtemp(prefix="clipper-"))
        run.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o067:
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
