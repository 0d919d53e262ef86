"""Dials a replica, speaks the container protocol with it, and reports to a ``Listener``. It decides nothing."""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from clipper.base.tcp import end_when_cut
from clipper.base.tls.trust import pinned_context
from clipper.errors import ClipperError, ModelFailed, ProtocolViolation
from clipper.model.protocol import messages
from clipper.model.protocol.asks import MAX_OPEN_ASKS
from clipper.model.protocol.batches import BatchEncoder
from clipper.model.protocol.columns import RESULTS_DECODERS, BatchResults
from clipper.model.protocol.frames import (
    ASKS_VERSION,
    DROPPED,
    MAX_BODY_BYTES,
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    RETOLD_VERSION,
    Kind,
    Splitter,
)
from clipper.model.protocol.messages import Buffer, Welcome
from clipper.model.protocol.trace import BatchTrace, write_trace
from clipper.values.records import MAX_TYPE_CHARACTERS
from clipper.values.types import ModelId

log = logging.getLogger(__name__)

# A container that listens has loaded its model and only has to answer HELLO.
HANDSHAKE_TIMEOUT_S = 5.0
# A WELCOME holds names, two types and a line of text. A peer that sends more is not a container.
MAX_WELCOME_BYTES = 2 * 6 * MAX_TYPE_CHARACTERS + 64 * 1024
# The delays after which the link dials again: until a snapshot removes the replica, it may come back at this address.
FIRST_REDIAL_S = 0.02
LAST_REDIAL_S = 1.0
# The kernel sends this much of a batch by itself, if it allows so large a buffer; the rest waits for the worker's loop,
# once for each bufferful. With the usual 208 KiB, 125 rows of 784 float64 took 13 ms while the loop was busy.
SEND_BUFFER_BYTES = 4 * 1024 * 1024
# After reading this much, a connection lets the loop handle others before it reads on. Otherwise the loop reads up to
# 32 times in a row from a container that writes as fast, for ten milliseconds and more.
READ_AT_ONCE_BYTES = 1024 * 1024
# A frame over this size is written in pieces of it. Otherwise the kernel copies all of it in one call while the
# container reads as fast: 40 MB held the loop for 35 to 70 ms.
WRITE_AT_ONCE_BYTES = 1024 * 1024
# Results over this size are not kept, unless a single output may have more: a container without a bound may send a
# gigabyte. The first large outputs of a model may come in a batch of many; after that, their size is known.
MAX_RESULTS_BYTES = 256 * 1024 * 1024
# The kinds of results that have raw values, and the version of the protocol that brought each.
_RAW_SINCE: Mapping[int, int] = {Kind.TYPED_RESULTS: 2, Kind.COLUMN_RESULTS: 4}
# Answers on a connection to batches that the container was not sent, and asks while it reads nothing. A few do no harm,
# and a model has fewer asks open. Each costs some 10 µs, and a million in a row held the loop for half a second at a
# time.
MAX_STRAY_ANSWERS = 100
# The asks that come in one read, which are some batches' at most: each takes some 50 µs.
MAX_ASKS_AT_ONCE = 4 * MAX_OPEN_ASKS


class Listener(Protocol):
    """Receives the replica's messages, on the event loop.

    ``on_results`` and ``on_error`` return whether the replica was sent this batch and had not answered it before.
    """

    def on_linked(self, welcome: Welcome) -> None: ...

    def on_told(self, welcome: Welcome) -> None:
        """Take the output type that the container has learned. It comes before the first answer of that type."""

    def on_ask(self, ask_id: int, body: Buffer) -> None:
        """Take an ask of the model. Raises ProtocolViolation if the body is not an ASK."""

    def on_results(self, batch_id: int, results: BatchResults) -> bool: ...

    def on_error(self, batch_id: int, message: str) -> bool: ...

    def on_lost(self, reason: str) -> None:
        """Handle the end of the connection: every batch in flight is lost. The link dials again."""


