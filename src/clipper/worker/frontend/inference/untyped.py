"""Makes output tensors of models whose outputs have no type that could be declared or learned.

Such outputs are objects, lists of texts, or whole numbers beyond signed 64 bits, for example. Their datatype is that of
a request's rows, or BYTES of their JSON if the rows have nothing in common.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from clipper.values.outputs.long_lists import Ragged, elements, shape_of
from clipper.values.outputs.output import Output, is_long
from clipper.worker.frontend.inference.tensors import DATATYPES
from clipper.worker.frontend.long_work import done

# Converting this many elements takes a tenth of a millisecond.
_PIECE = 2000
# A tensor's datatype is the first that all its whole numbers fit into.
_INTEGERS = {"INT64": range(-(2**63), 2**63), "UINT64": range(2**64)}
_decode = msgspec.json.decode
_encode = msgspec.json.encode


class UntypedColumn(NamedTuple):
    """An output tensor over all rows. ``rows`` has its elements in row-major order: values, or a long text of lists."""

    datatype: str
    shape: tuple[int, ...]
    rows: Sequence[list[Any] | bytes]

    @property
    def is_base64(self) -> bool:
        return False

    def _pieces(self) -> Iterator[list[Any]]:
        for row in self.rows:
            if isinstance(row, bytes):
                yield from elements(row)
            else:
                for start in range(0, len(row), _PIECE):
                    yield row[start : start + _PIECE]

    def chunks(self) -> "Iterator[np.ndarray[Any, Any] | list[bytes]]":
        """Return the elements in pieces: numbers, or texts."""
        numpy = DATATYPES[self.datatype].numpy
        for values in self._pieces():
            yield [value.encode() for value in values] if numpy is None else np.array(values, numpy)

    def json_pieces(self) -> Iterator[bytes]:
        """Return the elements as JSON, with a comma before each."""
        for values in self._pieces():
            if values:
                yield b"," + _encode(values)[1:-1]


def type_of(output: Output) -> tuple[str, tuple[int, ...]]:
    """Return the datatype of an output, and its shape."""
    found = done(column([output]))
    return found.datatype, found.shape[1:]


def column(outputs: Sequence[Output]) -> Generator[None, None, UntypedColumn]:
    """Make a tensor of all rows' outputs, in steps of a few milliseconds at most.

    Whole numbers become INT64, or UINT64 if one is 2^63 or more; other numbers FP64, booleans BOOL and strings BYTES.
    Nested lists become further dimensions if those of all rows have the same shape. Any other outputs become BYTES of
    their JSON text.
    """
    rows: list[list[Any] | bytes] = []
    shape: tuple[int, ...] | None = None
    kinds: set[type] = set()
    fitting = frozenset(_INTEGERS)
    for index, output in enumerate(outputs):
        if is_long(output):
            own, seen, fit = yield from _measure(bytes(output))
            rows.append(bytes(output))
        else:
            try:
                flat, own = _flat(_decode(bytes(output)))
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                break
            seen, fit = set(map(type, flat)), _fit(flat)
            rows.append(flat)
            if index % 100 == 99 or len(flat) > _PIECE:
                yield
        if shape not in (None, own):
            break
        shape = own
        kinds |= seen
        fitting &= fit
    else:
        whole = (len(outputs), *(shape or (1,)))
        # One list of short rows' values is converted in fewer steps.
        if not any(isinstance(row, bytes) for row in rows):
            rows = [[value for row in rows if isinstance(row, list) for value in row]]
        if kinds <= {float, int} and "INT64" in fitting:
            return UntypedColumn("FP64" if float in kinds else "INT64", whole, rows)
        if kinds == {int} and fitting:
            return UntypedColumn("UINT64", whole, rows)
        if kinds in ({bool}, {str}):
            return UntypedColumn("BOOL" if kinds == {bool} else "BYTES", whole, rows)
    return UntypedColumn("BYTES", (len(outputs), 1), [[bytes(output).decode()] for output in outputs])


def _fit(values: list[Any]) -> frozenset[str]:
    """Return the datatypes into which all whole numbers among these values fit."""
    integers = [value for value in values if type(value) is int]
    least, most = min(integers, default=0), max(integers, default=0)
    return frozenset(name for name, bounds in _INTEGERS.items() if least in bounds and most in bounds)


def _measure(text: bytes) -> Generator[None, None, tuple[tuple[int, ...], set[type], frozenset[str]]]:
    """Return the shape of a long text's lists, the types of their elements, and whether these fit as ``_fit`` says.

    If it has no such shape, its only element is a list.
    """
    marks, kinds, count, fit = bytearray(), set[type](), 0, frozenset(_INTEGERS)
    try:
        for values in elements(text, marks):
            kinds.update(map(type, values))
            count += len(values)
            fit &= _fit(values)
            yield
        return shape_of(bytes(marks), count), kinds, fit
    except Ragged:
        return (), {list}, fit


def _flat(value: Any) -> tuple[list[Any], tuple[int, ...]]:
    """Return the elements of nested lists, and their shape: as many dimensions as all lists have in common."""
    flat, shape = [value], []
    while type(flat[0]) is list and flat[0]:
        length = len(flat[0])
        if not all(type(part) is list and len(part) == length for part in flat):
            break
        shape.append(length)
        flat = [item for part in flat for item in part]
    return flat, tuple(shape)
