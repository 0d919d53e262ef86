"""Dials one replica and speaks the container protocol with it. It reports to a ``Listener``, and decides nothing."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from clipper.containers.protocol import messages
from clipper.containers.protocol.frames import MAX_BODY_BYTES, Kind, Splitter
from clipper.containers.protocol.messages import Buffer, Results, Welcome
from clipper.errors import ClipperError, ProtocolViolation
from clipper.types import DType, ModelId

log = logging.getLogger(__name__)

# A container that listens has loaded its model, and only has to answer HELLO.
HANDSHAKE_TIMEOUT_S = 5.0
# A WELCOME is names, a type and a line of text. Anything that sends more is not a container.
MAX_WELCOME_BYTES = 64 * 1024
# Until a snapshot says that the supervisor has replaced the replica, it may come back at this address.
FIRST_REDIAL_S = 0.02
LAST_REDIAL_S = 1.0
# The kernel sends this much of a batch by itself, if it allows so large a buffer. The rest waits for the worker's loop,
# once for each bufferful. With the usual 208 KiB that took 13 ms for 125 rows of 784 float64 while the loop was busy.
SEND_BUFFER_BYTES = 4 * 1024 * 1024


class Listener(Protocol):
    """Gets what the replica says. Called on the event loop."""

    def on_linked(self, welcome: Welcome) -> None: ...

    def on_results(self, batch_id: int, results: Results) -> None: ...

    def on_error(self, batch_id: int, message: str) -> None: ...

    def on_lost(self, reason: str) -> None:
        """The connection is gone, and with it every batch in flight. The link dials again."""


class ReplicaLink:
    """The connection to one replica: dialled until it answers, and again when it breaks, until ``close``."""

    def __init__(self, model: ModelId, address: str, token: str, listener: Listener) -> None:
        self._model = model
        self._address = address
        self._token = token
        self._listener = listener
        self._transport: asyncio.WriteTransport | None = None
        self._task: asyncio.Task[None] | None = None
        self.last_error: str | None = None
        self.first_attempt: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_linked(self) -> bool:
        return self._transport is not None

    def open(self) -> None:
        """Start dialling. ``first_attempt`` is done once the first dial has succeeded or failed."""
        self._task = asyncio.get_running_loop().create_task(self._keep_linked())

    def close(self) -> None:
        """Close for good. The listener is not called any more."""
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            # Not close(), which would wait for the container to read the rest. It may never do that.
            self._transport.abort()
            self._transport = None
        self._settle_first_attempt()

    def send(self, batch_id: int, dtype: DType, dimensions: int, rows: Sequence[bytes]) -> None:
        """Write one batch. Only while ``is_linked``. The dispatcher's two batches in flight bound what waits here."""
        transport = cast(asyncio.WriteTransport, self._transport)
        transport.writelines(messages.encode_predict(batch_id, dtype, dimensions, rows))

    async def _keep_linked(self) -> None:
        delay_s = FIRST_REDIAL_S
        while True:
            lost = await self._dial()
            self._settle_first_attempt()
            if lost is not None:
                delay_s = FIRST_REDIAL_S
                await asyncio.wait([lost])
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LAST_REDIAL_S)

    async def _dial(self) -> "asyncio.Future[str] | None":
        """Connect and shake hands. Returns a future that is done when the connection ends; None if this fails."""
        connection = _Connection(self._listener)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await _connect(self._address, connection)
                connection.write(messages.encode_hello(self._token))
                welcome = self._checked(await connection.welcome)
            if connection.lost.done():
                raise ProtocolViolation(f"the connection ended after WELCOME: {connection.lost.result()}")
        except (OSError, TimeoutError, ValueError, OverflowError, ClipperError) as error:
            # ValueError and OverflowError: for an address that is not valid, e.g. whose port is not a number.
            self.last_error = str(error) or f"no answer within {HANDSHAKE_TIMEOUT_S} s"
            connection.abort()
            return None
        except asyncio.CancelledError:
            connection.abort()
            raise
        self.last_error = None
        self._transport = connection.transport
        connection.on_lost = self._forget_transport
        self._listener.on_linked(welcome)
        return connection.lost

    def _checked(self, welcome: Welcome) -> Welcome:
        if (welcome.model, welcome.version) != (self._model.name, self._model.version):
            # The address is stale, and another container has it now.
            raise ProtocolViolation(f"{self._address} serves {welcome.model}:{welcome.version}, not {self._model}")
        return welcome

    def _forget_transport(self, reason: str) -> None:
        if self._transport is not None:
            self._transport = None
            self.last_error = reason
            self._listener.on_lost(reason)

    def _settle_first_attempt(self) -> None:
        if not self.first_attempt.done():
            self.first_attempt.set_result(None)


async def _connect(address: str, connection: "_Connection") -> None:
    loop = asyncio.get_running_loop()
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        await loop.create_unix_connection(lambda: connection, rest)
    else:
        host, _, port = rest.rpartition(":")
        await loop.create_connection(lambda: connection, host, int(port))


class _Connection(asyncio.Protocol):
    """The bytes of one connection.

    Attributes:
        welcome: done once the container has answered HELLO.
        lost: done, with the reason, once the connection has ended.
        on_lost: called with the reason before anything else can run, so that nothing is sent into a dead connection.
    """

    def __init__(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        self._listener = listener
        self._splitter = Splitter(MAX_WELCOME_BYTES)
        self.welcome: asyncio.Future[Welcome] = loop.create_future()
        self.lost: asyncio.Future[str] = loop.create_future()
        self.on_lost: Callable[[str], None] | None = None
        self.transport: asyncio.WriteTransport | None = None
        # After a failed dial nobody awaits it, and asyncio would complain about that.
        self.welcome.add_done_callback(_retrieve)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        own_socket = transport.get_extra_info("socket")
        if own_socket.family == socket.AF_UNIX:  # the kernel enlarges the buffer of TCP by itself
            own_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, frame_id, body in self._splitter.feed(data):
                self._receive(kind, frame_id, body)
        except ProtocolViolation as error:
            self._fail(error)

    def eof_received(self) -> None:
        # A container that has stopped sending answers nothing, so there is no use in sending it the rest.
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(str(error or "connection closed by the container"))

    def _receive(self, kind: int, frame_id: int, body: Buffer) -> None:
        if kind == Kind.RESULTS and self.welcome.done():
            self._listener.on_results(frame_id, messages.decode_results(body))
        elif kind == Kind.ERROR:
            self._refused(frame_id, messages.decode_error(body))
        elif kind == Kind.WELCOME and not self.welcome.done():
            self.welcome.set_result(messages.decode_welcome(body))
            self._splitter.max_body_bytes = MAX_BODY_BYTES
        else:
            raise ProtocolViolation(f"the container sent an unexpected frame of kind {kind}")

    def _refused(self, frame_id: int, message: str) -> None:
        if self.welcome.done():
            self._listener.on_error(frame_id, message)
        else:
            self.welcome.set_exception(ProtocolViolation(f"the container refused the connection: {message}"))

    def _fail(self, error: ProtocolViolation) -> None:
        log.error("closing a container's connection: %s", error)
        self.abort()
        self._end(str(error))

    def _end(self, reason: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if not self.welcome.done():
            self.welcome.set_exception(ProtocolViolation(f"the container did not send WELCOME: {reason}"))
        if self.on_lost is not None:
            self.on_lost(reason)


def _retrieve(future: "asyncio.Future[Welcome]") -> None:
    if not future.cancelled():
        future.exception()
