"""A caller's socket: non-blocking reads into frames, and answers that wait until the caller takes them."""

import logging
import select
import socket
from collections import deque
from contextlib import suppress

from clipper.model.protocol.frames import MAX_BODY_BYTES, OLDEST_VERSION, Frame, Splitter
from clipper.model.protocol.messages import MAX_HELLO_BYTES, encode_error
from clipper.model.runtime.kept import KeptMemory

# From 128 KiB on, malloc lets the kernel map memory for each read and unmap it: 13 µs, as much as a small batch takes.
READ_BYTES = 120 * 1024
# Of the batch that is read: a larger body than one read is read into memory of its size. All connections but those that
# watch are read on one thread at a time.
_BODIES = KeptMemory()

log = logging.getLogger("clipper.runtime")


class Connection:
    """A caller. While an answer waits for it, no further frame is read or answered, so at most one answer waits.

    Attributes:
        frames: received frames that were not taken yet, behind those of ``set_aside``.
        set_aside: frames that came while a model waited for the answer to an ask. A caller sends few at a time.
        greeted: whether HELLO was accepted.
        version: the version of the protocol that it speaks.
        watches: whether its first frame after HELLO was a PING; None until it has sent one.
        since_s: when the connection was accepted.
        is_told: whether it has been told what is known of the outputs.
    """

    __slots__ = (
        *("_socket", "_unsent", "fileno", "frames", "greeted", "is_told", "set_aside", "since_s", "version", "watches"),
    )

    def __init__(self, accepted: socket.socket, since_s: float) -> None:
        accepted.setblocking(False)
        self._socket = accepted
        self._unsent = memoryview(b"")
        self.fileno = accepted.fileno()
        # Before HELLO, the caller may be anybody, so hold no more than a HELLO.
        self.frames = Splitter(MAX_HELLO_BYTES)
        self.set_aside: deque[Frame] = deque()
        self.greeted = False
        self.version = OLDEST_VERSION
        self.watches: bool | None = None
        self.since_s = since_s
        self.is_told = False

    def accept_hello(self, version: int) -> None:
        self.greeted = True
        self.version = version
        self.frames.max_body_bytes = MAX_BODY_BYTES

    def receive(self) -> bool:
        """Read once, at most ``READ_BYTES`` unless they are of a larger body; return False if the caller has closed the
        connection.
        """
        room = None if self.watches else self.frames.room(READ_BYTES, _BODIES.lend)
        try:
            if room is not None:
                size = self._socket.recv_into(room)
                self.frames.fill(size)
                return size > 0
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return True
        self.frames.feed(data)
        return bool(data)

    def take(self) -> Frame | None:
        """Return the next frame; None if there is no complete one."""
        return self.set_aside.popleft() if self.set_aside else self.frames.take()

    def wait(self, timeout_s: float) -> None:
        """Wait until there is something to read, or room for what is unsent."""
        waiting = select.poll()
        waiting.register(self.fileno, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        waiting.poll(1000 * timeout_s)

    def send(self, answer: bytes) -> bool:
        """Send a frame; return False if a part of it waits. Then call ``flush`` once the socket is writable."""
        if self._unsent:  # of an ask
            self._unsent = memoryview(b"".join((self._unsent, answer)))
            return False
        try:
            sent = self._socket.send(answer)
        except BlockingIOError:
            sent = 0
        if sent == len(answer):
            return True
        self._unsent = memoryview(answer)[sent:]
        return False

    def flush(self) -> bool:
        """Send the part that waits; return False if some of it still waits."""
        with suppress(BlockingIOError):
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        return not self._unsent

    @property
    def has_unsent(self) -> bool:
        return len(self._unsent) > 0

    def complain(self, error: Exception) -> None:
        """Log why this connection ends, and tell a caller that has not been accepted."""
        log.warning("connection dropped: %(error)s", {"error": error})
        if not self.greeted:
            # The caller may have gone already, and need not read this.
            with suppress(OSError):
                self.send(encode_error(0, str(error)))

    def cut(self) -> None:
        """End the connection, for whoever reads it next."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()
