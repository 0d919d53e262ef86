"""Encodes batches of one input type as the container protocol has them: PREDICT, or PREDICT_COLUMNS for records."""

from collections.abc import Iterator, Sequence
from math import inf
from operator import itemgetter
from typing import TypeAlias

from clipper.model.protocol import messages
from clipper.model.protocol.columns import column_head, predict_columns_frame
from clipper.model.protocol.frames import OLDEST_VERSION, RECORDS_VERSION
from clipper.model.protocol.messages import Buffer
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import RecordType, ValueType
from clipper.values.types import InputType

# Making columns of this size takes some 6 ms.
MAX_RECORDS_BYTES = 8 * 1024 * 1024
# The lengths of a batch matter only by their remainder: all buffers are padded to so many bytes.
_ALIGNED_BYTES = 8
# A frame with fewer bytes of rows is joined, which copies them once more.
_SHORT_BYTES = 32 * 1024
_PADDING = [bytes(size) for size in range(_ALIGNED_BYTES)]


class TensorEncoder:
    """Encodes batches of tensors, texts or bytes.

    Attributes:
        least_version: the first version of the protocol with such batches.
        most_batch_bytes: the most bytes of inputs in a batch of several; more would take too long in one step.
    """

    least_version = OLDEST_VERSION
    most_batch_bytes = inf  # large rows are not copied

    def __init__(self, input_type: InputType) -> None:
        self._dtype, self._dimensions = input_type.dtype, input_type.leading_dimensions

    def encode(self, batch_id: int, rows: Sequence[bytes], trace: bytes = b"") -> list[Buffer]:
        """Return the frame as buffers. ``rows``: 1 to ``MAX_ROWS``. ``trace``: as in ``add_trace``, or empty."""
        frame = messages.encode_predict(batch_id, self._dtype, self._dimensions, rows)
        return messages.add_trace(frame, trace) if trace else frame


class RecordEncoder:
    """Encodes as ``encode_predict_columns`` does, with what does not depend on a batch made before."""

    least_version = RECORDS_VERSION
    most_batch_bytes: float = MAX_RECORDS_BYTES

    def __init__(self, record: RecordType) -> None:
        self._rows = RecordRows(record)
        fields = record.fields
        self._heads = [column_head(field.name, field.type, False, field.type.dtype) for field in fields]
        self._nullable_heads = [column_head(field.name, field.type, True, field.type.dtype) for field in fields]
        self._sizes = [field.type.row_bytes or 0 for field in fields]
        self._variable = self._rows.variable
        # By the remainder of the number of rows: the bytes before each column's values, and after the last column's.
        self._before: dict[int, list[bytes]] = {}
        self._in_order = itemgetter(*self._order())

    def _order(self) -> Iterator[int]:
        """Yield the place of each buffer of a frame among those that ``encode`` has."""
        fields, lengths = len(self._sizes), len(self._variable)
        variable = {index: place for place, index in enumerate(self._variable)}
        first = fields + 1
        for index in range(fields):
            yield index
            if index in variable:
                place = first + fields + variable[index]
                yield from (place, first + fields + 2 * lengths, first + index, place + lengths)
            else:
                yield first + index
        yield first - 1

    def encode(self, batch_id: int, rows: Sequence[bytes], trace: bytes = b"") -> list[Buffer]:
        count = len(rows)
        remainder = count % _ALIGNED_BYTES
        before = self._before.get(remainder)
        if before is None:
            before = self._before[remainder] = self._made(remainder)
        payloads, lengths, present = self._rows.cut(rows)
        if present:
            before = list(before)
            for index, bits in present.items():
                after = _PADDING[-len(bits) % _ALIGNED_BYTES]
                before[index] = self._padding(index, count) + self._nullable_heads[index] + bits + after
        padding = [_PADDING[-len(payloads[index]) % _ALIGNED_BYTES] for index in self._variable]
        after_lengths = _PADDING[-4 * count % _ALIGNED_BYTES]
        parts = self._in_order((*before, *payloads, *lengths, *padding, after_lengths))
        is_short = sum(map(len, rows)) <= _SHORT_BYTES
        return predict_columns_frame(batch_id, count, len(payloads), parts, trace, is_short=is_short)

    def _padding(self, index: int, count: int) -> bytes:
        """Return what follows the values of the field before this one, if they are of fixed size."""
        return _PADDING[-(self._sizes[index - 1] * count) % _ALIGNED_BYTES] if index else b""

    def _made(self, remainder: int) -> list[bytes]:
        heads = [self._padding(index, remainder) + head for index, head in enumerate(self._heads)]
        return [*heads, self._padding(len(heads), remainder)]


BatchEncoder: TypeAlias = TensorEncoder | RecordEncoder


def make_encoder(input_type: ValueType) -> BatchEncoder:
    return RecordEncoder(input_type) if isinstance(input_type, RecordType) else TensorEncoder(input_type)
