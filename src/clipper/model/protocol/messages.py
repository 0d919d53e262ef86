"""Messages: encoders return whole frames, decoders take a body. See proto/container-protocol.md.

Inputs travel as raw arrays: they are large, and the whole batch becomes one array. Outputs travel as JSON text, one
line each, if they are small: Clipper copies the text into a JSON answer. Arrays travel raw: see ``typed``.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from clipper.errors import ClipperError, ProtocolViolation
from clipper.model.protocol.frames import (
    HEADER,
    MAGIC,
    MAX_BODY_BYTES,
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    Kind,
    header,
)
from clipper.values.output_arrays import LARGE_RESULTS_BYTES
from clipper.values.records import ValueType, parse_type
from clipper.values.types import MAX_DIMENSIONS, DType

Buffer = bytes | memoryview

_HELLO = struct.Struct("<4sHH")  # magic, protocol version, token bytes
# rows, row bytes (0: a table has them), dtype, dimensions, reserved, trace bytes
_PREDICT = struct.Struct("<IIBBHI")
_PREDICT_HEAD = struct.Struct(HEADER.format + _PREDICT.format[1:])
_RESULTS = struct.Struct("<IIQ")  # rows, failed rows, evaluation time in microseconds
_RESULTS_HEAD = struct.Struct(HEADER.format + _RESULTS.format[1:])
_FAILURE = struct.Struct("<II")  # row, message bytes
_PONG = struct.Struct("<Q")  # microseconds that the current batch has been running, 0 if idle

# Batches have at most a few thousand rows. A larger count is garbage, and nobody should allocate memory for it.
MAX_ROWS = 65_536
# Writing a row as its own buffer costs as much as copying this many bytes.
LARGE_ROW_BYTES = 1024
# A container describes its libraries and its device in a line for people. A warning may have the type of a wide table.
MAX_DESCRIPTION_CHARACTERS = 512
MAX_WARNING_CHARACTERS = 4096
# Enough for the last lines of a traceback. The container's log has the rest.
MAX_ERROR_BYTES = 4096
# The token's length is a u16 in HELLO. A caller may send no more than this before its HELLO is complete.
MAX_HELLO_BYTES = _HELLO.size + 0xFFFF
# The beginning of a failure's message if the output was over the bound that the container was started with, and that of
# an ERROR's if all outputs of a batch together are too large for a frame.
OUTPUT_TOO_LARGE, BATCH_TOO_LARGE = "output_too_large: ", "batch_too_large: "
# Outputs with their failures must fit into a frame.
MAX_OUTPUTS_BYTES = MAX_BODY_BYTES // 2
# The contexts of a batch and of 128 queries, each with the longest tracestate that is passed on, are 73 KB.
MAX_TRACE_BYTES = 128 * 1024

_DTYPES = {int(dtype): dtype for dtype in DType}


class Hello(NamedTuple):
    """A caller's first message: its token, and the version to speak with it."""

    token: str
    version: int = OLDEST_VERSION


@dataclass(frozen=True, slots=True)
class Welcome:
    """A container's description of its model, sent once the model is loaded.

    Attributes:
        input_type: the model's input type; all rows are sent in it. A record needs version 4 of the protocol.
        max_batch: the most rows that the model accepts in a batch; None if it has no limit.
        runtime: free text for ``clipper model show``, e.g. ``python 3.11.7, scikit-learn 1.9.1``.
        output_type: the type of its outputs, if all have one type and the container knows it: numbers, booleans,
            strings or bytes, in lists of one shape; or a record of these.
        protocol: the version of the protocol that is spoken from now on: HELLO's, or an older one.
        output_is_declared: whether ``output_type`` was declared, and not learned from the first answer. Callers then
            convert each output to it, and fail those that it cannot hold.
        output_is_untyped: whether no type describes the first answer; then none is learned from a later one.
        device: where the model computes, if a GPU is reserved for it and that is known, such as ``cuda (NVIDIA L4)`` or
            ``CPU``; else empty.
        warning: what whoever deploys the model should know, such as types that are guesses; else empty.
    """

    model: str
    version: str
    input_type: ValueType
    max_batch: int | None = None
    runtime: str = ""
    output_type: ValueType | None = None
    protocol: int = OLDEST_VERSION
    output_is_declared: bool = False
    device: str = ""
    output_is_untyped: bool = False
    warning: str = ""


