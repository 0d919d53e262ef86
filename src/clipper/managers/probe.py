"""The supervisor's own connection to a replica: is it there, is it the right one, is it alive."""

import asyncio

from clipper.containers.protocol import messages
from clipper.containers.protocol.frames import Kind, Splitter
from clipper.containers.protocol.messages import Welcome
from clipper.errors import ProtocolViolation

# The replies to HELLO and PING are some hundred bytes.
MAX_REPLY_BYTES = 64 * 1024

_READ_BYTES = 4096


class Probe:
    """One connection on which HELLO and a first PING have been answered. ``welcome`` is the answer to HELLO.

    Every method raises ``OSError`` if the connection fails, ``TimeoutError`` among them, or
    ``ProtocolViolation`` if the container speaks wrongly.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, welcome: Welcome) -> None:
        self.welcome = welcome
        self._reader = reader
        self._writer = writer
        self._splitter = Splitter(MAX_REPLY_BYTES)
        self._pings = 0

    @classmethod
    async def open(cls, path: str, timeout_s: float) -> "Probe":
        """Dial the unix socket ``path`` and introduce ourselves."""
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(messages.encode_hello())
                kind, _, body = await _read_frame(reader, Splitter(MAX_REPLY_BYTES))
                if kind != Kind.WELCOME:
                    raise ProtocolViolation(f"container answered HELLO with {Kind(kind).name}: {bytes(body)[:200]!r}")
                probe = cls(reader, writer, messages.decode_welcome(body))
                # At once: a container may serve those that begin with a PING apart, and so also while it is busy.
                await probe.ping(timeout_s)
                return probe
            except BaseException:  # whatever it is, cancellation too, goes on; only the connection must not stay
                writer.transport.abort()
                raise

    async def ping(self, timeout_s: float) -> int:
        """Return for how many microseconds the replica's batch has been running; 0 if it is idle."""
        self._pings += 1
        async with asyncio.timeout(timeout_s):
            self._writer.write(messages.encode_ping(self._pings))
            kind, frame_id, body = await _read_frame(self._reader, self._splitter)
        if kind != Kind.PONG or frame_id != self._pings:
            raise ProtocolViolation(f"container answered PING {self._pings} with {Kind(kind).name} {frame_id}")
        return messages.decode_pong(body)

    def close(self) -> None:
        self._writer.transport.abort()


async def _read_frame(reader: asyncio.StreamReader, splitter: Splitter) -> tuple[int, int, memoryview]:
    """Read one frame. Nothing may follow it: each of ours has one answer."""
    while True:
        data = await reader.read(_READ_BYTES)
        if not data:
            raise ConnectionResetError("container closed the connection")
        frames = list(splitter.feed(data))
        if frames:
            return frames[0]
