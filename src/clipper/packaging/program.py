"""Recognises a program, so that a mistake is found before the program is sent."""

from pathlib import Path

from clipper.errors import InvalidArgument
from clipper.packaging.artifact import Member

_ELF = b"\x7fELF"
_SCRIPT = b"#!"
# A jar is a zip.
_ZIP = b"PK\x03\x04"


def program_member(path: Path) -> Member:
    """Return the program as a member of an artifact, under its own name.

    Args:
        path: an ELF executable, a script whose first line names its interpreter, or a jar with a main class.

    Raises:
        InvalidArgument: it cannot be read, or is not one of these.
    """
    begin = _begin(path)
    is_jar = path.suffix == ".jar"
    if not (begin.startswith(_ZIP) if is_jar else begin.startswith((_ELF, _SCRIPT))):
        expected = "a jar" if is_jar else "an ELF executable, a script that begins with #!, or a .jar"
        raise InvalidArgument(f"{str(path)!r} is not a program: expected {expected}, but it begins with {begin!r}")
    return Member(path.name, path, is_program=True)


def _begin(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise InvalidArgument(f"cannot read the program {str(path)!r}: {error.strerror}") from error
