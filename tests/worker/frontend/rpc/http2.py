"""A client of HTTP/2 that does what it is told, frame by frame."""

import socket
import struct
from collections.abc import Iterator

from tests.waiting import TIMEOUT_S

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
# Of SETTINGS.
INITIAL_WINDOW = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers_of(path: str, *more: tuple[str, str]) -> bytes:
    """A call's headers, each as it is."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    ]
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def message_frame(message: bytes) -> bytes:
    """A message as gRPC has it within DATA."""
    return struct.pack(">BI", 0, len(message)) + message


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    size, rest = b"\x7f", len(data) - 127
    while rest >= 128:
        size += bytes((rest % 128 | 128,))
        rest //= 128
    return size + bytes((rest,)) + data


class Http2Client:
    """One connection, after its preface and settings."""

    def __init__(self, port: int, *settings: tuple[int, int], receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(PREFACE + frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *setting) for setting in settings)))
        self._stream = self.socket.makefile("rb")

    def __enter__(self) -> "Http2Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self.socket.close()

    def end(self) -> None:
        """Send no more; still read."""
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def call(self, stream: int, path: str, message: bytes, *more: tuple[str, str]) -> None:
        head = frame(HEADERS, END_HEADERS, stream, headers_of(path, *more))
        self.send(head + frame(DATA, END_STREAM, stream, message_frame(message)))

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of each that comes, until the other side closes."""
        try:
            while head := self._stream.read(9):
                size = int.from_bytes(head[:3], "big")
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                yield kind, flags, stream, self._stream.read(size)
        except ConnectionError:
            return
