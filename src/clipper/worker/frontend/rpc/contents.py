"""Converts typed contents of tensors: the numbers and bytes that a message has in fields of their own."""

from collections.abc import Generator, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from clipper.errors import MalformedRequest, TooLarge, WrongInput
from clipper.worker.frontend import limits
from clipper.worker.frontend.inference.output_tensors import OutputColumn
from clipper.worker.frontend.inference.tensors import DATATYPES, PIECE_BYTES, PIECE_ROWS, Datatype, check_range
from clipper.worker.frontend.rpc.protocols import OPEN_INFERENCE
from clipper.worker.frontend.rpc.wire import delimited, fields, varint

CONTENTS = OPEN_INFERENCE.message("InferTensorContents")
_INTS, _UINTS = "int_contents", "uint_contents"
# Half-precision numbers have no field.
FIELD_OF = {
    "BOOL": "bool_contents",
    "INT8": _INTS,
    "INT16": _INTS,
    "INT32": _INTS,
    "INT64": "int64_contents",
    "UINT8": _UINTS,
    "UINT16": _UINTS,
    "UINT32": _UINTS,
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_NUMBERS = {field.name: field.number for field in CONTENTS.fields.values()}
# The types in which a field's varints are read before they are narrowed.
_READ_AS = {"bool_contents": "<u8", _INTS: "<i4", "int64_contents": "<i8", _UINTS: "<u4", "uint64_contents": "<u8"}
_MAX_VARINT_BYTES = 10

Binary = Generator[None, None, "bytes | memoryview"]


def as_binary(name: str, datatype: str, shape: Sequence[int], contents: memoryview, most_bytes: int) -> Binary:
    """Return the data of a tensor in the form of ``raw_input_contents``, in steps of a few milliseconds at most.

    An unknown datatype or shape gives no bytes: the check of the tensor says why.

    Raises MalformedRequest or WrongInput if the contents are not those of such a tensor, and TooLarge if they would
    take more than ``most_bytes``.
    """
    known = DATATYPES.get(datatype)
    if known is None or not shape or min(shape) < 0:
        return b""
    wanted = FIELD_OF.get(datatype)
    if wanted is None:
        raise WrongInput(f"input {name!r} is {datatype} in contents: expected raw_input_contents, which alone has it")
    count = prod(shape)
    if count * max(known.size_bytes, 1) > most_bytes:
        raise TooLarge(limits.over_bound(f"shape of input {name!r}", most_bytes))
    if known.numpy is None:
        return (yield from _texts(name, count, contents))
    packed = yield from _packed(name, wanted, contents)
    if known.numpy.kind == "f":
        _check_count(name, wanted, len(packed) / known.size_bytes, count)
        return packed
    return (yield from _integers(name, wanted, known, count, packed))


def _texts(name: str, count: int, contents: memoryview) -> Binary:
    joined = bytearray()
    found = 0
    for number, wire, value in fields(contents):
        if number == _NUMBERS["bytes_contents"] and wire == 2:
            joined += len(value).to_bytes(4, "little")
            joined += value
            found += 1
        elif number in CONTENTS.fields:
            raise _other_field(name, CONTENTS.fields[number].name, "bytes_contents")
        if found % PIECE_ROWS == 0:
            yield
    _check_count(name, "bytes_contents", found, count)
    return bytes(joined)


def _packed(name: str, wanted: str, contents: memoryview) -> Generator[None, None, memoryview]:
    """Return the numbers one after another: unchanged if they came in one piece, as nearly all clients send them."""
    first: memoryview | None = None
    joined: bytearray | None = None
    for index, (number, wire, value) in enumerate(fields(contents)):
        field = CONTENTS.fields.get(number)
        if field is None:
            continue
        if field.name != wanted:
            raise _other_field(name, field.name, wanted)
        if wire == 2 and first is None and joined is None:
            first = value
            continue
        if joined is None:
            joined = bytearray(first or b"")
        joined += varint(value) if wire == 0 else value
        if index % PIECE_ROWS == 0:
            yield
    if joined is not None:
        return memoryview(joined)
    return memoryview(b"") if first is None else first


def _other_field(name: str, came: str, wanted: str) -> WrongInput:
    return WrongInput(f"input {name!r} has {came}: expected {wanted} for its datatype")


def _check_count(name: str, field: str, found: float, count: int) -> None:
    if found != count:
        raise WrongInput(f"input {name!r} has {found:g} {field}: expected {count} for its shape")


def _integers(name: str, field: str, datatype: Datatype, count: int, packed: memoryview) -> Binary:
    wanted = datatype.numpy
    assert wanted is not None
    data = np.frombuffer(packed, np.uint8)
    found = 0
    for start in range(0, len(data), PIECE_BYTES):
        found += int(np.count_nonzero(data[start : start + PIECE_BYTES] < 0x80))
        yield
    _check_count(name, field, found, count)
    whole = np.empty(count, wanted)
    at = done = 0
    while at < len(data):
        piece = data[at : at + PIECE_BYTES // 4]
        ends = np.flatnonzero(piece < 0x80)
        if not len(ends):
            raise MalformedRequest(f"input {name!r} has a number in {field} that does not end")
        numbers = _varints(name, field, piece, ends).astype(_READ_AS[field])
        if wanted.kind != "b" and wanted.itemsize < numbers.dtype.itemsize:
            check_range(name, numbers, wanted, datatype.name, f" in {field}")
        whole[done : done + len(numbers)] = numbers
        done += len(numbers)
        at += int(ends[-1]) + 1
        yield
    return whole.tobytes()


def _varints(name: str, field: str, piece: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if len(ends) == int(ends[-1]) + 1:  # each element has a single byte
        return piece[: len(ends)].astype("<u8")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > _MAX_VARINT_BYTES:
        raise MalformedRequest(f"input {name!r} has a number in {field} that does not end")
    numbers = np.zeros(len(ends), "<u8")
    for index in range(longest):
        is_longer = lengths > index
        part = (piece[starts[is_longer] + index] & 0x7F).astype("<u8")
        numbers[is_longer] |= part << np.uint64(7 * index)
    return numbers


def typed_pieces(of: OutputColumn) -> Iterator[bytes]:
    """Yield an output's elements as parts of ``InferTensorContents``, which may be joined."""
    field = _NUMBERS[FIELD_OF[of.datatype]]
    for chunk in of.chunks():
        for start in range(0, len(chunk), PIECE_ROWS):
            piece = chunk[start : start + PIECE_ROWS]
            if isinstance(piece, list):
                yield b"".join(delimited(field, element) for element in piece)
            else:
                is_float = piece.dtype.kind == "f"
                yield delimited(field, piece.tobytes() if is_float else b"".join(map(varint, piece.tolist())))
