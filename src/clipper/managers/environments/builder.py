"""Builds virtual environments with uv, each once, in a folder that all Clippers of a user share.

    <root>/<key>/            an environment: complete or not there, never changed
    <root>/.building-<key>/  one that is being made
    <root>/.<key>.lock       held (flock) by who makes it, and by the uv that it runs

What a builder that was killed has left is removed by the next one; it waits for a uv that outlived its builder.

Nobody writes to an environment: its files are read-only once it is complete, and compiled before that, since no Python
can keep what it compiles there later. Where packages are built as another user, who is not to be able to write to them
either, they are taken from that user then.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from clipper.errors import ContainerFailed
from clipper.managers.environments.output import cause_of, progress_of
from clipper.managers.environments.pip_settings import parse_pip_config, uv_options, uv_variables
from clipper.managers.environments.recipe import Recipe
from clipper.managers.environments.retention import Kept, to_remove
from clipper.managers.environments.surroundings import for_builds, of_another_user
from clipper.run_as import RunAs, credentials
from clipper.trees import is_sealed, remove_tree, seal_tree

# The largest frameworks are some GB to download, and some packages are compiled first.
BUILD_TIMEOUT_S = 1800.0
LOCK_POLL_S = 0.1
PIP_TIMEOUT_S = 30.0
# What an installer says of one failure; a compiler may say much more before.
LOG_TAIL_LINES = 40
MAX_LINE_CHARACTERS = 500

_BUILDING = ".building-"
# The home of the user that packages are built as, with uv's cache in it.
_HOME = ".home"
# Its time of change is when the environment was last handed out.
_USED = ".used"


def environments_root(environ: Mapping[str, str]) -> Path:
    """Where the environments of this user are."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(environ.get("CLIPPER_CACHE") or f"{cache}/clipper").expanduser().absolute() / "environments"


def build_environment(
    recipe: Recipe,
    root: Path,
    tell: Callable[[str], None],
    timeout_s: float = BUILD_TIMEOUT_S,
    run_as: RunAs | None = None,
) -> Path:
    """Return the environment's interpreter, after building the environment if it is not there.

    Args:
        root: where environments are, from ``environments_root``.
        tell: called with what is going on.
        run_as: the user that packages are built as.

    Raises:
        ContainerFailed: it cannot be built; ``log_tail`` holds the installer's last lines.
    """
    deadline_s = time.monotonic() + timeout_s
    path = root / recipe.key
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if run_as is not None:
            _make_folder_of(run_as, root / _HOME)
        with _locked(root, recipe.key, deadline_s, tell) as lock:
            if not path.is_dir():
                with _building(root, recipe.key) as building:
                    _install(recipe, building, lock, deadline_s, tell, run_as)
                    # Whose packages these are may have put a link there.
                    os.close(os.open(building / _USED, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444))
                    seal_tree(building, None if run_as is None else run_as.uid)
                    building.rename(path)
            elif not is_sealed(path):  # of a Clipper from before they were
                (path / _USED).touch()
                seal_tree(path)
            os.utime(path / _USED, follow_symlinks=False)
        remove_unneeded(root)
    except OSError as error:
        raise ContainerFailed(f"the environment cannot be made in {root}: {error}") from error
    return path / "bin" / "python"


def remove_unneeded(root: Path) -> None:
    """Remove what killed builders have left, and the environments that ``retention`` says are too many."""
    for folder in root.glob(f"{_BUILDING}*"):
        _remove(root, folder.name.removeprefix(_BUILDING), folder)
    kept = [Kept(used.parent.name, used.lstat().st_mtime, _runs(used.parent)) for used in root.glob(f"[!.]*/{_USED}")]
    for key in to_remove(kept):
        _remove(root, key, root / key)


def _remove(root: Path, key: str, folder: Path) -> None:
    """Remove a folder, and its lock, unless somebody is at work on it."""
    with _lock_file(root, key) as lock:
        if not _try_lock(lock, root / f".{key}.lock"):
            return
        # Renamed first: nobody ever sees half of an environment.
        doomed = folder.rename(root / f"{_BUILDING}{key}") if folder.exists() else folder
        remove_tree(doomed)  # what stays is removed the next time
        (root / f".{key}.lock").unlink(missing_ok=True)


def _runs(environment: Path) -> bool:
    """Whether a process was started with the environment's interpreter."""
    program = os.fsencode(environment) + b"/"
    for entry in Path("/proc").iterdir():
        # It may be gone, or another user's; environments are one user's own.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(program):
                return True
    return False


