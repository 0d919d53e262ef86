"""The gRPC port of a worker: what its connections share, and how it drains.

What it imports needs the extra ``grpc``.
"""

import asyncio

from clipper.frontend import limits
from clipper.frontend.door import Door
from clipper.frontend.port import Port
from clipper.frontend.rpc.behaviours import Counts
from clipper.frontend.rpc.connection import RpcConnection
from clipper.frontend.rpc.service import Services


class RpcServer:
    """Makes connections for a listener of the query server.

    Attributes:
        counts: of calls.
        connections: the open ones.
        door: bounds the time that they take together in a turn of the loop. Without it, each could have its input
            handled in each turn, and clients that keep many calls open would make every turn as long as they like.
    """

    services: Services

    def __init__(self, port: Port) -> None:
        self.port = port
        self.counts = Counts()
        self.connections: set[RpcConnection] = set()
        self.door = Door(asyncio.get_running_loop().call_soon, port.now_s, port.give_out)

    def serve(self, services: Services) -> None:
        """Serve these from the next call on."""
        self.services = services
        self.door.set_slo(self.port.door.slo_s)

    def make_connection(self) -> RpcConnection:
        return RpcConnection(self)

    def drain(self) -> None:
        """Ask clients to call another worker. What they have sent before they could know is still answered.

        The query server closes the connections once they are done, as it does others.
        """
        for connection in list(self.connections):
            connection.announce_end()
        asyncio.get_running_loop().call_later(limits.DRAIN_GRACE_S, self._begin_end)

    def _begin_end(self) -> None:
        for connection in list(self.connections):
            connection.begin_end()
