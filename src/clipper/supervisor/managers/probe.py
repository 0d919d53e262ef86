"""The supervisor's own connections to a replica, which check that it is alive and answers."""

import asyncio
from collections.abc import Sequence

from clipper.base.tls.trust import pinned_context
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ProtocolViolation
from clipper.model.protocol import messages
from clipper.model.protocol.frames import MAX_BODY_BYTES, Frame, Kind, Splitter
from clipper.model.protocol.messages import Welcome
from clipper.values.types import InputType

# The replies to HELLO and PING are some hundred bytes.
MAX_REPLY_BYTES = 64 * 1024

_READ_BYTES = 64 * 1024


class Caller:
    """A connection on which the container has answered HELLO by ``welcome``. Methods raise ``OSError`` if the
    connection fails, and ``ProtocolViolation`` if the container breaks the protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, welcome: Welcome) -> None:
        self.welcome = welcome
        self._reader = reader
        self._writer = writer
        self._splitter = Splitter(MAX_REPLY_BYTES)
        self._frames = 0

    @classmethod
    async def dial(cls, address: ReplicaAddress) -> "Caller":
        """Connect and send HELLO."""
        reader, writer = await connect(address)
        try:
            writer.write(messages.encode_hello(address.token))
            kind, _, body = await _read_frame(reader, Splitter(MAX_REPLY_BYTES))
            if kind == Kind.ERROR:
                raise ProtocolViolation(f"{address.address} refused HELLO: {messages.decode_error(body)}")
            if kind != Kind.WELCOME:
                raise ProtocolViolation(f"{address.address} answered HELLO with {Kind(kind).name}")
            return cls(reader, writer, messages.decode_welcome(body))
        except BaseException:  # cancellation too: it is raised again, but the connection must not stay
            writer.transport.abort()
            raise

    @classmethod
    async def probe(cls, address: ReplicaAddress, timeout_s: float) -> "Caller":
        """Dial for a connection that only watches. Raises TimeoutError, an ``OSError``, too."""
        async with asyncio.timeout(timeout_s):
            caller = await cls.dial(address)
            try:
                # At once: a container may serve connections that begin with a PING separately, also while it is busy.
                await caller.ping(timeout_s)
            except BaseException:  # as in ``dial``
                caller.close()
                raise
            return caller

    async def ping(self, timeout_s: float) -> int:
        """Return how long the replica's batch has been running, in microseconds; 0 if it is idle."""
        self._frames += 1
        self._writer.write(messages.encode_ping(self._frames))
        async with asyncio.timeout(timeout_s):
            kind, frame_id, body = await _read_frame(self._reader, self._splitter)
        if kind != Kind.PONG or frame_id != self._frames:
            raise ProtocolViolation(f"container answered PING {self._frames} with {Kind(kind).name} {frame_id}")
        return messages.decode_pong(body)

    async def predict(self, input_type: InputType, rows: Sequence[bytes]) -> str | None:
        """Have a batch evaluated; return the model's message if a row of it failed, else None."""
        self._frames += 1
        self._splitter.max_body_bytes = MAX_BODY_BYTES
        self._writer.writelines(
            messages.encode_predict(self._frames, input_type.dtype, input_type.leading_dimensions, rows)
        )
        kind, frame_id, body = await _read_frame(self._reader, self._splitter)
        if kind == Kind.ERROR and frame_id == self._frames:
            return messages.decode_error(body)
        if kind != Kind.RESULTS or frame_id != self._frames:
            raise ProtocolViolation(f"container answered PREDICT {self._frames} with {Kind(kind).name} {frame_id}")
        results = messages.decode_results(body)
        if len(results.outputs) != len(rows):
            raise ProtocolViolation(f"container answered {len(results.outputs)} outputs for {len(rows)} inputs")
        return next(iter(results.failures.values()), None)

    def close(self) -> None:
        self._writer.transport.abort()


async def connect(address: ReplicaAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, over TLS if the address has a certificate."""
    scheme, _, place = address.address.partition(":")
    if scheme == "unix":
        return await asyncio.open_unix_connection(place)
    host, _, port = place.rpartition(":")
    context = pinned_context(address.certificate) if address.certificate else None
    return await asyncio.open_connection(host, int(port), ssl=context)


async def _read_frame(reader: asyncio.StreamReader, splitter: Splitter) -> Frame:
    """Read one frame. Nothing may follow it, because each frame of ours has one answer."""
    while True:
        data = await reader.read(_READ_BYTES)
        if not data:
            raise ConnectionResetError("container closed the connection")
        frames = list(splitter.feed(data))
        if frames:
            return frames[0]
