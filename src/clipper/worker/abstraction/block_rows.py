"""Blocks of rows in the form of the container protocol: how they come, and how their pieces are sent and answered."""

import codecs
from collections.abc import Callable, Generator, Sequence

import numpy as np

from clipper.errors import ProtocolViolation, WrongInput
from clipper.model.protocol.columns import (
    BatchResults,
    ColumnResults,
    PredictColumns,
    encode_column_results,
    read_predict_columns,
)
from clipper.model.protocol.cutting import Places, RowCutter, places_of
from clipper.model.protocol.frames import HEADER_BYTES, PROTOCOL_VERSION, Kind, Splitter, header
from clipper.model.protocol.messages import Buffer, Predict, decode_predict, encode_error, encode_results
from clipper.model.protocol.typed import typed_results_frame
from clipper.values.columns import Column
from clipper.values.output_arrays import TypedResults
from clipper.values.records import RecordType, ValueType
from clipper.values.types import DType, InputType, ModelId
from clipper.worker.abstraction.batching.blocks import Block, Blocks, Piece
from clipper.worker.abstraction.batching.flow import Batch

# Smaller answers are joined: writing each as its own buffer costs as much as copying them.
COPIED_BYTES = 16 * 1024
# Decoding this much of a text takes a tenth of a millisecond, or a half if none of it is ASCII.
PIECE_BYTES = 128 * 1024


class BlockRows(Block):
    """A block with its rows. ``answer``: the frames of the answers so far, each with the number of its first row as its
    id: RESULTS, TYPED_RESULTS or COLUMN_RESULTS of a piece, or the ERROR of a single row.
    """

    def __init__(self, batch: Predict | PredictColumns, places: Sequence[Places], size_bytes: int) -> None:
        super().__init__(batch.rows, size_bytes)
        self.cutter = RowCutter(batch, places)
        self.answer: list[Buffer] = []
        self.answer_bytes = 0
        self._missing = batch.rows
        # Called with the size of each answer, and whether it was the last one; and with an error of the whole block.
        self.on_answer: Callable[[int, bool], None]
        self.on_failure: Callable[[str, str], None]
        self.tell_nobody()

    def tell_nobody(self) -> None:
        """Drop the callbacks: their owners hold the block, and a reference cycle would keep its rows in memory."""
        self.on_answer, self.on_failure = (lambda size_bytes, is_last: None), (lambda code, message: None)

    def add(self, piece: Piece, frame: Sequence[Buffer]) -> None:
        """Take the answer to a piece."""
        size_bytes = sum(map(len, frame))
        self.answer += frame
        self.answer_bytes += size_bytes
        self._missing -= piece.rows
        self.on_answer(size_bytes, not self._missing)


class BlockRuns:
    """The shell of a version's blocks.

    Args:
        await_turn: makes the version's queue look for work that it can send.
        wake: asks for a replica if the version is asleep.
    """

    def __init__(
        self, blocks: Blocks, model: ModelId, await_turn: Callable[[], None], wake: Callable[[], None]
    ) -> None:
        self._blocks, self._model, self._await_turn, self._wake = blocks, model, await_turn, wake

    def begin(self, block: BlockRows) -> bool:
        """Evaluate a block while no query waits. Return False if there is no room for it."""
        if not self._blocks.push(block):
            return False
        self._wake()
        self._await_turn()
        return True

    def end(self, block: BlockRows) -> None:
        """Forget a block that was answered, or whose client has left."""
        self._blocks.end(block)
        block.tell_nobody()

    def close(self) -> None:
        """Fail all blocks: the version was removed."""
        for block in self._blocks.clear():
            assert isinstance(block, BlockRows)
            block.on_failure("no_replica", f"{self._model} has no replica any more")
        self._await_turn = self._wake = lambda: None  # so that the queue is in no cycle: no collector would free it

    def encode(self, batch: Batch) -> list[Buffer]:
        """Return the frame of a batch that is a piece."""
        piece: Piece = batch.piece
        return _rows(piece).cutter.encode(batch.id, piece.start, piece.stop)

    def take(self, batch: Batch, results: BatchResults) -> None:
        """Take the results of a batch that is a piece."""
        piece: Piece = batch.piece
        if results.rows != piece.rows:
            self.failed(batch, f"the container answered {results.rows} outputs for {piece.rows} inputs")
        elif not piece.block.done:
            _rows(piece).add(piece, _frame(piece.start, results))

    def failed(self, batch: Batch, message: str = "", *, has_begun: bool = True) -> bool:
        """Take the error of a batch if it is a piece: try it again in parts, unless it is a single row.

        ``message``: empty if the replica was lost. ``has_begun``: whether the batch was the oldest in flight there, and
        so may have ended the replica. Return whether the batch is a piece.
        """
        piece: Piece | None = batch.piece
        if piece is None:
            return False
        if not self._blocks.try_again(piece, has_begun=has_begun) and not piece.block.done:
            message = message or f"a container of {self._model} ended while it evaluated this input"
            _rows(piece).add(piece, [encode_error(piece.start, message)])
        return True


def _rows(piece: Piece) -> BlockRows:
    assert isinstance(piece.block, BlockRows)
    return piece.block


