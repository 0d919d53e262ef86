"""The Python interpreters of this machine. They are asked for their version, never downloaded.

``uv python find`` and ``uv python list`` look for them, too, but not among pyenv's versions that are not activated.
With these on PATH, both end with an error at the first Python that is too old for uv, such as 2.7.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from clipper.base.run_as import RunAs, credentials
from clipper.errors import InvalidArgument
from clipper.supervisor.managers.environments.plan import Interpreter, is_version

# Python answers in a tenth of a second. A program that takes longer than this is not Python.
ASK_TIMEOUT_S = 20.0
# Interpreters that are started to be asked. Hardly any machine has more to choose from.
MAX_ASKED = 32

_WHAT_IT_IS = "import json, sys; print(json.dumps([sys._base_executable or sys.executable, sys.version.split()[0]]))"
_WHAT_IT_HAS = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({one.metadata['Name']: one.version for one in m.distributions() if one.metadata['Name']}))"
)


def find_interpreter(python: str, run_as: RunAs | None = None) -> Interpreter:
    """Find an interpreter by its path, or by a version: on PATH, and where pyenv and uv install theirs.

    Each candidate is run, as the user ``run_as``. Raises InvalidArgument, with the interpreters that exist, if there is
    none or it is too old.
    """
    if is_version(python):
        minor = ".".join(python.split(".")[:2])
        found = next((one for one in _all_asked(f"python{minor}", run_as) if one.is_a(python)), None)
    else:
        found = _asked(python, run_as)
    if found is None:
        raise InvalidArgument(_not_found(python, run_as))
    if not found.is_recent:
        raise InvalidArgument(
            f"python {python} is {found.version}: expected 3.10 or later, which Clipper's runtime needs"
        )
    return found


def installed_packages(python: str, run_as: RunAs | None = None) -> dict[str, str]:
    """Return the name and version of every package that an interpreter, or its environment, has.

    The interpreter is run, as the user ``run_as``, and with it some code of those packages. Raises InvalidArgument if
    it does not answer.
    """
    text = _output_of(python, _WHAT_IT_HAS, run_as)
    if text is None:
        raise InvalidArgument(f"{python} does not list its packages: expected a Python interpreter")
    return msgspec.json.decode(text, type=dict[str, str])


def _not_found(python: str, run_as: RunAs | None) -> str:
    if not is_version(python):
        return f"python {python!r} is not an interpreter: expected the path of one, or a version such as 3.12"
    there = {one.version: one.path for one in _all_asked("python3.*[0-9]", run_as) if one.is_recent}
    listed = ", ".join(f"{version} ({path})" for version, path in sorted(there.items())) or "none"
    return (
        f"no Python {python} was found on PATH or among those of pyenv and uv; found: {listed}; "
        "choose one of these, install it, or give the path of an interpreter"
    )


def _all_asked(name: str, run_as: RunAs | None) -> Iterator[Interpreter]:
    for path, _ in zip(_candidates(name), range(MAX_ASKED)):
        if found := _asked(str(path), run_as):
            yield found


def _candidates(name: str) -> Iterator[Path]:
    """Yield paths where an interpreter of this name, maybe a pattern, would be. Some are shims that do not run."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        yield from sorted(Path(folder).glob(name))
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME", "~/.local/share")).expanduser()
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", data / "uv" / "python"))
    for root in (pyenv / "versions", uv):
        yield from sorted(root.glob(f"*/bin/{name}"), reverse=True)


def _asked(path: str, run_as: RunAs | None) -> Interpreter | None:
    text = _output_of(path, _WHAT_IT_IS, run_as)
    if text is None:
        return None
    try:
        found, version = msgspec.json.decode(text, type=tuple[str, str])
    except msgspec.MsgspecError:
        return None  # another program, whose output is not JSON
    return Interpreter(str(Path(found).resolve()), version)


def _output_of(python: str, code: str, run_as: RunAs | None) -> bytes | None:
    # -I: our own environment variables must not steer it.
    try:
        done = subprocess.run(
            [python, "-I", "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_TIMEOUT_S,
            check=False,
            **credentials(run_as),
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
