"""The ports that workers answer queries on."""

import asyncio
import socket
from dataclasses import dataclass

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.process import ProcessRecord
from clipper.errors import Conflict
from clipper.supervisor.config import Config
from clipper.supervisor.folders import HomeFolders
from clipper.supervisor.workers import ports, takeover

# Workers that were just killed release their port within moments.
PORT_TIMEOUT_S = 1.0
PORT_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class QueryPorts:
    """Where queries are answered: by workers on this machine, or on each node of a cluster.

    Attributes:
        host: for clients on this machine.
        grpc_port: 0 for none.
        holders: what keeps the ports of this machine for the workers.
    """

    host: str
    port: int
    grpc_port: int = 0
    holders: tuple[socket.socket, ...] = ()


async def hold_ports(
    records: list[ProcessRecord], processes: ProcessFolder, config: Config, home: HomeFolders, store_digest: str
) -> QueryPorts:
    """Hold the ports that the workers on this machine share, and end those that an earlier supervisor left elsewhere.

    Raises:
        Conflict: a port is taken.
    """
    left_port = takeover.left_query_port(records, config, home, store_digest)
    if left_port is None:
        takeover.end_workers(records, processes)
    holders = [await _hold_port(config.host, left_port, config.query_port, "--query-port")]
    grpc_port = 0
    if (wanted_port := config.wanted_grpc_port) is not None:
        left_grpc_port = takeover.left_grpc_port(records, config) if left_port else None
        holders.append(await _hold_port(config.host, left_grpc_port, wanted_port, "--grpc-port"))
        grpc_port = ports.port_of(holders[1])
    return QueryPorts(config.host, ports.port_of(holders[0]), grpc_port, tuple(holders))


async def _hold_port(host: str, left_port: int | None, wanted_port: int, option: str) -> socket.socket:
    """Hold the port of the workers that are taken over; else the wanted port, which nobody else may have."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + PORT_TIMEOUT_S
    port, check_free = left_port or wanted_port, left_port is None
    while True:
        try:
            return ports.hold(host, port, option, check_free)
        except Conflict:
            if loop.time() > deadline_s:
                raise
        await asyncio.sleep(PORT_POLL_S)
