"""Everything that an environment depends on, and the name that follows from it."""

import hashlib
import json
from dataclasses import dataclass

# Raise this number when the same recipe gives another environment: then all are built anew.
FORMAT = 1

# Packages that Clipper's runtime needs.
RUNTIME_REQUIREMENTS = ("numpy",)

# The oldest Python that the runtime runs on.
MIN_PYTHON = (3, 10)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python. ``path`` is where it is installed, not a virtual environment's link; ``version`` is e.g. ``3.12.1``."""

    path: str
    version: str

    @property
    def is_recent(self) -> bool:
        """Whether Clipper's runtime runs on it."""
        return tuple(int(part) for part in self.version.split(".")[:2]) >= MIN_PYTHON

    def is_a(self, version: str) -> bool:
        """Whether it has this version, which may leave out the last number."""
        return f"{self.version}.".startswith(f"{version}.")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that an environment depends on. ``requirements`` is the text of a requirements file."""

    requirements: str
    interpreter: Interpreter

    @property
    def text(self) -> str:
        """The requirements to install. Comments are left out, so that they make no difference."""
        lines = [line.strip() for line in self.requirements.splitlines()]
        meant = [line for line in lines if line and not line.startswith("#")]
        return "".join(f"{line}\n" for line in (*meant, *RUNTIME_REQUIREMENTS))

    @property
    def title(self) -> str:
        """The first requirements, for people to recognise it by."""
        first, more = self.text.splitlines()[:3], len(self.text.splitlines()) - 3
        return f"{', '.join(first)}{f' and {more} more' if more > 0 else ''} for Python {self.interpreter.version}"

    @property
    def key(self) -> str:
        """32 hex digits, the same for equal recipes and different for others."""
        content = json.dumps([FORMAT, self.interpreter.path, self.interpreter.version, self.text])
        return hashlib.sha256(content.encode()).hexdigest()[:32]
