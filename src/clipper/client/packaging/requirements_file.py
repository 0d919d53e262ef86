"""Reads a model's requirements file, and ensures that it has the same meaning on the server's machine."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from clipper.client.packaging.artifact import Member
from clipper.errors import InvalidArgument, TooLarge

# The member's name, beside `code/` and `data/`. No model file has this name.
REQUIREMENTS_NAME = "requirements.txt"

# A frozen environment of several hundred packages, with hashes, has about half this size.
MAX_REQUIREMENTS_BYTES = 512 * 1024
# Files that include each other more deeply than this must include themselves.
MAX_INCLUDES = 10

_INCLUDE = ("-r", "--requirement")
_EDITABLE = ("-e", "--editable")
_CONSTRAINT = ("-c", "--constraint")
# Options whose value is an address or a folder.
_PLACES = ("-f", "--find-links", "-i", "--index-url", "--extra-index-url")
_COMMENT = re.compile(r"(^|\s)#.*$")
_ARCHIVES = (".whl", ".zip", ".tar.gz")


def requirements_member(requirements: Path | str | Sequence[str], folder: Path | None = None) -> Member:
    """Return the requirements as a member of an artifact.

    Args:
        requirements: the path of a requirements file, or its lines. Files included with ``-r`` are inserted.
        folder: the folder of files that lines include; None means the current folder.

    Raises:
        InvalidArgument: it cannot be read, or refers to something that the server does not have.
        TooLarge: it exceeds a limit.
    """
    if isinstance(requirements, (str, Path)):
        lines = list(_lines_of(Path(requirements), MAX_INCLUDES))
    else:
        lines = list(_taken(requirements, folder or Path.cwd(), "requirements", MAX_INCLUDES))
    text = "".join(f"{line}\n" for line in lines).encode()
    if len(text) > MAX_REQUIREMENTS_BYTES:
        raise TooLarge(f"the requirements have {len(text)} bytes: expected at most {MAX_REQUIREMENTS_BYTES}")
    return Member(REQUIREMENTS_NAME, text)


def _lines_of(path: Path, includes_left: int) -> Iterator[str]:
    if includes_left == 0:
        raise InvalidArgument(f"{str(path)!r} is included {MAX_INCLUDES} files deep: do files include each other?")
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        raise InvalidArgument(
            f"{str(path)!r} is not a requirements file: expected a requirement in each line"
        ) from None
    except OSError as error:
        raise InvalidArgument(f"the requirements file {str(path)!r} cannot be read: {error.strerror}") from error
    # A line that ends with a backslash is continued in the next line.
    yield from _taken(text.replace("\\\n", " ").splitlines(), path.parent, str(path), includes_left)


def _taken(lines: Sequence[str], folder: Path, where: str, includes_left: int) -> Iterator[str]:
    """Yield the lines without comments and blank lines, with the lines of included files inserted."""
    for line in lines:
        meant = _COMMENT.sub("", line).strip()
        try:
            option, value = _option(meant)
        except ValueError as error:
            raise InvalidArgument(f"{where}: {meant!r} cannot be read: {error}") from error
        if option in _INCLUDE:
            yield from _lines_of(folder / value, includes_left - 1)
        elif meant:
            _check(meant, option, value, where)
            yield meant


def _option(line: str) -> tuple[str, str]:
    """Return an option and its value, of ``-r file``, ``-rfile`` or ``--requirement=file``; empty if there is none."""
    if not line.startswith("-"):
        return "", ""
    name, _, value = line.replace("=", " ", 1).partition(" ") if line.startswith("--") else (line[:2], "", line[2:])
    return name, "".join(shlex.split(value)[:1])


def _check(line: str, option: str, value: str, where: str) -> None:
    if option in _EDITABLE:
        raise InvalidArgument(f"{where}: {line!r} is a folder of this machine: deploy module:attribute from it")
    if option in _CONSTRAINT:
        raise InvalidArgument(f"{where}: {line!r} is a file of constraints, which is not sent: write the versions here")
    place = value if option in _PLACES else "" if option else _place_of(line)
    if place and "://" not in place and not place.startswith(("/", "file:/")):
        raise InvalidArgument(
            f"{where}: {line!r} is a path relative to this file, which the server does not have: "
            "expected packages by name, absolute paths or addresses"
        )


def _place_of(line: str) -> str:
    """Return the place in ``name @ place``, or in a requirement that is only a place; empty if it names a package."""
    package = line.partition(";")[0].strip()
    _, at, place = package.partition("@")
    if at:
        return place.strip()
    return package if "/" in package or package.endswith(_ARCHIVES) else ""
