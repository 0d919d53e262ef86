"""The listening socket of the query port: accepts connections, sweeps over them, and drains them."""

import asyncio
import logging
import socket
import ssl
from typing import cast

from clipper.frontend import limits
from clipper.frontend.connection import Connection
from clipper.frontend.port import Port
from clipper.malloc import give_back_freed
from clipper.tls.handshakes import MAX_HANDSHAKES, Handshakes
from clipper.tls.transport import TlsTransport

log = logging.getLogger(__name__)


class QueryServer:
    """Listens for a ``Port``.

    Args:
        port: the state that its connections share.
        sweep_s: time between two sweeps.
    """

    def __init__(self, port: Port, sweep_s: float = limits.SWEEP_S) -> None:
        self.port = port
        port.on_leaving = self._resume_accepting
        self._sweep_s = sweep_s
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._warns_at_sweep = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._handshakes: Handshakes | None = None

    async def listen(self, listener: socket.socket) -> None:
        """Start to accept connections on a bound socket."""
        self._socket = listener
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)
        await self._accept()

    def secure(self, context: ssl.SSLContext) -> None:
        """Use TLS from the next connection on; open connections stay as they are."""
        if self._handshakes is None:
            self.port.max_connections = min(self.port.max_connections, limits.MAX_TLS_CONNECTIONS)
            share = int(self.port.max_connections * limits.HANDSHAKES_SHARE)
            most = min(max(share, limits.MIN_HANDSHAKES), MAX_HANDSHAKES)
            self._handshakes = Handshakes(context, self._loop.call_soon, most)
        self._handshakes.context = context

    async def _accept(self) -> None:
        """Accept until there are too many connections; later ones then wait in the kernel."""
        if self._socket is not None:
            # To stop accepting, the listener closes its socket. With a duplicate the port stays bound.
            self._listener = await self._loop.create_server(
                self._make_connection, sock=self._socket.dup(), backlog=limits.BACKLOG
            )

    def _make_connection(self) -> asyncio.Protocol:
        self.port.coming += 1
        if self.port.is_full:
            # Not directly: that would drop the connection that is being accepted. The loop accepts one in a turn.
            self._loop.call_soon(self._stop_accepting)
        connection = cast(asyncio.Protocol, Connection(self.port))
        return connection if self._handshakes is None else TlsTransport(connection, self._handshakes)

    def _stop_accepting(self) -> None:
        port = self.port
        if self._listener is None or not port.is_full:
            return
        self._listener.close()
        self._listener = None
        if port.sweeps >= self._warns_at_sweep:
            self._warns_at_sweep = port.sweeps + limits.WARNING_SWEEPS
            log.warning("%d connections are open: no more are accepted until some have closed", len(port.members))

    def _resume_accepting(self) -> None:
        is_waiting = self._listener is None and self._beginning is None
        if is_waiting and self._socket is not None and not self.port.is_draining and not self.port.is_full:
            self._beginning = self._loop.create_task(self._accept())
            self._beginning.add_done_callback(self._has_begun)

    def _has_begun(self, task: "asyncio.Task[None]") -> None:
        self._beginning = None
        if not task.cancelled() and task.exception() is not None:
            # The sweep tries again.
            log.error("failed to accept connections: %r", task.exception())

    async def drain(self, timeout_s: float) -> int:
        """Stop accepting, answer open requests, and close. Return the number of requests that got no answer in time.

        A client may have sent a request just before it could notice. So idle connections are read for a while longer,
        and their next answer announces that it is the last.
        """
        port = self.port
        port.is_draining = True
        port.forget_heads()
        if self._listener is not None:
            self._listener.close()
        if self._socket is not None:
            self._socket.close()
        await asyncio.sleep(limits.DRAIN_GRACE_S)
        end_s = self._loop.time() + timeout_s
        while port.members and self._loop.time() < end_s:
            for connection in list(port.members):
                if not connection.is_busy:
                    connection.transport.close()
            await asyncio.sleep(0.01)
        left = sum(connection.is_busy for connection in port.members)
        for connection in list(port.members):
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return left

    def _sweep(self) -> None:
        port = self.port
        port.sweeps += 1
        port.coming = 0
        for connection in list(port.members):
            connection.sweep(port.sweeps)
        if self._handshakes is not None:
            self._handshakes.sweep()
        self._resume_accepting()
        if port.freed_large_body:
            port.freed_large_body = False
            give_back_freed()
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)
