"""Serves the management API, for a server that leads and for one that stands by."""

import asyncio
import socket
from collections.abc import Callable

from clipper.api.server.access import Access, Holder, allowed_hosts
from clipper.api.server.app import create_app
from clipper.api.server.dashboard import Dashboard
from clipper.api.server.gate import Gate
from clipper.api.server.operations import Operations
from clipper.api.server.server import ManagementServer
from clipper.supervisor.config import Config
from clipper.supervisor.keepers.certificates import Certificates
from clipper.supervisor.workers import ports

STARTED_POLL_S = 0.005


class ManagementPort:
    """A server's management port: its ``url`` for clients on this machine, and its ``address`` for people."""

    def __init__(
        self, config: Config, listener: socket.socket, certificates: Certificates | None, max_descriptors: int
    ) -> None:
        """Make a port that does not answer yet. ``max_descriptors``: how many this process may have open."""
        self._config = config
        self._listener = listener
        self._certificates = certificates
        self._max_descriptors = max_descriptors
        place = config.management_host, ports.port_of(listener), certificates is not None
        self.url, self.address = ports.url(*place), ports.url_for_others(*place)

    async def serve(
        self, operations: Operations, holder_of: Callable[[str | None], Holder | None]
    ) -> tuple[ManagementServer, "asyncio.Task[None]"]:
        """Begin to answer; return the server and its task. Connections wait while no server runs."""
        hosts = allowed_hosts(self._config.management_host, socket.gethostname(), self._config.allowed_host)
        app = Dashboard(create_app(operations))
        access = Access(hosts, holder_of, self._config.open_metrics, app.paths)
        certificates = self._certificates
        context = certificates.management_context() if certificates is not None else None
        api = ManagementServer(Gate(app, access), self._max_descriptors, context)
        if certificates is not None:
            certificates.follow(lambda _: api.secure(certificates.management_context()))
        # The server closes its own copy of the socket, and the port keeps listening for the next server.
        serving = asyncio.get_running_loop().create_task(api.serve([self._listener.dup()]))
        while not api.started and not serving.done():
            await asyncio.sleep(STARTED_POLL_S)
        return api, serving