def _frame(first_row: int, results: BatchResults) -> Sequence[Buffer]:
    """Return a container's results as a frame with another id."""
    us, failures = results.evaluation_us, results.failures
    if isinstance(results, TypedResults):
        parts = typed_results_frame(first_row, results.rows, results.form, results.data, us, failures)
        return parts if len(results.data) > COPIED_BYTES else [b"".join(parts)]
    if isinstance(results, ColumnResults):
        return encode_column_results(first_row, results.columns, us, failures)
    size = sum(map(len, results.outputs)) + results.rows - 1
    if size <= COPIED_BYTES * results.rows:
        return [encode_results(first_row, results.rows, b"\n".join(results.outputs), us, failures)]
    texts = [part for output in results.outputs for part in (output, b"\n")][:-1]
    begin = encode_results(first_row, results.rows, b"", us, failures)[HEADER_BYTES:]
    return [header(Kind.RESULTS, len(begin) + size, first_row) + begin, *texts]


def read_block(body: bytes | bytearray, input_type: ValueType, most_rows: int) -> Generator[None, None, BlockRows]:
    """Read a block: a frame of the container protocol, PREDICT or PREDICT_COLUMNS, with rows of this type.

    Each step takes a millisecond or two: each step reads the lengths of one column, or a piece of a text.

    Raises WrongInput.
    """
    try:
        splitter = Splitter(len(body)).feed(body)  # type: ignore[arg-type]  # a bytearray that nobody changes
        frame = splitter.take()
        if frame is None or splitter.rest:
            raise ProtocolViolation(f"a body of {len(body)} bytes is not exactly one frame, as its head tells its size")
        kind, _, content = frame
        if kind not in (Kind.PREDICT, Kind.PREDICT_COLUMNS):
            raise ProtocolViolation(f"a frame of kind {kind} is no batch: expected kind {Kind.PREDICT:d} or 9")
        rows = int.from_bytes(content[:4], "little")
        if rows > most_rows:  # before lengths are read, of which there may be millions
            raise ProtocolViolation(f"a block has {rows} rows: expected at most {most_rows}")
        if kind == Kind.PREDICT:
            batch, places = yield from _read_tensors(content, input_type)
        else:
            batch, places = yield from _read_records(content, input_type)
    except ProtocolViolation as error:
        raise WrongInput(f"body is no block of inputs: {error}") from error
    return BlockRows(batch, places, len(body))


_Read = Generator[None, None, tuple[Predict | PredictColumns, Sequence[Places]]]


def _read_tensors(content: Buffer, input_type: ValueType) -> _Read:
    batch = decode_predict(content, PROTOCOL_VERSION)
    if not isinstance(input_type, InputType) or (batch.dtype, batch.dimensions) != (
        input_type.dtype,
        input_type.leading_dimensions,
    ):
        raise ProtocolViolation(f"its rows are not {str(input_type)[:1000]}")
    yield
    yield from _check_values("its data", batch, input_type)
    return batch, (places_of(batch.lengths),)


def _read_records(content: Buffer, input_type: ValueType) -> _Read:
    rows, columns, trace = read_predict_columns(content)
    fields = input_type.fields if isinstance(input_type, RecordType) else ()
    there: list[Column] = []
    places: list[Places] = []
    for column in columns:  # the first one of another type ends the reading
        field = fields[len(there)] if len(there) < len(fields) else None
        if field is None or (column.name, column.type) != (field.name, field.type):
            break
        if column.present is not None and not field.is_nullable:
            raise ProtocolViolation(f"{field.name!r:.100} has missing values, but must have a value in each row")
        yield
        yield from _check_values(f"{field.name!r:.100}", column, field.type)
        there.append(column)
        places.append(places_of(column.lengths))
        yield
    else:
        if len(there) == len(fields):
            return PredictColumns(rows, tuple(there), trace), places
    raise ProtocolViolation(f"its columns are not those of {str(input_type)[:1000]}, in this order")


def _check_values(name: str, rows: Predict | Column, of_type: InputType) -> Generator[None, None, None]:
    if of_type.row_bytes is not None and rows.row_bytes != of_type.row_bytes:
        raise ProtocolViolation(f"{name} has rows of {rows.row_bytes} bytes: {of_type} has {of_type.row_bytes}")
    if of_type.dtype is DType.STRING:
        # A text is whole where no byte after its end goes on with a character of the text before.
        payload, decoder = memoryview(rows.payload), codecs.getincrementaldecoder("utf-8")()
        try:
            for start in range(0, len(payload), PIECE_BYTES):
                decoder.decode(payload[start : start + PIECE_BYTES])
                yield
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise ProtocolViolation(f"{name} is not UTF-8: {error}") from error
        sizes = np.array(rows.lengths if rows.lengths is not None else (rows.row_bytes or 0,) * rows.rows, np.int64)
        ends, data = np.cumsum(sizes), np.frombuffer(payload, np.uint8)
        begun = ends[ends < len(data)]
        if (data[begun] & 0xC0 == 0x80).any():
            raise ProtocolViolation(f"{name} is not UTF-8: a text ends inside a character")
        yield
    elif of_type.row_bytes is None and of_type.dtype is not DType.BYTES and of_type.leading_dimensions:
        raise ProtocolViolation(f"{name} has a shape with several open lengths: send such inputs as queries")
    elif of_type.row_bytes is None and of_type.dtype is not DType.BYTES:
        size = of_type.dtype.size_bytes
        if any(length % size for length in rows.lengths or (rows.row_bytes or 0,)):
            raise ProtocolViolation(f"{name} has a row of {of_type} that is no multiple of {size} bytes")
