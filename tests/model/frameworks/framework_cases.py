"""Cases of a framework: what the library itself answers, and what Clipper's runtime does.

``make_NAME.py FOLDER``, run in the environment of ``requirements/NAME.txt``, saves models, and writes to ``cases.json``
what each is asked and what the library itself answers. ``framework_answers.py`` then asks Clipper's runtime the same,
there.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import clipper
from clipper.values.records import RecordType, parse_type
from clipper.values.types import InputType
from scripts.real_models import environment, made, unpacked

HERE = Path(__file__).parent
# To load some of the largest libraries there are, on a busy machine.
WITHIN_S = 600
# The first run on a machine builds the environments, of which the largest are gigabytes, and has the models made.
FIRST_RUN = pytest.mark.timeout(1800)


def made_models(framework: str, wheels: Sequence[str] = ()) -> Path:
    """The folder with what ``make_FRAMEWORK.py`` made.

    Args:
        wheels: requirements of packages that hold a trained model; the script gets a folder with each one's files.
    """
    return made(HERE / f"make_{framework}.py", framework, *map(unpacked, wheels))


@dataclass(frozen=True)
class Answer:
    """The runtime's report on a case: its input type, its device, its outputs as JSON, or why it is refused.

    ``gives`` is the type of its outputs that the file states, ``shown`` what each batch shows of it.
    """

    takes: str = ""
    gives: str | None = None
    shown: tuple[str, ...] = ()
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

    def broken(self) -> dict[str, Any]:
        """The stated type of outputs, and the one that they are of, where these differ."""
        pairs = ((name, answer.gives, shown) for name, answer in self.answers.items() for shown in answer.shown)
        return {name: (gives, shown) for name, gives, shown in pairs if gives and not is_of(gives, shown)}


def is_of(gives: str, shown: str) -> bool:
    stated, seen = parse_type(gives), parse_type(shown)
    if isinstance(stated, RecordType) and isinstance(seen, RecordType):
        fields = zip(stated.fields, seen.fields)
        return stated.names == seen.names and all(mine.type.accepts(theirs.type) for mine, theirs in fields)
    return isinstance(stated, InputType) and isinstance(seen, InputType) and stated.accepts(seen)


def told_of(framework: str, wheels: Sequence[str] = ()) -> Told:
    folder = made_models(framework, wheels)
    answers = {name: Answer(**told) for name, told in _answers_of(environment(framework), folder).items()}
    return Told(json.loads((folder / "cases.json").read_text()), answers)


def _answers_of(python: Path, folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as path:
        # Nothing of Clipper's own environment but Clipper.
        (Path(path) / "clipper").symlink_to(Path(clipper.__file__).parent)
        done = subprocess.run(
            [str(python), str(HERE / "framework_answers.py"), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))
