"""Real models of each framework, each made once, in an environment of its own, and kept outside the checkout.

Tests and benchmarks share them.
``requirements/<framework>.txt`` says what an environment holds, and ``benchmarks/exports/<name>.py`` saves
models with the library itself, besides inputs and what the library answers to them.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from clipper.errors import InvalidArgument
from clipper.supervisor.managers.environments.builder import build_environment, environments_root
from clipper.supervisor.managers.environments.interpreters import find_interpreter
from clipper.supervisor.managers.environments.plan import Interpreter, Recipe

ROOT = Path(__file__).parent.parent
EXPORTS = ROOT / "benchmarks" / "exports"

# One for all, whatever runs Clipper, so that what was made is found again; and PyTorch for others may bring CUDA.
PYTHON = "3.11"
# PyTorch exports a network in half a minute on a slow machine, Spark starts in as much.
EXPORT_WITHIN_S = 600

_UNPACK = ("-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet")


def requirements(framework: str) -> Path:
    """Return the file of what a framework's environment holds."""
    return ROOT / "requirements" / f"{framework}.txt"


@cache
def environment(framework: str) -> Path:
    """Return the interpreter of a framework's environment, which takes minutes to build the first time.

    Raises:
        ContainerFailed: it cannot be built.
    """
    recipe = Recipe(requirements(framework).read_text(), _interpreter())
    return build_environment(recipe, environments_root(os.environ), lambda _text: None)


def exported(name: str, framework: str, *inputs: Path) -> Path:
    """Return the folder that an export has written; see ``made``."""
    return made(EXPORTS / f"{name}.py", framework, *inputs)


@cache
def made(script: Path, framework: str, *inputs: Path) -> Path:
    """Return the folder that a script, run as ``SCRIPT FOLDER INPUT...`` in a framework's environment, has filled.

    It is made anew when one of these changes.

    Args:
        inputs: files, or folders from ``unpacked``, that the script reads, in its order.

    Raises:
        subprocess.CalledProcessError: the script failed; what it says is on stderr.
    """
    python = environment(framework)
    content = [str(python).encode(), script.read_bytes(), *map(_content, inputs)]
    key = hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in content)).hexdigest()[:32]
    folder = _kept() / "models" / f"{script.stem}-{key}"
    made_once(folder, lambda making: _run(python, str(script), str(making), *map(str, inputs)))
    return folder


@cache
def unpacked(requirement: str) -> Path:
    """Return a folder with a package's files, without what it depends on: for a model that is published as one.

    Args:
        requirement: with its version, such as ``magika==1.0.3``.

    Raises:
        subprocess.CalledProcessError: it cannot be installed.
    """
    folder = _kept() / "wheels" / requirement
    made_once(folder, lambda making: _run(Path(sys.executable), *_UNPACK, "--target", str(making), requirement))
    return folder


def _kept() -> Path:
    return environments_root(os.environ).parent


def _content(path: Path) -> bytes:
    # A folder's name says what is in it.
    return path.read_bytes() if path.is_file() else path.name.encode()


def _interpreter() -> Interpreter:
    try:
        return find_interpreter(PYTHON)
    except InvalidArgument:
        return find_interpreter(sys.executable)


def made_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Have ``make`` fill a folder, unless it is there already; others that want it wait."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            return
        making = folder.with_name(f".{folder.name}.making")
        shutil.rmtree(making, ignore_errors=True)  # of one that was killed
        making.mkdir()
        make(making)
        making.rename(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        # It is held for no longer than an export may take.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(python: Path, *arguments: str) -> None:
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    environ.pop("PYTHONPATH", None)
    command = [str(python), *arguments]
    subprocess.run(command, env=environ, check=True, timeout=EXPORT_WITHIN_S, stdout=subprocess.DEVNULL)
