"""Converts outputs to a type if that loses nothing: to that of a version's outputs, or of the inputs that they become.

- A whole number becomes a float, and a float a whole number, a float64 a float32 and an int64 an int32, if its value is
  kept. In a text, a number may also be the shortest number that rounds to a float32. Booleans are no numbers.
- NaN and infinities are values of floats. In a text, NaN is ``null``.
- Dimensions of length 1 are added or left out, as between ``[n]``, ``[n,1]`` and ``[1,n]``.
- Lists of unequal length within an output are no array, and refused.
- A record has all its fields and no others. The only value of a record is also taken without its name.
"""

import base64
import binascii
import struct
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import numpy as np

from clipper.errors import InvalidArgument, ModelFailed
from clipper.values.columns import Column
from clipper.values.decoding import NOT_JSON
from clipper.values.inputs.numbers import FLOATS, NUMPY
from clipper.values.json_types import NoType, flattened, record_of, type_of_elements, type_of_json
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.long_lists import Ragged, elements, shape_of
from clipper.values.outputs.output import Output, Part, RecordOutput, TypedOutput, is_long, make_array, make_record
from clipper.values.outputs.record_columns import names_of
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import MAX_DIMENSIONS, DType, InputType, Shape

# This many elements are converted in less than a millisecond.
_PIECE = 64 * 1024
# The types of numbers that float64 has nearly all.
_JOINED = (DType.INT32, DType.INT64, DType.UINT8, *FLOATS)
_NUMBERS = {int, float, type(None)}
# From this number on, not each integer is a float64.
_MOST_EXACT = 2.0**53
_NULL = b"null"
_decode = msgspec.json.decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_Array = np.ndarray[Any, np.dtype[Any]]
_Result = TypeVar("_Result")


class Conversion:
    """Converts outputs to a type.

    Args:
        is_declared: whether it was declared, or learned from the version's first answer: messages say which.
        is_input: whether it is the type of inputs that are made of outputs; messages then say so.
    """

    def __init__(self, to: ValueType, *, is_declared: bool = True, is_input: bool = False) -> None:
        self.type, self.is_declared, self._is_input = to, is_declared, is_input
        fields = to.fields if isinstance(to, RecordType) else (Field("", to),)
        self._parts = [_Part(field) for field in fields]
        self._names = names_of(to.names) if isinstance(to, RecordType) else None

    def keeps(self, form: OutputForm) -> bool:
        """Whether arrays of this form have the type already."""
        return self._names is None and self._parts[0].keeps(form)

    def keeps_columns(self, columns: Sequence[Column]) -> bool:
        """Whether the outputs in these columns have the type already."""
        if self._names is None or len(columns) != len(self._parts):
            return False
        return all(part.keeps_column(column) for part, column in zip(self._parts, columns))

    def convert(self, output: Output) -> Output:
        """Return the output in the type. Raises ModelFailed, with what was expected and what came, if that fails."""
        return _finished(self.steps(output))

    def steps(self, output: Output) -> Generator[None, None, Output]:
        """Do the same as ``convert``, in steps of a millisecond or so."""
        try:
            return (yield from self._converted(output))
        except RecursionError:
            raise ModelFailed(
                f"the model answered {_shown(output)}: its lists are nested too deeply to be read"
            ) from None
        except _Unfit as error:
            name = f" as {error.name!r}" if error.name else ""
            if self._is_input:
                raise ModelFailed(f"its input has {error}{name}: expected {error.expected}") from None
            origin, advice = "learned from the version's first answer", "deploy it with --output-type"
            if self.is_declared:
                origin, advice = "declared", "have it answer that, or deploy it with another --output-type"
            if isinstance(error, _Uneven):
                advice = "lists of different lengths in one output are no tensor, so have the model pad them"
            raise ModelFailed(
                f"the model answered {error}{name}, and its output type, {origin}, is {error.expected}: {advice}"
            ) from None

    def _converted(self, output: Output) -> Generator[None, None, Output]:
        if self._names is None:
            (only,) = self._parts
            if isinstance(output, RecordOutput):
                if len(output.parts) != 1:
                    raise _Unfit(f"the outputs {_listed(output.of.names)}", only.field)
                output = output.parts[0]
            return (yield from only.steps(output))
        values = self._values(output)
        parts = []
        for part in self._parts:
            parts.append((yield from part.steps(values.get(part.field.name))))
        return make_record(self._names, tuple(parts))

    def _values(self, output: Output) -> "dict[str, Part]":
        """Return the value of each name. Raises _Unfit if there are names that the type does not have."""
        names = [part.field.name for part in self._parts]
        if isinstance(output, RecordOutput):
            values: dict[str, Part] = dict(zip(output.of.names, output.parts))
        elif isinstance(output, bytes) and output[:1] == b"{":
            values = {name: bytes(value) for name, value in _decode_fields(output).items()}
        elif len(names) == 1:
            values = {names[0]: output}
        else:
            raise _Unfit(_shown(output), str(self.type))
        if not values.keys() <= set(names):
            raise _Unfit(f"the outputs {_listed(values)}", str(self.type))
        return values


