"""A listening socket of a worker: accepts connections, unless there are too many."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from clipper.base.tls.handshakes import MAX_HANDSHAKES, Handshakes
from clipper.base.tls.transport import TlsTransport
from clipper.worker.frontend import limits
from clipper.worker.frontend.http.port import Port

log = logging.getLogger(__name__)


class Listener:
    """Accepts connections of a protocol for a ``Port``. All listeners of a port share its bound on connections."""

    def __init__(self, port: Port, make_connection: Callable[[], asyncio.Protocol]) -> None:
        self._port = port
        self._make = make_connection
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._warns_at_sweep = 0
        self._handshakes: Handshakes | None = None

    async def listen(self, bound: socket.socket) -> None:
        """Start to accept connections on a bound socket."""
        self._socket = bound
        await self._accept()

    def secure(self, context: ssl.SSLContext) -> None:
        """Use TLS from the next connection on; open connections stay as they are."""
        if self._handshakes is None:
            self._port.max_connections = min(self._port.max_connections, limits.MAX_TLS_CONNECTIONS)
            share = int(self._port.max_connections * limits.HANDSHAKES_SHARE)
            most = min(max(share, limits.MIN_HANDSHAKES), MAX_HANDSHAKES)
            self._handshakes = Handshakes(context, self._port.turn, most)
        self._handshakes.context = context

    async def _accept(self) -> None:
        """Accept until there are too many connections; later connections then wait in the kernel."""
        if self._socket is not None:
            # To stop accepting, the listener closes its socket. With a duplicate the port stays bound.
            self._server = await self._loop.create_server(
                self._make_connection, sock=self._socket.dup(), backlog=limits.BACKLOG
            )

    def _make_connection(self) -> asyncio.Protocol:
        self._port.coming += 1
        if self._port.is_full:
            # In a later turn: stopping now would drop the connection that the loop is accepting.
            self._loop.call_soon(self._stop_accepting)
        connection = self._make()
        return connection if self._handshakes is None else TlsTransport(connection, self._handshakes)

    def _stop_accepting(self) -> None:
        port = self._port
        if self._server is None or not port.is_full:
            return
        self._server.close()
        self._server = None
        port.await_room()
        if port.sweeps >= self._warns_at_sweep:
            self._warns_at_sweep = port.sweeps + limits.WARNING_SWEEPS
            log.warning(
                "%(count)d connections are open: no more are accepted until some have closed",
                {"count": len(port.members)},
            )

    def resume_accepting(self) -> None:
        is_waiting = self._server is None and self._beginning is None
        if is_waiting and self._socket is not None and not self._port.is_draining and not self._port.is_full:
            self._beginning = self._loop.create_task(self._accept())
            self._beginning.add_done_callback(self._has_begun)

    def _has_begun(self, task: "asyncio.Task[None]") -> None:
        self._beginning = None
        if not task.cancelled() and task.exception() is not None:
            # The sweep tries again.
            log.error("failed to accept connections: %(error)r", {"error": task.exception()})

    def sweep(self) -> None:
        """Give up slow handshakes, and accept again if there is room. Called once a second."""
        if self._handshakes is not None:
            self._handshakes.sweep()
        self.resume_accepting()

    def close(self) -> None:
        """Accept no more connections."""
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            self._socket.close()


def bind_shared(host: str, port: int) -> socket.socket:
    """Return a bound TCP socket. Other workers may bind its port, too; the kernel spreads connections over them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
