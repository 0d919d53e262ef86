"""Messages: encoders return whole frames, decoders take a body. See proto/container-protocol.md.

Inputs travel as raw arrays, because they are large, and one array is made of the whole batch. Outputs travel as JSON
text, one line each, because they are small, and Clipper can put the text into a JSON answer as it is.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from clipper.containers.protocol.frames import HEADER, MAGIC, PROTOCOL_VERSION, Kind, header
from clipper.errors import ClipperError, ProtocolViolation
from clipper.types import MAX_DIMENSIONS, DType, InputType

Buffer = bytes | memoryview

_HELLO = struct.Struct("<4sHH")  # magic, protocol version, token bytes
_PREDICT = struct.Struct("<IIBBHI")  # rows, row bytes (0: each its own), dtype, dimensions, reserved, reserved
_PREDICT_HEAD = struct.Struct(HEADER.format + _PREDICT.format[1:])
_RESULTS = struct.Struct("<IIQ")  # rows, failed rows, evaluation time in microseconds
_RESULTS_HEAD = struct.Struct(HEADER.format + _RESULTS.format[1:])
_FAILURE = struct.Struct("<II")  # row, message bytes
_PONG = struct.Struct("<Q")  # microseconds that the current batch has been running, 0 if idle

# Batches have at most a few thousand rows. A larger count is garbage, and must not make anybody allocate for it.
MAX_ROWS = 65_536
# To write a row as a buffer of its own costs as much as to copy this many bytes.
LARGE_ROW_BYTES = 1024
# Enough for the last lines of a traceback. The rest is in the container's log.
MAX_ERROR_BYTES = 4096
# The size of a HELLO's token is a u16. A caller that has not sent HELLO may send no more than this.
MAX_HELLO_BYTES = _HELLO.size + 0xFFFF

_DTYPES = {int(dtype): dtype for dtype in DType}


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a container says about its model once it has loaded it.

    Attributes:
        input_type: of the model. All rows are sent in this type.
        max_batch: the most rows that the model itself can take; None if it has no limit.
        runtime: free text for ``clipper model show``, e.g. ``python 3.11.7, scikit-learn 1.9.1``.
        output_type: what its outputs are, if they are all of one type and the container knows it: of numbers, truths
            or texts, in lists of one shape.
    """

    model: str
    version: str
    input_type: InputType
    max_batch: int | None = None
    runtime: str = ""
    output_type: InputType | None = None


class Predict(NamedTuple):
    """A batch as it came. It is not cut into rows, because most models take it as one array.

    Attributes:
        rows: the number of inputs.
        row_bytes: the size of every row; None if ``lengths`` has the size of each.
        dimensions: the number of u32 dimensions at the beginning of each row, before its elements.
        payload: the rows one after another, raw and little-endian.
    """

    dtype: DType
    rows: int
    row_bytes: int | None
    dimensions: int
    lengths: tuple[int, ...] | None
    payload: memoryview


class Results(NamedTuple):
    """``outputs[i]`` is JSON text, or empty if ``failures`` has a message for row i."""

    outputs: Sequence[bytes]
    evaluation_us: int
    failures: Mapping[int, str]


def encode_hello(token: str = "") -> bytes:
    """A worker's first frame. ``token`` is the one that the container was started with, at most 65,535 bytes."""
    secret = token.encode()
    body = _HELLO.pack(MAGIC, PROTOCOL_VERSION, len(secret)) + secret
    return header(Kind.HELLO, len(body)) + body


def decode_hello(body: Buffer) -> str:
    """Return the caller's token.

    Raises:
        ProtocolViolation: it is not a HELLO of this protocol version.
    """
    if len(body) < _HELLO.size:
        raise ProtocolViolation(f"HELLO of {len(body)} bytes is too short")
    magic, version, size = _HELLO.unpack_from(body)
    if magic != MAGIC:
        raise ProtocolViolation("HELLO does not begin with CLPR: the caller does not speak the container protocol")
    # The version first: another version may mean something else by what follows.
    if version != PROTOCOL_VERSION:
        raise ProtocolViolation(f"caller speaks protocol {version}, this container {PROTOCOL_VERSION}")
    if len(body) != _HELLO.size + size:
        raise ProtocolViolation(f"HELLO has {len(body) - _HELLO.size} bytes for a token of {size}")
    return _text(body[_HELLO.size :])


