"""The query port: its listening socket, its connections, and what they share."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Mapping

from clipper.frontend import limits
from clipper.frontend.connection import Connection
from clipper.frontend.endpoints import Endpoint
from clipper.frontend.memory import give_back_freed

log = logging.getLogger(__name__)

_ACTIONS = {b"predict", b"observe", b"update"}


class QueryServer:
    """Accepts connections and finds the endpoint for each path.

    Attributes:
        known_heads: request head to its endpoint and body size; see ``Connection``.
        refused: requests that no application saw, by error code; endpoints count theirs here as well.
        freed_large_body: whether one was dropped since the last sweep, which then gives its memory back.
        sweeps: seconds since the start, counted by the sweep: a clock that costs nothing to read.
    """

    def __init__(self, max_connections: int = limits.MAX_CONNECTIONS, sweep_s: float = limits.SWEEP_S) -> None:
        self.max_connections = max_connections
        self._sweep_s = sweep_s
        self._loop = asyncio.get_running_loop()
        self._endpoints: Mapping[bytes, Endpoint] = {}
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self.known_heads: dict[bytes, tuple[Endpoint, int]] = {}
        self.refused: Counter[str] = Counter()
        self.buffered_bytes = 0
        self.freed_large_body = False
        self.sweeps = 0
        self.is_draining = False
        self.call_soon = self._loop.call_soon
        self.now_s = self._loop.time

    async def listen(self, listener: socket.socket) -> None:
        """Start accepting on a bound socket."""
        self._listener = await self._loop.create_server(lambda: Connection(self), sock=listener, backlog=1024)
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)

    def serve(self, endpoints: Mapping[bytes, Endpoint]) -> None:
        """Serve these paths from the next request on."""
        self.known_heads.clear()
        self._endpoints = endpoints

    def find(self, path: bytes) -> Endpoint | None:
        return self._endpoints.get(path)

    def why_not_found(self, path: bytes) -> str:
        shown = path[:200].decode("latin-1")
        name, _, action = path.strip(b"/").partition(b"/")
        if action in _ACTIONS and f"/{name.decode('latin-1')}/predict".encode() not in self._endpoints:
            return f"application {name[:100].decode('latin-1')!r} is not known: `clipper app list` shows those that are"
        return f"nothing at {shown!r}: expected /APPLICATION/predict or /APPLICATION/observe"

    def learn_head(self, request: bytes, path: bytes, content_length: int) -> None:
        """Remember the head of a whole request that httptools has just read and found plain."""
        size = len(request) - content_length
        if size > limits.MAX_KNOWN_HEAD_BYTES or request.find(b"\r\n\r\n") + 4 != size:
            return
        endpoint = self._endpoints.get(path)
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
        has_room = len(self._connections) < self.max_connections
        self._connections.add(connection)
        return has_room

    def remove(self, connection: Connection) -> None:
        self._connections.discard(connection)

    async def drain(self, timeout_s: float) -> int:
        """Stop accepting, answer what is under way, close. Returns how many requests had to be given up.

        A client may have sent a request just before it could know: so quiet connections are read for a while
        longer, and told with their next answer that it is the last.
        """
        self.is_draining = True
        self.known_heads.clear()
        if self._listener is not None:
            self._listener.close()
        await asyncio.sleep(limits.DRAIN_GRACE_S)
        end_s = self._loop.time() + timeout_s
        while self._connections and self._loop.time() < end_s:
            for connection in list(self._connections):
                connection.close_if_quiet()
            await asyncio.sleep(0.01)
        left = sum(connection.is_busy for connection in self._connections)
        for connection in list(self._connections):
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return left

    def _sweep(self) -> None:
        self.sweeps += 1
        for connection in list(self._connections):
            connection.sweep(self.sweeps)
        if self.freed_large_body:
            self.freed_large_body = False
            give_back_freed()
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)