class _Unfit(Exception):
    """A value that a field's type cannot hold."""

    def __init__(self, came: str, expected: "Field | str") -> None:
        super().__init__(came)
        self.name = "" if isinstance(expected, str) else expected.name
        if isinstance(expected, Field):
            expected = str(replace(expected, name="a")).removeprefix("a: ") if self.name else str(expected.type)
        self.expected = expected


class _Uneven(_Unfit):
    """Nested lists of different lengths, which no type of numbers can hold."""


class _Part:
    """Converts the values of a field."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self._dtype, self._shape = field.type.dtype, field.type.shape
        self._is_open = None in self._shape
        self._form = OutputForm(self._dtype, tuple(size or 0 for size in self._shape), self._dtype)
        self._numpy = NUMPY[self._dtype] if self._dtype.is_numeric else None
        self._categories = {msgspec.json.encode(value) for value in field.categories}
        self._default = None if field.default is None else field.default.encode()

    def keeps(self, form: OutputForm) -> bool:
        if form.dtype is not self._dtype or self._categories:
            return False
        return form.shape == self._form.shape or (self._is_open and _fits(form.shape, self._shape))

    def keeps_column(self, column: Column) -> bool:
        field = self.field
        if column.name != field.name or column.dtype is not self._dtype or self._categories:
            return False
        return (column.present is None or field.is_nullable) and field.type.accepts(column.type)

    def steps(self, value: Part | None) -> Generator[None, None, Part]:
        if value is None and self._default is not None:
            value = self._default
        if value is None or (value == _NULL and (self.field.is_nullable or self._dtype not in FLOATS)):
            if not self.field.is_nullable:
                raise _Unfit("no value" if value is None else "null", self.field)
            return _NULL
        if isinstance(value, TypedOutput) and self.keeps(value.form):
            return value
        if not self._dtype.is_numeric:
            part: Part = yield from self._text(value)
        else:
            part = yield from self._numbers(value)
        if self._categories and msgspec.json.encode(_decode(bytes(part))) not in self._categories:
            raise _Unfit(_shown(part), self.field)
        return part

    def _text(self, value: Part) -> Generator[None, None, bytes]:
        """Return a copy of a text's JSON, which was checked when it came; check that the text of bytes is base64."""
        came = value
        if isinstance(value, bytes) and value[:1] == b"[":
            value = yield from _only(value)
        if not isinstance(value, bytes) or value[:1] != b'"':
            raise _Unfit(_shown(came), self.field)
        if self._dtype is DType.BYTES:
            if b"\\" in value:  # for example, JSON with escaped slashes
                value = msgspec.json.encode(_decode(value))
            text = memoryview(value)[1:-1]
            # Each piece but the last has whole groups of four characters.
            for start in range(0, len(text), 4 * _PIECE):
                try:
                    base64.b64decode(text[start : start + 4 * _PIECE], validate=True)
                except binascii.Error:
                    raise _Unfit(f"{_shown(value)}, which is not base64", self.field) from None
                yield
        return value

    def _numbers(self, value: Part) -> Generator[None, None, TypedOutput]:
        if isinstance(value, TypedOutput):
            shape, written_as = value.form.shape, value.form.written_as
            data = yield from self._cast(value)
        else:
            written_as = self._dtype
            shape, data = yield from self._read(value)
        fitted = _fitted(shape, self._shape)
        if fitted is None:
            raise _Unfit(_shown(value), self.field)
        written_as = written_as if written_as in FLOATS and self._dtype is DType.FLOAT32 else self._dtype
        return make_array(OutputForm(self._dtype, fitted, written_as), data)

    def _cast(self, value: TypedOutput) -> Generator[None, None, bytes]:
        came = value.form.dtype
        if came is self._dtype:
            return value.data
        if DType.BOOL in (came, self._dtype):
            raise _Unfit(_shown(value), self.field)
        pieces = []
        size = _PIECE * came.size_bytes
        for start in range(0, len(value.data), size):
            numbers = np.frombuffer(value.data[start : start + size], NUMPY[came])
            with np.errstate(all="ignore"):
                cast = numbers.astype(NUMPY[self._dtype])
                lost = _lost(numbers, cast)
            if lost.any():
                raise _Unfit(f"{came.label} {numbers[lost][0]!s}", self.field)
            pieces.append(cast.tobytes())
            yield
        return b"".join(pieces)

    def _read(self, text: bytes) -> Generator[None, None, tuple[tuple[int, ...], bytes]]:
        """Return the shape and the elements of a number or of nested lists of numbers."""
        if not is_long(text):
            flat, shape = flattened(_decode(text))
            if shape is None:
                raise _Uneven(_shown(text), self.field)
            return shape, self._pack(flat, text)
        marks, pieces, count = bytearray(), [], 0
        try:
            for values in elements(text, marks):
                pieces.append(self._pack(values, text))
                count += len(values)
                yield
            return shape_of(bytes(marks), count), b"".join(pieces)
        except Ragged:
            raise _Uneven(_shown(text), self.field) from None

    def _pack(self, values: Sequence[Any], text: bytes) -> bytes:
        kinds = set(map(type, values))
        if self._dtype is DType.BOOL:
            if not kinds <= {bool}:
                raise _Unfit(_shown(text), self.field)
            return bytes(values)
        if not kinds <= (_NUMBERS if self._dtype in FLOATS else {int, float}):
            raise _Unfit(_shown(text), self.field)
        if kinds <= {float} and self._dtype is DType.FLOAT64:
            return struct.pack(f"<{len(values)}d", *values)
        try:
            cast = self._rounded(values) if self._dtype in FLOATS else np.array(values, object).astype(self._numpy)
        except OverflowError:
            raise _Unfit(_shown(text), self.field) from None
        if self._dtype not in FLOATS:
            lost = next((value for value, number in zip(values, cast.tolist()) if value != number), None)
            if lost is not None:
                raise _Unfit(f"{lost!r:.30}", self.field)
        return cast.tobytes()

    def _rounded(self, values: Sequence[Any]) -> _Array:
        """Return the numbers as floats of the type. Raises OverflowError if an integer is beyond those of float64."""
        numbers = np.array([np.nan if value is None else value for value in values], np.float64)
        with np.errstate(all="ignore"):
            cast = numbers.astype(self._numpy)
            lost = _lost(numbers, cast)
        lost |= np.abs(numbers) >= _MOST_EXACT
        for index in np.flatnonzero(lost).tolist():
            value, number = values[index], cast[index]
            if value != number.item() and (self._dtype is DType.FLOAT64 or float(str(number)) != value):
                raise _Unfit(f"{value!r:.30}", self.field)
        return cast


