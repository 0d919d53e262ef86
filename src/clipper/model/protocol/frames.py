"""Frames: the 16-byte header, and the splitter that finds frames in a byte stream.

offset  size  field
0       4     body_bytes   u32, bytes after the header
4       1     kind         u8, one of ``Kind``
5       1     flags        u8, must be 0
6       2     reserved     u16, must be 0
8       8     id           u64, of the batch or ping; a reply repeats it; 0 in HELLO and WELCOME

"""

import enum
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clipper.errors import ProtocolViolation

# Version 2 added TYPED_RESULTS, version 3 the trace of a PREDICT, version 4 records: PREDICT_COLUMNS and
# COLUMN_RESULTS, version 5 columns of outputs without a name, and several columns of one name, version 6 a second
# WELCOME, version 7 ASK and ANSWER. Callers and containers speak each version from the oldest to this one.
PROTOCOL_VERSION = 7
OLDEST_VERSION = 1
# The first version with records, the first in which rows of one column may have values of several types, the first in
# which a container says before an answer what it has learned of its outputs since WELCOME, and the first in which it
# may ask its caller while it evaluates a batch.
RECORDS_VERSION = 4
MIXED_VERSION = 5
RETOLD_VERSION = 6
ASKS_VERSION = 7
MAGIC = b"CLPR"

# A batch of 1,024 images of 3x224x224 float32 has 616 MB. The bound is above that, and below what a u32 can express.
MAX_BODY_BYTES = 1 << 30

HEADER = struct.Struct("<IBBHQ")
HEADER_BYTES = 16

# A body of at most this size is cheaper to copy than to reference.
_COPIED_BYTES = 4096

Frame = tuple[int, int, bytes | memoryview]  # kind, id, body
# The body of a frame that was too large to keep.
DROPPED = memoryview(b"")


class Kind(enum.IntEnum):
    """The kind of a frame. A worker sends HELLO, PREDICT, PREDICT_COLUMNS, PING and ANSWER; a container the others."""

    HELLO = 1
    WELCOME = 2
    PREDICT = 3
    RESULTS = 4
    ERROR = 5
    PING = 6
    PONG = 7
    TYPED_RESULTS = 8
    PREDICT_COLUMNS = 9
    COLUMN_RESULTS = 10
    ASK = 11
    ANSWER = 12


_KINDS = frozenset(int(kind) for kind in Kind)


def header(kind: Kind, body_bytes: int, frame_id: int = 0) -> bytes:
    return HEADER.pack(body_bytes, kind, 0, 0, frame_id)


class Splitter:
    """Cuts a byte stream into frames, however the stream was split on its way.

    Iteration takes each complete frame once; an incomplete frame stays. The caller may keep a body as long as it likes.
    Memory is bounded by a frame and a read.

    Attributes:
        max_body_bytes: the largest accepted body; may change between frames, e.g. once the peer is authenticated.
        most_kept_bytes: the largest body that is kept; a larger body is dropped as it comes, and its frame has
            ``DROPPED`` in its place.
        rest: the bytes that ``take`` looks at, after bytes that were taken already; empty once all are taken.
    """

    __slots__ = ("_large", "_start", "_to_drop_bytes", "max_body_bytes", "most_kept_bytes", "rest")

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.max_body_bytes = max_body_bytes
        self.most_kept_bytes = MAX_BODY_BYTES
        self._to_drop_bytes = 0
        self._large: _Large | None = None
        # The bytes before _start belong to frames that were taken already.
        self.rest: bytes | bytearray = b""
        self._start = 0

    def feed(self, data: bytes) -> "Splitter":
        """Add bytes from the stream; return self, to iterate over."""
        if self._to_drop_bytes:
            dropped = min(self._to_drop_bytes, len(data))
            self._to_drop_bytes -= dropped
            data = data[dropped:]
        if self._start == len(self.rest):
            self.rest, self._start = data, 0
            return self
        if self._start or not isinstance(self.rest, bytearray):
            # Bodies that were taken may still refer to the old buffer, so it must not change.
            self.rest = bytearray(memoryview(self.rest)[self._start :])
            self._start = 0
        # Extend in place, so that a frame that comes in many reads is copied only once.
        self.rest += data
        return self

    def room(self, least_bytes: int, make: Callable[[int], memoryview]) -> memoryview | None:
        """Return where to read what is missing of a body that has begun, if it has ``least_bytes`` or more. Then say
        how much was read by ``fill``. None if the next bytes are for ``feed``.

        ``make`` returns memory of a size. Raises ProtocolViolation as ``take`` does.
        """
        if self._large is None:
            head = self._head()
            if head is None or not least_bytes <= head[0] <= self.most_kept_bytes:
                return None
            size, kind, frame_id = head
            begun = memoryview(self.rest)[self._start + HEADER_BYTES :]
            if len(begun) >= size:
                return None
            body = make(size)
            body[: len(begun)] = begun
            self._large = _Large(kind, frame_id, body, len(begun))
            self.rest, self._start = b"", 0
        return self._large.body[self._large.filled_bytes :]

    def fill(self, size: int) -> None:
        """Count bytes that were read into the ``room``."""
        assert self._large is not None
        self._large.filled_bytes += size

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.take, None)

    def take(self) -> Frame | None:
        """Return the next complete frame as ``(kind, id, body)``, or None if it is not complete yet. Raises
        ProtocolViolation if a header is not valid. The rest of the stream is unreadable: close the connection.
        """
        if self._large is not None:
            return self._take_large(self._large)
        head = self._head()
        if head is None:
            return None
        size, kind, frame_id = head
        data = self.rest
        body = self._start + HEADER_BYTES
        end = body + size
        if size > self.most_kept_bytes:
            self._start = min(end, len(data))
            self._to_drop_bytes = end - self._start
            return kind, frame_id, DROPPED
        if len(data) < end:
            return None
        self._start = end
        if end == len(data):
            # Nothing is left: drop the buffer, so that only the body keeps it alive.
            self.rest, self._start = b"", 0
        if size <= _COPIED_BYTES:
            return kind, frame_id, bytes(data[body:end])
        return kind, frame_id, memoryview(data)[body:end]

    def _head(self) -> tuple[int, int, int] | None:
        """Return the size of the next body, its kind and id; None if its header is not complete."""
        data, body = self.rest, self._start + HEADER_BYTES
        if len(data) < body:
            return None
        size, kind, flags, reserved, frame_id = HEADER.unpack_from(data, self._start)
        if kind not in _KINDS or flags or reserved:
            raise ProtocolViolation(
                f"frame header {bytes(data[self._start : body]).hex()} is not of protocol {PROTOCOL_VERSION}: "
                "the peer speaks another protocol, or the stream is out of step"
            )
        if size > self.max_body_bytes:
            raise ProtocolViolation(f"frame has a body of {size} bytes: expected at most {self.max_body_bytes}")
        return size, kind, frame_id

    def _take_large(self, large: "_Large") -> Frame | None:
        if large.filled_bytes < len(large.body):
            return None
        self._large = None
        return large.kind, large.frame_id, large.body


@dataclass(slots=True)
class _Large:
    """A frame whose body is read into memory of its size."""

    kind: int
    frame_id: int
    body: memoryview
    filled_bytes: int
