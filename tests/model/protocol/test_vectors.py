"""The vectors in proto/vectors, read both ways: what every SDK has to agree on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from clipper.errors import ModelFailed, ProtocolViolation
from clipper.model.protocol import messages
from clipper.model.protocol.asks import Refusal, answer_frame, decode_answer, decode_ask, encode_ask
from clipper.model.protocol.columns import (
    RESULTS_DECODERS,
    decode_column_results,
    decode_predict_columns,
    encode_column_results,
    encode_predict_columns,
)
from clipper.model.protocol.frames import HEADER_BYTES, PROTOCOL_VERSION, Kind, Splitter
from clipper.model.protocol.trace import BatchTrace, TraceContext, read_trace, write_trace
from clipper.model.protocol.typed import decode_typed_results, encode_typed_results
from clipper.values.columns import Column
from clipper.values.output_arrays import OutputForm
from clipper.values.types import DType, InputType

VECTORS = sorted((Path(__file__).parents[3] / "proto" / "vectors").glob("*.txt"))

DECODERS: dict[str, Callable[[memoryview], object]] = {
    "HELLO": messages.decode_hello,
    "WELCOME": messages.decode_welcome,
    "PREDICT": partial(messages.decode_predict, version=PROTOCOL_VERSION),
    "RESULTS": messages.decode_results,
    "PONG": messages.decode_pong,
    "TYPED_RESULTS": decode_typed_results,
    "PREDICT_COLUMNS": decode_predict_columns,
    "COLUMN_RESULTS": decode_column_results,
    "ASK": decode_ask,
    "ANSWER": decode_answer,
}
# An error in such outputs fails their batch alone.
FAILS_ITS_BATCH = {"TYPED_RESULTS", "COLUMN_RESULTS"}


@dataclass(frozen=True)
class Vector:
    fields: list[tuple[str, str]]
    frame: bytes

    @staticmethod
    def read(path: Path) -> "Vector":
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        split = lines.index("frame:")
        pairs = (line.partition(":") for line in lines[:split])
        return Vector([(name, value.strip()) for name, _, value in pairs], bytes.fromhex("".join(lines[split + 1 :])))

    def __getitem__(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field == name]


def vectors(valid: bool) -> pytest.MarkDecorator:
    paths = [path for path in VECTORS if path.stem.startswith("invalid_") is not valid]
    assert paths
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def test_every_kind_has_a_vector() -> None:
    assert {Vector.read(path)["kind"] for path in VECTORS} == {kind.name for kind in Kind} | {"INVALID"}


@vectors(valid=True)
def test_frame_decodes_to_its_meaning(path: Path) -> None:
    vector = Vector.read(path)
    [(kind, frame_id, body)] = Splitter().feed(vector.frame)
    assert (Kind(kind).name, frame_id) == (vector["kind"], int(vector["id"]))
    assert decoded(Kind(kind), body) == meaning(vector)


@vectors(valid=True)
def test_meaning_encodes_to_the_frame(path: Path) -> None:
    vector = Vector.read(path)
    if vector["kind"] == "WELCOME":
        # JSON has no one form: what is written must read as the same.
        welcome = messages.decode_welcome(vector.frame[HEADER_BYTES:], PROTOCOL_VERSION)
        assert messages.decode_welcome(messages.encode_welcome(welcome)[HEADER_BYTES:], PROTOCOL_VERSION) == welcome
    else:
        assert encoded(vector) == vector.frame


@vectors(valid=False)
def test_invalid_frame_is_refused(path: Path) -> None:
    vector = Vector.read(path)
    if vector["as"] == "HEADER":
        with pytest.raises(ProtocolViolation):
            list(Splitter().feed(vector.frame))
        return
    [(kind, _, body)] = Splitter().feed(vector.frame)
    assert Kind(kind).name == vector["as"]
    with pytest.raises(ModelFailed if vector["as"] in FAILS_ITS_BATCH else ProtocolViolation):
        DECODERS[vector["as"]](body)


def decoded(kind: Kind, body: memoryview) -> object:
    match kind:
        case Kind.PREDICT:
            batch = messages.decode_predict(body, PROTOCOL_VERSION)
            lengths = batch.lengths or (batch.row_bytes or 0,) * batch.rows
            ends = [sum(lengths[: row + 1]) for row in range(batch.rows)]
            rows = [bytes(batch.payload[end - length : end]) for end, length in zip(ends, lengths)]
            return batch.dtype, batch.dimensions, batch.row_bytes or 0, rows, batch.trace and read_trace(batch.trace)
        case Kind.RESULTS:
            results = messages.decode_results(body)
            return list(results.outputs), results.evaluation_us, results.failures
        case Kind.TYPED_RESULTS:
            typed = decode_typed_results(body)
            size = typed.form.row_bytes
            rows = [bytes(typed.data[row * size : (row + 1) * size]) for row in range(typed.rows)]
            return typed.form, rows, typed.evaluation_us, typed.failures
        case Kind.PREDICT_COLUMNS:
            records = decode_predict_columns(body)
            return records.rows, [plain(one) for one in records.columns], records.trace and read_trace(records.trace)
        case Kind.COLUMN_RESULTS:
            answered = decode_column_results(body)
            return answered.rows, [plain(one) for one in answered.columns], answered.evaluation_us, answered.failures
        case Kind.WELCOME:
            return messages.decode_welcome(body, PROTOCOL_VERSION)
        case Kind.ASK:
            asked = decode_ask(body)
            return asked.batch_id, asked.timeout_us, asked.application, asked.rows
        case Kind.ANSWER:
            return decode_answer(body)
        case Kind.ERROR:
            return messages.decode_error(body)
        case Kind.PING:
            return bytes(body)
        case _:
            return DECODERS[kind.name](body)


def meaning(vector: Vector) -> object:
    match vector["kind"]:
        case "HELLO":
            return vector["token"], int(vector["version"])
        case "WELCOME":
            return messages.decode_welcome(vector["json"].encode(), PROTOCOL_VERSION)
        case "PREDICT":
            rows = [bytes.fromhex(row) for row in vector.all("row")]
            dtype, trace = DType.parse(vector["dtype"]), trace_of(vector)
            return dtype, int(vector["dimensions"]), int(vector["row_bytes"]), rows, trace or b""
        case "RESULTS":
            return [text.encode() for text in vector.all("output")], int(vector["evaluation_us"]), failures(vector)
        case "TYPED_RESULTS":
            rows = [bytes.fromhex(row) for row in vector.all("row")]
            return form(vector), rows, int(vector["evaluation_us"]), failures(vector)
        case "PREDICT_COLUMNS":
            return columns(vector)[0].rows, columns(vector), trace_of(vector) or b""
        case "COLUMN_RESULTS":
            return int(vector["rows"]), columns(vector), int(vector["evaluation_us"]), failures(vector)
        case "ASK":
            rows = of_frame(bytes.fromhex(vector["rows"]))
            return int(vector["batch"]), int(vector["timeout_us"]), vector["application"], rows
        case "ANSWER":
            return of_frame(bytes.fromhex(vector["answer"]))
        case "ERROR":
            return vector["message"]
        case "PONG":
            return int(vector["busy_us"])
        case _:
            return b""


def of_frame(frame: bytes) -> object:
    """The meaning of a frame of results, or of an error."""
    [(kind, _, body)] = Splitter().feed(frame)
    return Refusal(*messages.decode_error(body).split(": ", 1)) if kind == Kind.ERROR else RESULTS_DECODERS[kind](body)


def form(vector: Vector) -> OutputForm:
    shape = tuple(map(int, vector["shape"].split()))
    return OutputForm(DType.parse(vector["dtype"]), shape, DType.parse(vector["written_as"]))


def columns(vector: Vector) -> list[Column]:
    found = []
    fields = ("column", "dtype", "shape", "written_as", "present", "lengths", "data")
    for name, dtype, shape, written_as, present, lengths, data in zip(*map(vector.all, fields)):
        of_type = InputType(DType.parse(dtype), tuple(int(size) or None for size in shape.split()))
        sizes, payload = tuple(map(int, lengths.split())) or None, bytes.fromhex(data)
        rows = len(sizes) if sizes else len(payload) // (of_type.row_bytes or 1)
        bits = bytes.fromhex(present) or None
        is_json = written_as == "json"
        found.append(
            Column(name, of_type, rows, payload, sizes, bits, DType.parse(dtype if is_json else written_as), is_json)
        )
    assert len(found) == len(vector.all("column"))
    return found


def plain(column: Column) -> Column:
    return column._replace(payload=bytes(column.payload))


def trace_of(vector: Vector) -> BatchTrace | None:
    contexts = [TraceContext(*line.split(" ", 1)) for line in vector.all("trace")]
    return BatchTrace(contexts[0], tuple(contexts[1:])) if contexts else None


def failures(vector: Vector) -> dict[int, str]:
    pairs = (failure.partition(" ") for failure in vector.all("failure"))
    return {int(row): message for row, _, message in pairs}


def encoded(vector: Vector) -> bytes:
    frame_id = int(vector["id"])
    match vector["kind"]:
        case "HELLO":
            return messages.encode_hello(vector["token"], int(vector["version"]))
        case "PREDICT":
            rows = [bytes.fromhex(row) for row in vector.all("row")]
            dtype = DType.parse(vector["dtype"])
            trace = trace_of(vector)
            frame = messages.encode_predict(frame_id, dtype, int(vector["dimensions"]), rows)
            return b"".join(frame if trace is None else messages.add_trace(frame, write_trace(trace)))
        case "RESULTS":
            outputs = vector.all("output")
            text = "\n".join(outputs).encode()
            return messages.encode_results(frame_id, len(outputs), text, int(vector["evaluation_us"]), failures(vector))
        case "TYPED_RESULTS":
            rows = [bytes.fromhex(row) for row in vector.all("row")]
            data, evaluation_us = b"".join(rows), int(vector["evaluation_us"])
            return encode_typed_results(frame_id, len(rows), form(vector), data, evaluation_us, failures(vector))
        case "PREDICT_COLUMNS":
            trace = trace_of(vector)
            return b"".join(encode_predict_columns(frame_id, columns(vector), write_trace(trace) if trace else b""))
        case "COLUMN_RESULTS":
            parts = encode_column_results(frame_id, columns(vector), int(vector["evaluation_us"]), failures(vector))
            return b"".join(parts)
        case "ASK":
            batch, timeout_us = int(vector["batch"]), int(vector["timeout_us"])
            return encode_ask(frame_id, batch, timeout_us, vector["application"], bytes.fromhex(vector["rows"]))
        case "ANSWER":
            return b"".join(answer_frame(frame_id, [bytes.fromhex(vector["answer"])]))
        case "ERROR":
            return messages.encode_error(frame_id, vector["message"])
        case "PING":
            return messages.encode_ping(frame_id)
        case _:
            return messages.encode_pong(frame_id, int(vector["busy_us"]))
