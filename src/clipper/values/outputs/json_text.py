"""Makes the JSON text of raw numbers: for float64 the same as Python's ``repr``, in a tenth of the time.

JSON has no NaN and no infinities: their text is ``null``, or a name in quotes if the form says so.

msgspec finds the same shortest digits as ``repr``, which read back as the same number, but writes some very small and
very large numbers in another notation: ``1e-7`` for ``1e-07``. Equal outputs have to be equal texts, whether a
container or this module wrote them. So this module changes the notation of such numbers to that of ``repr``.
"""

from collections.abc import Iterable, Iterator
from math import isfinite, prod
from struct import Struct
from typing import Any, TypeAlias

import msgspec
import numpy as np

from clipper.values.inputs.numbers import NUMPY
from clipper.values.output_arrays import OutputForm
from clipper.values.types import DType

# Between these magnitudes both write the same: ``repr`` uses an exponent outside of them.
_LEAST_PLAIN, _MOST_PLAIN = 1e-4, 1e16
# From this magnitude to the least plain, msgspec writes no exponent: ``0.00001`` for ``1e-05``.
_LEAST_WITHOUT_EXPONENT = 1e-5
# The end or beginning of an exponent in msgspec's notation, and in that of ``repr``.
_SMALL = [(b"e-%d%b" % (digit, end), b"e-0%d%b" % (digit, end)) for digit in range(6, 10) for end in (b",", b"]")]
_LARGE = [(b"e%d" % digit, b"e+%d" % digit) for digit in range(1, 10)]
# Digits that tell float32 numbers apart: some need only 6, and none needs more than 9.
_FLOAT32_DIGITS = range(6, 10)
# Between these magnitudes, numpy writes a float32 without an exponent, and the powers of ten in use are exact.
_LEAST_PLAIN_FLOAT32, _MOST_PLAIN_FLOAT32 = 1e-3, 1e6
_POWERS_OF_TEN = 10.0 ** np.arange(16)
# The longest text of an element with its comma: -2147483648, -9223372036854775808, -1.1754944e-38,
# -2.2250738585072014e-308, 255, false.
_MOST_ELEMENT_BYTES = {
    DType.INT32: 12,
    DType.INT64: 21,
    DType.FLOAT32: 16,
    DType.FLOAT64: 25,
    DType.UINT8: 4,
    DType.BOOL: 6,
}
# The elements that become text in half a millisecond.
PIECE_ELEMENTS = 2048
_encode = msgspec.json.encode
_read_number = Struct("<d").unpack

_Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def most_text_bytes(form: OutputForm) -> int:
    """Return a bound on the text's size, whatever the numbers are."""
    lists = sum(prod(form.shape[:depth]) for depth in range(len(form.shape)))
    # Each list has two brackets. Commas are counted with the elements; empty lists have some, too.
    return form.elements * _MOST_ELEMENT_BYTES[form.written_as] + (2 if form.elements else 3) * lists


def json_text(form: OutputForm, data: bytes) -> bytes:
    """Return the JSON text of an output: nested lists of its shape."""
    # A single number needs no array, which would take most of the time.
    if not form.shape and form.dtype is form.written_as is DType.FLOAT64 and isfinite(number := _read_number(data)[0]):
        return repr(number).encode()
    return _text(_array(form, data), form)


def json_pieces(form: OutputForm, data: bytes) -> Iterator[bytes]:
    """Yield the text of ``json_text`` in pieces of up to ``PIECE_ELEMENTS`` elements, each made when it is needed."""
    return _pieces(_array(form, data), form)


def json_elements(form: OutputForm, data: bytes | memoryview) -> Iterator[bytes]:
    """Yield the text of the elements without their lists, in pieces of up to ``PIECE_ELEMENTS`` elements."""
    array = _array(form, data).ravel()
    for start in range(0, array.size, PIECE_ELEMENTS):
        yield _text(array[start : start + PIECE_ELEMENTS], form)[1:-1]


def _array(form: OutputForm, data: bytes | memoryview) -> _Array:
    return np.frombuffer(data, NUMPY[form.dtype]).reshape(form.shape)