def encode_welcome(welcome: Welcome) -> bytes:
    fields = {
        "protocol": PROTOCOL_VERSION,
        "model": welcome.model,
        "version": welcome.version,
        "input_type": str(welcome.input_type),
        "max_batch": welcome.max_batch,
        "runtime": welcome.runtime,
    }
    if welcome.output_type is not None:
        fields["output_type"] = str(welcome.output_type)
    body = json.dumps(fields).encode()
    return header(Kind.WELCOME, len(body)) + body


def decode_welcome(body: Buffer) -> Welcome:
    """Raises ProtocolViolation if the body is not a WELCOME."""
    try:
        fields = json.loads(bytes(body))
        protocol = fields["protocol"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProtocolViolation(f"WELCOME is not a JSON object with a protocol: {error!r}") from error
    if protocol != PROTOCOL_VERSION:
        raise ProtocolViolation(f"container speaks protocol {protocol!r}, Clipper {PROTOCOL_VERSION}")
    try:
        return Welcome(
            _string(fields["model"]),
            _string(fields["version"]),
            InputType.parse(_string(fields["input_type"])),
            _max_batch(fields.get("max_batch")),
            _string(fields.get("runtime", "")),
            None if fields.get("output_type") is None else InputType.parse(_string(fields["output_type"])),
        )
    except (KeyError, ValueError, ClipperError) as error:
        raise ProtocolViolation(f"WELCOME is malformed: {error!r}") from error


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {value!r}")
    return value


def _max_batch(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"max_batch: expected a whole number above 0 or null, got {value!r}")
    return value


def encode_predict(batch_id: int, dtype: DType, dimensions: int, rows: Sequence[Buffer]) -> list[Buffer]:
    """Return the frame as buffers to write one after another. Small rows are joined, large ones are not copied.

    Args:
        dimensions: the number of u32 dimensions that each row begins with.
        rows: 1 to ``MAX_ROWS`` inputs of less than ``MAX_BODY_BYTES`` together.
    """
    sizes = list(map(len, rows))
    row_bytes, count, payload_bytes = sizes[0], len(sizes), sum(sizes)
    lengths = b""
    if not row_bytes or sizes.count(row_bytes) != count:
        lengths, row_bytes = _pad8(struct.pack(f"<{count}I", *sizes)), 0
    body_bytes = _PREDICT.size + len(lengths) + payload_bytes
    head = _PREDICT_HEAD.pack(body_bytes, Kind.PREDICT, 0, 0, batch_id, count, row_bytes, dtype, dimensions, 0, 0)
    if payload_bytes < LARGE_ROW_BYTES * count:
        return [b"".join((head, lengths, *rows))]
    return [head + lengths, *rows]


def decode_predict(body: Buffer) -> Predict:
    """Raises ProtocolViolation if the sizes do not add up."""
    view = memoryview(body)
    if len(view) < _PREDICT.size:
        raise ProtocolViolation(f"PREDICT of {len(view)} bytes is too short")
    rows, row_bytes, code, dimensions, reserved, reserved_too = _PREDICT.unpack_from(view)
    dtype = _DTYPES.get(code)
    if dtype is None or not 1 <= rows <= MAX_ROWS:
        raise ProtocolViolation(f"PREDICT has {rows} rows of type {code}: expected 1 to {MAX_ROWS}, 1 to 8")
    if dimensions > MAX_DIMENSIONS or reserved or reserved_too:
        raise ProtocolViolation(f"PREDICT has rows of {dimensions} dimensions, or a reserved bit set")
    payload = view[_PREDICT.size :]
    if not row_bytes:
        lengths, payload = _split_lengths(payload, rows)
        return Predict(dtype, rows, None, dimensions, lengths, payload)
    if len(payload) != rows * row_bytes:
        raise ProtocolViolation(f"PREDICT has {len(payload)} bytes for {rows} rows of {row_bytes}")
    return Predict(dtype, rows, row_bytes, dimensions, None, payload)


def _split_lengths(view: memoryview, rows: int) -> tuple[tuple[int, ...], memoryview]:
    table_bytes = -(-rows * 4 // 8) * 8
    if len(view) < table_bytes:
        raise ProtocolViolation("PREDICT ends inside its table of lengths")
    lengths = struct.unpack_from(f"<{rows}I", view)
    payload = view[table_bytes:]
    if sum(lengths) != len(payload):
        raise ProtocolViolation(f"PREDICT has {len(payload)} bytes for rows of {sum(lengths)} in all")
    return lengths, payload


def encode_results(
    batch_id: int, rows: int, outputs: bytes, evaluation_us: int = 0, failures: Mapping[int, str] | None = None
) -> bytes:
    """Return the answer to a batch.

    Args:
        rows: the number of inputs of the batch.
        outputs: one JSON text for each row, joined by line feeds; empty for a row with a failure.
        failures: row to message, for the rows without an output.
    """
    texts = [_FAILURE.pack(row, len(text)) + text for row, text in _encoded(failures)] if failures else []
    body_bytes = _RESULTS.size + sum(map(len, texts)) + len(outputs)
    head = _RESULTS_HEAD.pack(body_bytes, Kind.RESULTS, 0, 0, batch_id, rows, len(texts), evaluation_us)
    return b"".join((head, *texts, outputs))


def _encoded(failures: Mapping[int, str]) -> Iterator[tuple[int, bytes]]:
    for row, message in sorted(failures.items()):
        yield row, _error_text(message)


def decode_results(body: Buffer) -> Results:
    """Raises ProtocolViolation if the counts do not add up. Whether outputs are JSON is not checked here."""
    if len(body) < _RESULTS.size:
        raise ProtocolViolation(f"RESULTS of {len(body)} bytes is too short")
    rows, failed, evaluation_us = _RESULTS.unpack_from(body)
    if not 1 <= rows <= MAX_ROWS or failed > rows:
        raise ProtocolViolation(f"RESULTS has {failed} failures in {rows} rows: expected 1 to {MAX_ROWS} rows")
    failures, start = _read_failures(body, rows, failed) if failed else ({}, _RESULTS.size)
    # Split into at most one part more than expected: a body of line feeds must not become a billion objects.
    outputs = bytes(body[start:]).split(b"\n", rows)
    if len(outputs) != rows:
        raise ProtocolViolation(
            f"RESULTS has {'too many' if len(outputs) > rows else len(outputs)} lines for {rows} rows"
        )
    if failures and any(outputs[row] for row in failures):
        raise ProtocolViolation("RESULTS has a row with both a failure and an output")
    return Results(outputs, evaluation_us, failures)


def _read_failures(body: Buffer, rows: int, failed: int) -> tuple[dict[int, str], int]:
    failures: dict[int, str] = {}
    start = _RESULTS.size
    for _ in range(failed):
        if len(body) < start + _FAILURE.size:
            raise ProtocolViolation("RESULTS ends inside its failures")
        row, size = _FAILURE.unpack_from(body, start)
        start += _FAILURE.size
        if row >= rows or row in failures or size > MAX_ERROR_BYTES or len(body) < start + size:
            raise ProtocolViolation(f"RESULTS has a failure of {size} bytes for row {row} of {rows}, or two for it")
        failures[row] = _text(body[start : start + size])
        start += size
    return failures, start


def encode_error(batch_id: int, message: str) -> bytes:
    """An error of a whole batch, or, with id 0 and before WELCOME, the refusal of a caller."""
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
    (busy_us,) = _PONG.unpack(body)
    return int(busy_us)


def _text(data: Buffer) -> str:
    # Messages are for people. What is not UTF-8 is replaced, and not refused.
    return bytes(data).decode("utf-8", "replace")


def _error_text(message: str) -> bytes:
    # A message may hold half a surrogate pair, e.g. from a file name. It becomes an escape.
    text = message.encode("utf-8", "backslashreplace")
    if len(text) <= MAX_ERROR_BYTES:
        return text
    # Decode and encode, so as not to cut inside a character.
    return text[:MAX_ERROR_BYTES].decode("utf-8", "ignore").encode()


def _pad8(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)
