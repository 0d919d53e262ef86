"""The data of a tensor in JSON: a flat list in row-major order, or nested lists of the tensor's shape."""

from collections.abc import Generator
from math import prod
from typing import Any

import numpy as np

from clipper.errors import MalformedRequest, WrongInput
from clipper.values.decoding import parsed
from clipper.values.inputs.json_parts import Extent, find_items
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES, NumberPieces, read_string, strip
from clipper.values.inputs.numbers import NUMPY, pack, show
from clipper.values.types import MAX_DIMENSIONS, DType, InputType
from clipper.worker.frontend.inference.tensors import (
    ONLY_BINARY,
    PIECE_ROWS,
    Rows,
    Tensor,
    TensorReader,
    Values,
    check_range,
    datatype_of,
)

# The types in which numbers are read before they are converted. Floats are read in the application's type, since the
# text may have more digits than a float32 keeps.
_READ_AS = {
    "BOOL": DType.BOOL,
    "INT8": DType.INT32,
    "INT16": DType.INT32,
    "INT32": DType.INT32,
    "INT64": DType.INT64,
    "UINT8": DType.UINT8,
    "UINT16": DType.INT32,
    "UINT32": DType.INT64,
    "UINT64": DType.INT64,
}


def read_json(reader: TensorReader, tensor: Tensor, text: bytearray, start: int, stop: int) -> Values:
    """Return the rows of the tensor whose data is in ``text[start:stop]``; this may overwrite the text.

    Raises MalformedRequest if the data is not JSON, and WrongInput if the data is not of the datatype or shape.
    """
    name = tensor.datatype.name
    if name in ONLY_BINARY:
        raise WrongInput(f"input {tensor.name!r} has {name} data in JSON: expected binary data, which alone is exact")
    wanted = tensor.datatype.numpy
    if wanted is None:
        return (yield from read_texts(tensor, text, start, stop))
    dtype = _READ_AS.get(name, reader.type.dtype)
    count = prod(tensor.shape)
    if stop - start <= SHORT_TEXT_BYTES:
        numbers = pack(
            dtype, flat_items(tensor, parsed(text[start:stop], "data"), count), null_is_nan=reader.null_is_nan
        )
    elif not count:
        raise WrongInput(f"input {tensor.name!r} has data: expected none for a shape with a length of 0")
    else:
        pieces = NumberPieces(_type_of(tensor, dtype, text, start, stop), reader.null_is_nan)
        numbers = yield from pieces.read(text, start, stop)
    if wanted.kind in "iu" and wanted.itemsize < dtype.size_bytes and numbers:
        check_range(tensor.name, np.frombuffer(numbers, NUMPY[dtype]), wanted, name)
    own = tensor._replace(datatype=datatype_of(dtype))
    return (yield from reader.rows(own, memoryview(numbers)))


def _type_of(tensor: Tensor, dtype: DType, text: bytearray, start: int, stop: int) -> InputType:
    """Return the type of an input that is the whole tensor: flat, or of the tensor's shape."""
    first, _ = strip(text, start, stop)
    is_flat = text.find(b"[", first + 1, stop) < 0
    if not is_flat and len(tensor.shape) > MAX_DIMENSIONS:
        raise WrongInput(
            f"input {tensor.name!r} has lists nested {len(tensor.shape)} deep: expected one flat list, "
            f"or at most {MAX_DIMENSIONS} levels"
        )
    return InputType(dtype, (prod(tensor.shape),) if is_flat else tuple(tensor.shape))


def flat_items(tensor: Tensor, data: Any, count: int) -> list[Any]:
    """Return the elements in order. Raises WrongInput unless they are as many, and nested, as the shape says."""
    if not isinstance(data, list):
        raise WrongInput(f"input {tensor.name!r} has data {show(data)}: expected a list")
    wrong = WrongInput(f"input {tensor.name!r} has data of another shape: expected {list(tensor.shape)}")
    if any(isinstance(item, list) for item in data):
        if len(data) != tensor.rows:
            raise wrong
        for length in tensor.shape[1:]:
            if not all(isinstance(part, list) and len(part) == length for part in data):
                raise wrong
            data = [item for part in data for item in part]
    if len(data) != count or any(isinstance(item, list) for item in data):
        raise wrong
    return list(data)


def read_texts(tensor: Tensor, text: bytearray, start: int, stop: int) -> Rows:
    """Return the elements of a tensor of BYTES, in UTF-8. Raises MalformedRequest or WrongInput."""
    if stop - start <= SHORT_TEXT_BYTES:
        items = flat_items(tensor, parsed(text[start:stop], "data"), tensor.rows)
        wrong = next((item for item in items if not isinstance(item, str)), None)
        if wrong is not None:
            raise WrongInput(f"input {tensor.name!r} has {show(wrong)}: expected a string")
        try:
            return [item.encode() for item in items]
        except UnicodeError as error:
            raise MalformedRequest(f"data is not JSON: {error}") from error
    rows = []
    for extent in (yield from element_extents(tensor, text, start, stop)):
        rows.append((yield from read_string(text, *extent)))
        yield
    return rows


def element_extents(tensor: Tensor, text: bytearray, start: int, stop: int) -> Generator[None, None, list[Extent]]:
    """Return where the elements of a tensor with one a row are. Raises MalformedRequest or WrongInput."""
    found: list[Extent] = []
    for extent in (yield from _items(tensor, text, start, stop, tensor.rows)):
        first, last = strip(text, *extent)
        if text[first : first + 1] == b"[" and len(tensor.shape) > 1:
            ((first, last),) = yield from _items(tensor, text, first, last, 1)
        found.append((first, last))
        if len(found) % PIECE_ROWS == 0:
            yield
    return found


def _items(tensor: Tensor, text: bytearray, start: int, stop: int, count: int) -> Generator[None, None, list[Extent]]:
    found = yield from find_items(text, start, stop, count)
    if found is None or len(found) != count:
        raise WrongInput(f"input {tensor.name!r} has data of another shape: expected {list(tensor.shape)}")
    return found
