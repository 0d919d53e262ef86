"""HTTP responses as bytes. The usual response is joined from constants, which is fast; others are formatted."""

from collections.abc import Generator, Iterable

import msgspec

from clipper.base.malloc import LARGE_PIECE_BYTES
from clipper.control.feedback import Outcome
from clipper.values.outputs.output import Output, text_pieces
from clipper.worker.frontend import limits
from clipper.worker.frontend.http.statuses import REASONS
from clipper.worker.selection.query import Source

_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
# Heads by the length of the body: a look-up takes a third of the time of formatting.
_OK_HEADS = [_OK % length for length in range(512)]
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Seconds after which a client should retry a 503. A 429 states its own time.
RETRY_AFTER_S = 1
# The cause of ``internal_error``.
BUG = "this is a bug in Clipper: the worker's log has its traceback"

# A part of an answer. The numbers of a large array are a view of the output, since copying them would take long.
Part = bytes | memoryview
# The parts of an answer, made in steps of less than a millisecond.
Parts = Generator[None, None, list[Part]]


def prediction_json(query_id: int, output: Output, confidence: float, source: Source) -> bytes:
    fields = query_id, bytes(output), confidence, source.json
    return b'{"query_id":%d,"output":%b,"default":false,"confidence":%r%b}' % fields


def ok_prediction(query_id: int, output: Output, confidence: float, source: Source) -> bytes:
    """Return ``ok(prediction_json())`` in a single step, since most answers have this form."""
    if confidence == 1.0:
        text = output if isinstance(output, bytes) else bytes(output)  # without a call for most
        body = b'{"query_id":%d,"output":%b,"default":false,"confidence":1.0%b}' % (query_id, text, source.json)
    else:
        body = prediction_json(query_id, output, confidence, source)
    length = len(body)
    return (_OK_HEADS[length] if length < len(_OK_HEADS) else _OK % length) + body


def default_json(query_id: int, output: bytes, reason: str, explanation: str) -> bytes:
    return (
        b'{"query_id":%d,"output":%b,"default":true,"confidence":0.0,"default_reason":"%b","default_explanation":%b}'
        % (query_id, output, reason.encode(), msgspec.json.encode(explanation))
    )


def unsure_json(query_id: int, output: bytes, unsure: Output, confidence: float) -> bytes:
    return (
        b'{"query_id":%d,"output":%b,"default":true,"confidence":%r,"default_reason":"low_confidence",'
        b'"default_explanation":"the answer has less confidence than the application asks for",'
        b'"low_confidence_output":%b}' % (query_id, output, confidence, bytes(unsure))
    )


def long_prediction(query_id: int, output: Output, confidence: float, source: Source) -> Parts:
    """Return the parts of ``prediction_json`` with a long output."""
    before, name, after = prediction_json(query_id, b"", confidence, source).partition(b'"output":')
    return _around(before + name, output, after)


def long_unsure(query_id: int, output: bytes, unsure: Output, confidence: float) -> Parts:
    """Return the parts of ``unsure_json`` with a long output of the models."""
    return _around(unsure_json(query_id, output, b"", confidence)[:-1], unsure, b"}")


class Joined:
    """The parts of a long answer. Short parts are joined until the system maps memory for them.

    Otherwise the pieces of long answers would leave holes in the heap, and returning 150 MB of it takes 20 ms.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._short: list[Part] = []
        self._short_bytes = 0

    def add(self, part: Part) -> None:
        if len(part) > limits.WRITE_BYTES:
            self._join()
            self._parts.append(part)
            return
        self._short.append(part)
        self._short_bytes += len(part)
        if self._short_bytes >= LARGE_PIECE_BYTES:
            self._join()

    def all(self) -> list[Part]:
        self._join()
        return self._parts

    def _join(self) -> None:
        if self._short:
            self._parts.append(b"".join(self._short))
            self._short, self._short_bytes = [], 0


def _around(before: bytes, output: Output, after: bytes) -> Parts:
    joined = Joined()
    joined.add(before)
    for piece in text_pieces(output):
        joined.add(piece)
        yield
    joined.add(after)
    return joined.all()


def long_batch(parts: "Iterable[bytes | Parts]") -> Parts:
    """Return the parts of ``batch_json``, some of which are still to be made."""
    whole: list[Part] = [b'{"batch_predictions":[']
    for number, part in enumerate(parts):
        if number:
            whole.append(b",")
        if isinstance(part, bytes):
            whole.append(part)
        else:
            whole += yield from part
    whole.append(b"]}")
    return whole


def outcome_json(outcome: Outcome) -> bytes:
    if outcome.error is not None:
        return error_json(outcome.error, outcome.cause)
    return b'{"observed":true,"duplicate":%b}' % (b"true" if outcome.duplicate else b"false")


def outcomes_json(outcomes: list[bytes]) -> bytes:
    return b'{"observations":[%b]}' % b",".join(outcomes)


def too_long(size_bytes: int) -> str:
    """Return the cause of ``too_large`` for an answer of up to this many bytes."""
    return (
        f"the answer has up to {size_bytes} bytes: expected at most {limits.MAX_ANSWER_BYTES}; send fewer inputs at "
        "once, or ask for outputs as binary tensors, which are a fifth as long as JSON"
    )


def error_json(code: str, cause: str) -> bytes:
    return b'{"error":"%b","cause":%b}' % (code.encode(), msgspec.json.encode(cause))


def batch_json(parts: list[bytes]) -> bytes:
    return b'{"batch_predictions":[%b]}' % b",".join(parts)


def ok_head(length: int, *, close: bool) -> bytes:
    return head(200, length, close=close) if close else _OK % length


def answer(status: int, body: bytes, *, close: bool = False, has_body: bool = True) -> bytes:
    """Return any response. ``has_body``: False for HEAD, which gets only the head."""
    return head(status, len(body), close=close) + (body if has_body else b"")


def head(
    status: int, length: int, *, close: bool = False, allow: str = "", retry_after_s: int = RETRY_AFTER_S
) -> bytes:
    """Return the head of any response with a body of JSON of this length.

    ``close``: announce that the connection ends after it. ``allow``: the allowed methods, for 405. ``retry_after_s``:
    for 429 and 503.
    """
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", "content-type: application/json", f"content-length: {length}"]
    if allow:
        lines.append(f"allow: {allow}")
    if status == 401:
        lines.append('www-authenticate: Bearer realm="clipper"')
    if status in (429, 503):
        lines.append(f"retry-after: {retry_after_s}")
    if close:
        lines.append("connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def bytes_head(length: int, *, close: bool) -> bytes:
    """Return the head of a 200 whose body is no text."""
    lines = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n%b\r\n"
    return lines % (length, b"connection: close\r\n" if close else b"")


def infer_head(length: int, json_bytes: int | None, *, close: bool) -> bytes:
    """Return an inference answer's head. ``json_bytes``: the JSON's length if binary tensors follow; else None."""
    if json_bytes is None:
        return ok_head(length, close=close)
    lines = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n"
        b"inference-header-content-length: %d\r\n%b\r\n"
    )
    return lines % (length, json_bytes, b"connection: close\r\n" if close else b"")
