"""ASK and ANSWER: a model asks an application while it evaluates a batch. See proto/container-protocol.md.

Rows and outputs are frames of results, as a container answers them: what one model answers is what another takes.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from clipper.errors import ProtocolViolation
from clipper.model.protocol.columns import RESULTS_DECODERS, BatchResults
from clipper.model.protocol.frames import HEADER, HEADER_BYTES, Kind, header
from clipper.model.protocol.messages import Buffer, decode_error

# The rows of an ask: 10,000 of 784 float64. A worker holds them until all are answered.
MAX_ASK_BYTES = 64 * 1024 * 1024
# Reading an answer of this many rows takes no longer. It is ten times the rows of any model's batch, and the length of
# a queue.
MAX_ASK_ROWS = 16_384
# The most unanswered asks of a batch: several threads of a model may ask at a time.
MAX_OPEN_ASKS = 8

# A model is told this if its caller speaks an earlier version, as the supervisor does, which warms it up.
CANNOT_ASK = "its caller cannot be asked"
# The prefix of a failure's message, before a code, if an ask failed for lack of time or room and the model did not
# catch that. Such a failure tells nothing about the input.
ASK_FAILED = "ask_failed: "

_ASK = struct.Struct("<QQHHI")  # batch, timeout in microseconds (0: none), bytes of the name, two reserved


class Ask(NamedTuple):
    """A model's ask: rows, and its batch. ``timeout_us``: how long the model waits at most; 0 if it does not say."""

    batch_id: int
    timeout_us: int
    application: str
    rows: BatchResults


class Refusal(NamedTuple):
    """An ask that has no outputs: a code of the error tree, and a message."""

    code: str
    message: str


def encode_ask(ask_id: int, batch_id: int, timeout_us: int, application: str, rows: bytes) -> bytes:
    """Encode an ask. ``rows``: a frame of results."""
    name = application.encode()
    padding = bytes(-len(name) % 8)
    head = _ASK.pack(batch_id, timeout_us, len(name), 0, 0)
    size = _ASK.size + len(name) + len(padding) + len(rows)
    return b"".join((header(Kind.ASK, size, ask_id), head, name, padding, rows))


def decode_ask(body: Buffer) -> Ask:
    """Decode an ASK. Raises ProtocolViolation if the body is not an ASK; ModelFailed if its rows are arrays or columns
    that are not valid; other frames can still be read.
    """
    view = memoryview(body)
    if not _ASK.size <= len(view) <= MAX_ASK_BYTES + HEADER_BYTES:
        raise ProtocolViolation(f"ASK of {len(view)} bytes: expected {_ASK.size} to {MAX_ASK_BYTES}")
    batch_id, timeout_us, size, reserved, reserved_too = _ASK.unpack_from(view)
    start = _ASK.size + size + -size % 8
    if reserved or reserved_too or not size or start > len(view):
        raise ProtocolViolation(f"ASK has a name of {size} bytes in {len(view)}, or a reserved field that is not 0")
    name = bytes(view[_ASK.size : _ASK.size + size]).decode("utf-8", "replace")
    kind, content = _frame(view[start:])
    if kind not in RESULTS_DECODERS:
        raise ProtocolViolation(f"ASK has a frame of kind {kind}: expected results")
    return Ask(batch_id, timeout_us, name, RESULTS_DECODERS[kind](content))


def answer_frame(ask_id: int, answer: Sequence[Buffer]) -> list[Buffer]:
    """Return an ANSWER as buffers to write one after another. ``answer``: a frame of results or of an error."""
    return [header(Kind.ANSWER, sum(map(len, answer)), ask_id), *answer]


def decode_answer(body: Buffer) -> BatchResults | Refusal:
    """Decode an ANSWER. Raises ProtocolViolation if the body is none, ModelFailed as ``decode_ask``."""
    kind, content = _frame(memoryview(body))
    if kind in RESULTS_DECODERS:
        return RESULTS_DECODERS[kind](content)
    if kind != Kind.ERROR:
        raise ProtocolViolation(f"ANSWER has a frame of kind {kind}: expected results or an error")
    code, _, message = decode_error(content).partition(": ")
    return Refusal(code, message)


def _frame(view: memoryview) -> tuple[int, memoryview]:
    size, kind, flags, reserved, _ = HEADER.unpack_from(view) if len(view) >= HEADER_BYTES else (-1, 0, 0, 0, 0)
    if size != len(view) - HEADER_BYTES or flags or reserved:
        raise ProtocolViolation(f"a frame in ASK or ANSWER has {len(view)} bytes, and its header says {size}")
    return kind, view[HEADER_BYTES:]