class Predict(NamedTuple):
    """A batch as it arrived. It is not cut into rows, because most models take it as one array.

    Attributes:
        rows: number of inputs.
        row_bytes: size of every row; None if ``lengths`` has the size of each.
        dimensions: number of u32 dimensions that each row begins with, before its elements.
        payload: the rows one after another, raw and little-endian.
        trace: the contexts of the batch and its traced queries, as ``trace.read_trace`` reads them; empty if it is not
            traced.
    """

    dtype: DType
    rows: int
    row_bytes: int | None
    dimensions: int
    lengths: tuple[int, ...] | None
    payload: memoryview
    trace: bytes = b""


class Results(NamedTuple):
    """The answer to a batch.

    Attributes:
        outputs: JSON text for each row; empty for a row with a failure.
        evaluation_us: how long the model took, in microseconds.
        failures: row to error message.
        is_large: whether the outputs are parts of a body over ``LARGE_RESULTS_BYTES``.
    """

    outputs: Sequence[Buffer]
    evaluation_us: int
    failures: Mapping[int, str]
    is_large: bool = False

    @property
    def rows(self) -> int:
        return len(self.outputs)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.outputs))


def encode_hello(token: str = "", version: int = OLDEST_VERSION) -> bytes:
    """Encode a worker's first frame. ``token`` is the container's token, at most 65,535 bytes."""
    secret = token.encode()
    body = _HELLO.pack(MAGIC, version, len(secret)) + secret
    return header(Kind.HELLO, len(body)) + body


def decode_hello(body: Buffer) -> Hello:
    """Decode a HELLO; ``version`` is the one to speak, at most our newest. Raises ProtocolViolation if it is none."""
    if len(body) < _HELLO.size:
        raise ProtocolViolation(f"HELLO of {len(body)} bytes is too short: expected at least {_HELLO.size}")
    magic, version, size = _HELLO.unpack_from(body)
    if magic != MAGIC:
        raise ProtocolViolation("HELLO does not begin with CLPR: the caller does not speak the container protocol")
    if version < OLDEST_VERSION:
        raise ProtocolViolation(
            f"the caller speaks protocol {version}: this container speaks {OLDEST_VERSION} to {PROTOCOL_VERSION}"
        )
    if len(body) != _HELLO.size + size:
        raise ProtocolViolation(f"HELLO has {len(body) - _HELLO.size} bytes for a token of {size}")
    return Hello(_text(body[_HELLO.size :]), min(version, PROTOCOL_VERSION))


def encode_welcome(welcome: Welcome) -> bytes:
    fields = {
        "protocol": welcome.protocol,
        "model": welcome.model,
        "version": welcome.version,
        "input_type": str(welcome.input_type),
        "max_batch": welcome.max_batch,
        "runtime": welcome.runtime,
    }
    if welcome.output_type is not None:
        fields["output_type"] = str(welcome.output_type)
    optional = ("output_is_declared", "output_is_untyped", "device", "warning")
    body = json.dumps(fields | {name: said for name in optional if (said := getattr(welcome, name))}).encode()
    return header(Kind.WELCOME, len(body)) + body


