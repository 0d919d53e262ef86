"""Decides which Python a model runs in: Clipper's own, an existing one, or an environment that is built for it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipper.supervisor.managers.environments.recipe import Interpreter

# Packages that install the same library, e.g. without support for GPUs or for windows.
_SAME = {"xgboost-cpu": "xgboost", "tensorflow-cpu": "tensorflow", "opencv-python-headless": "opencv-python"}

_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
_NEED = re.compile(r"([A-Za-z0-9._-]+)(?:==([^,;*]+)|<(\d+))?")
# A need that begins so is about the interpreter itself.
_PYTHON = "python=="


@dataclass(frozen=True, slots=True)
class Own:
    """Clipper's own interpreter, and the packages that it has: name to version."""

    interpreter: Interpreter
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Build:
    """An environment to build.

    Attributes:
        requirements: text of a requirements file.
        python: the version or path to build it with; None is Clipper's own.
    """

    requirements: str
    python: str | None


def is_version(python: str) -> bool:
    """Whether this is a version, e.g. ``3.12`` or ``3.12.1``, and not the path of an interpreter."""
    return _VERSION.fullmatch(python) is not None


def plan_environment(requirements: str | None, python: str | None, needs: Sequence[str], own: Own) -> Build | None:
    """What to build for a model. None: use the given interpreter, or else Clipper's own, as it is.

    Args:
        requirements: the text of the requirements file that was deployed.
        python: the path of an interpreter, or a version of Python, if the user asked for one.
        needs: the requirements that the model's file states, ``python==3.12`` for Python itself among them.
    """
    if requirements is not None:
        return Build(requirements, python)
    if python is not None and not is_version(python):
        return None
    pythons = [need.removeprefix(_PYTHON) for need in needs if need.startswith(_PYTHON)]
    if python is None and not unmet(needs, own.packages) and all(own.interpreter.is_a(version) for version in pythons):
        return None
    return Build("".join(f"{need}\n" for need in _of_packages(needs)), python or (pythons[0] if pythons else None))


def unmet(needs: Sequence[str], installed: Mapping[str, str]) -> list[str]:
    """The needs that are not installed, are installed in another version, or are not understood."""
    versions = _by_name(installed)
    return [need for need in _of_packages(needs) if not _is_met(need, versions)]


def mismatch(needs: Sequence[str], installed: Mapping[str, str]) -> str | None:
    """A warning if the model was saved with versions other than those that it will run with; else None."""
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
    """A name as PyPI compares it, and the same name for packages that install the same library."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    return _SAME.get(name, name)
