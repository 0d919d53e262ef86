"""Frameworks' modules, asked in the environment of their framework: real libraries, real models."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import clipper
from scripts.real_models import environment
from tests.model.frameworks.framework_cases import is_of
from tests.waiting import TIMEOUT_S

PROGRAM = Path(__file__).parent / "framework_program.py"


class Refused(Exception):
    """The model was not loaded, or did not answer; the message begins with the error's class."""


@dataclass(frozen=True)
class Model:
    """A loaded model, with what the container would say of it."""

    desk: "Desk"
    number: int
    input_type: str
    max_batch: int | None
    runtime: str
    output_type: str | None
    device: str

    def predict(self, inputs: Any) -> Any:
        """Ask it for one batch; its outputs as they come out of JSON. They are of the type that the model states.

        Args:
            inputs: an array, which comes in the type that the model takes, or texts.
        """
        if isinstance(inputs, np.ndarray):
            path = self.desk.folder / "inputs.npy"
            np.save(path, inputs)
            inputs = str(path)
        answer = self.desk.ask({"model": self.number, "inputs": inputs})
        assert answer["failures"] == {}
        assert self.output_type is None or is_of(self.output_type, answer["shown"])
        return answer["outputs"]


@dataclass(frozen=True)
class Desk:
    """One process in a framework's environment. Its folder is for what it is given, and its own."""

    process: "subprocess.Popen[str]"
    folder: Path

    def load(self, path: Path, framework: str, **more: str | bool) -> Model:
        """Load a model file or folder that lies where an artifact would have it."""
        loader = {"loader": "file", "target": path.name} | more
        return self.load_artifact({"artifact": str(path.parent), "framework": framework, **loader})

    def load_artifact(self, source: dict[str, str | bool]) -> Model:
        """Load what has the fields of ``ModelSource``."""
        answer = self.ask(source)
        named = ("input_type", "max_batch", "runtime", "output_type", "device")
        return Model(self, answer["model"], *(answer[name] for name in named))

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the process ended: {(self.folder / 'log').read_text()}"
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer


@contextmanager
def desk(framework: str) -> Iterator[Desk]:
    """Start a process for the models of one framework; it ends with the block, and all that it started."""
    with tempfile.TemporaryDirectory(prefix="clipper-") as temporary:
        folder = Path(temporary)
        only_clipper = folder / "path"
        only_clipper.mkdir()
        (only_clipper / "clipper").symlink_to(Path(clipper.__file__).parent)
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(only_clipper), "OMP_NUM_THREADS": "1"}
        command = [str(environment(framework)), str(PROGRAM)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environ, cwd=folder, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        try:
            yield Desk(process, folder)
        finally:
            process.communicate(timeout=TIMEOUT_S)


def sample(package: str, name: str) -> Path:
    """A file that comes with a package of the development environment."""
    return Path(str(find_spec(package).origin)).parent / name


def near(outputs: Any, answers: Any, relative: float = 1e-5) -> bool:
    """Whether numbers are alike, but for what a batch of another size changes in their last digits."""
    return np.allclose(np.asarray(outputs), np.asarray(answers), rtol=relative, atol=1e-6)


def equal(outputs: Any, answers: Any) -> bool:
    return np.array_equal(np.asarray(outputs, dtype=np.asarray(answers).dtype), answers)
