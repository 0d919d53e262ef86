"""Cuts rows out of a batch that was decoded, and encodes them as a batch of their own, without a step for each row."""

from collections.abc import Sequence
from itertools import accumulate

from clipper.model.protocol.columns import PredictColumns, encode_predict_columns
from clipper.model.protocol.messages import Buffer, Predict, predict_head
from clipper.values.columns import Column
from clipper.values.types import DType

# Where each row begins, and the last one ends; None if all have one size.
Places = Sequence[int] | None


class RowCutter:
    """Makes batches of the rows of another batch."""

    def __init__(self, batch: Predict | PredictColumns, places: Sequence[Places] | None = None) -> None:
        """``places``: of each column, or of the only one, if they are known: see ``places_of``."""
        self._batch = batch
        parts = batch.columns if isinstance(batch, PredictColumns) else (batch,)
        self._places = [places_of(part.lengths) for part in parts] if places is None else places

    def encode(self, batch_id: int, start: int, stop: int) -> list[Buffer]:
        """Return the frame of the rows from ``start`` to ``stop``, as buffers to write one after another."""
        batch = self._batch
        if isinstance(batch, PredictColumns):
            cut = [_column(column, at, start, stop) for column, at in zip(batch.columns, self._places)]
            return encode_predict_columns(batch_id, cut)
        payload = _payload(batch, self._places[0], start, stop)
        lengths = () if batch.lengths is None else batch.lengths[start:stop]
        row_bytes = batch.row_bytes or 0
        return encode_predict_payload(
            batch_id, batch.dtype, batch.dimensions, stop - start, row_bytes, lengths, payload
        )


def places_of(lengths: Sequence[int] | None) -> Places:
    """Return the places of rows with these lengths."""
    return None if lengths is None else list(accumulate(lengths, initial=0))


def _payload(rows: Predict | Column, places: Places, start: int, stop: int) -> memoryview:
    if places is not None:
        return memoryview(rows.payload)[places[start] : places[stop]]
    size = rows.row_bytes or 0
    return memoryview(rows.payload)[start * size : stop * size]


def _column(column: Column, places: Places, start: int, stop: int) -> Column:
    rows, present = stop - start, column.present
    if present is not None:
        bits = int.from_bytes(present, "little") >> start & (1 << rows) - 1
        present = bits.to_bytes(-(-rows // 8), "little")
    lengths = None if column.lengths is None else column.lengths[start:stop]
    return column._replace(rows=rows, payload=_payload(column, places, start, stop), lengths=lengths, present=present)


def encode_predict_payload(
    batch_id: int, dtype: DType, dimensions: int, rows: int, row_bytes: int, lengths: Sequence[int], payload: Buffer
) -> list[Buffer]:
    """Return the frame of rows in one buffer. ``row_bytes``: each row's size, or 0 if ``lengths`` has the sizes."""
    return [predict_head(batch_id, dtype, dimensions, rows, row_bytes, lengths, len(payload)), payload]
