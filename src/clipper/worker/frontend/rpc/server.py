"""The gRPC port of a worker: the common state of its connections, and how it drains.

Its imports need the extra ``grpc``.
"""

import asyncio

from clipper.worker.frontend import limits
from clipper.worker.frontend.rpc.connection import RpcConnection, Server
from clipper.worker.frontend.rpc.service import Services


class RpcServer(Server):
    """Makes connections for a listener of the query server."""

    def serve(self, services: Services) -> None:
        """Serve these services from the next call on."""
        self.services = services

    def make_connection(self) -> RpcConnection:
        return RpcConnection(self)

    def drain(self) -> None:
        """Ask clients to call another worker. Calls that they sent before they could know are still answered.

        The query server closes the connections once they are done, like all others.
        """
        for connection in list(self.connections):
            connection.announce_end()
        asyncio.get_running_loop().call_later(limits.DRAIN_GRACE_S, self._begin_end)

    def _begin_end(self) -> None:
        for connection in list(self.connections):
            connection.begin_end()
