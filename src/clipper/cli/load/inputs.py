"""The requests to send: with the inputs of a file, in order, or with random inputs that all differ."""

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from clipper.cli.tables import TABLES, read_table
from clipper.errors import InvalidArgument
from clipper.settings.server import MOST_MAX_BODY_BYTES
from clipper.values.inputs.examples import example_input
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType, InputType

# Lengths of a sample's open dimensions, and of strings and bytes, if they are not given.
DEFAULT_LENGTH = 4
DEFAULT_TEXT_LENGTH = 100

# All requests are in memory before the first is sent. A larger file would be a data transfer rather than a load.
MAX_FILE_BYTES = 1024**3
# The total size of a sample's requests, which are made before the first is sent.
_SAMPLE_BYTES = 1024**2
# Numbers of samples to choose from: primes that have no factor in common with the number of spliced values, so that a
# request only repeats after the product of both.
_SAMPLES = (4093, 1021, 251, 61, 11, 1)

_DIGITS = 9
# The length of texts and bytes in random records, and the share of nullable fields that are missing.
_FIELD_LENGTH, _MISSING_SHARE = 12, 0.1
_LETTERS = "etaoinshrdlu  "


class Requests(Protocol):
    """Makes requests. ``what`` describes them in words."""

    what: str

    def of(self, number: int) -> bytes:
        """Return the request of the query with this number, from 0 on."""
        ...


class Ring:
    """Repeats the inputs of a file."""

    def __init__(self, requests: Sequence[bytes], what: str) -> None:
        self._requests, self.what = requests, what

    def of(self, number: int) -> bytes:
        return self._requests[number % len(self._requests)]


class Sample:
    """Random inputs of a type, which all differ as long as the type has further values.

    Making an input when it is due would take more time than sending it. So some are made in advance, and whenever an
    input is sent, its last numbers (or the first characters of a string) are replaced by others with as many digits; of
    a record, the number or text of one field.
    """

    def __init__(self, head: "Head", input_type: ValueType, length: int | None, random: Random) -> None:
        """Make samples. ``length``: of open dimensions, of a string in characters, or of bytes; None is the default."""
        if isinstance(input_type, RecordType):
            self._splice, make = _record_maker(input_type, random)
            self.what = f"random records of {len(input_type.fields)} fields"
        else:
            self._splice, make, self.what = self._of_tensor(input_type, length, random)
        before, after = make()
        body_bytes = len(before) + len(after)
        count = next(count for count in _SAMPLES if count * body_bytes <= _SAMPLE_BYTES or count == 1)
        parts = [(before, after), *(make() for _ in range(count - 1))]
        prefix = b'{"input":'
        self._parts = [
            (head.of(len(prefix) + len(a) + len(self._splice(0)) + len(b) + 1) + prefix + a, b + b"}") for a, b in parts
        ]
        # Not seeded, so that other processes that load the same server draw other inputs.
        self._offset = random.randrange(10**_DIGITS)

    @staticmethod
    def _of_tensor(
        input_type: InputType, length: int | None, random: Random
    ) -> "tuple[Callable[[int], bytes], Callable[[], Parts], str]":
        """Return a function that makes the spliced text, one that makes the rest, and a description."""
        dtype = input_type.dtype
        size = DEFAULT_LENGTH if dtype.is_numeric else DEFAULT_TEXT_LENGTH
        shape = tuple(each or length or size for each in input_type.shape)
        # Each number takes at least two characters.
        if (math.prod(shape) * 2 if dtype.is_numeric else length or size) > MOST_MAX_BODY_BYTES:
            raise InvalidArgument(
                f"one input of {input_type} has over {MOST_MAX_BODY_BYTES >> 20} MiB: give a smaller --width"
            )
        last = (shape or (1,))[-1] if dtype.is_numeric else length or size
        splice = _splice(dtype, last)
        make = _array_maker(dtype, shape, random, splice) if dtype.is_numeric else _text_maker(dtype, last, random)
        lengths = f", open lengths {length or size}" if None in input_type.shape else ""
        lengths = lengths if dtype.is_numeric else f" of {length or size}"
        return splice, make, f"random inputs of {input_type}{lengths}"

    def of(self, number: int) -> bytes:
        before, after = self._parts[number % len(self._parts)]
        return before + self._splice(number + self._offset) + after


