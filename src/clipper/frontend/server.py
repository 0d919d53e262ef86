"""The query port: its listening socket, its connections, and what they share."""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from clipper.frontend import limits, responses
from clipper.frontend.budget import Budget
from clipper.frontend.clients import Guarded
from clipper.frontend.connection import Connection
from clipper.frontend.door import Door
from clipper.frontend.endpoints import Endpoint
from clipper.frontend.heads import Head
from clipper.frontend.inference.errors import error_json
from clipper.frontend.long_work import LongWork
from clipper.malloc import give_back_freed
from clipper.tls.handshakes import MAX_HANDSHAKES, Handshakes
from clipper.tls.transport import TlsTransport

log = logging.getLogger(__name__)

_ACTIONS = {b"predict", b"observe", b"update"}


class OtherPaths(Protocol):
    """Paths of which there are too many for a table, or whose endpoints depend on more of a head."""

    def find(self, path: bytes, head: Head) -> Endpoint | None:
        """As ``QueryServer.find``."""

    def why_not_found(self, path: bytes) -> str | None:
        """What to say where there is none; None if nothing is known of it."""


class QueryServer:
    """Accepts connections and finds the endpoint for each path.

    Attributes:
        known_heads: request head to its endpoint and body size; see ``Connection``.
        budget: the memory that requests hold.
        work: what takes longer than others should wait.
        door: where requests wait while the worker has no time to take them in.
        refused: requests that no application saw, by error code; endpoints count theirs here as well.
        freed_large_body: whether one was dropped since the last sweep, which then gives its memory back.
        sweeps: seconds since the start, counted by the sweep: a clock that costs nothing to read.
    """

    def __init__(
        self,
        max_connections: int = limits.MAX_CONNECTIONS,
        sweep_s: float = limits.SWEEP_S,
        give_out: Callable[[], None] = lambda: None,
    ) -> None:
        """``give_out``: sends what queries have been asked by then; see ``Door``."""
        self.max_connections = max_connections
        self._sweep_s = sweep_s
        self._loop = asyncio.get_running_loop()
        self._endpoints: Mapping[bytes, Endpoint | Guarded] = {}
        self._others: OtherPaths | None = None
        self._connections: set[Connection] = set()
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._beginning: asyncio.Task[None] | None = None
        # Accepted, and not yet added: the loop may accept hundreds before it tells the first.
        self._coming = 0
        self._warns_at_sweep = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self.budget = Budget()
        self.refused: Counter[str] = Counter()
        self.work = LongWork(self._loop.call_soon, self.budget, self.refused)
        self.known_heads: dict[bytes, tuple[Endpoint, int]] = {}
        self._handshakes: Handshakes | None = None
        self.freed_large_body = False
        self.sweeps = 0
        self.is_draining = False
        self.now_s = self._loop.time
        self.door = Door(self._loop.call_soon, self.now_s, give_out)

    async def listen(self, listener: socket.socket) -> None:
        """Start accepting on a bound socket."""
        self._socket = listener
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)
        await self._accept()

    def secure(self, context: ssl.SSLContext) -> None:
        """Meet connections by TLS from the next one on; those that are open stay as they are."""
        if self._handshakes is None:
            self.max_connections = min(self.max_connections, limits.MAX_TLS_CONNECTIONS)
            share = int(self.max_connections * limits.HANDSHAKES_SHARE)
            most = min(max(share, limits.MIN_HANDSHAKES), MAX_HANDSHAKES)
            self._handshakes = Handshakes(context, self._loop.call_soon, most)
        self._handshakes.context = context

    async def _accept(self) -> None:
        """Accept until there are too many connections; those that come then wait in the socket's own queue."""
        if self._socket is not None:
            # The listener closes its socket to stop, and the port stays ours.
            self._listener = await self._loop.create_server(
                self._make_connection, sock=self._socket.dup(), backlog=limits.BACKLOG
            )

    def _make_connection(self) -> Connection | TlsTransport:
        self._coming += 1
        if self._is_full:
            # Not from here: that would drop the connection that is being accepted. The loop accepts one in a turn.
            self._loop.call_soon(self._stop_accepting)
        connection = Connection(self)
        return connection if self._handshakes is None else TlsTransport(connection, self._handshakes)

    def _stop_accepting(self) -> None:
        if self._listener is None or not self._is_full:
            return
        self._listener.close()
        self._listener = None
        if self.sweeps >= self._warns_at_sweep:
            self._warns_at_sweep = self.sweeps + limits.WARNING_SWEEPS
            log.warning("%d connections are open: no more are accepted until some have closed", self.connections)

    @property
    def _is_full(self) -> bool:
        """Whether there is no room for one more, not even to tell it so."""
        return len(self._connections) + self._coming >= self.max_connections + limits.MAX_REFUSED_AT_ONCE

    @property
    def idle_timeout_sweeps(self) -> int:
        is_crowded = len(self._connections) >= self.max_connections * limits.CROWDED_SHARE
        return limits.CROWDED_IDLE_TIMEOUT_SWEEPS if is_crowded else limits.IDLE_TIMEOUT_SWEEPS

    def serve(self, endpoints: Mapping[bytes, Endpoint | Guarded], others: OtherPaths | None = None) -> None:
        """Serve these paths from the next request on; ``others``: finds what these are not."""
        self.known_heads.clear()
        self._others = others
        self._endpoints = endpoints
        self.door.set_slo(min((endpoint.slo_s for endpoint in endpoints.values()), default=1.0))

    def find(self, path: bytes, head: Head) -> Endpoint | None:
        """The endpoint for who sent this head.

        Raises:
            MalformedRequest, Unauthorized, Forbidden: as ``Guarded.enter``.
        """
        endpoint = self._endpoints.get(path)
        if endpoint is None and self._others is not None:
            return self._others.find(path, head)
        return endpoint.enter(head.authorizations) if isinstance(endpoint, Guarded) else endpoint

    def error_form(self, path: bytes) -> Callable[[str, str], bytes]:
        """How errors read that are answered to a request for this path."""
        is_protocols = path.partition(b"/")[2].partition(b"/")[0] == b"v2" and path not in self._endpoints
        return error_json if is_protocols else responses.error_json

    def count_refused(self, code: str) -> None:
        self.refused[code] += 1

    def forget_heads(self) -> None:
        """Who may ask has changed: have each client's next request looked at anew."""
        self.known_heads.clear()

    def known(self, data: bytes) -> Endpoint | None:
        """What a request asks whose head is known, of which this is the beginning."""
        known = self.known_heads.get(data[: data.find(b"\r\n\r\n") + 4])
        return None if known is None else known[0]

    def why_not_found(self, path: bytes) -> str:
        if self._others is not None and (why := self._others.why_not_found(path)) is not None:
            return why
        shown = path[:200].decode("latin-1")
        name, _, action = path.strip(b"/").partition(b"/")
        if action in _ACTIONS and f"/{name.decode('latin-1')}/predict".encode() not in self._endpoints:
            return f"application {name[:100].decode('latin-1')!r} is not known: `clipper app list` shows those that are"
        return f"nothing at {shown!r}: expected /APPLICATION/predict or /APPLICATION/observe"

    def learn_head(self, request: bytes, endpoint: Endpoint | None, content_length: int) -> None:
        """Remember the head of a whole request that httptools has just read and found plain."""
        size = len(request) - content_length
        if size > limits.MAX_KNOWN_HEAD_BYTES or request.find(b"\r\n\r\n") + 4 != size:
            return
        if endpoint is None or "POST" not in endpoint.methods:
            return
        if len(self.known_heads) >= limits.MAX_KNOWN_HEADS:
            self.known_heads.clear()
        self.known_heads[request[:size]] = endpoint, content_length

    # -- connections -------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        return len(self._connections)

    def add(self, connection: Connection) -> bool:
        """Count a new connection. False if there are too many: it has to be refused."""
        self._coming = max(self._coming - 1, 0)
        has_room = len(self._connections) < self.max_connections
        self._connections.add(connection)
        return has_room

    def remove(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._go_on_accepting()

    def _go_on_accepting(self) -> None:
        is_waiting = self._listener is None and self._beginning is None
        if is_waiting and self._socket is not None and not self.is_draining and not self._is_full:
            self._beginning = self._loop.create_task(self._accept())
            self._beginning.add_done_callback(self._has_begun)

    def _has_begun(self, task: "asyncio.Task[None]") -> None:
        self._beginning = None
        if not task.cancelled() and task.exception() is not None:
            # The sweep tries again.
            log.error("cannot accept connections: %r", task.exception())

    def shed(self, slow_sweeps: int) -> None:
        """Requests hold too much memory: cut off those who have not taken their answers for the longest.

        Args:
            slow_sweeps: those who have taken some within so many sweeps are left alone.
        """
        untaken = [connection for connection in self._connections if connection.untaken.size_bytes]
        going_bytes = sum(connection.untaken.size_bytes for connection in untaken if connection.is_going)
        staying = [connection for connection in untaken if not connection.is_going]
        staying.sort(key=lambda connection: (connection.untaken.last_taken_sweep, -connection.untaken.size_bytes))
        for connection in staying:
            is_slow = self.sweeps - connection.untaken.last_taken_sweep >= slow_sweeps
            if not is_slow or self.budget.has_room(-going_bytes):
                return
            going_bytes += connection.untaken.size_bytes
            self.refused["overloaded"] += 1
            connection.cut_off()

    async def drain(self, timeout_s: float) -> int:
        """Stop accepting, answer what is under way, close. Returns how many requests had to be given up.

        A client may have sent a request just before it could know: so quiet connections are read for a while
        longer, and told with their next answer that it is the last.
        """
        self.is_draining = True
        self.known_heads.clear()
        if self._listener is not None:
            self._listener.close()
        if self._socket is not None:
            self._socket.close()
        await asyncio.sleep(limits.DRAIN_GRACE_S)
        end_s = self._loop.time() + timeout_s
        while self._connections and self._loop.time() < end_s:
            for connection in list(self._connections):
                if not connection.is_busy:
                    connection.transport.close()
            await asyncio.sleep(0.01)
        left = sum(connection.is_busy for connection in self._connections)
        for connection in list(self._connections):
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return left

    def _sweep(self) -> None:
        self.sweeps += 1
        self._coming = 0
        for connection in list(self._connections):
            connection.sweep(self.sweeps)
        if self._handshakes is not None:
            self._handshakes.sweep()
        self._go_on_accepting()
        if self.freed_large_body:
            self.freed_large_body = False
            give_back_freed()
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)