def decode_welcome(body: Buffer, version: int = OLDEST_VERSION) -> Welcome:
    """Decode the answer to a HELLO of this version. Raises ProtocolViolation if it is of no such version."""
    try:
        fields = json.loads(bytes(body))
        protocol = fields["protocol"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProtocolViolation(f"WELCOME is not a JSON object with a field 'protocol': {error!r}") from error
    if type(protocol) is not int or not OLDEST_VERSION <= protocol <= version:
        raise ProtocolViolation(f"the container speaks protocol {protocol!r}: expected {OLDEST_VERSION} to {version}")
    try:
        return Welcome(
            _string(fields["model"]),
            _string(fields["version"]),
            parse_type(_string(fields["input_type"])),
            _max_batch(fields.get("max_batch")),
            _string(fields.get("runtime", ""))[:MAX_DESCRIPTION_CHARACTERS],
            None if fields.get("output_type") is None else parse_type(_string(fields["output_type"])),
            protocol,
            fields.get("output_is_declared") is True,
            _string(fields.get("device", ""))[:MAX_DESCRIPTION_CHARACTERS],
            fields.get("output_is_untyped") is True,
            _string(fields.get("warning", ""))[:MAX_WARNING_CHARACTERS],
        )
    except (KeyError, ValueError, ClipperError) as error:
        raise ProtocolViolation(f"WELCOME is not valid: {error!r:.1000}") from error


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {value!r}")
    return value.encode("utf-8", "replace").decode()  # half of a surrogate pair, which JSON may have, is no text


def _max_batch(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"max_batch: expected a whole number above 0 or null, got {value!r}")
    return value


def encode_predict(batch_id: int, dtype: DType, dimensions: int, rows: Sequence[Buffer]) -> list[Buffer]:
    """Return the frame as buffers to write one after another. Small rows are joined; large rows are not copied.

    Args:
        dimensions: number of u32 dimensions that each row begins with.
        rows: 1 to ``MAX_ROWS`` inputs with less than ``MAX_BODY_BYTES`` in total.
    """
    sizes = list(map(len, rows))
    row_bytes, count, payload_bytes = sizes[0], len(sizes), sum(sizes)
    lengths: Sequence[int] = ()
    if not row_bytes or sizes.count(row_bytes) != count:
        lengths, row_bytes = sizes, 0
    head = predict_head(batch_id, dtype, dimensions, count, row_bytes, lengths, payload_bytes)
    if payload_bytes < LARGE_ROW_BYTES * count:
        return [b"".join((head, *rows))]
    return [head, *rows]


def predict_head(
    batch_id: int, dtype: DType, dimensions: int, rows: int, row_bytes: int, lengths: Sequence[int], payload_bytes: int
) -> bytes:
    """Return what stands before the rows of a PREDICT. ``row_bytes`` is 0 if ``lengths`` has the size of each."""
    table = struct.pack(f"<{rows}I{4 * (rows % 2)}x", *lengths) if lengths else b""
    body_bytes = _PREDICT.size + len(table) + payload_bytes
    head = _PREDICT_HEAD.pack(body_bytes, Kind.PREDICT, 0, 0, batch_id, rows, row_bytes, dtype, dimensions, 0, 0)
    return head + table


def add_trace(frame: Sequence[Buffer], trace: bytes) -> list[Buffer]:
    """Return a PREDICT of ``encode_predict`` with a trace that ``trace.write_trace`` wrote. It needs version 3."""
    first, *rows = frame
    body_bytes, *fields, _ = _PREDICT_HEAD.unpack_from(first)
    head = _PREDICT_HEAD.pack(body_bytes + len(trace), *fields, len(trace))
    return [b"".join((head, first[_PREDICT_HEAD.size :])), *rows, trace]


def decode_predict(body: Buffer, version: int = OLDEST_VERSION) -> Predict:
    """Decode a PREDICT of a caller of this version. Raises ProtocolViolation if sizes or fields are not valid."""
    view = memoryview(body)
    if len(view) < _PREDICT.size:
        raise ProtocolViolation(f"PREDICT of {len(view)} bytes is too short: expected at least {_PREDICT.size}")
    rows, row_bytes, code, dimensions, reserved, trace_bytes = _PREDICT.unpack_from(view)
    dtype = _DTYPES.get(code)
    if dtype is None or not 1 <= rows <= MAX_ROWS:
        raise ProtocolViolation(
            f"PREDICT has {rows} rows of type {code}: expected 1 to {MAX_ROWS} rows, and a type from 1 to 8"
        )
    if dimensions > MAX_DIMENSIONS or reserved or (trace_bytes and version < 3):
        raise ProtocolViolation(
            f"PREDICT has rows of {dimensions} dimensions, or a reserved field that is not 0: "
            f"expected at most {MAX_DIMENSIONS}"
        )
    payload, trace = view[_PREDICT.size :], b""
    if trace_bytes:
        payload, trace = _split_trace(payload, trace_bytes)
    if not row_bytes:
        lengths, payload = _split_lengths(payload, rows)
        return Predict(dtype, rows, None, dimensions, lengths, payload, trace)
    if len(payload) != rows * row_bytes:
        raise ProtocolViolation(f"PREDICT has {len(payload)} bytes for {rows} rows of {row_bytes}")
    return Predict(dtype, rows, row_bytes, dimensions, None, payload, trace)


def _split_trace(view: memoryview, trace_bytes: int) -> tuple[memoryview, bytes]:
    if trace_bytes > min(len(view), MAX_TRACE_BYTES):
        raise ProtocolViolation(
            f"PREDICT has {len(view)} bytes for rows and a trace of {trace_bytes}: expected at most {MAX_TRACE_BYTES}"
        )
    return view[:-trace_bytes], bytes(view[-trace_bytes:])


def _split_lengths(view: memoryview, rows: int) -> tuple[tuple[int, ...], memoryview]:
    table_bytes = -(-rows * 4 // 8) * 8
    if len(view) < table_bytes:
        raise ProtocolViolation("PREDICT ends inside its table of lengths")
    lengths = struct.unpack_from(f"<{rows}I", view)
    payload = view[table_bytes:]
    if sum(lengths) != len(payload):
        raise ProtocolViolation(f"PREDICT has {len(payload)} bytes for rows of {sum(lengths)} bytes in total")
    return lengths, payload


def too_large(size_bytes: int, max_output_bytes: int) -> str:
    """Return the failure of a row whose output is over the bound."""
    return (
        f"{OUTPUT_TOO_LARGE}output has {size_bytes} bytes: expected at most {max_output_bytes}; have the model return "
        "less, or start the server with a larger --max-output-size"
    )


def encode_results(
    batch_id: int, rows: int, outputs: bytes, evaluation_us: int = 0, failures: Mapping[int, str] | None = None
) -> bytes:
    """Encode the answer to a batch.

    Args:
        outputs: a JSON text for each row, joined by line feeds; empty for a row with a failure.
        failures: row to error message, for the rows without an output.
    """
    failed = failures or {}
    texts = pack_failures(failed)
    body_bytes = _RESULTS.size + len(texts) + len(outputs)
    head = _RESULTS_HEAD.pack(body_bytes, Kind.RESULTS, 0, 0, batch_id, rows, len(failed), evaluation_us)
    return b"".join((head, texts, outputs))


def pack_failures(failures: Mapping[int, str]) -> bytes:
    texts = [(row, _error_text(message)) for row, message in sorted(failures.items())]
    return b"".join([_FAILURE.pack(row, len(text)) + text for row, text in texts])


def decode_results(body: Buffer) -> Results:
    """Decode a RESULTS, whose outputs may be no JSON. Raises ProtocolViolation if the counts do not add up."""
    if len(body) < _RESULTS.size:
        raise ProtocolViolation(f"RESULTS of {len(body)} bytes is too short: expected at least {_RESULTS.size}")
    rows, failed, evaluation_us = _RESULTS.unpack_from(body)
    if not 1 <= rows <= MAX_ROWS or failed > rows:
        raise ProtocolViolation(f"RESULTS has {failed} failures in {rows} rows: expected 1 to {MAX_ROWS} rows")
    failures, start = read_failures(body, _RESULTS.size, rows, failed) if failed else ({}, _RESULTS.size)
    is_large = len(body) > LARGE_RESULTS_BYTES
    # Split off at most one part more than expected, so that a body of line feeds does not become a billion objects.
    outputs = _lines(memoryview(body)[start:], rows) if is_large else bytes(body[start:]).split(b"\n", rows)
    if len(outputs) != rows:
        raise ProtocolViolation(
            f"RESULTS has {'too many' if len(outputs) > rows else len(outputs)} lines for {rows} rows"
        )
    if failures and any(outputs[row] for row in failures):
        raise ProtocolViolation("RESULTS has a row with both a failure and an output")
    return Results(outputs, evaluation_us, failures, is_large)


def _lines(text: memoryview, most: int) -> list[Buffer]:
    """Split a text at its first ``most`` line feeds, copying only a piece of it at a time."""
    lines: list[Buffer] = []
    start = 0
    for piece in range(0, len(text), LARGE_RESULTS_BYTES):
        found, at = bytes(text[piece : piece + LARGE_RESULTS_BYTES]), -1
        while len(lines) < most and (at := found.find(b"\n", at + 1)) >= 0:
            lines.append(text[start : piece + at])
            start = piece + at + 1
    return [*lines, text[start:]]


def read_failures(body: Buffer, start: int, rows: int, failed: int) -> tuple[dict[int, str], int]:
    """Return the messages of failed rows from ``start`` on, and their end. Raises ProtocolViolation."""
    failures: dict[int, str] = {}
    for _ in range(failed):
        if len(body) < start + _FAILURE.size:
            raise ProtocolViolation("RESULTS ends inside its failures")
        row, size = _FAILURE.unpack_from(body, start)
        start += _FAILURE.size
        if row >= rows or row in failures or size > MAX_ERROR_BYTES or len(body) < start + size:
            raise ProtocolViolation(
                f"RESULTS has a failure of {size} bytes for row {row} of {rows}: expected one for each failed row, "
                f"of at most {MAX_ERROR_BYTES} bytes"
            )
        failures[row] = _text(body[start : start + size])
        start += size
    return failures, start


def encode_error(batch_id: int, message: str) -> bytes:
    """Encode the error of a whole batch, or, with id 0 and before WELCOME, the refusal of a caller."""
    body = _error_text(message)
    return header(Kind.ERROR, len(body), batch_id) + body


def decode_error(body: Buffer) -> str:
    """Return the message, cut to ``MAX_ERROR_BYTES``."""
    return _text(body[:MAX_ERROR_BYTES])


def encode_ping(ping_id: int) -> bytes:
    return header(Kind.PING, 0, ping_id)


def encode_pong(ping_id: int, busy_us: int) -> bytes:
    return header(Kind.PONG, _PONG.size, ping_id) + _PONG.pack(busy_us)


def decode_pong(body: Buffer) -> int:
    """Return how long the current batch has been running, in microseconds; 0 if idle."""
    if len(body) != _PONG.size:
        raise ProtocolViolation(f"PONG of {len(body)} bytes: expected {_PONG.size}")
    return int(_PONG.unpack(body)[0])


def _text(data: Buffer) -> str:
    # Messages are for people: bytes that are not UTF-8 are replaced.
    return bytes(data).decode("utf-8", "replace")


def _error_text(message: str) -> bytes:
    # A message may contain half of a surrogate pair, e.g. from a file name, which is encoded as an escape.
    text = message.encode("utf-8", "backslashreplace")
    if len(text) <= MAX_ERROR_BYTES:
        return text
    # Decode and encode again, so as not to cut a character in two.
    return text[:MAX_ERROR_BYTES].decode("utf-8", "ignore").encode()
