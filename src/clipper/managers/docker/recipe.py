"""The image of a version: how it is built, and what it is called."""

import hashlib
import json
from dataclasses import dataclass

from clipper.settings.version import VersionSpec

# Where things are in an image.
ARTIFACT_FOLDER = "/clipper/artifact"
PYTHON_FOLDER = "/clipper/python"
# As an image has it; which one that is, the base image says.
PYTHON = "python3"
# Parts of the package that a container's Python imports, as paths in it.
RUNTIME_PARTS = ("__init__.py", "errors.py", "types.py", "containers", "runtime")

_REPOSITORY = "clipper-model"
_REQUIREMENTS = "/clipper/requirements.txt"
_PIP = [PYTHON, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A Dockerfile, and the tag of what it makes: two recipes that make the same have the same.

    The build's context has the folders ``clipper`` (``RUNTIME_PARTS``) and ``artifact``.
    """

    dockerfile: str
    tag: str


def recipe(spec: VersionSpec, base_image: str, runtime_digest: str, home: str) -> Recipe:
    """How a model's image is made.

    Args:
        runtime_digest: of the files that ``RUNTIME_PARTS`` are.
        home: whose image it is: another home removes its own.
    """
    dockerfile = "\n".join(_lines(spec, base_image)) + "\n"
    text = json.dumps([dockerfile, spec.artifact, runtime_digest, home])
    return Recipe(dockerfile, f"{_REPOSITORY}:{hashlib.sha256(text.encode()).hexdigest()[:32]}")


def _lines(spec: VersionSpec, base_image: str) -> list[str]:
    """What changes most seldom comes first: Docker keeps what each line made, for all images that begin alike."""
    lines = [f"FROM {base_image}"]
    if spec.loader != "binary":
        # Debian's pip leaves Debian's own Python alone, which in an image is the model's.
        lines.append("ENV PIP_BREAK_SYSTEM_PACKAGES=1")
        # A base image with numpy needs no network here.
        lines.append(f"RUN {PYTHON} -c 'import numpy' 2>/dev/null || {' '.join(_PIP)} numpy")
        lines += _installation(spec)
        lines.append(f"COPY clipper {PYTHON_FOLDER}/clipper")
        lines.append(f"ENV PYTHONPATH={PYTHON_FOLDER} PYTHONUNBUFFERED=1")
    return [*lines, f"COPY artifact {ARTIFACT_FOLDER}"]


def _installation(spec: VersionSpec) -> list[str]:
    """What the user says that it needs, or else what its file does, but for the Python: that is the base image's."""
    if spec.requirements is not None:
        copied = json.dumps([f"artifact/{spec.requirements}", _REQUIREMENTS])
        return [f"COPY {copied}", f"RUN {json.dumps([*_PIP, '-r', _REQUIREMENTS])}"]
    needs = [need for need in spec.needs if not need.startswith("python==")]
    return [f"RUN {json.dumps([*_PIP, *needs])}"] if needs else []
