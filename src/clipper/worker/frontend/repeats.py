"""Repeated bodies: finds the row of a large body that was seen before without parsing it."""

from collections import OrderedDict

# Parsing a smaller body takes less time than looking it up.
MIN_BODY_BYTES = 512
# A larger body would leave little room for others.
MAX_BODY_BYTES = 64 * 1024
# Bound for an application's bodies and rows. The oldest are dropped; bodies that are still repeated are soon back.
MAX_BYTES = 4 * 1024 * 1024
# Number of bytes, spread over the body, that make up the look-up key.
_SAMPLES = 64


class RepeatedBodies:
    """Remembers bodies whose input was found in the prediction cache.

    Bodies that come only once never get here. The key is a sample of the body's bytes, which is nearly free; then the
    whole body is compared. Of several bodies with the same sample, the latest is kept.

    A repeated body of 784 numbers costs a worker 19 us a query with this class, and 37 us without: the median of eight
    alternating rounds of 3 s with 32 connections, user and system time.
    """

    def __init__(self) -> None:
        self._rows: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()
        self._size_bytes = 0

    def find(self, body: bytes) -> bytes | None:
        """Return the row of exactly this body, or None."""
        size = len(body)
        if size < MIN_BODY_BYTES:
            return None
        known = self._rows.get(body[:: size // _SAMPLES])
        return known[1] if known is not None and known[0] == body else None

    def remember(self, body: bytes, row: bytes) -> None:
        size = len(body)
        if not MIN_BODY_BYTES <= size <= MAX_BODY_BYTES:
            return
        sample = body[:: size // _SAMPLES]
        same = self._rows.pop(sample, (b"", b""))
        self._rows[sample] = body, row
        self._size_bytes += size + len(row) - sum(map(len, same))
        while self._size_bytes > MAX_BYTES:
            self._size_bytes -= sum(map(len, self._rows.popitem(last=False)[1]))
