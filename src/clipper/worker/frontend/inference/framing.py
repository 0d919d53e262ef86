"""The form of bodies: the length of the JSON, the compression, and the form of errors."""

import zlib
from collections.abc import Generator

import msgspec

from clipper.errors import ClipperError, MalformedRequest, Overloaded, TooLarge, UnsupportedMediaType
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.http.heads import Head

# Inflating this much takes a tenth of a millisecond.
_PIECE_BYTES = 64 * 1024
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


def error_json(code: str, cause: str) -> bytes:
    """Return an error's body: clients show the field ``error``."""
    return b'{"error":%b,"code":"%b"}' % (msgspec.json.encode(cause), code.encode())


class Framing:
    """
    Attributes:
        encoding: the body's compression; empty if there is none.
        problem: the error in the head; None if there is none.
        json_bytes: the length of the JSON, which tensors follow; None if the whole body is JSON.
    """

    def __init__(self, head: Head) -> None:
        self.encoding = b"" if head.content_encoding in (b"", b"identity") else head.content_encoding
        self.problem: ClipperError | None = None
        self.json_bytes: int | None = None
        try:
            if self.encoding and self.encoding not in _WINDOW_BITS:
                shown = self.encoding[:40].decode("latin-1")
                raise UnsupportedMediaType(f"Content-Encoding {shown!r} is not known: expected gzip or deflate")
            self.json_bytes = _json_bytes(head.inference_header_length)
        except ClipperError as error:
            error.__traceback__ = None  # the error is kept, and would keep the frames
            self.problem = error

    def json_bytes_of(self, body: bytes | bytearray) -> int:
        """Return the length of a body's JSON. Raises MalformedRequest if it is longer than the body."""
        if self.json_bytes is None:
            return len(body)
        if self.json_bytes > len(body):
            raise MalformedRequest(
                f"Inference-Header-Content-Length is {self.json_bytes}: expected at most {len(body)}, the body's size"
            )
        return self.json_bytes


def _json_bytes(header: bytes | None) -> int | None:
    if header is None:
        return None
    if not header.isdigit() or len(header) > 18:
        shown = header[:40].decode("latin-1")
        raise MalformedRequest(
            f"Inference-Header-Content-Length is {shown!r}: expected the number of bytes of the JSON"
        )
    return int(header)


def inflate(
    body: bytes | bytearray, encoding: bytes, max_bytes: int, budget: Budget
) -> Generator[None, None, bytes | bytearray]:
    """Return the decompressed body, in steps of a few milliseconds at most. A long body is a bytearray.

    The body counts against the budget while it is inflated; afterwards the caller has to count it.

    Raises MalformedRequest if the body is not compressed in this encoding, or ends too early or too late, TooLarge if
    the result is over ``max_bytes``, and Overloaded if the budget has no room for the result.
    """
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    name = encoding.decode()
    whole = bytearray()
    counted = 0
    rest = memoryview(body)
    waiting: bytes | memoryview = b""
    try:
        while not inflater.eof:
            if not waiting:
                waiting, rest = rest[:_PIECE_BYTES], rest[_PIECE_BYTES:]
            before = len(whole)
            try:
                whole += inflater.decompress(waiting, _PIECE_BYTES)
            except zlib.error as error:
                raise MalformedRequest(f"body is not {name}: {error}") from error
            waiting = inflater.unconsumed_tail
            if len(whole) > max_bytes:
                raise TooLarge(limits.over_bound("inflated body", max_bytes))
            grown = len(whole) - before
            if not budget.has_room(grown):
                raise Overloaded("requests that are being read take up all memory for them: try again in a moment")
            budget.held_bytes += grown
            counted += grown
            if not grown and not waiting and not rest and not inflater.eof:
                raise MalformedRequest(f"body ends before its {name} data does")
            yield
        if inflater.unused_data or rest:
            raise MalformedRequest(f"body continues after the end of its {name} data")
    finally:
        budget.held_bytes -= counted
    return whole if len(whole) > SHORT_TEXT_BYTES else bytes(whole)
