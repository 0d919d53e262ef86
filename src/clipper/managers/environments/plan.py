"""In which Python a model is to run: Clipper's own, one that is there, or an environment that is built for it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Two names of one library: with a GPU or without, with windows or without.
_SAME = {"xgboost-cpu": "xgboost", "tensorflow-cpu": "tensorflow", "opencv-python-headless": "opencv-python"}


@dataclass(frozen=True, slots=True)
class Build:
    """An environment of these ``requirements``, the text of a requirements file."""

    requirements: str


def plan_environment(
    requirements: str | None, python_is_given: bool, is_version: bool, needs: Sequence[str], own: Mapping[str, str]
) -> Build | None:
    """What to build for a model; None if the interpreter that is given, or else Clipper's own, is used as it is.

    Args:
        requirements: the text of the requirements file that was deployed.
        python_is_given, is_version: whether an interpreter was asked for, and by its version instead of its path.
        needs: what the model's file says that it needs: ``name``, ``name==version`` or ``name<5``.
        own: the name and version of each package that Clipper's own interpreter has.
    """
    if requirements is not None:
        return Build(requirements)
    if python_is_given and not is_version:
        return None
    if is_version or unmet(needs, own):
        return Build("".join(f"{need}\n" for need in needs))
    return None


def unmet(needs: Sequence[str], installed: Mapping[str, str]) -> list[str]:
    """Those that are not installed, or in another version."""
    versions = _by_name(installed)
    return [need for need in needs if not _is_met(need, versions)]


def mismatch(needs: Sequence[str], installed: Mapping[str, str]) -> str | None:
    """What to tell if the model was saved with other versions than it is going to run with; None if it was not."""
    versions = _by_name(installed)
    others = []
    for need in needs:
        name, _, wanted = need.partition("==")
        there = versions.get(_normal(name))
        if wanted and there is not None and there != wanted:
            others.append(f"{name} {wanted}, and runs with {there}")
    if not others:
        return None
    return f"the model was saved with {'; with '.join(others)}: its answers may differ, or it may not load"


def _is_met(need: str, versions: Mapping[str, str]) -> bool:
    name, _, wanted = need.partition("==")
    name, _, below = name.partition("<")
    there = versions.get(_normal(name))
    if there is None:
        return False
    return int(there.partition(".")[0]) < int(below) if below else wanted in ("", there)


def _by_name(installed: Mapping[str, str]) -> dict[str, str]:
    return {_normal(name): version for name, version in installed.items()}


def _normal(name: str) -> str:
    """As PyPI compares names; and one for what is the same library."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    return _SAME.get(name, name)
