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

# A batch of 1,024 images of 3x224x224 float32 is 616 MB; a row over the HTTP body limit cannot exist.
MAX_BODY_BYTES = 1 << 30

HEADER = struct.Struct("<IBBHQ")


class Kind(enum.IntEnum):
    """What a frame is. A worker sends HELLO, PREDICT and PING; a container the others."""

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
    """Cuts a byte stream into ``(kind, id, body)``, however it was split on the way.

    Memory is bounded by one frame of ``max_body_bytes`` and one read.
    """

    __slots__ = ("_buffer", "_max_body_bytes")

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._buffer: bytes | bytearray = b""
        self._max_body_bytes = max_body_bytes

    def feed(self, data: bytes) -> Iterator[tuple[int, int, memoryview]]:
        """Yield each complete frame; its body is valid for as long as the caller keeps it.

        Raises:
            ProtocolViolation: a header is impossible; the stream cannot be read on, so close it.
        """
        if self._buffer:
            # A bytearray grows in place: a frame that comes in many reads costs its size once.
            if not isinstance(self._buffer, bytearray):
                self._buffer = bytearray(self._buffer)
            self._buffer += data
            if len(self._buffer) < self._wanted_bytes():
                return
            data = bytes(self._buffer)
            self._buffer = b""
        view = memoryview(data)
        start = 0
        while len(data) - start >= HEADER.size:
            size, kind, frame_id = self._read_header(data, start)
            end = start + HEADER.size + size
            if end > len(data):
                break
            yield kind, frame_id, view[start + HEADER.size : end]
            start = end
        self._buffer = data[start:]

    def _wanted_bytes(self) -> int:
        if len(self._buffer) < HEADER.size:
            return HEADER.size
        return HEADER.size + self._read_header(self._buffer, 0)[0]

    def _read_header(self, data: bytes | bytearray, start: int) -> tuple[int, int, int]:
        size, kind, flags, reserved, frame_id = HEADER.unpack_from(data, start)
        if kind not in _KINDS or flags or reserved:
            raise ProtocolViolation(f"frame header {data[start : start + 16].hex()} is not of protocol 1")
        if size > self._max_body_bytes:
            raise ProtocolViolation(f"frame of {size} bytes is over the limit of {self._max_body_bytes}")
        return size, kind, frame_id
