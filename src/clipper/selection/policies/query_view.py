"""A policy's view of a query: what the query brings, and with feedback its outcome."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clipper.types import DType, InputType

Features = NDArray[np.float64]

FEATURE = np.dtype("<f8")
_DTYPES: Mapping[DType, np.dtype[Any]] = {
    DType.INT32: np.dtype("<i4"),
    DType.INT64: np.dtype("<i8"),
    DType.FLOAT32: np.dtype("<f4"),
    DType.FLOAT64: np.dtype("<f8"),
    DType.UINT8: np.dtype("u1"),
    DType.BOOL: np.dtype("?"),
}
_DIMENSION = np.dtype("<u4")


class QueryView(msgspec.Struct, frozen=True, gc=False):
    """What a query brings to its policy.

    Attributes:
        context: the user, session or other group that it belongs to; None if it named none.
        packed_features: the features' raw buffer, as in the decision log; read ``features`` instead.
        row: the input's raw buffer, as containers get it; read ``input`` instead.
        input_type: type of the row.
    """

    context: str | None = None
    packed_features: bytes | None = None
    row: bytes | None = None
    input_type: InputType | None = None

    @property
    def features(self) -> Features | None:
        """Read-only float64 of shape (d,); None if the query brought no features."""
        return None if self.packed_features is None else np.frombuffer(self.packed_features, FEATURE)

    @property
    def input(self) -> NDArray[Any] | str | bytes | None:
        """The input: a read-only array of the application's dtype and shape, or a str or bytes; None if it is not kept.

        It is decoded at each access: keep it if you need it twice.
        """
        if self.row is None or self.input_type is None:
            return None
        return decode_row(self.row, self.input_type)


class JudgedQuery(QueryView, frozen=True, gc=False):
    """A query, or an input, with feedback.

    Attributes:
        outputs: JSON text by model, of all known outputs, including late ones and those asked for the feedback.
        label: JSON text of the right output; None if there was a reward instead.
    """

    outputs: Mapping[str, bytes] = {}
    label: bytes | None = None


def as_features(row: bytes, input_type: InputType) -> bytes:
    """Return the features' raw buffer of a numeric input that is the features: the row itself if it is float64."""
    if input_type.dtype is DType.FLOAT64:
        return row
    return np.frombuffer(row, _DTYPES[input_type.dtype]).astype(FEATURE).tobytes()


def decode_row(row: bytes, input_type: InputType) -> NDArray[Any] | str | bytes:
    """Decode a row.

    Raises:
        ValueError: it is not of that type.
    """
    if input_type.dtype is DType.STRING:
        return row.decode()
    if input_type.dtype is DType.BYTES:
        return row
    start = input_type.leading_dimensions * _DIMENSION.itemsize
    numbers = np.frombuffer(row, _DTYPES[input_type.dtype], offset=start)
    if start:
        return numbers.reshape(np.frombuffer(row, _DIMENSION, input_type.leading_dimensions))
    return numbers if None in input_type.shape else numbers.reshape(tuple(size or 0 for size in input_type.shape))
