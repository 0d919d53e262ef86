"""The query server: listens, sweeps over the connections of its port, and drains them."""

import asyncio
import socket
import ssl
from typing import cast

from clipper.base.malloc import give_back_freed
from clipper.base.turn_budget import Backlog
from clipper.worker.frontend import limits
from clipper.worker.frontend.http.connection import Connection
from clipper.worker.frontend.http.listener import Listener
from clipper.worker.frontend.http.port import Member, Port


class QueryServer:
    """Listens for a ``Port``. ``sweep_s``: time between two sweeps."""

    def __init__(self, port: Port, sweep_s: float = limits.SWEEP_S) -> None:
        self.port = port
        port.on_leaving = self._resume_accepting
        self._sweep_s = sweep_s
        self._loop = asyncio.get_running_loop()
        self._http = Listener(port, lambda: cast(asyncio.Protocol, Connection(port)))
        self._listeners = [self._http]
        self._sweeper: asyncio.TimerHandle | None = None
        # The connections whose timeouts a sweep still has to check: thousands of them are spread over many turns.
        self._swept = Backlog[Member](port.turn, self._sweep_one)

    async def listen(self, bound: socket.socket) -> None:
        """Start to accept connections of HTTP/1.1 on a bound socket."""
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)
        await self._http.listen(bound)

    def secure(self, context: ssl.SSLContext) -> None:
        """Use this TLS context from now on, as ``Listener.secure`` does, for HTTP/1.1."""
        self._http.secure(context)

    def add(self, listener: Listener) -> None:
        """Sweep and drain another listener of the port, too."""
        self._listeners.append(listener)

    def _resume_accepting(self) -> None:
        for listener in self._listeners:
            listener.resume_accepting()

    async def drain(self, timeout_s: float) -> int:
        """Stop accepting, answer open requests, and close. Return the number of requests that got no answer in time.

        A client may have sent a request before it could notice the drain. So the server reads idle connections for a
        while longer, and their next answer announces that it is the last.
        """
        port = self.port
        port.is_draining = True
        port.forget_heads()
        for listener in self._listeners:
            listener.close()
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

    def _sweep_one(self, connection: Member, end_s: float) -> bool:
        if connection in self.port.members:
            connection.sweep(self.port.sweeps)
        return True

    def _sweep(self) -> None:
        port = self.port
        port.sweeps += 1
        port.coming = 0
        if not self._swept.items:
            self._swept.items.extend(port.members)
            self._swept.go_on()
        if port.is_full:
            # No listener accepts, so no new connection asks for room.
            port.make_room(limits.MAX_OVER_BOUND)
        for listener in self._listeners:
            listener.sweep()
        port.work.sweep()
        # While requests hold much memory, freed memory is soon used again, and giving it back would take long.
        if port.freed_large_body and port.budget.held_bytes < limits.MAX_HELD_BYTES // 8:
            port.freed_large_body = False
            give_back_freed()
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)