def _lost(numbers: _Array, cast: _Array) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Return which numbers have another value after they were cast; NaN is the same as NaN."""
    back = cast.astype(numbers.dtype)
    lost: np.ndarray[Any, np.dtype[np.bool_]] = back != numbers
    if numbers.dtype.kind == "f" and cast.dtype.kind == "f":
        lost &= ~(np.isnan(numbers) & np.isnan(back))
    # A cast out of range may give any number, which by chance may be cast back to the original.
    if cast.dtype.kind in "iu":
        bounds = np.iinfo(cast.dtype)
        lost |= ~((numbers >= bounds.min) & (numbers < float(bounds.max) + 1))
    elif numbers.dtype.kind in "iu":
        lost |= cast >= 2.0**63
    return lost


def _only(text: bytes) -> Generator[None, None, bytes]:
    """Return the JSON of the string that nested lists of one element have; ``text`` if they have anything else."""
    inner = text
    for _ in range(MAX_DIMENSIONS):
        if inner[:1] == b"[":
            inner = inner[1:-1].strip()
            yield
    if inner[:1] != b'"':
        return text
    last = steps = 0
    while (at := inner.find(b'"', last + 1)) >= 0:
        between = inner[last + 1 : at]
        if (len(between) - len(between.rstrip(b"\\"))) % 2 == 0:  # the quote is not escaped
            break
        last, steps = at, steps + 1
        if steps % 1000 == 0:
            yield
    return inner if at == len(inner) - 1 else text


def _fits(shape: Sequence[int], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(size is None or size == came for size, came in zip(wanted, shape))


def _fitted(shape: tuple[int, ...], wanted: Shape) -> tuple[int, ...] | None:
    """Return ``shape`` in the form of ``wanted``; None if that is not possible.

    It gets or loses dimensions of length 1. Without elements, it gets the lengths that nested lists do not show.
    """
    if _fits(shape, wanted):
        return shape
    if 0 in shape and len(shape) < len(wanted):  # an empty list does not show the lengths of inner lists
        longer = shape + tuple(size or 0 for size in wanted[len(shape) :])
        return longer if _fits(longer, wanted) else None
    return _with_ones([size for size in shape if size != 1], wanted)


def _with_ones(left: list[int], wanted: Shape) -> tuple[int, ...] | None:
    """Return the lengths ``left``, in order, with ones between them, so that they fit."""
    if not wanted:
        return None if left else ()
    first, rest = wanted[0], wanted[1:]
    if left and (first is None or first == left[0]) and (found := _with_ones(left[1:], rest)) is not None:
        return (left[0], *found)
    if first in (None, 1) and (found := _with_ones(left, rest)) is not None:
        return (1, *found)
    return None


def _shown(value: Output) -> str:
    """Describe a value for a message."""
    if isinstance(value, TypedOutput):
        return str(value.form)
    if isinstance(value, RecordOutput):
        return f"the outputs {_listed(value.of.names)}"
    return value[:60].decode(errors="replace") + ("…" if len(value) > 60 else "")


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))[:200]


def learning(output: Output) -> Generator[None, None, ValueType | None]:
    """Return the type of a version's outputs, judged by the first: an array's own, or what JSON shows.

    None if the output does not show all of it: the text of an empty list or null, or an empty list under a name. Raises
    NoType if no type describes it, such as a list of texts. Each step takes a millisecond or so.
    """
    if not isinstance(output, RecordOutput):
        return (yield from _learning(output))
    if _NULL in output.parts:
        raise NoType
    if b"[]" in output.parts:  # do not read long lists beside an empty one in vain each time
        return None
    types: dict[str, InputType | None] = {}
    for name, part in zip(output.of.names, output.parts):
        types[name] = InputType(DType.BYTES) if name in output.of.of_bytes else (yield from _learning(part))
    return record_of(types)


def _learning(part: Part) -> Generator[None, None, InputType | None]:
    if isinstance(part, TypedOutput):
        return InputType(part.form.dtype, tuple(size or None for size in part.form.shape))
    try:
        if not is_long(part):
            return type_of_json(_decode(part))
        marks, count, kinds = bytearray(), 0, set[type]()
        for values in elements(part, marks):
            count += len(values)
            kinds.update(map(type, values))
            yield
        return type_of_elements(kinds, shape_of(bytes(marks), count))
    # A number may be beyond float64, and a text nested too deeply.
    except (Ragged, *NOT_JSON, InvalidArgument):
        raise NoType from None


def _finished(steps: Generator[None, None, _Result]) -> _Result:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result


def common_conversion(conversions: Sequence[Conversion]) -> Conversion | None:
    """Return a conversion of several models' outputs, at least one's, to a common type; None if no type covers all.

    It is their own type if all have the same. If all have numbers with the same number of dimensions, it has open
    lengths where theirs differ, and float64 unless all have the same type of numbers.
    """
    first = conversions[0]
    types = [each.type for each in conversions]
    if all(each == first.type for each in types):
        return first
    shapes = [each.shape for each in types if isinstance(each, InputType) and each.dtype in _JOINED]
    if len(shapes) < len(types) or len(set(map(len, shapes))) > 1:
        return None
    dtypes = {each.dtype for each in types if isinstance(each, InputType)}
    dtype = dtypes.pop() if len(dtypes) == 1 else DType.FLOAT64
    shape = tuple(lengths[0] if len(set(lengths)) == 1 else None for lengths in zip(*shapes))
    is_declared = all(each.is_declared for each in conversions)
    return Conversion(InputType(dtype, shape), is_declared=is_declared)
