"""Blocks of rows as they come: read in short steps, and refused before what they claim is believed."""

import struct
from itertools import accumulate

import pytest

from clipper.errors import WrongInput
from clipper.model.protocol.columns import BatchResults, encode_predict_columns
from clipper.model.protocol.frames import Kind, header
from clipper.model.protocol.messages import Results, decode_predict, decode_results, encode_predict
from clipper.model.protocol.typed import decode_typed_results
from clipper.values.columns import Column
from clipper.values.output_arrays import OutputForm, TypedResults
from clipper.values.records import ValueType, parse_type
from clipper.values.types import DType, InputType, ModelId
from clipper.worker.abstraction.batching.blocks import Blocks, Piece, PieceSize
from clipper.worker.abstraction.batching.flow import Batch
from clipper.worker.abstraction.block_rows import COPIED_BYTES, PIECE_BYTES, BlockRows, BlockRuns, read_block
from clipper.worker.frontend.long_work import done

MOST_ROWS = 16_384
TEXT = InputType(DType.STRING, ())


class Answered(BlockRuns):
    """Takes results for a block of its own, as those of a container."""

    def __init__(self, rows: int) -> None:
        super().__init__(Blocks(), ModelId("m", "1"), lambda: None, lambda: None)
        self.block = read(texts([b"x"] * rows))
        assert self.begin(self.block)

    def answer_of(self, results: BatchResults) -> list[bytes | memoryview]:
        batch = Batch(1, [], 0.0, 0.0, 0, False, False, piece=Piece(self.block, 0, results.rows, PieceSize()))
        self.take(batch, results)
        return self.block.answer


@pytest.mark.parametrize("size", [8, 4 * COPIED_BYTES])
def test_large_answers_are_not_copied_and_all_read_back(size: int) -> None:
    form = OutputForm(DType.UINT8, (size,), DType.UINT8)
    data = memoryview(bytes(range(256)) * (3 * size // 256 + 1))[: 3 * size]
    answer = Answered(3).answer_of(TypedResults(form, 3, data, 5, {1: "no"}))
    assert any(part is data for part in answer) is (size > COPIED_BYTES)
    read_back = decode_typed_results(b"".join(answer)[16:])
    assert (read_back.form, bytes(read_back.data), read_back.failures) == (form, bytes(data), {1: "no"})

    outputs = [b'"%b"' % (letter * size) for letter in (b"a", b"b")]
    answer = Answered(3).answer_of(Results([outputs[0], b"", outputs[1]], 5, {1: "no"}))
    assert any(part is outputs[1] for part in answer) is (size > COPIED_BYTES)
    texts_back = decode_results(b"".join(answer)[16:])
    assert list(map(bytes, texts_back.outputs)) == [outputs[0], b"", outputs[1]] and texts_back.failures == {1: "no"}


def read(body: bytes, input_type: ValueType | str = "string") -> BlockRows:
    return done(read_block(body, parse_type(input_type) if isinstance(input_type, str) else input_type, MOST_ROWS))


def texts(rows: list[bytes]) -> bytes:
    return b"".join(encode_predict(0, DType.STRING, 0, rows))


def columns(*made: Column) -> bytes:
    return b"".join(encode_predict_columns(0, made))


def text_column(name: str, rows: list[bytes]) -> Column:
    return Column(name, TEXT, len(rows), b"".join(rows), tuple(map(len, rows)))


def test_texts_come_back_as_they_were_whatever_their_lengths() -> None:
    rows = [each.encode() for each in ("", "ä" * PIECE_BYTES, "\N{SNOWMAN}", "b")] * 5
    (encoded,) = (b"".join(read(texts(rows)).cutter.encode(7, 3, 9)),)
    batch = decode_predict(encoded[16:])
    ends = list(accumulate(batch.lengths or ()))
    assert [bytes(batch.payload[end - len(row) : end]) for row, end in zip(rows[3:9], ends, strict=True)] == rows[3:9]


@pytest.mark.parametrize(
    "rows",
    [
        [b"\xff"],
        ["ä".encode()[:1], "ä".encode()[1:]],
        [b"x" * (2 * PIECE_BYTES) + b"\xc3"],
        [b"x" * (PIECE_BYTES - 1) + "ä".encode()[:1], "ä".encode()[1:]],
    ],
)
def test_texts_that_are_no_texts_are_refused(rows: list[bytes]) -> None:
    with pytest.raises(WrongInput, match="is not UTF-8"):
        read(texts(rows))
    with pytest.raises(WrongInput, match="'a' is not UTF-8"):
        read(columns(text_column("a", rows)), "a: string")


def test_a_claim_of_too_many_rows_is_refused_before_its_lengths_are_read() -> None:
    """Two million lengths took a quarter of a second, in one step."""
    head = struct.pack("<IIBBHI", 2_000_000, 0, DType.STRING, 0, 0, 0)
    for body in (head, head + bytes(8_000_000)):
        with pytest.raises(WrongInput, match="a block has 2000000 rows: expected at most 16384"):
            read(header(Kind.PREDICT, len(body)) + body)


def test_columns_are_read_one_in_a_step_and_their_texts_in_pieces() -> None:
    names = [f"f{number}" for number in range(30)]
    body = columns(*(text_column(name, [b"x" * 100] * 5000) for name in names))
    steps = read_block(body, parse_type(", ".join(f"{name}: string" for name in names)), MOST_ROWS)
    assert sum(1 for _ in steps) >= 30 * (1 + 500_000 // PIECE_BYTES)


def test_the_first_column_of_another_type_ends_the_reading() -> None:
    """The rest is not decoded: it may have millions of lengths."""
    broken = columns(text_column("a", [b"x"] * 9), text_column("b", [b"x"] * 9))
    cut = header(Kind.PREDICT_COLUMNS, 92) + broken[16 : 16 + 92]  # it ends within the second column
    for input_type in ("a: float64, b: string", "b: string", "float64[2]"):
        with pytest.raises(WrongInput, match="its columns are not those of"):
            read(cut, input_type)


@pytest.mark.parametrize("input_type", ["a: string", "a: string, b: string, c: string", "b: string, a: string"])
def test_columns_are_those_of_the_type(input_type: str) -> None:
    with pytest.raises(WrongInput, match="its columns are not those of"):
        read(columns(text_column("a", [b"x"]), text_column("b", [b"y"])), input_type)
