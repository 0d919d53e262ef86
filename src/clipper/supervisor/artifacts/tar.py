"""Reads the headers of a tar without trusting them.

Python's own reader is not safe for untrusted tars: depending on its patch level it loops for ever over a negative size,
reads names of any length into memory, and writes a member outside (CVE-2025-8194, CVE-2025-4517 and earlier).
This reader accepts what tars of models contain: files, folders and links, in the formats of POSIX and GNU.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from clipper.api.schemas import MAX_MEMBERS
from clipper.errors import InvalidArgument

BLOCK_BYTES = 512
# Bound on a header that only holds the next header's long name or attributes.
MAX_EXTENSION_BYTES = 64 * 1024
# With the home's own path, and names that a model appends, a path stays below the system's limit of 4,096.
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
MAX_DEPTH = 64

Kind = Literal["file", "folder", "hard link", "symlink"]
Path = tuple[bytes, ...]

_KINDS: dict[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hard link",
    b"2": "symlink",
    b"5": "folder",
}
_REFUSED = {b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file", b"M": "a part of a file"}
_LONG_TARGET, _LONG_NAME, _PAX, _PAX_FOR_ALL = b"K", b"L", b"x", b"g"


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of a tar.

    Attributes:
        path: its names from the top, without empty names, ``.`` and ``..``; empty for the top folder.
        offset: where its ``size_bytes`` bytes begin in the tar.
        target: the target of a link, as written in the tar.
    """

    path: Path
    kind: Kind
    offset: int
    size_bytes: int
    is_program: bool
    target: bytes


def entries(tar: BinaryIO) -> Iterator[Entry]:
    """Yield the members; the caller may read the file in between. Raises InvalidArgument at one that is not allowed."""
    end, offset, members = tar.seek(0, os.SEEK_END), 0, 0
    extensions: dict[bytes, bytes] = {}
    if end == 0:
        raise refusal("it is empty")
    while offset < end:
        header = _read(tar, offset, BLOCK_BYTES)
        if not any(header):
            break
        _check_sum(header)
        offset += BLOCK_BYTES
        size_bytes, type_ = _number(header[124:136], "size"), header[156:157]
        if type_ not in (_LONG_NAME, _LONG_TARGET, _PAX, _PAX_FOR_ALL) and b"size" in extensions:
            size_bytes = _decimal(extensions[b"size"])
        if size_bytes > end - offset:
            raise refusal("it is cut off")
        if type_ in (_LONG_NAME, _LONG_TARGET, _PAX, _PAX_FOR_ALL):
            if size_bytes > MAX_EXTENSION_BYTES:
                raise refusal(f"a member's name or attributes have {size_bytes} bytes")
            extensions |= _extension(type_, _read(tar, offset, size_bytes))
        else:
            yield _entry(header, type_, extensions, offset, size_bytes)
            extensions = {}
        offset += -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
        members += 1
        # Each member may have a long name, a long target and attributes in separate headers.
        if members > 4 * MAX_MEMBERS:
            raise refusal(f"it has over {MAX_MEMBERS} members")
    if extensions:
        raise refusal("it is cut off")


def refusal(why: str) -> InvalidArgument:
    return InvalidArgument(f"the artifact is not an uncompressed tar of plain files that can be unpacked: {why}")


def shown(path: bytes) -> str:
    """Show a name of any bytes and length as text for a message."""
    return repr(path.decode("utf-8", "backslashreplace")[:200])


def _entry(header: bytes, type_: bytes, extensions: dict[bytes, bytes], offset: int, size_bytes: int) -> Entry:
    name = extensions.get(b"path") or _name(header)
    kind = _KINDS.get(type_)
    if kind is None or any(key.startswith(b"GNU.sparse.") for key in extensions):
        what = "a sparse file" if kind else _REFUSED.get(type_, f"of the unknown type {type_!r}")
        raise refusal(f"{shown(name)} is {what}")
    # Old formats mark a folder by a slash at the end of its name.
    if kind == "file" and name.endswith(b"/"):
        kind = "folder"
    if kind != "file" and size_bytes:
        raise refusal(f"{shown(name)} is a {kind} with {size_bytes} bytes in it")
    path, target = path_of(name), extensions.get(b"linkpath") or _text(header[157:257])
    if b"\0" in target or len(target) > MAX_PATH_BYTES:
        raise refusal(f"{shown(name)} leads to {shown(target)}")
    if not path and kind != "folder":
        raise refusal(f"its top is a {kind}")
    return Entry(path, kind, offset, size_bytes, bool(_number(header[100:108], "mode") & 0o100), target)


def path_of(name: bytes) -> Path:
    """Split a path. Raises InvalidArgument if it is absolute, leads up, or is too long."""
    path = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if name.startswith(b"/") or b".." in path:
        raise refusal(f"{shown(name)} leads out of it")
    if not name or b"\0" in name:
        raise refusal(f"{shown(name)} is not a valid name")
    if len(name) > MAX_PATH_BYTES or len(path) > MAX_DEPTH or any(len(part) > MAX_NAME_BYTES for part in path):
        raise refusal(
            f"the name {shown(name)} is too long: expected at most {MAX_PATH_BYTES} bytes, "
            f"{MAX_NAME_BYTES} of each of {MAX_DEPTH} parts"
        )
    return path


def _read(tar: BinaryIO, offset: int, size_bytes: int) -> bytes:
    tar.seek(offset)
    data = tar.read(size_bytes)
    if len(data) != size_bytes:
        raise refusal("it is cut off")
    return data


def _extension(type_: bytes, body: bytes) -> dict[bytes, bytes]:
    """Return the attributes that a header gives to the next header, by POSIX's names."""
    if type_ == _LONG_NAME:
        return {b"path": _text(body)}
    if type_ == _LONG_TARGET:
        return {b"linkpath": _text(body)}
    records = _pax_records(body)
    if type_ == _PAX:
        return records
    # Global attributes hold times or a comment: git's is its commit.
    if records.keys() & {b"path", b"linkpath", b"size"} or any(key.startswith(b"GNU.sparse.") for key in records):
        raise refusal("it gives all members one name or size")
    return {}


def _pax_records(body: bytes) -> dict[bytes, bytes]:
    """Read records such as ``b"12 path=abc\\n"``, whose first number is the length of the record."""
    records = {}
    while body.rstrip(b"\0"):
        length, space, _ = body.partition(b" ")
        size_bytes = _decimal(length)
        record = body[len(length) + 1 : size_bytes]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not space or not equals or size_bytes > len(body) or not record.endswith(b"\n"):
            raise refusal("a member's attributes are malformed")
        records[key] = value
        body = body[size_bytes:]
    return records


def _check_sum(header: bytes) -> None:
    """Check the header's checksum: the sum of all bytes, in which those of the checksum itself count as spaces."""
    blanked = header[:148] + b" " * 8 + header[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in blanked)  # as some old programs count
    if _number(header[148:156], "checksum") not in (sum(blanked), signed):
        raise refusal("a header's checksum is wrong")


def _name(header: bytes) -> bytes:
    name, prefix = _text(header[:100]), _text(header[345:500])
    # GNU has other things there.
    is_posix = header[257:265] == b"ustar\x0000"
    return prefix + b"/" + name if is_posix and prefix else name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str) -> int:
    """Read octal digits or, for larger numbers, GNU's base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise refusal(f"a header's {what} is {shown(digits)}")
    return int(digits, 8)


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise refusal(f"a member's size is {shown(digits)}")
    return int(digits)