def _pieces(array: _Array, form: OutputForm) -> Iterator[bytes]:
    if array.size <= PIECE_ELEMENTS:
        yield _text(array, form)
        return
    each = array.size // len(array)
    step = max(1, PIECE_ELEMENTS // each)
    opening = b"["
    for start in range(0, len(array), step):
        if each <= PIECE_ELEMENTS:
            yield opening + _text(array[start : start + step], form)[1:-1]
        else:
            yield opening
            yield from _pieces(array[start], form)
        opening = b","
    yield b"]"


def _text(array: _Array, form: OutputForm) -> bytes:
    text = _with_nulls(array, form.written_as)
    if not form.nan_as_text or b"null" not in text:
        return text
    odd: list[float] = array[~np.isfinite(array)].tolist()
    names = [b'"NaN"' if number != number else b'"Infinity"' if number > 0 else b'"-Infinity"' for number in odd]
    return b"".join([part for pair in zip(text.split(b"null"), [*names, b""]) for part in pair])


def _with_nulls(array: _Array, written_as: DType) -> bytes:
    if written_as is DType.FLOAT32:
        with np.errstate(invalid="ignore"):
            return _float32_text(array.ravel(), array.shape)
    values = array
    if array.dtype != NUMPY[written_as]:
        with np.errstate(invalid="ignore"):  # numpy warns of a NaN that signals
            values = array.astype(NUMPY[written_as])
    return _float64_text(values) if written_as is DType.FLOAT64 else _encode(values.tolist())


def _float64_text(values: "np.ndarray[Any, np.dtype[np.float64]]") -> bytes:
    if not values.ndim:
        return repr(value).encode() if isfinite(value := values.item()) else b"null"
    text = _encode(values.tolist())
    # Most outputs have no such number, and to look for their signs takes a third of the time of comparing numbers.
    if b"e" not in text and b"0.0000" not in text:
        return text
    magnitudes = np.abs(values.ravel())
    is_small = (magnitudes < _LEAST_PLAIN) & (magnitudes > 0)
    if is_small.any():
        for ours, theirs in _SMALL:
            text = text.replace(ours, theirs)
        others = np.flatnonzero(is_small & (magnitudes >= _LEAST_WITHOUT_EXPONENT))
        texts = (repr(value).encode() for value in values.ravel()[others].tolist())
        text = _placed(text, zip(others.tolist(), texts))
    if (magnitudes >= _MOST_PLAIN).any():  # NaN is not
        for ours, theirs in _LARGE:
            text = text.replace(ours, theirs)
    return text


def _float32_text(values: "np.ndarray[Any, np.dtype[np.float32]]", shape: tuple[int, ...]) -> bytes:
    magnitudes = np.abs(values).astype(np.float64)
    is_plain = (magnitudes >= _LEAST_PLAIN_FLOAT32) & (magnitudes < _MOST_PLAIN_FLOAT32)
    shortest = values.astype(np.float64)
    shortest[is_plain] = _shortest(values[is_plain], magnitudes[is_plain])
    text = _encode(shortest.reshape(shape).tolist())
    others = np.flatnonzero(~is_plain & (magnitudes > 0) & (magnitudes < np.inf))
    return _placed(text, zip(others.tolist(), values[others].astype("S16").tolist())) if others.size else text


def _shortest(
    values: "np.ndarray[Any, np.dtype[np.float32]]", magnitudes: "np.ndarray[Any, np.dtype[np.float64]]"
) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return for each float32 the float64 of the fewest decimal digits that rounds to it, faster than numpy does."""
    found = values.astype(np.float64)
    exponents = np.floor(np.log10(magnitudes)).astype(np.int64)
    left = np.arange(values.size)
    for digits in _FLOAT32_DIGITS:
        places = digits - 1 - exponents[left]
        up, down = _POWERS_OF_TEN[np.maximum(places, 0)], _POWERS_OF_TEN[np.maximum(-places, 0)]
        rounded = np.rint(found[left] * up / down) / up * down
        is_same = rounded.astype(np.float32) == values[left]
        found[left[is_same]] = rounded[is_same]
        left = left[~is_same]
        if not left.size:
            break
    return found


def _placed(text: bytes, elements: Iterable[tuple[int, bytes]]) -> bytes:
    """Replace elements in the text of an array."""
    parts = text.split(b",")
    for index, element in elements:
        part = parts[index]
        core = part.strip(b"[]")
        parts[index] = element if core == part else part.replace(core, element)
    return b",".join(parts)
