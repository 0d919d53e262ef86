"""A home's folders and files. The lock that keeps a second supervisor out of them is ``home.lock_home``."""

import hashlib
import os
import secrets
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

import clipper
from clipper.base.processes.folder import ProcessFolder, passed_on
from clipper.base.run_as import RunAs, credentials
from clipper.base.trees import is_sealed, remove_tree, seal_tree
from clipper.base.whole_files import write_whole
from clipper.errors import Unavailable
from clipper.settings import home as homes
from clipper.settings.start_options import StartOptions, encode
from clipper.supervisor.config import Config
from clipper.supervisor.managers.launcher import Facilities

# The kernel's bound on the path of a unix socket.
MAX_SOCKET_PATH_BYTES = 107
# The longest name of a socket: c or w, and a number. ``m4294967295/s`` is shorter.
_SOCKET_NAME_BYTES = len("/w4294967295.sock")

# A link in the home to the folder of its sockets, used if another user owns a folder of the usual name.
_SOCKETS_LINK = "sockets"


class _Inside:
    """A path below the root of a ``HomeFolders``."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __get__(self, home: "HomeFolders", kind: object = None) -> Path:
        return home.root.joinpath(*self._names)


@dataclass(frozen=True, slots=True)
class HomeFolders:
    """The folders and files of a server's home. ``sockets`` is ``run`` unless that path is too long for a socket."""

    root: Path
    sockets: Path

    registry = _Inside(homes.REGISTRY_NAME)
    selection_store = _Inside(homes.SELECTION_NAME)
    place = _Inside(homes.PLACE_NAME)
    # There while the home shares a registry.
    id = _Inside(homes.ID_NAME)
    token = _Inside(homes.TOKEN_NAME)
    # The key that signs for workers on nodes; there only if there are or were such workers.
    control_authority = _Inside("control-authority.pem")
    certificate = _Inside(homes.CERTIFICATE_NAME)
    artifacts = _Inside(homes.ARTIFACTS_NAME)
    # The folder of environments if models run as another user, who cannot reach the server's cache.
    environments = _Inside("environments")
    logs = _Inside("logs")
    decisions = _Inside(homes.DECISIONS_NAME)
    events = _Inside(homes.EVENTS_NAME)
    run = _Inside(homes.RUN_NAME)
    scratch = _Inside(homes.RUN_NAME, "scratch")
    # A folder with only a link to Clipper: a container's Python does not get the server's other packages.
    python_path = _Inside(homes.RUN_NAME, "pythonpath")

    def make_id(self) -> str:
        """Return the home's name among homes that share a registry: random, and the same over restarts."""
        with suppress(FileNotFoundError):
            if name := self.id.read_text("ascii").strip():
                return name
        name = secrets.token_hex(8)
        self.id.write_text(name + "\n", "ascii")
        return name

    def write_place(self, place: homes.Place, options: StartOptions) -> None:
        """Write the server's place for commands, and, except of ``clipper serve``, its options for the next start."""
        if options.started_by != "serve":
            write_whole(self.root / homes.OPTIONS_NAME, [encode(options)])
        write_whole(self.place, [msgspec.json.encode(place)])

    def remove_stale(self, processes: set[str], sockets: set[str]) -> None:
        """Remove records, notes, scratch folders and sockets of processes that are gone, except for the named ones."""
        # The import notes of a worker that is not adopted are removed: a new start tries all policies again.
        for pattern in ("*.json", "*.importing"):
            for record in self.run.glob(pattern):
                if record.stem not in processes:
                    record.unlink(missing_ok=True)  # a process that is just ending may have been quicker
        for scratch in self.scratch.iterdir():
            if scratch.name not in processes:
                remove_tree(scratch)  # as far as possible: a model may have made files that we cannot remove
        for socket in self.sockets.glob("*.sock"):
            if str(socket) not in sockets:
                socket.unlink(missing_ok=True)

    def remove_sockets_folder(self) -> None:
        if self.sockets != self.run:
            remove_tree(self.sockets)


