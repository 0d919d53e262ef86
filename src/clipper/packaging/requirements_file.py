"""The requirements file of a model: read where it is, so that it means the same on the server's machine."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from clipper.errors import InvalidArgument, TooLarge
from clipper.packaging.artifact import Member

# What the member is called; no model file is, and it is beside `code/` and `data/`.
REQUIREMENTS_NAME = "requirements.txt"

# A frozen environment of several hundred packages, with hashes, has about half of this.
MAX_REQUIREMENTS_BYTES = 512 * 1024
# Files that include each other more deeply than this do so without end.
MAX_INCLUDES = 10

_INCLUDE = ("-r", "--requirement")
_EDITABLE = ("-e", "--editable")
_CONSTRAINT = ("-c", "--constraint")
# Their value is an address or a folder.
_PLACES = ("-f", "--find-links", "-i", "--index-url", "--extra-index-url")
_COMMENT = re.compile(r"(^|\s)#.*$")
_ARCHIVES = (".whl", ".zip", ".tar.gz")


def requirements_member(requirements: Path | str | Sequence[str]) -> Member:
    """The requirements as a member of an artifact.

    Args:
        requirements: the path of a requirements file, whose ``-r`` files are taken in; or its lines.

    Raises:
        InvalidArgument: it cannot be read, or refers to something that the server would not have.
        TooLarge: it is over a bound.
    """
    if isinstance(requirements, (str, Path)):
        lines = list(_lines_of(Path(requirements), MAX_INCLUDES))
    else:
        lines = list(_taken(requirements, Path.cwd(), "requirements", MAX_INCLUDES))
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
        raise InvalidArgument(f"{str(path)!r} is not a requirements file: expected a requirement a line") from None
    except OSError as error:
        raise InvalidArgument(f"cannot read the requirements file {str(path)!r}: {error.strerror}") from error
    # A line that ends with a backslash goes on in the next.
    yield from _taken(text.replace("\\\n", " ").splitlines(), path.parent, str(path), includes_left)


def _taken(lines: Sequence[str], folder: Path, where: str, includes_left: int) -> Iterator[str]:
    """The lines that say something, those of included files in their place."""
    for line in lines:
        meant = _COMMENT.sub("", line).strip()
        option, value = _option(meant)
        if option in _INCLUDE:
            yield from _lines_of(folder / value, includes_left - 1)
        elif meant:
            _check(meant, option, where)
            yield meant


def _option(line: str) -> tuple[str, str]:
    """An option and its value, as pip writes them: ``-r file``, ``-rfile``, ``--requirement=file``; empty if none."""
    if not line.startswith("-"):
        return "", ""
    name, _, value = line.replace("=", " ", 1).partition(" ") if line.startswith("--") else (line[:2], "", line[2:])
    return name, "".join(shlex.split(value)[:1])


def _check(line: str, option: str, where: str) -> None:
    if option in _EDITABLE:
        raise InvalidArgument(f"{where}: {line!r} is a folder of this machine: deploy its code with module:attribute")
    if option in _CONSTRAINT:
        raise InvalidArgument(f"{where}: {line!r} is not taken along: write the versions into the requirements")
    place = _option(line)[1] if option in _PLACES else _place_of(line, option)
    if place and "://" not in place and not place.startswith(("/", "file:/")):
        raise InvalidArgument(
            f"{where}: {line!r} is a place beside the file, which the server does not have: "
            "expected packages by name, absolute paths or addresses"
        )


def _place_of(line: str, option: str) -> str:
    """Where a requirement says that its package is: ``name @ place``, or a place alone; empty if it says only what."""
    if option:
        return ""
    package = line.partition(";")[0].strip()
    _, at, place = package.partition("@")
    if at:
        return place.strip()
    return package if "/" in package or package.endswith(_ARCHIVES) else ""
