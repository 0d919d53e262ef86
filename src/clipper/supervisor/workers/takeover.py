"""Takes over the processes that an earlier supervisor left, if they fit, with their query ports; ends the rest."""

import asyncio
import logging
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.proc import start_time
from clipper.base.processes.process import ProcessRecord
from clipper.control.address import UnixAddress
from clipper.errors import Conflict
from clipper.settings.fields import shared
from clipper.settings.server import TelemetrySettings
from clipper.supervisor.catalog import Catalog, Numbers
from clipper.supervisor.config import Config
from clipper.supervisor.folders import HomeFolders
from clipper.supervisor.managers.launcher import Launcher, container_note, slot_name
from clipper.supervisor.managers.manager import Manager
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.managers.replica import Replica
from clipper.supervisor.rollout import wanted
from clipper.supervisor.workers import ports
from clipper.supervisor.workers.settings import WorkerNote, WorkerSettings, worker_note
from clipper.supervisor.workers.worker_process import DRAIN_MARGIN_S, DRAIN_TIMEOUT_S
from clipper.supervisor.workers.workers import Workers

log = logging.getLogger(__name__)


def worker_settings(
    config: Config, home: HomeFolders, port: int, store_digest: str, grpc_port: int = 0
) -> WorkerSettings:
    """Return the settings for new workers. On a node, the worker's actor knows the address and has the folders."""
    own: dict[str, Any] = {
        "port": port,
        "store_digest": store_digest,
        "knows_keys": True,
        "tls": config.tls_mode,
        "run_as": config.models_user,
        "grpc_port": grpc_port,
        "allowed_origins": config.allowed_origin,
        "telemetry": TelemetrySettings(**shared(config, TelemetrySettings)),
    }
    folders = {"decisions": str(home.decisions), "run": str(home.run), "logs": str(home.logs)}
    own |= {"host": ""} if config.workers_per_node else {"host": config.host, **folders}
    return WorkerSettings(**shared(config, WorkerSettings) | own)


def _running_notes(records: list[ProcessRecord]) -> Iterator[WorkerNote]:
    """Return the notes of workers that still run."""
    for record in records:
        if (note := worker_note(record)) is not None and start_time(record.pid) == record.start_time:
            yield note


def left_query_port(records: list[ProcessRecord], config: Config, home: HomeFolders, store_digest: str) -> int | None:
    """Return the query port of workers that still run, if they can be taken over with our configuration."""
    for note in _running_notes(records):
        port = config.query_port or note.settings.port
        if note.settings.can_stand_beside(worker_settings(config, home, port, store_digest)):
            return note.settings.port
    return None


def left_grpc_port(records: list[ProcessRecord], config: Config) -> int | None:
    """Return the gRPC port of workers that are taken over, if it is the configured port."""
    port = next((note.settings.grpc_port for note in _running_notes(records) if note.settings.grpc_port), None)
    return port if config.wanted_grpc_port in (0, port) else None


async def take_over_containers(catalog: Catalog, manager: Manager, starts: Numbers) -> list[Replica]:
    """Adopt the containers that are still wanted; end the others. ``starts`` skips their numbers."""
    adopted: list[Replica] = []
    taken: set[Slot] = set()
    runs = wanted.running(catalog)
    for note in await manager.orphans():
        starts.pass_over(note.number)
        slot = note.slot
        if slot in taken or not wanted.goes_on(catalog, runs, slot, note.spec):
            await manager.end_orphan(note)
        elif replica := await manager.adopt(replace(note, spec=catalog.versions[slot.model_id].spec)):
            adopted.append(replica)
            taken.add(slot)
    return adopted


async def take_over_workers(
    records: list[ProcessRecord], workers: Workers, settings: WorkerSettings, instances: Numbers
) -> None:
    """Adopt the workers that can stand beside workers with these settings.

    No new worker gets the number of an old one, which may still run, or whose answers may still get feedback.
    """
    for record in records:
        if (note := worker_note(record)) is not None:
            instances.pass_over(note.instance)
        await workers.adopt(record, settings)


def end_the_rest(processes: ProcessFolder, home: HomeFolders, replicas: list[Replica], workers: Workers) -> None:
    """Kill every process of the home that was not taken over, and remove what it leaves."""
    adopted = [worker for worker in workers if worker.process]
    names = {replica.note.name for replica in replicas} | {worker.name for worker in adopted}
    sockets = {replica.note.listen.removeprefix("unix:") for replica in replicas}
    sockets |= {worker.control.path for worker in adopted if isinstance(worker.control, UnixAddress)}
    processes.sweep(keep=names)
    home.remove_stale(names, sockets)


async def end_all_orphans(processes: ProcessFolder, home: HomeFolders, launchers: Iterable[Launcher]) -> None:
    """Let all orphaned workers answer their open queries and end, and end all containers of these launchers."""
    workers = [record for record in processes.recorded() if worker_note(record) is not None]
    running = [process for record in workers if (process := processes.adopt(record)) is not None]
    await asyncio.gather(*(process.stop(DRAIN_TIMEOUT_S + DRAIN_MARGIN_S) for process in running))
    ended = len(running)
    for launcher in launchers:
        notes = await launcher.orphans()
        found = [await launcher.adopt(note, home.logs / f"{slot_name(note.slot)}.log") for note in notes]
        containers = [container for container in found if container is not None]
        await asyncio.gather(*(container.stop(grace_s=0) for container in containers))
        ended += len(containers)
        for note in notes:
            await launcher.clean_up(note)
    processes.sweep(keep=())
    home.remove_stale(set(), set())
    if ended:
        log.info("ended %(count)d workers and containers that were left", {"count": ended})


# Workers that were just killed release their port within moments.
PORT_TIMEOUT_S = 1.0
PORT_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class QueryPorts:
    """The ports on which queries are answered, ``host`` for clients here. ``holders`` keep the ports for workers."""

    host: str
    port: int
    grpc_port: int = 0
    holders: tuple[socket.socket, ...] = ()


async def hold_ports(
    records: list[ProcessRecord], processes: ProcessFolder, config: Config, home: HomeFolders, store_digest: str
) -> QueryPorts:
    """Hold the ports that workers here share, and end those left on other ports. Raises Conflict if one is taken."""
    left_port = left_query_port(records, config, home, store_digest)
    if left_port is None:
        # Workers with other settings may hold the port that our workers need.
        processes.sweep(keep=[record.name for record in records if container_note(record.extra)])
    holders = [await _hold_port(config.host, left_port, config.query_port, "--query-port")]
    grpc_port = 0
    if (wanted_port := config.wanted_grpc_port) is not None:
        grpc_left = left_grpc_port(records, config) if left_port else None
        holders.append(await _hold_port(config.host, grpc_left, wanted_port, "--grpc-port"))
        grpc_port = ports.port_of(holders[1])
    return QueryPorts(config.host, ports.port_of(holders[0]), grpc_port, tuple(holders))


async def _hold_port(host: str, left_port: int | None, wanted_port: int, option: str) -> socket.socket:
    """Hold the port of the workers that are taken over; else the configured port, which must be free."""
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