class ReplicaLink:
    """The link to a replica. It dials until the replica answers, and again when the connection breaks, until ``close``.

    Attributes:
        last_error: why the latest dial failed or the connection ended; None while linked.
        first_attempt: done once the first dial has succeeded or failed.
    """

    def __init__(
        self,
        model: ModelId,
        encoder: BatchEncoder,
        address: str,
        token: str,
        listener: Listener,
        certificate: str = "",
        most_results_bytes: int = MAX_RESULTS_BYTES,
    ) -> None:
        """
        Args:
            certificate: the only certificate that the replica may show, in PEM; without it there is no TLS.
            most_results_bytes: larger results of a batch are dropped, and reported as an error of the batch.
        """
        self._model = model
        self._encoder = encoder
        self._address = address
        self._token = token
        self._certificate = certificate
        self._listener: Listener | None = listener  # None once the link is closed
        self._most_results_bytes = most_results_bytes
        self._connection: _Connection | None = None
        self._version = OLDEST_VERSION  # the version of the protocol in use while linked
        self._task: asyncio.Task[None] | None = None
        self.last_error: str | None = None
        self.first_attempt: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_linked(self) -> bool:
        return self._connection is not None

    def open(self) -> None:
        """Start to dial."""
        self._task = asyncio.get_running_loop().create_task(self._keep_linked())

    def close(self) -> None:
        """Close for good: the listener is not called again.

        The link drops all references to its listener: the collector rarely visits old objects, and would not free a
        cycle.
        """
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._listener = None
        if self._connection is not None:
            # close() would wait until the container has read the rest, which may never happen.
            self._connection.abort()
            self._connection = None
        self._settle_first_attempt()

    def send(self, batch_id: int, rows: Sequence[bytes], trace: BatchTrace | None = None) -> None:
        """Write a batch. The link must be linked. The buffer is bounded by the scheduler's two batches in flight.

        ``trace`` is None if the batch is not traced. A container of an older version does not get it.
        """
        told = b"" if trace is None or self._version < 3 else write_trace(trace)
        self.send_frame(self._encoder.encode(batch_id, rows, told))

    def send_frame(self, frame: Sequence[Buffer]) -> None:
        """Write a batch, or the answer to an ask, that is encoded."""
        assert self._connection is not None
        self._connection.write_frame(frame)

    async def _keep_linked(self) -> None:
        delay_s = FIRST_REDIAL_S
        while True:
            connection = await self._dial()
            self._settle_first_attempt()
            if connection is not None:
                await asyncio.wait([connection.lost])
                if not connection.is_faulty:
                    delay_s = FIRST_REDIAL_S
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LAST_REDIAL_S)

    async def _dial(self) -> "_Connection | None":
        """Connect and shake hands. Return None if the dial failed."""
        most, listener = self._most_results_bytes, self._listener
        assert listener is not None
        connection = _Connection(self._address, listener, PROTOCOL_VERSION, most)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                while (welcome := await self._greet(connection)) is None:
                    connection.abort()
                    connection = _Connection(self._address, listener, connection.version - 1, most)
            if (welcome.model, welcome.version) != (self._model.name, self._model.version):
                # The address is stale: another container listens there now.
                raise ProtocolViolation(f"{self._address} serves {welcome.model}:{welcome.version}, not {self._model}")
            if connection.version < self._encoder.least_version:
                raise ProtocolViolation(
                    f"{self._model} takes records, and its container speaks version {connection.version} of the "
                    f"container protocol: records need version {self._encoder.least_version}, so deploy the model with "
                    "a newer SDK or image"
                )
            if connection.lost.done():
                raise ProtocolViolation(f"the connection ended after WELCOME: {connection.lost.result()}")
        except (OSError, TimeoutError, ValueError, OverflowError, ClipperError) as error:
            # int() and connect() raise ValueError and OverflowError for an address that is not valid, and a context
            # raises ValueError or an OSError for a certificate that is not.
            self.last_error = str(error) or f"no answer within {HANDSHAKE_TIMEOUT_S} s"
            connection.abort()
            return None
        except asyncio.CancelledError:
            connection.abort()
            raise
        self.last_error = None
        self._version = connection.version
        self._connection = connection
        connection.on_lost = self._forget_connection
        listener.on_linked(welcome)
        return connection

    async def _greet(self, connection: "_Connection") -> Welcome | None:
        """Connect and send HELLO. Return the answer, or None if the next older version should be tried."""
        await _connect(self._address, connection, self._certificate)
        connection.write(messages.encode_hello(self._token, connection.version))
        try:
            return await connection.welcome
        except HelloRefused:
            # A container of version 1 or 2 refuses a version that it does not know, and closes.
            if connection.version == OLDEST_VERSION:
                raise
            return None

    def _forget_connection(self, reason: str) -> None:
        if self._connection is not None and self._listener is not None:
            self._connection = None
            self.last_error = reason
            self._listener.on_lost(reason)

    def _settle_first_attempt(self) -> None:
        if not self.first_attempt.done():
            self.first_attempt.set_result(None)


