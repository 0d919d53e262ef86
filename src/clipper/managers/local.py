"""The local process manager: containers as processes on this machine."""

import asyncio
import logging
import os
import resource
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clipper.errors import ClipperError
from clipper.managers import logs
from clipper.managers.processes import ProcessFolder, ProcessRecord
from clipper.managers.reconcile.backoff import NO_DEATHS, History
from clipper.managers.reconcile.plan import Observed, Phase, Slot
from clipper.managers.replica import ADOPTION_TIMEOUT_S, ContainerNote, Death, Replica
from clipper.registry.records import VersionSpec
from clipper.types import ModelId

log = logging.getLogger(__name__)

# Replicas are the unit of parallelism: were each to use every core, they would only slow each other down.
THREAD_LIMITS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}

# A third of the weight of a process that is not nice, so that other work on the machine does not starve a model.
CONTAINER_NICENESS = 5


@dataclass(frozen=True, slots=True)
class Folders:
    """Where containers find and leave things. ``sockets`` is apart: a socket's path must be short."""

    artifacts: Path
    logs: Path
    scratch: Path
    sockets: Path


@dataclass(slots=True)
class SlotStatus:
    """One replica's place: the process in it now, if any, and what became of those before.

    Attributes:
        restarts: starts after the first.
        start_failure: set while it is dead because its last start failed.
    """

    slot: Slot
    replica: Replica | None = None
    task: "asyncio.Task[None] | None" = None
    history: History = NO_DEATHS
    restarts: int = 0
    last_error: str | None = None
    start_failure: Death | None = None

    @property
    def phase(self) -> Phase:
        return self.replica.phase if self.replica else "dead"


class LocalManager:
    """Starts, watches and stops containers as it is told. What it is told is the reconciler's decision.

    Everything runs on one event loop.
    """

    def __init__(
        self,
        processes: ProcessFolder,
        folders: Folders,
        next_number: Callable[[], int],
        batch_timeout_s: Callable[[ModelId], float],
        on_change: Callable[[], None],
    ) -> None:
        """Set up; nothing starts.

        Args:
            next_number: a number that no replica had before; raises ``RegistryUnavailable`` if there is none.
            batch_timeout_s: how long a batch of a version may run before its replica is taken to hang.
            on_change: called after a replica has come up or died.
        """
        self._processes = processes
        self._folders = folders
        self._next_number = next_number
        self._batch_timeout_s = batch_timeout_s
        self._on_change = on_change
        self._slots: dict[Slot, SlotStatus] = {}

    def observed(self) -> list[Observed]:
        """What ``plan_replicas`` wants to know."""
        return [Observed(one.slot, one.phase, one.history) for one in self._slots.values()]

    def slots(self, model_id: ModelId | None = None) -> list[SlotStatus]:
        """Every slot, or those of one version, in order."""
        found = (one for one in self._slots.values() if model_id in (None, one.slot.model_id))
        return sorted(found, key=lambda one: one.slot)

    def log_path(self, slot: Slot) -> Path:
        return self._folders.logs / f"{process_name(slot)}.log"

    def log_paths(self, model_id: ModelId) -> dict[str, Path]:
        """The logs that a version's replicas have, or have left, by the replica's name."""
        stem = f"{model_id.name}@{model_id.version}-"
        found = {}
        for path in sorted(self._folders.logs.glob(f"{stem}*.log")):
            index = path.stem.removeprefix(stem)
            if index.isdecimal():  # else of a version whose name only begins like this one's
                found[str(Slot(model_id.name, model_id.version, int(index)))] = path
        return found

    def start(self, slot: Slot, spec: VersionSpec) -> None:
        """Start a process in a slot that has none. That it could not be started is a death like another."""
        status = self._slots.get(slot)
        if status is None:
            status = self._slots[slot] = SlotStatus(slot)
        else:
            status.restarts += 1
        status.start_failure = None
        try:
            status.replica = self._launch(slot, spec)
        except (ClipperError, OSError) as error:
            self._has_died(status, Death(f"container {slot} cannot be started: {error}", 0.0))
            return
        log.info("started %s as pid %d", status.replica.note.id, status.replica.process.pid)
        self._watch(status, status.replica, spec.start_timeout_s)

    def adopt(self, record: ProcessRecord, note: ContainerNote) -> Replica | None:
        """Go on with a container that an earlier supervisor started; None if it is gone.

        If that one saw it ready it must answer at once, else it is given the time to come up. If it does not, it
        is a death like another.
        """
        process = self._processes.adopt(record)
        if process is None:
            return None
        log_path = self.log_path(note.slot)
        replica = Replica(note, process, self._processes, log_path, logs.size_bytes(log_path))
        status = self._slots[note.slot] = SlotStatus(note.slot, replica)
        log.info("took over %s, pid %d", note.id, process.pid)
        self._watch(status, replica, ADOPTION_TIMEOUT_S if note.ready else note.spec.start_timeout_s)
        return replica

    def retire(self, slot: Slot) -> None:
        """Take a slot's replica out of service; ``stop`` it when no query needs it."""
        replica = self._slots[slot].replica
        if replica is not None:
            replica.retire()

    def stop(self, slot: Slot) -> None:
        """Begin to end a slot's process; the slot is gone when the process is."""
        replica = self._slots[slot].replica
        if replica is not None:
            replica.begin_to_stop()

    def forget(self, slot: Slot) -> None:
        """Drop a dead slot."""
        del self._slots[slot]

    async def stop_all(self) -> None:
        """End every process, all at once; returns when they are gone."""
        for slot in self._slots:
            self.stop(slot)
        tasks = [status.task for status in self._slots.values() if status.task]
        if tasks:
            await asyncio.wait(tasks)
        self._slots.clear()

    def _watch(self, status: SlotStatus, replica: Replica, start_timeout_s: float) -> None:
        status.task = asyncio.get_running_loop().create_task(self._live(status, replica, start_timeout_s))

    async def _live(self, status: SlotStatus, replica: Replica, start_timeout_s: float) -> None:
        model_id = status.slot.model_id
        try:
            death = await replica.live(start_timeout_s, lambda: self._batch_timeout_s(model_id), self._on_change)
        except Exception as error:  # a bug of ours; the slot must not be stuck with it, so it is a death too
            log.exception("watching %s failed", replica.note.id)
            death = Death(f"watching container {status.slot} failed: {error!r}", 0.0)
        self._clean_up(replica)
        if replica.phase == "stopping":
            log.info("stopped %s", replica.note.id)
            del self._slots[status.slot]
            self._on_change()
        else:
            self._has_died(status, death)

    def _has_died(self, status: SlotStatus, death: Death) -> None:
        log.warning("%s", death.reason)
        was_ready = status.replica is not None and status.replica.phase == "ready"
        status.replica = status.task = None
        status.last_error = death.reason
        status.start_failure = None if was_ready else death
        status.history = status.history.died(asyncio.get_running_loop().time(), death.uptime_s)
        self._on_change()

    def _clean_up(self, replica: Replica) -> None:
        """Remove what a process leaves behind, but its log."""
        name = process_name(replica.note.slot)
        self._processes.forget(name)
        Path(replica.note.socket).unlink(missing_ok=True)
        shutil.rmtree(self._folders.scratch / name, ignore_errors=True)  # the next start in the slot tries again

    def _launch(self, slot: Slot, spec: VersionSpec) -> Replica:
        number, name = self._next_number(), process_name(slot)
        socket = self._folders.sockets / f"c{number}.sock"
        note = ContainerNote(slot.model, slot.version, slot.index, f"{slot}.g{number}", str(socket), spec)
        scratch = self._folders.scratch / name
        scratch.mkdir(parents=True, exist_ok=True)
        log_path = self.log_path(slot)
        log_start_bytes = logs.size_bytes(log_path)
        process = self._processes.launch(
            name,
            container_argv(note, self._folders.artifacts / spec.artifact),
            log_path=log_path,
            cwd=scratch,
            environment=THREAD_LIMITS,
            extra=msgspec.to_builtins(note),
        )
        limit_memory(process.pid, spec)
        yield_to_workers(process.pid)
        return Replica(note, process, self._processes, log_path, log_start_bytes)