def open_home(root: Path) -> HomeFolders:
    """Make the missing folders. Raises Unavailable if they cannot be made, or belong to another user."""
    homes.make_home(root)
    root = root.resolve()
    try:
        home = HomeFolders(root, _sockets_folder(root / homes.RUN_NAME))
        for folder in (home.artifacts, home.logs, home.run, home.scratch, home.python_path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _link_package(home.python_path / "clipper")
    except OSError as error:
        raise Unavailable(f"home {root} cannot be used: {error}; choose another with --home") from error
    return home


def close_home(home: HomeFolders, run_as: RunAs | None = None) -> None:
    """Close the home, which must be locked, to other users.

    Files that models need are opened to the group of the models' user, which can pass through folders but not list
    them. Raises Unavailable if the home belongs to another user.
    """
    try:
        if run_as is None:
            for folder in (home.root, home.sockets):
                folder.chmod(0o700)
            return
        os.umask(0o077)
        home.environments.mkdir(mode=0o700, exist_ok=True)
        home.logs.chmod(0o700)
        # Before other users can enter the folders: until now files in them may have been readable.
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
    # The same name for each supervisor of this home, so that the next one finds the sockets.
    name = f"clipper-{hashlib.sha256(os.fsencode(run)).hexdigest()[:16]}"
    link = run.with_name(_SOCKETS_LINK)
    folder = link.readlink() if link.is_symlink() else Path(tempfile.gettempdir()) / name
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if found.st_uid != os.geteuid():
        # Another user can create a folder of that name first. This folder's name is secret: only the home stores it.
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
    # In one step, so that a container that is just starting finds either the old or the new link.
    temporary.replace(link)


def facilities_of(config: Config, home: HomeFolders) -> Facilities:
    return Facilities(
        home=home.root,
        artifacts=home.artifacts,
        scratch=home.scratch,
        sockets=home.sockets,
        environments=home.environments,
        processes=ProcessFolder(home.run, os.environ, home.python_path),
        logs=home.logs,
        environ=os.environ,
        settings=config,
        run_as=config.models_user,
    )


# The check imports numpy, on a machine that may be busy.
TIMEOUT_S = 60.0


def check_reach(run_as: RunAs, home: HomeFolders) -> None:
    """Raise Unavailable if the user cannot run this Python, or cannot reach Clipper's code or the home."""
    environ = passed_on(os.environ) | {"PYTHONPATH": str(home.python_path), "HOME": "/"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import clipper.model.runtime.loop"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
            cwd="/",
            env=environ,
            **credentials(run_as),
        )
        lines = done.stderr.decode(errors="replace").splitlines()
        cause = None if done.returncode == 0 else lines[-1] if lines else f"it ends with code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        cause = str(error)
    places = {
        "the home": home.scratch,
        "its sockets": home.sockets,
        "this Python": Path(sys.executable),
        "its installation": Path(sys.base_prefix),
        "Clipper's code": Path(__file__),
    }
    closed = {what: folder for what, path in places.items() if (folder := _closed_on_the_way(path, run_as))}
    if cause is None and not closed:
        return
    where = "; ".join(f"{folder} on the way to {what} is closed to that user" for what, folder in closed.items())
    raise Unavailable(
        f"models cannot run as {run_as.user}: {where or cause}; open these folders to that user (chmod o+x), or put "
        "the home or the installation elsewhere"
    )


def _closed_on_the_way(path: Path, run_as: RunAs) -> Path | None:
    """Return the first folder above ``path`` that the user may not pass, by its mode."""
    for folder in reversed(path.resolve().parents):
        found = folder.stat()
        bit = 0o100 if found.st_uid == run_as.uid else 0o010 if found.st_gid == run_as.gid else 0o001
        if not found.st_mode & bit:
            return folder
    return None
