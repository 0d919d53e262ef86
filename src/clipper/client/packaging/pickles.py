"""Finds the modules that a pickle refers to, and the scikit-learn that wrote it, without unpickling.

A joblib file is a pickle with the bytes of arrays in between. So it cannot be read from one operation to the next, as
``pickletools`` does. This module searches for the few operations that name a module, wherever they are.
"""

import bz2
import lzma
import mmap
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Only this much of a compressed file is searched, because it may unpack to any size.
MAX_UNPACKED_BYTES = 1024**3
_READ_BYTES = 64 * 1024
_CHUNK_BYTES = 16 * 1024**2
# Longer than a reference to a module, so that chunks that overlap by this much miss no reference.
_OVERLAP_BYTES = 1024

_NAME = rb"[A-Za-z_][\w.]*"
# Protocol 4 and later: two strings, the second of which may refer to an earlier one, and STACK_GLOBAL.
_STACK_GLOBAL = re.compile(rb"\x8c.(%b)\x94(?:\x8c.%b\x94|h.|j....)\x93" % (_NAME, _NAME), re.DOTALL)
# Earlier protocols: GLOBAL, and two lines.
_GLOBAL = re.compile(rb"c(%b)\n%b\n" % (_NAME, _NAME))
# The string, its place in the memo, and the string that is its value, in all protocols.
_SKLEARN_VERSION = re.compile(
    rb"_sklearn_version(?:\x94\x8c.|q.X....|r....X....)([\w.+-]+?)(?:\x94|q|r|s|u)", re.DOTALL
)
# In UBJSON, XGBoost's own format, which it pickles as bytes: an array of three small integers.
_XGBOOST_VERSION = re.compile(rb"version\[#L\0{7}\x03i(.)i(.)i(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PickleContents:
    """The findings in a pickle: top packages of its modules, e.g. ``sklearn``, and versions of their libraries."""

    modules: frozenset[str]
    sklearn_version: str | None
    xgboost_version: str | None


def look_into(pickle: Path | bytes) -> PickleContents:
    """Search a file, which joblib may have compressed, or bytes."""
    modules: set[str] = set()
    sklearn = xgboost = None
    for chunk in _chunks(pickle):
        for pattern in (_STACK_GLOBAL, _GLOBAL):
            modules.update(found[1].decode().partition(".")[0] for found in pattern.finditer(chunk))
        if sklearn is None and (version := _SKLEARN_VERSION.search(chunk)):
            sklearn = version[1].decode()
        xgboost = xgboost or xgboost_version(chunk)
        # An estimator that was fitted on a DataFrame does not refer to pandas, but takes one.
        if chunk.find(b"feature_names_in_") >= 0:
            modules.add("pandas")
    return PickleContents(frozenset(modules), sklearn, xgboost)


def xgboost_version(data: bytes | mmap.mmap) -> str | None:
    """Return the version of XGBoost that wrote a model in UBJSON."""
    found = _XGBOOST_VERSION.search(data)
    return None if found is None else ".".join(str(part[0]) for part in found.groups())


def _chunks(pickle: Path | bytes) -> Iterator[bytes | mmap.mmap]:
    if isinstance(pickle, bytes):
        yield pickle
        return
    with pickle.open("rb") as file:
        begin = file.read(6)
    if make_unpacker := next((make for magic, make in _UNPACKERS.items() if begin.startswith(magic)), None):
        yield from _unpacked(pickle, make_unpacker())
    elif begin:
        with pickle.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped


class _Unpacker(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...


# The first bytes of joblib's files, for each way that it compresses.
_UNPACKERS: dict[bytes, Callable[[], _Unpacker]] = {
    b"\x78": zlib.decompressobj,
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS),
    b"BZ": bz2.BZ2Decompressor,
    b"\xfd7zXZ": lzma.LZMADecompressor,
    b"\x5d\x00": lzma.LZMADecompressor,
}


def _unpacked(path: Path, unpacker: _Unpacker) -> Iterator[bytes]:
    """Yield the content of a file, as far as it can be unpacked, in pieces that overlap."""
    size_bytes, chunk = 0, b""
    with path.open("rb") as file, suppress(zlib.error, lzma.LZMAError, EOFError, OSError):
        while size_bytes < MAX_UNPACKED_BYTES and (data := file.read(_READ_BYTES)):
            unpacked = unpacker.decompress(data)
            size_bytes += len(unpacked)
            chunk += unpacked
            if len(chunk) >= _CHUNK_BYTES:
                yield chunk
                chunk = chunk[-_OVERLAP_BYTES:]
    yield chunk
