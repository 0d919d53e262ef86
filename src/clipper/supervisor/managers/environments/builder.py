"""Builds virtual environments with uv, each once, in a folder that all Clippers of a user share.

    <root>/<key>/            an environment: complete or not there, never changed
    <root>/.building-<key>/  an environment that is being built; the next builder removes what a killed builder has left
    <root>/.<key>.lock       held (flock) by the builder, and by the uv that it runs, for which the next builder waits

A complete environment is read-only, and compiled to bytecode, which no Python could store there later. If packages are
built as another user, the files change their owner at the end.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from clipper.base.processes.proc import pids, program_of
from clipper.base.run_as import RunAs, credentials
from clipper.base.trees import remove_tree, seal_tree
from clipper.errors import ContainerFailed
from clipper.supervisor.managers.environments.plan import Kept, Recipe, to_remove
from clipper.supervisor.managers.environments.uv_settings import (
    cause_of,
    for_builds,
    of_another_user,
    parse_pip_config,
    progress_of,
    uv_options,
    uv_variables,
)
from clipper.supervisor.managers.launcher import OnProgress

# The largest frameworks are a download of some GB, and some packages have to be compiled.
BUILD_TIMEOUT_S = 1800.0
LOCK_POLL_S = 0.1
PIP_TIMEOUT_S = 30.0
# The last lines of an installer that are about its failure. A compiler may write many more before.
LOG_TAIL_LINES = 40
MAX_LINE_CHARACTERS = 500

_BUILDING = ".building-"
# The home of the user who builds packages, with uv's cache in it.
_HOME = ".home"
# A file in the environment whose modification time is when the environment was last handed out.
_USED = ".used"


def environments_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of this user's environments, which all homes of the user share."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(environ.get("CLIPPER_CACHE") or f"{cache}/clipper").expanduser().absolute() / "environments"


def build_environment(
    recipe: Recipe,
    root: Path,
    on_progress: OnProgress,
    timeout_s: float = BUILD_TIMEOUT_S,
    run_as: RunAs | None = None,
) -> Path:
    """Return the environment's interpreter; build the environment in ``root``, as ``run_as``, if it does not exist.

    Raises ContainerFailed if it cannot be built; ``log_tail`` holds the installer's last lines.
    """
    deadline_s = time.monotonic() + timeout_s
    path = root / recipe.key
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if run_as is not None:
            _make_folder_of(run_as, root / _HOME)
        with _locked(root, recipe.key, deadline_s, on_progress) as lock:
            if not path.is_dir():
                with _building(root, recipe.key) as building:
                    _install(recipe, building, lock, deadline_s, on_progress, run_as)
                    # O_EXCL: a package that was built may have put a link there.
                    os.close(os.open(building / _USED, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444))
                    seal_tree(building, None if run_as is None else run_as.uid)
                    building.rename(path)
            os.utime(path / _USED, follow_symlinks=False)
        remove_unneeded(root)
    except OSError as error:
        raise ContainerFailed(f"the environment cannot be made in {root}: {error}") from error
    return path / "bin" / "python"


def remove_unneeded(root: Path) -> None:
    """Remove the leftovers of killed builders, and the environments that ``to_remove`` names."""
    for folder in root.glob(f"{_BUILDING}*"):
        _remove(root, folder.name.removeprefix(_BUILDING), folder)
    programs = [program for pid in pids() if (program := program_of(pid))]
    kept = []
    for used in root.glob(f"[!.]*/{_USED}"):
        runs = any(program.startswith(f"{used.parent}/") for program in programs)
        with contextlib.suppress(FileNotFoundError):  # another process has removed it since
            kept.append(Kept(used.parent.name, used.lstat().st_mtime, runs))
    for key in to_remove(kept):
        _remove(root, key, root / key)


def _remove(root: Path, key: str, folder: Path) -> None:
    """Remove a folder and its lock, unless a builder works on it."""
    with _lock_file(root, key) as lock:
        if not _try_lock(lock, root / f".{key}.lock"):
            return
        # Renamed first, so that no process ever sees half of an environment.
        doomed = folder.rename(root / f"{_BUILDING}{key}") if folder.exists() else folder
        remove_tree(doomed)  # the next call removes what stays
        (root / f".{key}.lock").unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(root: Path, key: str, deadline_s: float, on_progress: OnProgress) -> Iterator[int]:
    while True:
        with _lock_file(root, key) as lock:
            if _try_lock(lock, root / f".{key}.lock"):
                yield lock
                return
        on_progress("another process is building the same environment")
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
        # An environment is removed with its lock file, and a lock on a removed file protects nothing.
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


@contextlib.contextmanager
def _building(root: Path, key: str) -> Iterator[Path]:
    """Make an empty folder to build in, which is removed after a failure."""
    folder = root / f"{_BUILDING}{key}"
    remove_tree(folder)  # left by a killed builder; uv reports what cannot be removed
    try:
        yield folder
    finally:
        remove_tree(folder)  # the next build removes what stays


def _make_folder_of(run_as: RunAs, folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(folder, run_as.uid, run_as.gid, follow_symlinks=False)


def _install(
    recipe: Recipe, folder: Path, lock: int, deadline_s: float, on_progress: OnProgress, run_as: RunAs | None
) -> None:
    # Copies instead of links into uv's cache: an environment is made read-only, and with links the cached files, which
    # other environments share, would become read-only too.
    environ = {"UV_LINK_MODE": "copy", **for_builds(os.environ)}
    if run_as is not None:
        environ = of_another_user(environ, str(folder.parent / _HOME))
        _make_folder_of(run_as, folder)
    uv = _Uv(environ, lock, deadline_s, on_progress, run_as)
    pip = _pip_settings(environ, run_as)
    environ |= uv_variables(pip, environ)
    on_progress(f"installing {recipe.title}")
    # Relocatable, because it is renamed once it is complete.
    make = ("venv", "--no-project", "--relocatable", "--no-python-downloads", "--python", recipe.interpreter.path)
    uv.run(*make, str(folder))
    python = str(folder / "bin" / "python")
    options = (*uv_options(pip), "--compile-bytecode", "--requirements", "-")
    uv.run("pip", "install", "--python", python, *options, text=recipe.text)


@dataclass(frozen=True, slots=True)
class _Uv:
    """The installer, with the settings of all its runs for an environment. It holds the descriptor ``lock`` open."""

    environ: Mapping[str, str]
    lock: int
    deadline_s: float
    on_progress: OnProgress
    run_as: RunAs | None

    def run(self, *arguments: str, text: str = "") -> None:
        """Run uv with ``text`` as its standard input. Raises ContainerFailed if it fails, or is not done in time."""
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
                        self.on_progress(now)
                code = uv.wait()
                overdue.cancel()
        if code != 0:
            cause = "it takes too long" if time.monotonic() >= self.deadline_s else cause_of(lines)
            raise ContainerFailed(f"its environment cannot be built: {cause}", list(lines))


def _pip_settings(environ: Mapping[str, str], run_as: RunAs | None) -> dict[str, str]:
    """Return the settings of this user's pip, from its files and the environment."""
    for pip in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        # A machine without pip has no settings of pip.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            listed = subprocess.run(
                [*pip, "config", "list"],
                capture_output=True,
                text=True,
                errors="surrogateescape",  # as the environment has them, into which the settings go
                timeout=PIP_TIMEOUT_S,
                check=True,
                env=environ,
                **credentials(run_as),
            )
            return parse_pip_config(listed.stdout)
    return {}
