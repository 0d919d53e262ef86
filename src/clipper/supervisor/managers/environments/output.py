"""Turns uv's output into what people want to know."""

import re
from collections.abc import Sequence

_RESOLVED = re.compile(r"Resolved (\d+ packages?)")
# uv begins a line about what it does now with one of these words, and one about what is done with a past tense.
_UNDER_WAY = ("Downloading ", "Building ", "Updating ")
_CAUSE = re.compile(r"^\s*(?:cause: |╰─▶ |├─▶ )(.+)")
_ERROR = re.compile(r"^\s*(?:error: |× )(.+)")


def progress_of(line: str) -> str | None:
    """What goes on now, if the line says so: ``installing 12 packages``, ``downloading numpy (15.0MiB)``."""
    line = line.strip()
    if resolved := _RESOLVED.match(line):
        return f"installing {resolved[1]}"
    if line.startswith(_UNDER_WAY):
        return line[0].lower() + line[1:]
    return None


def cause_of(lines: Sequence[str]) -> str:
    """Why uv failed, in one line: the line that it calls the cause, else its error, else its last line."""
    for pattern in (_CAUSE, _ERROR):
        for line in lines:
            if found := pattern.match(line):
                return found[1].strip()
    return next((line.strip() for line in reversed(lines) if line.strip()), "uv gave no reason")
