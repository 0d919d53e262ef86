"""Takes over what an earlier supervisor left running, where it fits, and ends the rest."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.proc import start_time
from clipper.base.processes.process import ProcessRecord
from clipper.control.address import UnixAddress
from clipper.settings.fields import shared
from clipper.settings.telemetry import TelemetrySettings
from clipper.supervisor.catalog import Catalog, Numbers
from clipper.supervisor.config import Config
from clipper.supervisor.folders import HomeFolders
from clipper.supervisor.managers.launcher import Launcher, container_note, slot_name
from clipper.supervisor.managers.manager import Manager
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.managers.replica import Replica
from clipper.supervisor.rollout import wanted
from clipper.supervisor.workers.settings import WorkerSettings, worker_note
from clipper.supervisor.workers.worker_process import DRAIN_MARGIN_S, DRAIN_TIMEOUT_S
from clipper.supervisor.workers.workers import Workers

log = logging.getLogger(__name__)


def worker_settings(
    config: Config, home: HomeFolders, port: int, store_digest: str, grpc_port: int = 0
) -> WorkerSettings:
    """The settings that workers are started with now. On a node, its actor knows the address and has the folders."""
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


def left_query_port(records: list[ProcessRecord], config: Config, home: HomeFolders, store_digest: str) -> int | None:
    """The query port of workers that still run, if they can be taken over with our configuration."""
    for record in records:
        note = worker_note(record)
        if note is None or start_time(record.pid) != record.start_time:
            continue
        port = config.query_port or note.settings.port
        if note.settings.can_stand_beside(worker_settings(config, home, port, store_digest)):
            return note.settings.port
    return None


def left_grpc_port(records: list[ProcessRecord], config: Config) -> int | None:
    """The gRPC port of workers that are taken over, if it is the one that we want."""
    for record in records:
        note = worker_note(record)
        if note is not None and start_time(record.pid) == record.start_time and note.settings.grpc_port:
            return note.settings.grpc_port if config.wanted_grpc_port in (0, note.settings.grpc_port) else None
    return None


def pass_over(records: list[ProcessRecord], instances: Numbers) -> None:
    """Give no new worker the number of a worker that may still run, or whose answers may still get feedback."""
    for record in records:
        if (note := worker_note(record)) is not None:
            instances.pass_over(note.instance)


async def take_over_containers(catalog: Catalog, manager: Manager, starts: Numbers) -> list[Replica]:
    """Adopt the containers that are still wanted, as they are; end the others.

    ``starts`` numbers new containers. The numbers of containers that were left are passed over.
    """
    adopted: list[Replica] = []
    taken: set[Slot] = set()
    runs = wanted.running(catalog)
    for note in await manager.left():
        starts.pass_over(note.number)
        slot = note.slot
        if slot in taken or not wanted.goes_on(catalog, runs, slot, note.spec):
            await manager.end_left(note)
        elif replica := await manager.adopt(note):
            adopted.append(replica)
            taken.add(slot)
    return adopted


async def take_over_workers(records: list[ProcessRecord], workers: Workers, settings: WorkerSettings) -> None:
    """Adopt the workers that can stand beside workers with these settings."""
    for record in records:
        await workers.adopt(record, settings)


def end_workers(records: list[ProcessRecord], processes: ProcessFolder) -> None:
    """Kill all that are not containers: workers with other settings may hold the port that ours need."""
    processes.sweep(keep=[record.name for record in records if container_note(record.extra)])


def end_the_rest(processes: ProcessFolder, home: HomeFolders, replicas: list[Replica], workers: Workers) -> None:
    """Kill every process of the home that was not taken over, and remove what such processes leave."""
    adopted = [worker for worker in workers if worker.process]
    names = {replica.note.name for replica in replicas} | {worker.name for worker in adopted}
    sockets = {replica.note.listen.removeprefix("unix:") for replica in replicas}
    sockets |= {worker.control.path for worker in adopted if isinstance(worker.control, UnixAddress)}
    processes.sweep(keep=names)
    home.remove_stale(names, sockets)


async def end_all_left(processes: ProcessFolder, home: HomeFolders, launchers: Iterable[Launcher]) -> None:
    """Let all workers that were left answer their open queries and end, and end all containers of these launchers."""
    workers = [record for record in processes.recorded() if worker_note(record) is not None]
    running = [process for record in workers if (process := processes.adopt(record)) is not None]
    await asyncio.gather(*(process.stop(DRAIN_TIMEOUT_S + DRAIN_MARGIN_S) for process in running))
    ended = len(running)
    for launcher in launchers:
        notes = await launcher.left()
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
