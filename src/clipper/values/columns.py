"""The values of a field over the rows of a batch, in the form of the wire: raw and little-endian."""

from typing import NamedTuple

from clipper.values.types import DType, InputType


class Column(NamedTuple):
    """The values of a field, with a value for each row: like a batch of the field's type.

    Attributes:
        type: the type of a value. A value whose size the shape does not determine, such as a text, has its own length.
        rows: the number of values, including missing values.
        payload: the values one after another; zeros, or nothing, for a missing value. A value of a shape with open
            dimensions begins with its own dimensions if it has two or more, as ``InputType.leading_dimensions`` says.
        lengths: the size of each value in bytes; None if the type determines it.
        present: a bit for each row, the lowest bit of each byte first, 1 if the row has a value; None if all have one.
        written_as: the type by which elements become JSON text: the type's own, or float64 for float32.
        is_json: whether the values are JSON texts of any kind, and not strings.
    """

    name: str
    type: InputType
    rows: int
    payload: bytes | memoryview
    lengths: tuple[int, ...] | None = None
    present: bytes | None = None
    written_as: DType | None = None
    is_json: bool = False

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def dimensions(self) -> int:
        return self.type.leading_dimensions

    @property
    def row_bytes(self) -> int | None:
        """The size of every value; None if ``lengths`` has the size of each."""
        return None if self.lengths is not None else self.type.row_bytes