def process_name(slot: Slot) -> str:
    """What a replica's record, log and scratch folder are called. ``@`` is in no model's name: no two are alike."""
    return f"{slot.model}@{slot.version}-{slot.index}"


def container_argv(note: ContainerNote, artifact: Path) -> list[str]:
    """The command line of a container; see proto/container-protocol.md, "How a container is started"."""
    spec = note.spec
    argv = ["--listen", f"unix:{note.socket}", "--model", note.model, "--version", note.version]
    if spec.loader == "binary":
        # A program knows nothing of artifacts.
        data = None if spec.data is None else artifact / spec.data
        return program_argv(artifact / spec.target, spec.memory_bytes) + argv + _options(data, spec.input_type)
    argv += ["--artifact", str(artifact), "--loader", spec.loader, "--target", spec.target]
    argv += _options(spec.data, spec.input_type)
    if spec.memory_bytes is not None:
        argv += ["--memory-bytes", str(spec.memory_bytes)]
    return [spec.python or sys.executable, "-m", "clipper.runtime", *argv]


def program_argv(program: Path, memory_bytes: int | None) -> list[str]:
    """What runs a program. A bound on memory is of a jar's heap, since Java reserves far more address space."""
    if program.suffix != ".jar":
        return [str(program)]
    heap = [] if memory_bytes is None else [f"-Xmx{memory_bytes}"]
    return ["java", *heap, "-jar", str(program)]


def _options(data: Path | str | None, input_type: str | None) -> list[str]:
    given = {"--data": data, "--input-type": input_type}
    return [text for option, value in given.items() if value is not None for text in (option, str(value))]


def yield_to_workers(pid: int) -> None:
    """Where processors are short, let answers leave first: a worker needs one for microseconds, a model for all it can.

    With 128 connections on two cores, p99 fell by a fifth, and answers per second did not.
    """
    with suppress(ProcessLookupError):  # it has exited already, which whoever watches it will tell
        os.setpriority(os.PRIO_PROCESS, pid, CONTAINER_NICENESS)


def limit_memory(pid: int, spec: VersionSpec) -> None:
    """Bound a program's address space from without; Clipper's own runtime does so itself, a jar by ``-Xmx``."""
    if spec.memory_bytes is not None and spec.loader == "binary" and not spec.target.endswith(".jar"):
        with suppress(ProcessLookupError):  # it has exited already, which whoever watches it will tell
            resource.prlimit(pid, resource.RLIMIT_AS, (spec.memory_bytes, spec.memory_bytes))
