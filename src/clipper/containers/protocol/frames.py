"""Frames: the 16-byte header and the splitter that finds frames in a byte stream.

    offset  size  field
    0       4     body_bytes   u32, bytes that follow the header
    4       1     kind         u8, one of ``Kind``
    5       1     flags        u8, 0; refused if not
    6       2     reserved     u16, 0; refused if not
    8       8     id           u64, of the batch or ping; a reply repeats it; 0 in HELLO and WELCOME

All integers are little-endian.
"""

import enum
import struct
from collections.abc import Iterator

from clipper.errors import ProtocolViolation

PROTOCOL_VERSION = 1
MAGIC = b"CLPR"

# A batch of 1,024 images of 3x224x224 float32 is 616 MB, so this is more than is sent, and less than a u32 could say.
MAX_BODY_BYTES = 1 << 30

HEADER = struct.Struct("<IBBHQ")
HEADER_BYTES = 16

# A body of at most this size is cheaper to copy than to refer to.
_COPIED_BYTES = 4096

Frame = tuple[int, int, bytes | memoryview]  # kind, id, body


class Kind(enum.IntEnum):
    """The kind of a frame. A worker sends HELLO, PREDICT and PING; a container sends the others."""

    HELLO = 1
    WELCOME = 2
    PREDICT = 3
    RESULTS = 4
    ERROR = 5
    PING = 6
    PONG = 7


_KINDS = frozenset(int(kind) for kind in Kind)


def header(kind: Kind, body_bytes: int, frame_id: int = 0) -> bytes:
    return HEADER.pack(body_bytes, kind, 0, 0, frame_id)


class Splitter:
    """Cuts a byte stream into frames, however it was split on the way.

    Iterating takes the complete frames, each once; those not yet taken stay. The caller may keep a body for as long as
    it likes. Memory is bounded by one frame and one read.

    Attributes:
        max_body_bytes: the largest body accepted; may be changed between frames, e.g. once a caller is known.
    """

    __slots__ = ("_data", "_start", "max_body_bytes")

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.max_body_bytes = max_body_bytes
        # The bytes before _start belong to frames that were taken.
        self._data: bytes | bytearray = b""
        self._start = 0

    def feed(self, data: bytes) -> "Splitter":
        """Add bytes that were read; return self, to iterate over."""
        if self._start == len(self._data):
            self._data, self._start = data, 0
            return self
        if self._start or not isinstance(self._data, bytearray):
            # Bodies that were taken may still refer to the old buffer, so it must not change.
            self._data = bytearray(memoryview(self._data)[self._start :])
            self._start = 0
        # In place, so that a frame that comes in many reads is copied only once.
        self._data += data
        return self

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.take, None)

    def take(self) -> Frame | None:
        """Return the next complete frame as ``(kind, id, body)``; None if more must be fed first.

        Raises:
            ProtocolViolation: a header is not valid. The rest of the stream cannot be read, so close it.
        """
        data = self._data
        body = self._start + HEADER_BYTES
        if len(data) < body:
            return None
        size, kind, flags, reserved, frame_id = HEADER.unpack_from(data, self._start)
        if kind not in _KINDS or flags or reserved:
            raise ProtocolViolation(
                f"frame header {bytes(data[self._start : body]).hex()} is not of protocol {PROTOCOL_VERSION}: "
                "the peer speaks something else, or the stream is out of step"
            )
        if size > self.max_body_bytes:
            raise ProtocolViolation(f"frame has a body of {size} bytes: expected at most {self.max_body_bytes}")
        end = body + size
        if len(data) < end:
            return None
        self._start = end
        if end == len(data):
            # Nothing is left, so drop the buffer. From here on only the body keeps it alive.
            self._data, self._start = b"", 0
        if size <= _COPIED_BYTES:
            return kind, frame_id, bytes(data[body:end])
        return kind, frame_id, memoryview(data)[body:end]
