"""Encodes batches of one input type as the container protocol has them: PREDICT, or PREDICT_COLUMNS for records."""

from collections.abc import Sequence
from typing import Protocol

from clipper.model.protocol import messages
from clipper.model.protocol.columns import column_head, predict_columns_frame
from clipper.model.protocol.frames import OLDEST_VERSION, RECORDS_VERSION
from clipper.model.protocol.messages import Buffer
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import RecordType, ValueType
from clipper.values.types import InputType

# The lengths of a batch matter only by their remainder: all buffers are padded to so many bytes.
_ALIGNED_BYTES = 8
_PADDING = [bytes(size) for size in range(_ALIGNED_BYTES)]


class BatchEncoder(Protocol):
    """Encodes batches of one input type. ``least_version``: of the protocol, that has such batches."""

    least_version: int

    def encode(self, batch_id: int, rows: Sequence[bytes], trace: bytes = b"") -> list[Buffer]:
        """Return the frame as buffers to write one after another. ``rows``: 1 to ``MAX_ROWS``. ``trace``: as in
        ``add_trace``, or empty."""
        ...


def make_encoder(input_type: ValueType) -> BatchEncoder:
    return RecordEncoder(input_type) if isinstance(input_type, RecordType) else TensorEncoder(input_type)


class TensorEncoder:
    """Encodes batches of tensors, texts or bytes."""

    least_version = OLDEST_VERSION

    def __init__(self, input_type: InputType) -> None:
        self._dtype, self._dimensions = input_type.dtype, input_type.leading_dimensions

    def encode(self, batch_id: int, rows: Sequence[bytes], trace: bytes = b"") -> list[Buffer]:
        frame = messages.encode_predict(batch_id, self._dtype, self._dimensions, rows)
        return messages.add_trace(frame, trace) if trace else frame


class RecordEncoder:
    """Encodes batches of records: the same bytes as of ``encode_predict_columns``, with what does not depend on a batch
    made before.
    """

    least_version = RECORDS_VERSION

    def __init__(self, record: RecordType) -> None:
        self._rows = RecordRows(record)
        fields = record.fields
        self._heads = [column_head(field.name, field.type, False, field.type.dtype) for field in fields]
        self._nullable_heads = [column_head(field.name, field.type, True, field.type.dtype) for field in fields]
        self._sizes = [field.type.row_bytes or 0 for field in fields]
        # By the remainder of the number of rows: what stands before each column's values, and after the last one's.
        self._before: dict[int, list[bytes]] = {}

    def encode(self, batch_id: int, rows: Sequence[bytes], trace: bytes = b"") -> list[Buffer]:
        count = len(rows)
        remainder = count % _ALIGNED_BYTES
        before = self._before.get(remainder)
        if before is None:
            before = self._before[remainder] = self._made(remainder)
        payloads, lengths, present = self._rows.cut(rows)
        fields = len(payloads)
        parts: list[Buffer] = [b""] * (2 * fields + 3)
        parts[2::2] = before
        for index, bits in present.items():
            parts[2 * index + 2] = self._padding(index, count) + self._nullable_heads[index] + _padded(bits)
        for index, table in lengths.items():
            parts[2 * index + 2] = b"".join((parts[2 * index + 2], table, _PADDING[-len(table) % _ALIGNED_BYTES]))
            if padding := -len(payloads[index]) % _ALIGNED_BYTES:
                parts[2 * index + 4] = _PADDING[padding] + bytes(parts[2 * index + 4])
        parts[3::2] = payloads
        return predict_columns_frame(batch_id, count, fields, parts, trace)

    def _padding(self, index: int, count: int) -> bytes:
        """Return what follows the values of the field before this one."""
        return _PADDING[-(self._sizes[index - 1] * count) % _ALIGNED_BYTES] if index else b""

    def _made(self, remainder: int) -> list[bytes]:
        heads = [self._padding(index, remainder) + head for index, head in enumerate(self._heads)]
        return [*heads, self._padding(len(heads), remainder)]


def _padded(buffer: bytes) -> bytes:
    return buffer + _PADDING[-len(buffer) % _ALIGNED_BYTES]
