"""Real models of the large frameworks, each made once, in an environment of its own, and kept outside the checkout.

``requirements/<framework>.txt`` says what an environment holds, ``exports/<name>.py`` saves models with the library
itself, besides inputs and what the library answers to them.
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
from clipper.managers.environment_builder import build_environment, environments_root
from clipper.managers.environments.recipe import Interpreter, Recipe
from clipper.managers.interpreters import find_interpreter

ROOT = Path(__file__).parent.parent
EXPORTS = Path(__file__).parent / "exports"

# One for all, whatever runs Clipper, so that what was made is found again; and PyTorch for others may bring CUDA.
PYTHON = "3.11"
# PyTorch exports a network in half a minute on a slow machine, Spark starts in as much.
EXPORT_WITHIN_S = 600


@cache
def environment(framework: str) -> Path:
    """Return the interpreter of a framework's environment, which takes minutes to build the first time.

    Raises:
        ContainerFailed: it cannot be built.
    """
    recipe = Recipe((ROOT / "requirements" / f"{framework}.txt").read_text(), _interpreter())
    return build_environment(recipe, environments_root(os.environ), lambda _text: None)


@cache
def exported(name: str, framework: str, *inputs: Path) -> Path:
    """Return the folder that an export has written.

    Args:
        inputs: files that the export reads, in its order.

    Raises:
        subprocess.CalledProcessError: the export failed; what it says is on stderr.
    """
    python, script = environment(framework), EXPORTS / f"{name}.py"
    content = [str(python).encode(), script.read_bytes(), *(each.read_bytes() for each in inputs)]
    key = hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in content)).hexdigest()[:32]
    folder = environments_root(os.environ).parent / "models" / f"{name}-{key}"
    _made_once(folder, lambda making: _run(python, script, making, *inputs))
    return folder


def _interpreter() -> Interpreter:
    try:
        return find_interpreter(PYTHON)
    except InvalidArgument:
        return find_interpreter(sys.executable)


def _made_once(folder: Path, make: Callable[[Path], None]) -> None:
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


def _run(python: Path, script: Path, folder: Path, *inputs: Path) -> None:
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    environ.pop("PYTHONPATH", None)
    command = [str(python), str(script), str(folder), *map(str, inputs)]
    subprocess.run(command, env=environ, check=True, timeout=EXPORT_WITHIN_S, stdout=subprocess.DEVNULL)
