"""Answers PINGs while the model runs, from a thread that sleeps until a PING comes.

The server's loop accepts all connections. If the first frame after HELLO is a PING, the connection goes to this thread
for good. Connections with batches never go there, so the model's thread shares nothing with it while the model works.
"""

import select
import threading
import time

from clipper.errors import ProtocolViolation
from clipper.model.protocol import messages
from clipper.model.protocol.frames import Kind
from clipper.model.runtime.connection import Connection


class BusyClock:
    """The time for which the current batch has been running. The loop writes it, the watcher reads it."""

    __slots__ = ("_since_ns",)

    def __init__(self) -> None:
        self._since_ns = 0

    def start(self) -> int:
        """Return the time, in nanoseconds, for ``stop``."""
        self._since_ns = now = time.monotonic_ns()
        return now

    def stop(self, started_ns: int) -> int:
        """Return how many microseconds the batch took."""
        self._since_ns = 0
        return (time.monotonic_ns() - started_ns) // 1000

    def busy_us(self) -> int:
        since_ns = self._since_ns
        # At least 1, because 0 means idle.
        return max(1, (time.monotonic_ns() - since_ns) // 1000) if since_ns else 0


class Watcher:
    """Serves the connections that only ask whether the container lives."""

    def __init__(self, clock: BusyClock) -> None:
        self._clock = clock
        self._connections: dict[int, Connection] = {}
        self._epoll = select.epoll()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def take(self, connection: Connection) -> None:
        """Serve ``connection`` from now on. The loop's thread calls this, and does not touch the connection again."""
        self._connections[connection.fileno] = connection
        self._epoll.register(connection.fileno, select.EPOLLIN)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="clipper-health", daemon=True)
            self._thread.start()

    def close_in_child(self) -> None:
        """After a fork: close the parent's sockets in the child."""
        self._epoll.close()
        for connection in self._connections.values():
            connection.close()

    def _run(self) -> None:
        while True:
            for fileno, _ in self._epoll.poll():
                self._serve(self._connections[fileno])

    def _serve(self, connection: Connection) -> None:
        try:
            # A caller that does not read its answers has stopped watching.
            open_still = connection.receive() and all(
                connection.send(answer_watching(kind, ping_id, self._clock.busy_us()))
                for kind, ping_id, _ in connection.frames
            )
        except (ProtocolViolation, OSError) as error:
            connection.complain(error)
            open_still = False
        if not open_still:
            del self._connections[connection.fileno]
            self._epoll.unregister(connection.fileno)
            connection.close()


def answer_watching(kind: int, frame_id: int, busy_us: int) -> bytes:
    """Answer a frame on a connection that watches. Raises ProtocolViolation if it is neither PING nor PREDICT."""
    if kind == Kind.PING:
        return messages.encode_pong(frame_id, busy_us)
    if kind == Kind.PREDICT:
        return messages.encode_error(
            frame_id, "this connection began with a PING, so it only watches: send batches on another connection"
        )
    raise ProtocolViolation(f"caller sent a frame of kind {kind} after its HELLO: expected PREDICT or PING")
