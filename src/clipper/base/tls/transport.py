"""A connection under TLS: a protocol to the event loop, and a transport to the HTTP protocol.

The TLS of event loops reports a connection only after the handshake, does a handshake whenever a client wants one,
encrypts an answer of any size in one go, and does not count what its socket holds. Here the HTTP protocol has its
connection as soon as it is accepted, so a connection in the handshake is counted, timed and closed like any other. What
the protocol writes during the handshake waits. A long answer is encrypted in pieces, as its client reads it.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from typing import Any, cast

from clipper.base.tls.handshakes import Handshakes

# The largest record of TLS. Data passes through OpenSSL in pieces of this size both ways, because OpenSSL's buffers
# keep their largest size for as long as the connection lasts.
PIECE_BYTES = 16 * 1024
# At most this many records go through OpenSSL before other connections have their turn. A read of 256 KiB has 16 of the
# largest records, or 9,700 records that ask for new keys, which take 0.3 s and which any client may send.
MAX_RECORDS = 16
_HEADER_BYTES = 5
# This much of a long answer is encrypted before other connections have their turn: a quarter of a millisecond.
VISIT_BYTES = 256 * 1024

# A plain answer for a browser or curl that was given an address with http://.
_CAUSE = b'{"error":"malformed_request","cause":"this port speaks TLS only: use https://"}'
_NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
)
NOT_TLS = _NOT_TLS % len(_CAUSE) + _CAUSE

# Replaces the application of a closed connection: otherwise application and transport would keep each other in memory.
_NOBODY = asyncio.Protocol()


class TlsTransport(asyncio.Protocol, asyncio.Transport):
    """Passes decrypted data to ``application``."""

    def __init__(self, application: asyncio.Protocol, handshakes: Handshakes) -> None:
        asyncio.Transport.__init__(self)
        self._application = application
        self._handshakes = handshakes
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # Received data that waits for the connection's turn, or for the rest of a record's header; and how many bytes
        # of an incomplete record precede the next header.
        self._unread: bytes | memoryview = b""
        self._record_left_bytes = 0
        # Made when the client sends its first bytes, so that a silent client costs no TLS state.
        self._tls: ssl.SSLObject | None = None
        # Whether the handshake is done. Before that, nothing can be written.
        self._is_open = False
        # Whether further data from the client is dropped.
        self._is_deaf = False
        self._is_queued = False
        # Data that is not encrypted yet.
        self._backlog: deque[memoryview] = deque()
        self._backlog_bytes = 0
        self._pump_is_due = False
        # Whether the socket is full, and whether the application was asked to pause writing.
        self._is_blocked = False
        self._is_paused = False
        # Whether the application reads, and whether this transport reads.
        self._reads = self._is_reading = True
        self._is_ending = False
        self._is_closing = False

    # -- called by the loop ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._handshakes.begin(self)
        self._application.connection_made(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._handshakes.end(self)
        self._unread = b""
        self._is_closing = True
        application, self._application = self._application, _NOBODY
        self._tls = None
        self._is_deaf = True
        self._drop_backlog()
        application.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._unread:
            data = bytes(self._unread) + data
        if self._is_open and not self._is_queued:
            self._read(memoryview(data))
            self._go_on_reading()
        else:
            self._unread = data
            self._is_queued = True
            self._adjust_reading()
            self._handshakes.queue(self)

    def eof_received(self) -> bool | None:
        """Handle the end of the socket. Without a close under TLS the last request may be cut short: it is refused."""
        self._is_deaf = True
        return self._application.eof_received() if self._is_open else False

    def pause_writing(self) -> None:
        self._is_blocked = True
        self._adjust_reading()
        self._tell_of_writing()

    def resume_writing(self) -> None:
        self._is_blocked = False
        self._go_on_reading()
        if not self._pump_is_due:
            self._pump()

    # -- the handshake -----------------------------------------------------------------------------------

    def shake(self) -> None:
        self._is_queued = False
        if self.is_closing():
            return
        if self._tls is None:
            self._tls = self._handshakes.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        data, self._unread = memoryview(self._unread), b""
        try:
            while not self._is_open and (size := self._next_piece(data)):
                self._incoming.write(data[:size])
                data = data[size:]
                with contextlib.suppress(ssl.SSLWantReadError):
                    self._tls.do_handshake()
                    self._is_open = True
        except ssl.SSLError as error:
            self._handshakes.fail(self, str(error.reason or error))
            if error.reason == "HTTP_REQUEST":
                self._outgoing.read()
                self._outgoing.write(NOT_TLS)
            self._end_with(error)
            return
        self._send_encrypted()
        self._adjust_reading()
        if not self._is_open:
            self._unread = data
            return
        self._handshakes.end(self)
        self._pump()
        if not self._is_deaf and (data or self._incoming.pending):
            # This data came together with the end of the handshake.
            self._read(data)
            self._go_on_reading()

    # -- data --------------------------------------------------------------------------------------------

    def read_on(self) -> bool:
        """Read a piece of the waiting data, in this connection's turn. Return whether no more can be read now."""
        if not self._is_deaf and self._may_read:
            self._read(memoryview(self._unread))
        if not self._is_deaf and self._may_read:
            return False
        self._is_queued = False
        self._adjust_reading()
        return True

    def _next_piece(self, data: memoryview) -> int:
        """Return how many of these bytes are read at once; 0 if they are only a part of a record's header."""
        at, size = self._record_left_bytes, len(data)
        for _ in range(MAX_RECORDS):
            if at >= PIECE_BYTES or at + _HEADER_BYTES > size:
                break
            at += _HEADER_BYTES + int.from_bytes(data[at + 3 : at + _HEADER_BYTES], "big")
        piece_bytes = min(at, size, PIECE_BYTES)
        self._record_left_bytes = at - piece_bytes
        return piece_bytes

    @property
    def _may_read(self) -> bool:
        """Whether more of the waiting data can be read now."""
        is_enough = self._record_left_bytes > 0 or len(self._unread) >= _HEADER_BYTES
        return bool(self._unread) and is_enough and self._reads and not self._is_blocked

    def _go_on_reading(self) -> None:
        if self._is_open and not self._is_deaf and not self._is_queued and self._may_read:
            self._is_queued = True
            self._handshakes.queue_reading(self)
        self._adjust_reading()

    def _read(self, data: memoryview) -> None:
        """Pass the decrypted data of the next piece to the application. The rest waits for another turn."""
        tls, incoming = self._tls, self._incoming
        assert tls is not None
        size = self._next_piece(data)
        self._unread = data[size:]
        incoming.write(data[:size])
        parts = []
        has_ended = False
        try:
            while not has_ended and (incoming.pending or tls.pending()):
                part = tls.read(PIECE_BYTES)
                parts.append(part)
                has_ended = not part
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still on its way
        except ssl.SSLError as error:
            self._end_with(error)
            return
        if self._outgoing.pending:
            # Messages of TLS itself, such as the answer to new keys.
            self._send_encrypted()
        text = parts[0] if len(parts) == 1 else b"".join(parts)
        if text:
            self._application.data_received(text)
        if has_ended and not self._is_deaf:
            self._is_deaf = True
            if not self._application.eof_received():
                self.close()

    def _end_with(self, error: ssl.SSLError) -> None:
        """End a connection whose data is not valid TLS: send the client an alert, if it reads."""
        self._is_deaf = self._is_closing = self._is_ending = True
        self._drop_backlog()
        self._send_encrypted()
        self._transport.close()

    def _send_encrypted(self) -> None:
        data = self._outgoing.read()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _pump(self) -> None:
        """Encrypt waiting data as the socket takes it, then close or resume as was requested."""
        self._pump_is_due = False
        tls = self._tls
        if tls is None or not self._is_open or self._transport.is_closing():
            return
        written_bytes = 0
        while self._backlog and not self._is_blocked:
            if written_bytes >= VISIT_BYTES:
                self._pump_is_due = True
                self._handshakes.turn.wait_behind(self)
                break
            data = self._backlog[0]
            try:
                count = tls.write(data[:PIECE_BYTES])
            except ssl.SSLError as error:
                self._end_with(error)
                return
            if count == len(data):
                self._backlog.popleft()
            else:
                self._backlog[0] = data[count:]
            self._backlog_bytes -= count
            written_bytes += count
            self._send_encrypted()
        if not self._backlog:
            if self._is_ending:
                self._send_end()
            if self._is_closing:
                self._finish_closing()
        self._tell_of_writing()

    def enter(self, *, is_late: bool) -> None:
        """Go on with a long answer, in this connection's turn."""
        self._pump()

    def _tell_of_writing(self) -> None:
        should_pause = self._is_blocked or bool(self._backlog)
        if should_pause == self._is_paused:
            return
        self._is_paused = should_pause
        if should_pause:
            self._application.pause_writing()
        else:
            self._application.resume_writing()

    def _drop_backlog(self) -> None:
        self._backlog.clear()
        self._backlog_bytes = 0

    def _send_end(self) -> None:
        """Close for writing, under TLS and on the socket. Further bytes of the client are dropped."""
        self._say_goodbye()
        if not self._transport.is_closing():
            self._transport.write_eof()

    def _say_goodbye(self) -> None:
        self._is_deaf = True
        tls, self._tls = self._tls, None
        if tls is not None:
            # OpenSSL would also wait for the client's close_notify, which may never come.
            with contextlib.suppress(ssl.SSLError):
                tls.unwrap()
            self._send_encrypted()

    def _finish_closing(self) -> None:
        self._say_goodbye()
        self._transport.close()

    # -- called by the application -----------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if not self._is_open or self._backlog or not 0 < len(data) <= PIECE_BYTES:
            self._write_later(data)
            return
        tls = self._tls
        if tls is None:
            return  # the connection is closed
        try:
            tls.write(data)
        except ssl.SSLError as error:
            self._end_with(error)
            return
        self._transport.write(self._outgoing.read())

    def _write_later(self, data: Any) -> None:
        if not data or self._is_ending or self._is_closing:
            return
        self._backlog.append(memoryview(data))
        self._backlog_bytes += len(data)
        if self._is_open and not self._pump_is_due:
            self._pump()

    def get_write_buffer_size(self) -> int:
        return self._backlog_bytes + self._transport.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._is_ending = True
        if self._is_open and not self._backlog:
            self._send_end()

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closing()

    def close(self) -> None:
        """Close once everything is written. Without a handshake nothing can be written, so close at once."""
        if self._is_closing:
            return
        self._is_closing = self._is_deaf = True
        if not self._is_open:
            self._transport.abort()
        elif not self._backlog:
            self._finish_closing()

    def abort(self) -> None:
        self._is_closing = True
        self._drop_backlog()
        self._transport.abort()

    def pause_reading(self) -> None:
        self._reads = False
        self._adjust_reading()

    def resume_reading(self) -> None:
        self._reads = True
        self._go_on_reading()

    def is_reading(self) -> bool:
        return self._reads and not self.is_closing()

    def _adjust_reading(self) -> None:
        """Stop reading while the client waits for its handshake's turn, or does not read.

        Otherwise it could request new keys without end, and each request is answered.
        """
        should_read = self._reads and not self._is_queued and not self._is_blocked
        if should_read == self._is_reading or self._transport.is_closing():
            return
        self._is_reading = should_read
        if should_read:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._handshakes.context
        if name == "ssl_object":
            return self._tls
        return self._transport.get_extra_info(name, default)
