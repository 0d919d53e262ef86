"""The outputs of a batch as one array: raw, little-endian and in C order."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from clipper.values.types import DType, InputType

# Results with more bytes of outputs are read a row at a time: to check and copy all of them at once would take long.
LARGE_RESULTS_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class OutputForm:
    """The form that all outputs of a batch have.

    Attributes:
        dtype: type of the elements; not strings, nor bytes.
        shape: the shape of an output; ``()`` for a number. A length is 0 only where the output's type has it open.
        written_as: the type of the elements' JSON texts: ``dtype``, or float64 for float32. So 1.1 as a float32 is the
            text 1.1, or 1.100000023841858, which is the same number as a float64.
        nan_as_text: whether NaN and infinities are ``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` in the JSON text, and
            not ``null``.
    """

    dtype: DType
    shape: tuple[int, ...]
    written_as: DType
    nan_as_text: bool = False

    @property
    def elements(self) -> int:
        """The number of elements of an output."""
        return prod(self.shape)

    @property
    def row_bytes(self) -> int:
        return self.elements * self.dtype.size_bytes

    def __str__(self) -> str:
        return str(InputType(self.dtype, self.shape))


class TypedResults(NamedTuple):
    """The answer to a batch.

    Attributes:
        rows: number of outputs.
        data: the outputs one after another, in C order. Bytes of failed rows mean nothing.
        evaluation_us: how long the model took, in microseconds.
    """

    form: OutputForm
    rows: int
    data: memoryview
    evaluation_us: int
    failures: Mapping[int, str]

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    @property
    def is_large(self) -> bool:
        return self.size_bytes > LARGE_RESULTS_BYTES
