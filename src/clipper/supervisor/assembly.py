"""Makes the parts of a supervisor that leads, and connects them."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from clipper.base.build import build_id
from clipper.base.processes.gpus import GpuWatch
from clipper.base.processes.limits import machine_cores
from clipper.learning.stores.store import Store
from clipper.settings.secret_files import SecretFiles
from clipper.supervisor.artifacts.shared import SharedArtifacts
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.catalog import Catalog, Numbers
from clipper.supervisor.config import Config
from clipper.supervisor.folders import HomeFolders
from clipper.supervisor.history.events import EventKeeper
from clipper.supervisor.keepers.certificates import Certificates
from clipper.supervisor.keepers.cleaner import Forgetter
from clipper.supervisor.keepers.disks import Disks, folders_of
from clipper.supervisor.keepers.keepers import Keepers
from clipper.supervisor.keepers.ramps import Ramps
from clipper.supervisor.keepers.samples import Samples
from clipper.supervisor.keepers.sampling import Sampling
from clipper.supervisor.keepers.scaler import Scaler
from clipper.supervisor.managers.launcher import RUNTIME_PARTS, Facilities
from clipper.supervisor.managers.manager import Manager
from clipper.supervisor.managers.open import open_launchers
from clipper.supervisor.managers.worker_host import ClusterHost, LocalWorkerHost, WorkerHost
from clipper.supervisor.operations.parts import Parts
from clipper.supervisor.operations.selections import SelectionChecker
from clipper.supervisor.operations.tokens import TokenFile, Tokens
from clipper.supervisor.reconciler.reconciler import Reconciler
from clipper.supervisor.registry.leadership import Leadership
from clipper.supervisor.rollout import wanted
from clipper.supervisor.rollout.rollout import Rollout
from clipper.supervisor.workers.apply_messages import ApplyMessages
from clipper.supervisor.workers.nodes import NodeFollower
from clipper.supervisor.workers.settings import Credentials, WorkerSettings
from clipper.supervisor.workers.worker_process import WorkerProcess
from clipper.supervisor.workers.workers import Workers
from clipper.values.types import OTEL_PREFIX


@dataclass(frozen=True, slots=True)
class Ground:
    """The values from which the parts of a leading supervisor are made.

    Attributes:
        epoch: the epoch for which the supervisor speaks.
        instances, starts: number the starts of workers and of containers.
        settings: the settings that workers are started with.
        cluster: None if its extra is not installed.
        leadership: None without a registry that several servers share.
    """

    config: Config
    home: HomeFolders
    catalog: Catalog
    store: Store
    store_address: str
    events: EventKeeper
    token_file: TokenFile
    certificates: Certificates | None
    facilities: Facilities
    cluster: ClusterHost | None
    credentials: Credentials | None
    epoch: int
    instances: Numbers
    starts: Numbers
    settings: WorkerSettings
    leadership: Leadership | None


def make_parts(ground: Ground) -> Parts:
    """Make the parts. Nothing runs yet. The reconciler drives workers, containers and records, and they wake it."""
    config, catalog, store, leadership = ground.config, ground.catalog, ground.store, ground.leadership
    per_node = config.workers_per_node
    reconciler: Reconciler

    def wake() -> None:
        reconciler.wake()

    workers = _make_workers(ground, wake)
    manager = Manager(
        launchers=open_launchers(ground.facilities, "elsewhere" if per_node else "everywhere"),
        logs_folder=ground.home.logs,
        next_number=ground.starts,
        batch_timeout_s=lambda id_: wanted.batch_timeout_s(catalog, id_.name),
        samples=Samples(catalog, workers),
        on_change=wake,
        build=build_id(RUNTIME_PARTS),
        log_format=config.log_format,
        max_output_bytes=config.max_output_bytes,
        has_workers_elsewhere=bool(per_node),
        cores=len(machine_cores()),
        secret_values=SecretFiles(ground.home.root, os.environ).values,
    )
    artifacts = Artifacts(
        ground.home.artifacts, copies=None if leadership is None else SharedArtifacts(leadership.registry)
    )
    reconciler = Reconciler(
        rollout=Rollout(ground.epoch, needs_key=config.api_keys, is_leased=leadership is not None),
        catalog=catalog,
        manager=manager,
        workers=workers,
        code_folder=artifacts.code_folder_on_node if per_node else artifacts.code_folder,
        record=ground.events.record,
        take_epoch_above=(lambda _: None) if leadership is None else leadership.take_epoch_above,
    )
    nodes = None
    if per_node and ground.cluster is not None:
        nodes = NodeFollower(ground.cluster, workers, per_node, config.drain_delay_s, wake, manager.empty)
    return Parts(
        catalog=catalog,
        manager=manager,
        workers=workers,
        reconciler=reconciler,
        artifacts=artifacts,
        selections=SelectionChecker(ground.facilities.processes, ground.home.scratch, config.models_user),
        forgetter=Forgetter(catalog, store),
        scaler=Scaler(catalog, manager, workers, wake, config.idle_after_s),
        keepers=Keepers(),
        store=store,
        tokens=Tokens(catalog, ground.token_file),
        ramps=Ramps(catalog, store, wake, workers.ask_all),
        sampling=Sampling(catalog, manager, workers),
        events=ground.events,
        disks=Disks(folders_of(ground.home.root, ground.store_address)),
        gpus=GpuWatch(ground.facilities.environ),
        certificates=ground.certificates,
        leadership=leadership,
        default_manager=config.manager,
        nodes=nodes,
    )


def _make_workers(ground: Ground, wake: Callable[[], None]) -> Workers:
    config, per_node, here = ground.config, ground.config.workers_per_node, ground.facilities
    host: WorkerHost = LocalWorkerHost(here.processes, here.sockets, here.logs)
    if per_node and ground.cluster is not None:
        host = ground.cluster
    # The variables of OpenTelemetry's library, such as headers with a receiver's key. Models get none of them.
    otel = {name: value for name, value in os.environ.items() if name.startswith(OTEL_PREFIX)}
    build, messages = build_id(), ApplyMessages()

    def make_worker(index: int, node: str) -> WorkerProcess:
        return WorkerProcess(
            index,
            settings=ground.settings,
            host=host,
            store=ground.store_address,
            next_instance=ground.instances,
            on_change=wake,
            build=build,
            environment=otel,
            messages=messages,
            epoch=ground.epoch,
            credentials=ground.credentials,
            is_spare=not per_node and index == config.workers,
            node=node,
        )

    workers = Workers(make_worker, None if per_node else config.workers)
    if ground.certificates is not None:
        workers.secure(ground.certificates.material)
    return workers
