"""Decompresses bodies in pieces, within the same bound as other bodies."""

import zlib
from collections.abc import Generator

from clipper.errors import MalformedRequest, Overloaded, TooLarge, UnsupportedMediaType
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.worker.frontend.budget import Budget

# Inflating this much takes a tenth of a millisecond.
_PIECE_BYTES = 64 * 1024
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


def check_encoding(encoding: bytes) -> None:
    """Check that ``inflate`` knows the encoding. Raises UnsupportedMediaType if it does not."""
    if encoding not in _WINDOW_BITS:
        shown = encoding[:40].decode("latin-1")
        raise UnsupportedMediaType(f"Content-Encoding {shown!r} is not known: expected gzip or deflate")


def inflate(
    body: bytes | bytearray, encoding: bytes, max_bytes: int, budget: Budget
) -> Generator[None, None, bytes | bytearray]:
    """Return the decompressed body, in steps of a few milliseconds at most; a long one is a bytearray.

    It counts against the budget while it is made; the caller counts it afterwards.

    Raises:
        MalformedRequest: the body is not compressed in this encoding, or ends too early or too late.
        TooLarge: the result is over ``max_bytes``.
        Overloaded: the budget has no room for the result.
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
                raise TooLarge(f"body inflates to over {max_bytes} bytes: expected at most that")
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