class Head:
    def __init__(self, host: str, path: str, api_key: str | None = None) -> None:
        key = "" if api_key is None else f"Authorization: Bearer {api_key}\r\n"
        self._start = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{key}Content-Type: application/json\r\nContent-Length: "

    def of(self, body_bytes: int) -> bytes:
        return f"{self._start}{body_bytes}\r\n\r\n".encode()


def _splice(dtype: DType, length: int) -> Callable[[int], bytes]:
    """Return a function from a query's number to the text that makes it unique. All texts have the same length.

    ``dtype`` is the type of the elements. ``length`` is that of a string, of bytes, or of an array's last dimension; 1
    if there is none.
    """
    match dtype:
        case DType.FLOAT64 | DType.FLOAT32:
            # A float32 distinguishes seven digits. Neighbours are far apart, like random numbers.
            digits = _DIGITS if dtype is DType.FLOAT64 else 7
            modulus, factor = 10**digits, 387_420_489  # a power of 3, so that all numbers come before any comes again
            return lambda number: b"0.%0*d" % (digits, number * factor % modulus)
        case DType.INT32 | DType.INT64 | DType.UINT8:
            # All values have three digits, and fit into a byte if that is the type.
            base = 156 if dtype is DType.UINT8 else 900
            places = _places(base, length)
            return lambda number: b",".join([b"%d" % (100 + number // place % base) for place in places])
        case DType.BOOL:
            places = _places(2, length)
            return lambda number: b",".join([b"true " if number // place % 2 else b"false" for place in places])
    # Base64 has groups of four characters.
    size = min(length, _DIGITS) if dtype is DType.STRING else 8 if length >= 6 else 4 if length >= 3 else 0
    return (lambda number: b"%0*d" % (size, number % 10**size)) if size else (lambda number: b"")


def _places(base: int, length: int) -> list[int]:
    """Return places for as many values as a million queries need, or as fit in."""
    places = [1]
    while places[-1] * base < 10**6 and len(places) < length:
        places.append(places[-1] * base)
    return places


Parts = tuple[bytes, bytes]


def _array_maker(
    dtype: DType, shape: Sequence[int], random: Random, splice: Callable[[int], bytes]
) -> Callable[[], Parts]:
    """Return a function that makes the text before an array's last numbers, which are spliced in, and after them."""
    spliced = splice(0).count(b",") + 1

    def number() -> str:
        if dtype in (DType.FLOAT32, DType.FLOAT64):
            return f"{random.random():.4f}"
        return random.choice(("true", "false")) if dtype is DType.BOOL else str(random.randrange(100))

    def array(shape: Sequence[int]) -> str:
        return f"[{','.join(array(shape[1:]) for _ in range(shape[0]))}]" if shape else number()

    def make() -> Parts:
        text = array(shape)
        after = "]" * len(shape)
        start = len(text)
        for _ in range(spliced):
            start = max(text.rfind(",", 0, start), text.rfind("[", 0, start))
        return text[: start + 1].encode(), after.encode()

    return make


def _text_maker(dtype: DType, length: int, random: Random) -> Callable[[], Parts]:
    """Return a function that makes the text before a string's first characters, and after them."""
    spliced = len(_splice(dtype, length)(0))

    def make() -> Parts:
        if dtype is DType.STRING:
            return b'"', "".join(random.choices(_LETTERS, k=length - spliced)).encode() + b'"'
        return b'"', base64.b64encode(random.randbytes(length - spliced // 4 * 3)) + b'"'

    return make


def _record_maker(record: RecordType, random: Random) -> tuple[Callable[[int], bytes], Callable[[], Parts]]:
    """Return a function that makes one field's value, unique to each record, and one that makes the text around it."""
    own = next((field for field in record.fields if _can_be_spliced(field)), None)
    if own is None:
        return lambda number: b"", lambda: (json.dumps(_random_record(record, None, random)).encode(), b"")
    quote = '"' if own.type.dtype is DType.STRING else ""

    def make() -> Parts:
        text = json.dumps(_random_record(record, own, random) | {own.name: None}).removesuffix("null}")
        return f"{text}{quote}".encode(), f"{quote}}}".encode()

    return _splice(own.type.dtype, _DIGITS if quote else 1), make


def _random_record(record: RecordType, without: Field | None, random: Random) -> dict[str, Any]:
    return {field.name: _random_value(field, random) for field in record.fields if field is not without}


def _can_be_spliced(field: Field) -> bool:
    dtype = field.type.dtype
    return not field.categories and not field.type.shape and dtype not in (DType.BYTES, DType.BOOL)


def _random_value(field: Field, random: Random) -> Any:
    if field.categories:
        return random.choice(field.categories)
    if field.is_nullable and random.random() < _MISSING_SHARE:
        return None
    dtype = field.type.dtype
    if dtype is DType.STRING:
        return "".join(random.choices(_LETTERS, k=_FIELD_LENGTH))
    if dtype is DType.BYTES:
        return base64.b64encode(random.randbytes(_FIELD_LENGTH)).decode()
    if field.type.shape:
        (value,) = example_input(field.type) or (None,)
        return value
    if dtype in (DType.FLOAT32, DType.FLOAT64):
        return round(random.random() * 100, 4)
    return bool(random.randrange(2)) if dtype is DType.BOOL else random.randrange(100)


def read_requests(path: Path, head: Head, input_type: ValueType | None) -> Ring:
    """Read the inputs of a file: rows of ``.npy``, ``.csv`` or ``.parquet``, else JSON lines, each an input or a body
    with ``input`` and more.

    Raises InvalidArgument if the file cannot be read, is empty or too large, or a line does not have that form.
    """
    try:
        if path.suffix in TABLES:
            found: Iterator[bytes] = map(_body_of, read_table(path, input_type))
        else:
            found = _rows(path, input_type) if path.suffix == ".npy" else _lines(path, input_type)
        bodies = list(_bounded(found, path))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}") from error
    if not bodies:
        raise InvalidArgument(f"{path} has no inputs: expected one a line")
    return Ring([head.of(len(body)) + body for body in bodies], f"{len(bodies)} inputs of {path.name}")


def _bounded(bodies: Iterable[bytes], path: Path) -> Iterator[bytes]:
    size = 0
    for body in bodies:
        size += len(body)
        if size > MAX_FILE_BYTES:
            raise InvalidArgument(f"{path} has over {MAX_FILE_BYTES >> 20} MiB of inputs: give fewer")
        yield body


def _body_of(value: Any) -> bytes:
    return b'{"input":' + msgspec.json.encode(value) + b"}"  # NaN is null


def _lines(path: Path, input_type: ValueType | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        # A line without an end would fill the memory.
        for number, line in enumerate(iter(lambda: file.readline(MOST_MAX_BODY_BYTES + 1), b""), 1):
            if len(line) > MOST_MAX_BODY_BYTES:
                raise InvalidArgument(f"line {number} of {path} has over {MOST_MAX_BODY_BYTES >> 20} MiB")
            text = line.strip()
            if not text:
                continue
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise InvalidArgument(f"line {number} of {path} is not JSON: {error}") from None
            if not isinstance(value, dict) or (isinstance(input_type, RecordType) and _is_record(value, input_type)):
                yield b'{"input":' + text + b"}"
            elif "input" in value:
                yield text
            else:
                raise InvalidArgument(f'line {number} of {path} is an object without "input"')


def _is_record(value: dict[str, Any], record: RecordType) -> bool:
    """Whether an object of a line is a record, and not a body that has one."""
    return not isinstance(value.get("input"), dict) or "input" in record.names


def _rows(path: Path, input_type: ValueType | None) -> Iterator[bytes]:
    rows: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if rows.ndim < 1 or rows.dtype.kind not in "biuf":
        raise InvalidArgument(f"{path} has {rows.dtype} of shape {rows.shape}: expected numbers, one row an input")
    # A third of the size, if the query port accepts it.
    packed = isinstance(input_type, InputType) and input_type.dtype is DType.UINT8 and input_type.row_bytes is not None
    for row in rows:
        if packed and row.dtype == np.uint8:
            yield b'{"input":"' + base64.b64encode(row.tobytes()) + b'"}'
        else:
            yield b'{"input":' + json.dumps(row.tolist(), allow_nan=False, separators=(",", ":")).encode() + b"}"
