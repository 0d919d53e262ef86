"""The image of a version: how it is built, and its name."""

import hashlib
import json
from dataclasses import dataclass

from clipper.settings.version import VersionSpec

# Where things are in an image.
ARTIFACT_FOLDER = "/clipper/artifact"
PYTHON_FOLDER = "/clipper/python"
# The image's own Python. The base image decides which one that is.
PYTHON = "python3"

_REPOSITORY = "clipper-model"
_REQUIREMENTS = "/clipper/requirements.txt"
_PIP = [PYTHON, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check"]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A Dockerfile, and the tag of the image that it makes. Two that make the same image have the same tag.

    The build's context has the folders ``clipper`` (``command.RUNTIME_PARTS``) and ``artifact``.
    """

    text: str
    tag: str


def dockerfile(spec: VersionSpec, base_image: str, runtime_digest: str, home: str) -> Dockerfile:
    """How to make the image of a version.

    Args:
        runtime_digest: of the files of ``command.RUNTIME_PARTS``.
        home: the home that the image belongs to. Two homes share no image, because each removes its own.
    """
    # Docker caches what each line made, and images that begin alike share it. So lines that change least come first.
    lines = [f"FROM {base_image}"]
    if spec.loader != "binary":
        # Debian's pip refuses to change Debian's own Python. In an image, only the model uses that Python.
        lines.append("ENV PIP_BREAK_SYSTEM_PACKAGES=1")
        # A base image that has numpy needs no network here.
        lines.append(f"RUN {PYTHON} -c 'import numpy' 2>/dev/null || {' '.join(_PIP)} numpy")
        lines += _installation(spec)
        lines.append(f"COPY clipper {PYTHON_FOLDER}/clipper")
        lines.append(f"ENV PYTHONPATH={PYTHON_FOLDER} PYTHONUNBUFFERED=1")
    lines.append(f"COPY artifact {ARTIFACT_FOLDER}")
    text = "\n".join(lines) + "\n"
    content = json.dumps([text, spec.artifact, runtime_digest, home])
    return Dockerfile(text, f"{_REPOSITORY}:{hashlib.sha256(content.encode()).hexdigest()[:32]}")


def _installation(spec: VersionSpec) -> list[str]:
    """The packages that the user lists, else those that the model's file needs. The Python is the base image's."""
    if spec.requirements is not None:
        copied = json.dumps([f"artifact/{spec.requirements}", _REQUIREMENTS])
        return [f"COPY {copied}", f"RUN {json.dumps([*_PIP, '-r', _REQUIREMENTS])}"]
    needs = [need for need in spec.needs if not need.startswith("python==")]
    return [f"RUN {json.dumps([*_PIP, *needs])}"] if needs else []
