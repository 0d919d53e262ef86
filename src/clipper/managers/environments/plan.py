"""In which Python a model is to run: Clipper's own, one that is there, or an environment that is built for it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipper.managers.environments.recipe import Interpreter

# Two names of one library: with a GPU or without, with windows or without.
_SAME = {"xgboost-cpu": "xgboost", "tensorflow-cpu": "tensorflow", "opencv-python-headless": "opencv-python"}

_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
_NEED = re.compile(r"([A-Za-z0-9._-]+)(?:==([^,;*]+)|<(\d+))?")
# What stands among the needs for the interpreter itself.
_PYTHON = "python=="


@dataclass(frozen=True, slots=True)
class Own:
    """Clipper's own interpreter, and the packages that it has: name to version."""

    interpreter: Interpreter
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Build:
    """An environment of these ``requirements``, a requirements file's text, with a Python; Clipper's own if None."""

    requirements: str
    python: str | None


def is_version(python: str) -> bool:
    """Whether it is e.g. ``3.12`` or ``3.12.1``, and not the path of an interpreter."""
    return _VERSION.fullmatch(python) is not None


def plan_environment(requirements: str | None, python: str | None, needs: Sequence[str], own: Own) -> Build | None:
    """What to build for a model; None if the interpreter that is given, or else Clipper's own, is used as it is.

    Args:
        requirements: the text of the requirements file that was deployed.
        python: the path of an interpreter or a version of Python, if that was asked for.
        needs: what the model's file says that it needs: requirements, ``python==3.12`` of Python itself among them.
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
    """Those that are not installed, are in another version, or are not understood."""
    versions = _by_name(installed)
    return [need for need in _of_packages(needs) if not _is_met(need, versions)]


def mismatch(needs: Sequence[str], installed: Mapping[str, str]) -> str | None:
    """What to tell if the model was saved with other versions than it is going to run with; None if it was not."""
    versions = _by_name(installed)
    others = []
    for need in _of_packages(needs):
        name, _, wanted = need.partition("==")
        there = versions.get(_normal(name))
        if wanted and there is not None and there != wanted:
            others.append(f"{name} {wanted}, and runs with {there}")
    if not others:
        return None
    return f"the model was saved with {'; with '.join(others)}: its answers may differ, or it may not load"


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
    """As PyPI compares names; and one for what is the same library."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    return _SAME.get(name, name)
