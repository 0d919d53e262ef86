"""Message bodies: encoders return whole frames, decoders take a body. See proto/container-protocol.md.

Inputs travel as raw arrays and outputs as JSON text, one line an output: inputs are large and made into one
array for the whole batch; outputs are small and end in a JSON answer, which Clipper then need not write.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from clipper.containers.protocol.frames import MAGIC, PROTOCOL_VERSION, Kind, header
from clipper.errors import ProtocolViolation
from clipper.types import DType, InputType

Buffer = bytes | memoryview

_HELLO = struct.Struct("<4sHH")  # magic, protocol version, token bytes
_PREDICT = struct.Struct("<IIBBHI")  # rows, row bytes (0: each its own), dtype, dimensions, 0, 0
_RESULTS = struct.Struct("<IIQ")  # rows, failed rows, evaluation time in microseconds
_FAILURE = struct.Struct("<II")  # row, message bytes
_PONG = struct.Struct("<Q")  # microseconds that the batch in hand has been running, 0 if idle

# A batch limit is at most a few thousand; a larger count is garbage and must not allocate.
MAX_ROWS = 65_536
# Enough for a traceback's last lines; the rest is in the container's log.
MAX_ERROR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a container says of its model once it has loaded it.

    Attributes:
        input_type: what the model takes; rows are sent as this and nothing else.
        max_batch: a fixed upper bound of the model itself, or None.
        runtime: free text for ``clipper model show``, e.g. ``python 3.11.7, scikit-learn 1.9.1``.
    """

    model: str
    version: str
    input_type: InputType
    max_batch: int | None = None
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Predict:
    """A batch. ``rows[i]`` is the raw little-endian buffer of one input.

    Where the model's shape has an open dimension and more than one dimension in all, a row begins with its
    dimensions as u32 each (``dimensions`` of them); else ``dimensions`` is 0.
    """

    dtype: DType
    dimensions: int
    rows: Sequence[Buffer]
    row_bytes: int | None


@dataclass(frozen=True, slots=True)
class Results:
    """``outputs[i]`` is JSON text; it is empty where ``failures`` has a message for row i."""

    outputs: Sequence[Buffer]
    evaluation_us: int = 0
    failures: dict[int, str] = field(default_factory=dict)


def encode_hello(token: str = "") -> bytes:
    secret = token.encode()
    body = _HELLO.pack(MAGIC, PROTOCOL_VERSION, len(secret)) + secret
    return header(Kind.HELLO, len(body)) + body


def decode_hello(body: Buffer) -> str:
    """Return the caller's token.

    Raises:
        ProtocolViolation: not a HELLO of this protocol version.
    """
    if len(body) < _HELLO.size:
        raise ProtocolViolation(f"HELLO of {len(body)} bytes is too short")
    magic, version, size = _HELLO.unpack_from(body)
    if magic != MAGIC or len(body) != _HELLO.size + size:
        raise ProtocolViolation("HELLO is malformed: the caller does not speak the container protocol")
    if version != PROTOCOL_VERSION:
        raise ProtocolViolation(f"caller speaks protocol {version}, this container {PROTOCOL_VERSION}")
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
    body = json.dumps(fields).encode()
    return header(Kind.WELCOME, len(body)) + body


def decode_welcome(body: Buffer) -> Welcome:
    """Raises ProtocolViolation where the container's introduction is not one."""
    try:
        fields = json.loads(bytes(body))
        protocol = fields["protocol"]
        welcome = Welcome(
            str(fields["model"]),
            str(fields["version"]),
            InputType.parse(fields["input_type"]),
            None if fields.get("max_batch") is None else max(1, int(fields["max_batch"])),
            str(fields.get("runtime", "")),
        )
    except Exception as error:  # whatever a foreign container may send ends as one kind of error
        raise ProtocolViolation(f"WELCOME is malformed: {error!r}") from error
    if protocol != PROTOCOL_VERSION:
        raise ProtocolViolation(f"container speaks protocol {protocol}, Clipper {PROTOCOL_VERSION}")
    return welcome


def encode_predict(batch_id: int, dtype: DType, dimensions: int, rows: Sequence[Buffer]) -> list[Buffer]:
    """Return the frame as buffers to write one after another, so that rows are joined only once."""
    sizes = list(map(len, rows))
    first = sizes[0]
    payload = b"".join(rows)
    if sizes.count(first) == len(sizes) and first:
        lengths, row_bytes = b"", first
    else:
        lengths, row_bytes = _pad8(struct.pack(f"<{len(sizes)}I", *sizes)), 0
    body = _PREDICT.pack(len(rows), row_bytes, dtype, dimensions, 0, 0) + lengths
    return [header(Kind.PREDICT, len(body) + len(payload), batch_id) + body, payload]


