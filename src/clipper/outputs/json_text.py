"""The JSON text of raw numbers: for float64 the text that Python's own ``repr`` has, ten times as fast.

msgspec finds the same shortest digits (those that read back as the same number) as ``repr``, but writes very small
and very large numbers in another notation: ``1e-7`` for ``1e-07``. Equal outputs have to be equal texts, whether a
container wrote them or this module, so numbers of these sizes are written by ``repr``.
"""

import msgspec
import numpy as np

from clipper.containers.protocol.typed import OutputForm
from clipper.inputs.numbers import NUMPY
from clipper.types import DType

# Between these magnitudes both write the same: ``repr`` uses an exponent outside of them.
_LEAST_PLAIN, _MOST_PLAIN = 1e-4, 1e16
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
_encode = msgspec.json.encode


def most_text_bytes(form: OutputForm) -> int:
    """Return a bound of the text's size, whatever the numbers are."""
    dimensions = len(form.shape)
    # Each list has two brackets. There are at most as many lists as elements in each dimension but the last.
    brackets = 2 * (1 + max(0, dimensions - 1) * form.elements // form.shape[-1]) if dimensions else 0
    return form.elements * _MOST_ELEMENT_BYTES[form.written_as] + brackets


def json_text(form: OutputForm, data: bytes) -> bytes:
    """Return the JSON text of an output: nested lists of its shape. All elements are finite."""
    array = np.frombuffer(data, NUMPY[form.dtype])
    if form.written_as is DType.FLOAT32:
        return _placed(form.shape, dict(enumerate(array.astype("S16").tolist())))
    array = array.astype(NUMPY[form.written_as], copy=False)
    text = _encode(array.reshape(form.shape).tolist())
    if form.written_as is not DType.FLOAT64:
        return text
    magnitudes = np.abs(array)
    if (is_plain := (magnitudes >= _LEAST_PLAIN) & (magnitudes < _MOST_PLAIN) | (magnitudes == 0)).all():
        return text
    others = np.flatnonzero(~is_plain)
    texts = map(repr, array[others].tolist())
    return _placed(form.shape, {index: other.encode() for index, other in zip(others.tolist(), texts)}, text)


def _placed(shape: tuple[int, ...], texts: dict[int, bytes], text: bytes | None = None) -> bytes:
    """Put texts of elements into the text of an array of this shape, by default an array without elements."""
    parts = (text or _encode(np.zeros(shape, np.uint8).tolist())).split(b",")
    for index, element in texts.items():
        part = parts[index]
        core = part.strip(b"[]")
        parts[index] = part.replace(core, element)
    return b",".join(parts)