@contextlib.contextmanager
def _locked(root: Path, key: str, deadline_s: float, tell: Callable[[str], None]) -> Iterator[int]:
    while True:
        with _lock_file(root, key) as lock:
            if _try_lock(lock, root / f".{key}.lock"):
                yield lock
                return
        tell("another process is building the same environment")
        if time.monotonic() > deadline_s:
            raise ContainerFailed(f"environment {key} is being built by another process, which takes too long")
        time.sleep(LOCK_POLL_S)


@contextlib.contextmanager
def _lock_file(root: Path, key: str) -> Iterator[int]:
    descriptor = os.open(root / f".{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who removes an environment removes the lock's name with it: then others lock another file.
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


@contextlib.contextmanager
def _building(root: Path, key: str) -> Iterator[Path]:
    """The folder to build in: without what a builder that was killed has left, and removed after a failure."""
    folder = root / f"{_BUILDING}{key}"
    remove_tree(folder)  # uv says so if some of it stays and is in the way
    try:
        yield folder
    finally:
        remove_tree(folder)  # what stays is removed with the next build


def _make_folder_of(run_as: RunAs, folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(folder, run_as.uid, run_as.gid, follow_symlinks=False)


def _install(
    recipe: Recipe, folder: Path, lock: int, deadline_s: float, tell: Callable[[str], None], run_as: RunAs | None
) -> None:
    # Its files are an environment's own: one that shares them with uv's cache, and so with other environments, would
    # make them read-only there too.
    environ = {"UV_LINK_MODE": "copy", **for_builds(os.environ)}
    if run_as is not None:
        environ = of_another_user(environ, str(folder.parent / _HOME))
        _make_folder_of(run_as, folder)
    uv = _Uv(environ, lock, deadline_s, tell, run_as)
    pip = _pip_settings(environ, run_as)
    environ |= uv_variables(pip, environ)
    tell(f"installing {recipe.title}")
    # Relocatable, since it is renamed once it is complete.
    make = ("venv", "--no-project", "--relocatable", "--no-python-downloads", "--python", recipe.interpreter.path)
    uv.run(*make, str(folder))
    python = str(folder / "bin" / "python")
    options = (*uv_options(pip), "--compile-bytecode", "--requirements", "-")
    uv.run("pip", "install", "--python", python, *options, text=recipe.text)


@dataclass(frozen=True, slots=True)
class _Uv:
    """The installer, and what all its runs for an environment have in common. ``lock``: a descriptor that it holds."""

    environ: Mapping[str, str]
    lock: int
    deadline_s: float
    tell: Callable[[str], None]
    run_as: RunAs | None

    def run(self, *arguments: str, text: str = "") -> None:
        """``text`` is its standard input. Raises ContainerFailed if it fails, or is not done in time."""
        lines: deque[str] = deque(maxlen=LOG_TAIL_LINES)
        with tempfile.TemporaryFile("w+") as given:
            given.write(text)
            given.seek(0)
            with subprocess.Popen(
                [find_uv_bin(), "--no-progress", "--color", "never", *arguments],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=self.environ,
                cwd=None if self.run_as is None else self.environ["HOME"],
                pass_fds=(self.lock,),
                **credentials(self.run_as),
            ) as uv:
                assert uv.stdout is not None
                overdue = threading.Timer(max(0.0, self.deadline_s - time.monotonic()), uv.kill)
                overdue.start()
                for line in uv.stdout:
                    lines.append(line.rstrip()[:MAX_LINE_CHARACTERS])
                    if now := progress_of(lines[-1]):
                        self.tell(now)
                code = uv.wait()
                overdue.cancel()
        if code != 0:
            cause = "it takes too long" if time.monotonic() >= self.deadline_s else cause_of(lines)
            raise ContainerFailed(f"its environment cannot be built: {cause}", list(lines))


def _pip_settings(environ: Mapping[str, str], run_as: RunAs | None) -> dict[str, str]:
    """What pip is set to, for this user: by its files and by the environment."""
    for pip in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        # Without any pip there is nothing that it could be set to.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            listed = subprocess.run(
                [*pip, "config", "list"],
                capture_output=True,
                text=True,
                timeout=PIP_TIMEOUT_S,
                check=True,
                env=environ,
                **credentials(run_as),
            )
            return parse_pip_config(listed.stdout)
    return {}