def decode_predict(body: Buffer) -> Predict:
    """Raises ProtocolViolation where the sizes do not add up."""
    view = memoryview(body)
    if len(view) < _PREDICT.size:
        raise ProtocolViolation(f"PREDICT of {len(view)} bytes is too short")
    rows, row_bytes, dtype, dimensions, _, _ = _PREDICT.unpack_from(view)
    if not 1 <= rows <= MAX_ROWS or dtype not in DType._value2member_map_:
        raise ProtocolViolation(f"PREDICT has {rows} rows of type {dtype}: expected 1 to {MAX_ROWS}, 1 to 8")
    view = view[_PREDICT.size :]
    if row_bytes:
        if len(view) != rows * row_bytes:
            raise ProtocolViolation(f"PREDICT has {len(view)} bytes for {rows} rows of {row_bytes}")
        starts = range(0, rows * row_bytes, row_bytes)
        cut = [view[start : start + row_bytes] for start in starts]
        return Predict(DType(dtype), dimensions, cut, row_bytes)
    return Predict(DType(dtype), dimensions, _cut_by_lengths(view, rows), None)


def _cut_by_lengths(view: memoryview, rows: int) -> list[memoryview]:
    table = -(-rows * 4 // 8) * 8
    if len(view) < table:
        raise ProtocolViolation("PREDICT ends inside its table of lengths")
    lengths = struct.unpack_from(f"<{rows}I", view)
    if sum(lengths) != len(view) - table:
        raise ProtocolViolation(f"PREDICT has {len(view) - table} bytes for rows of {sum(lengths)}")
    cut, start = [], table
    for length in lengths:
        cut.append(view[start : start + length])
        start += length
    return cut


def encode_results(batch_id: int, results: Results) -> bytes:
    text = b"\n".join(results.outputs)
    parts = [_RESULTS.pack(len(results.outputs), len(results.failures), results.evaluation_us)]
    for row, message in sorted(results.failures.items()):
        data = message.encode()[:MAX_ERROR_BYTES]
        parts.append(_FAILURE.pack(row, len(data)) + data)
    parts.append(text)
    body = b"".join(parts)
    return header(Kind.RESULTS, len(body), batch_id) + body


def decode_results(body: Buffer) -> Results:
    """Raises ProtocolViolation where the counts do not add up. Outputs are not checked to be JSON here."""
    if len(body) < _RESULTS.size:
        raise ProtocolViolation(f"RESULTS of {len(body)} bytes is too short")
    rows, failed, evaluation_us = _RESULTS.unpack_from(body)
    if not 1 <= rows <= MAX_ROWS or failed > rows:
        raise ProtocolViolation(f"RESULTS has {failed} failures in {rows} rows")
    failures, start = _read_failures(body, rows, failed) if failed else ({}, _RESULTS.size)
    outputs = bytes(body[start:]).split(b"\n")
    if len(outputs) != rows:
        raise ProtocolViolation(f"RESULTS has {len(outputs)} lines for {rows} rows")
    return Results(outputs, evaluation_us, failures)


def _read_failures(body: Buffer, rows: int, failed: int) -> tuple[dict[int, str], int]:
    failures: dict[int, str] = {}
    start = _RESULTS.size
    for _ in range(failed):
        if len(body) < start + _FAILURE.size:
            raise ProtocolViolation("RESULTS ends inside its failures")
        row, size = _FAILURE.unpack_from(body, start)
        start += _FAILURE.size
        if row >= rows or len(body) < start + size:
            raise ProtocolViolation(f"RESULTS has a failure of {size} bytes for row {row} of {rows}")
        failures[row] = _text(body[start : start + size])
        start += size
    return failures, start


def encode_error(batch_id: int, message: str) -> bytes:
    """The whole batch failed, or (id 0, before WELCOME) the caller is refused."""
    body = message.encode()[:MAX_ERROR_BYTES]
    return header(Kind.ERROR, len(body), batch_id) + body


def decode_error(body: Buffer) -> str:
    return _text(body)


def encode_ping(ping_id: int) -> bytes:
    return header(Kind.PING, 0, ping_id)


def encode_pong(ping_id: int, busy_us: int) -> bytes:
    return header(Kind.PONG, _PONG.size, ping_id) + _PONG.pack(busy_us)


def decode_pong(body: Buffer) -> int:
    """Return for how many microseconds the batch in hand has been running; 0 if idle."""
    if len(body) != _PONG.size:
        raise ProtocolViolation(f"PONG of {len(body)} bytes: expected {_PONG.size}")
    (busy_us,) = _PONG.unpack(body)
    return int(busy_us)


def _text(data: Buffer) -> str:
    # Cut at a byte count, a message may end inside a character: replaced, not refused.
    return bytes(data).decode("utf-8", "replace")


def _pad8(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)
