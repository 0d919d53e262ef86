"""Decides which Python a model runs in, and which environments are kept."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clipper.settings.version import VersionSpec

# Raise this number when the same recipe should produce another environment: then all are rebuilt.
FORMAT = 1

# Packages that Clipper's runtime needs.
RUNTIME_REQUIREMENTS = ("numpy",)

# The oldest Python that the runtime runs on.
MIN_PYTHON = (3, 10)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python. ``path`` is its installed file, not a virtual environment's link; ``version`` is e.g. ``3.12.1``."""

    path: str
    version: str

    @property
    def is_recent(self) -> bool:
        """Whether Clipper's runtime runs on it."""
        return tuple(int(part) for part in self.version.split(".")[:2]) >= MIN_PYTHON

    def is_a(self, version: str) -> bool:
        """Whether it has a version, which may leave out the last number."""
        return f"{self.version}.".startswith(f"{version}.")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that an environment depends on. ``requirements`` is the text of a requirements file."""

    requirements: str
    interpreter: Interpreter

    @property
    def text(self) -> str:
        """The requirements to install, without comments, so that these make no difference."""
        lines = [line.strip() for line in self.requirements.splitlines()]
        meant = [line for line in lines if line and not line.startswith("#")]
        return "".join(f"{line}\n" for line in (*meant, *RUNTIME_REQUIREMENTS))

    @property
    def title(self) -> str:
        """The first requirements, by which people recognise the environment."""
        first, more = self.text.splitlines()[:3], len(self.text.splitlines()) - 3
        return f"{', '.join(first)}{f' and {more} more' if more > 0 else ''} for Python {self.interpreter.version}"

    @property
    def key(self) -> str:
        """The key of the environment: 32 hex digits, the same only for equal recipes."""
        content = json.dumps([FORMAT, self.interpreter.path, self.interpreter.version, self.text])
        return hashlib.sha256(content.encode()).hexdigest()[:32]


# Packages that install the same library, e.g. variants without support for GPUs or windows.
_SAME = {"xgboost-cpu": "xgboost", "tensorflow-cpu": "tensorflow", "opencv-python-headless": "opencv-python"}

# Maps a small package that a model's file requires to the package that computes on a GPU. Each has an extra, and so is
# not confused with the package without support for GPUs.
_WITH_GPUS = {
    "onnxruntime": "onnxruntime-gpu[cuda,cudnn]",
    "tensorflow-cpu": "tensorflow[and-cuda]",
    "xgboost-cpu": "xgboost[scikit-learn]",
}

_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
_NEED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[A-Za-z0-9,_-]+\])?(?:==([^,;*]+)|<(\d+))?")
# The beginning of a need on the interpreter itself.
_PYTHON = "python=="


@dataclass(frozen=True, slots=True)
class Own:
    """Clipper's own interpreter, and the versions of its packages by name."""

    interpreter: Interpreter
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Build:
    """The requirements of an environment, and the version or path to build it with; None is Clipper's own."""

    requirements: str
    python: str | None


def is_version(python: str) -> bool:
    """Whether a text is a version, e.g. ``3.12`` or ``3.12.1``, and not the path of an interpreter."""
    return _VERSION.fullmatch(python) is not None


def plan_environment(requirements: str | None, python: str | None, needs: Sequence[str], own: Own) -> Build | None:
    """Decide what to build for a model; None to use the given interpreter, or else Clipper's own, unchanged.

    ``requirements`` is the text of the deployed file. ``needs`` are those that the model's file states, with
    ``python==3.12`` for Python itself.
    """
    if requirements is not None:
        return Build(requirements, python)
    if python is not None and not is_version(python):
        return None
    pythons = [need.removeprefix(_PYTHON) for need in needs if need.startswith(_PYTHON)]
    if python is None and not unmet(needs, own.packages) and all(own.interpreter.is_a(version) for version in pythons):
        return None
    return Build("".join(f"{need}\n" for need in _of_packages(needs)), python or (pythons[0] if pythons else None))


def needs_of(spec: VersionSpec) -> tuple[str, ...]:
    """Return the needs of a version: those of its model's file, and for GPUs the packages that can use them."""
    if spec.gpus is None:
        return spec.needs
    parts = (need.partition("==") for need in spec.needs)
    return tuple(_WITH_GPUS.get(name, name) + equals + version for name, equals, version in parts)


def unmet(needs: Sequence[str], installed: Mapping[str, str]) -> list[str]:
    """Return the needs that are not installed, are installed in another version, or are not understood."""
    versions = _by_name(installed)
    return [need for need in _of_packages(needs) if not _is_met(need, installed if "[" in need else versions)]


def mismatch(needs: Sequence[str], installed: Mapping[str, str]) -> str | None:
    """Return a warning if the model was saved with other versions than it will run with; else None."""
    versions = _by_name(installed)
    others = []
    for need in _of_packages(needs):
        name, _, wanted = need.partition("==")
        there = versions.get(_normal(name))
        if wanted and there is not None and there != wanted:
            others.append(f"{name} {wanted} but runs with {there}")
    if not others:
        return None
    return f"the model was saved with {', '.join(others)}: its answers may differ, or it may not load"


def _of_packages(needs: Sequence[str]) -> list[str]:
    return [need for need in needs if not need.startswith(_PYTHON)]


def _is_met(need: str, versions: Mapping[str, str]) -> bool:
    read = _NEED.fullmatch(need)
    there = versions.get(_normal(read[1])) if read else None
    if read is None or there is None:
        return False
    if read[3]:
        return int(there.partition(".")[0]) < int(read[3])
    return read[2] in (None, there)


def _by_name(installed: Mapping[str, str]) -> dict[str, str]:
    return {_normal(name): version for name, version in installed.items()}


def _normal(name: str) -> str:
    """Return a name in the form in which PyPI compares names; packages of the same library have the same."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    return _SAME.get(name, name)


# An environment with PyTorch or TensorFlow takes a GB or more. Hardly any user has more models with environments.
MAX_ENVIRONMENTS = 32


@dataclass(frozen=True, slots=True)
class Kept:
    """An environment: when it was last handed out, in seconds since 1970, and whether a process runs in it."""

    key: str
    used_at_s: float
    runs: bool


def to_remove(kept: Iterable[Kept], most: int = MAX_ENVIRONMENTS) -> list[str]:
    """Return the keys to remove: all but the ``most`` that were used last, and those in which a process runs."""
    latest_first = sorted(kept, key=lambda one: one.used_at_s, reverse=True)
    return [one.key for one in latest_first[most:] if not one.runs]