async def _connect(address: str, connection: "_Connection", certificate: str) -> None:
    loop = asyncio.get_running_loop()
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        await loop.create_unix_connection(lambda: connection, rest)
    else:
        host, _, port = rest.rpartition(":")
        context = pinned_context(certificate) if certificate else None
        await loop.create_connection(lambda: connection, host, int(port), ssl=context)


class HelloRefused(ProtocolViolation):
    """The container answered HELLO with an error."""


class _Connection(asyncio.Protocol):
    """The bytes of a connection.

    Attributes:
        version: the version of the protocol that HELLO asks for, and then the version that is spoken.
        welcome: done once the container has answered HELLO.
        lost: done, with the reason, once the connection has ended.
        is_faulty: whether it ended because the container broke the protocol: it is dialled again ever more slowly.
        on_lost: called with the reason as soon as the connection ends, so that nothing is sent over it any more.
    """

    def __init__(self, address: str, listener: Listener, version: int, most_results_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        self._address = address
        self._listener = listener
        self.version = version
        self._splitter = Splitter(MAX_WELCOME_BYTES)
        self._splitter.most_kept_bytes = most_results_bytes
        self.welcome: asyncio.Future[Welcome] = loop.create_future()
        self.lost: asyncio.Future[str] = loop.create_future()
        self.is_faulty = False
        self._stray_answers = self._unread_asks = self._asks_at_once = 0
        self._may_tell = False
        self._read_bytes = 0  # since the loop last handled other connections
        # Pieces of large frames, and of those behind them, that are still to be written.
        self._unwritten: deque[Buffer] = deque()
        self._is_paused = False
        self.on_lost: Callable[[str], None] | None = None
        self.transport: asyncio.Transport | None = None
        # After a failed dial nobody awaits this future, and asyncio would log that its exception was not retrieved.
        self.welcome.add_done_callback(lambda welcome: welcome.cancelled() or welcome.exception())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        own_socket = transport.get_extra_info("socket")
        if own_socket.family == socket.AF_UNIX:  # the kernel enlarges the buffers of TCP by itself
            own_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        else:
            # Otherwise the batches in flight when a network is cut would not be sent again elsewhere.
            end_when_cut(own_socket)

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def write_frame(self, frame: Sequence[Buffer]) -> None:
        """Write a frame. Between the pieces of a large frame, the loop handles other events."""
        assert self.transport is not None
        if not self._unwritten and sum(map(len, frame)) <= WRITE_AT_ONCE_BYTES:
            self.transport.writelines(frame)
            return
        is_first = not self._unwritten
        for part in frame:
            whole = memoryview(part)
            self._unwritten.extend(
                whole[start : start + WRITE_AT_ONCE_BYTES] for start in range(0, len(whole), WRITE_AT_ONCE_BYTES)
            )
        if is_first and not self._is_paused:
            self._write_on()

    def _write_on(self) -> None:
        if self._unwritten and self.transport is not None and not self.transport.is_closing():
            self.transport.write(self._unwritten.popleft())
            if self._unwritten and not self._is_paused:
                asyncio.get_running_loop().call_soon(self._write_on)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._unread_asks = 0
        self._write_on()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._asks_at_once = 0
        self._read_bytes += len(data)
        if self._read_bytes > READ_AT_ONCE_BYTES and self.transport is not None:
            self._read_bytes = 0
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)
        try:
            splitter = self._splitter.feed(data)
            while splitter.rest and (frame := splitter.take()) is not None:
                self._receive(*frame)
        except ProtocolViolation as error:
            log.error(
                "closing the connection to the container at %(address)s: %(error)s",
                {"address": self._address, "error": error},
            )
            self.is_faulty = True
            self.abort()
            self._end(str(error))

    def _read_on(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def eof_received(self) -> None:
        # A container that has stopped sending will not answer, so there is no point in sending it the rest.
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(str(error or "the container closed the connection"))

    def _receive(self, kind: int, frame_id: int, body: Buffer) -> None:
        listener, is_linked, was_sent = self._listener, self.welcome.done(), True
        if body is DROPPED and is_linked and kind != Kind.ASK:
            most = self._splitter.most_kept_bytes
            message = f"{messages.BATCH_TOO_LARGE}outputs of a batch are over {most} bytes: have the model return less"
            was_sent = listener.on_error(frame_id, message)
        elif kind == Kind.RESULTS and is_linked:
            was_sent = listener.on_results(frame_id, messages.decode_results(body))
        elif is_linked and self.version >= _RAW_SINCE.get(kind, PROTOCOL_VERSION + 1):
            try:
                results = RESULTS_DECODERS[kind](body)
            except ModelFailed as error:
                was_sent = listener.on_error(frame_id, str(error))
            else:
                was_sent = listener.on_results(frame_id, results)
        elif kind == Kind.ERROR and is_linked:
            was_sent = listener.on_error(frame_id, messages.decode_error(body))
        elif kind == Kind.ASK and is_linked and self.version >= ASKS_VERSION:
            self._asks_at_once += 1
            self._unread_asks += self._is_paused
            if self._asks_at_once > MAX_ASKS_AT_ONCE or self._unread_asks > MAX_STRAY_ANSWERS:
                raise ProtocolViolation("the container sends ask after ask, and does not wait for answers")
            listener.on_ask(frame_id, body)
        elif kind == Kind.ERROR:
            reason = messages.decode_error(body)
            self.welcome.set_exception(HelloRefused(f"the container refused the connection: {reason}"))
        elif kind == Kind.WELCOME and not self.welcome.done():
            welcome = messages.decode_welcome(body, self.version)
            self.version = welcome.protocol
            self.welcome.set_result(welcome)
            self._may_tell = self.version >= RETOLD_VERSION
            self._splitter.max_body_bytes = MAX_BODY_BYTES
        elif kind == Kind.WELCOME and self._may_tell:
            if len(body) > MAX_WELCOME_BYTES:
                raise ProtocolViolation(f"a WELCOME has {len(body)} bytes: expected at most {MAX_WELCOME_BYTES}")
            self._may_tell = False  # it learns once
            listener.on_told(messages.decode_welcome(body, self.version))
        else:
            raise ProtocolViolation(f"the container sent an unexpected frame of kind {kind}")
        if not was_sent:
            self._count_stray(frame_id)

    def _count_stray(self, batch_id: int) -> None:
        """Count an answer to a batch that the container was not sent."""
        self._stray_answers += 1
        if self._stray_answers > MAX_STRAY_ANSWERS:
            raise ProtocolViolation(
                f"the container answered {self._stray_answers} batches that it was not sent; the last had id {batch_id}"
            )
        if self._stray_answers == 1:  # a line for each would fill the log
            log.warning(
                "the container at %(address)s answered batch %(batch_id)d, which it was not sent; after more than "
                "%(limit)d such answers the connection is closed",
                {"address": self._address, "batch_id": batch_id, "limit": MAX_STRAY_ANSWERS},
            )

    def _end(self, reason: str) -> None:
        self._unwritten.clear()
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if not self.welcome.done():
            self.welcome.set_exception(ProtocolViolation(f"the container did not send WELCOME: {reason}"))
        if self.on_lost is not None:
            self.on_lost(reason)
        self.on_lost = self.transport = None
