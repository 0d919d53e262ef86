"""The port by which query workers are started, found again and cleaned up after, on whatever machine they run."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.process import ManagedProcess, ProcessRecord
from clipper.control.address import ControlAddress, UnixAddress
from clipper.supervisor.managers.logs import Lines

# Signs a worker's request for a certificate, in PEM. It takes the instance of the worker, which the certificate names,
# and returns the certificate and the authority's.
Sign = Callable[[bytes, int], tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """The command, settings and sockets that a worker is started with.

    Attributes:
        name: of its process and of its log; the same over restarts.
        instance: the number of this start.
        config: its ``WorkerConfig``, without what the host decides: where its control channel listens.
        environment: further variables, which may hold secrets.
        note: what the host notes for the next supervisor, to which it adds ``control``.
    """

    name: str
    instance: int
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    note: Mapping[str, Any]
    node: str = ""


class RunningWorker(Protocol):
    """A worker's process. ``exited`` is set once it has exited and nothing of it runs any more."""

    exited: asyncio.Event

    @property
    def pid(self) -> int:
        """The worker's process id on its machine."""

    @property
    def how_it_ended(self) -> str:
        """The rest of a sentence about it."""

    def terminate(self) -> None:
        """Ask it to drain and end."""

    def kill(self) -> None: ...

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, and kill it after ``grace_s``. Returns when it is gone."""

    async def has_exited_within(self, seconds: float) -> bool:
        """Wait for its exit, no longer than that; return whether it has exited."""


@dataclass(frozen=True, slots=True)
class StartedWorker:
    """``control``: where its control channel will listen."""

    process: RunningWorker
    control: ControlAddress


class WorkerHost(Protocol):
    """A port to the machine on which workers run."""

    @property
    def is_away(self) -> bool:
        """Whether no worker could be asked or started, because what they are reached by is away."""
        return False

    async def start(self, start: WorkerStart) -> StartedWorker:
        """Raises ClipperError, OSError: it cannot be started."""

    async def adopt(self, record: ProcessRecord) -> RunningWorker | None:
        """Go on with a worker that an earlier supervisor started; None if it is gone."""

    async def regain(self, name: str, node: str) -> ProcessRecord | None:
        """The worker of this name that the host has started again by itself on this node after it had died; it must be
        adopted. Raises Unavailable if it has not yet, and no other can be started meanwhile."""
        return None

    async def sees(self, process: RunningWorker) -> bool:
        """Whether the host can tell that a process runs. If so and the worker does not answer, it hangs; if not, the
        worker may be well, and cannot be reached."""
        return True

    async def provide(self, process: RunningWorker, folders: Iterable[str]) -> None:
        """Let a worker have the code that its next snapshot names. ``folders``: of modules of users' own policies, as
        the snapshot has them. Raises ClipperError, OSError: it cannot be had now."""
        del process, folders

    async def clean_up(self, name: str, process: RunningWorker | None, control: ControlAddress | None) -> None:
        """Remove what a worker that has exited has left. ``process``, ``control``: of its last start."""


class ClusterNode(Struct, frozen=True):
    """A node. Several may have one ``address``. ``is_up``: the cluster has not lost it. ``is_own``: it is this
    machine's. ``is_draining``: the cluster empties it, and ends it after a while or once nothing runs there."""

    address: str
    is_up: bool
    is_own: bool
    is_draining: bool = False


class ClusterHost(WorkerHost, Protocol):
    """A port to the nodes of a cluster on which workers run."""

    async def nodes(self) -> list[ClusterNode]:
        """The nodes that the cluster knows, also those that are lost. Raises Unavailable."""

    async def logs(
        self, process: RunningWorker, name: str | None, places: Mapping[str, str], lines: int
    ) -> dict[str, tuple[Lines, str]]:
        """Return what a worker has written on its node, by the log's name, in the form of ``logs_after``.

        ``name`` is the log that is wanted; None means all logs of the worker. Raises Unavailable if the node cannot be
        asked now.
        """

    async def orphans(self) -> list[ProcessRecord]:
        """The records of workers that an earlier supervisor left. Each must be adopted or ended."""

    async def end(self, record: ProcessRecord) -> None:
        """End a worker of ``orphans``, and remove what it leaves."""

    def close(self) -> None:
        """Look at the cluster no more. Workers go on."""


def worker_argv(config: Mapping[str, Any], control: ControlAddress) -> list[str]:
    """The command line that starts a worker."""
    text = msgspec.json.encode({**config, "control": str(control)}).decode()
    return [sys.executable, "-m", "clipper.worker", "--config", text]


class LocalWorkerHost(WorkerHost):
    """Workers listen for us on unix sockets. Only a supervisor starts any on its machine, where all code is."""

    def __init__(self, processes: ProcessFolder, sockets: Path, logs: Path) -> None:
        self._processes = processes
        self._sockets = sockets
        self._logs = logs

    @property
    def is_away(self) -> bool:
        """Whether the home is away, such as one that was unmounted."""
        return not self._sockets.exists()

    async def start(self, start: WorkerStart) -> StartedWorker:
        control = UnixAddress(str(self._sockets / f"w{start.instance}.sock"))
        process = self._processes.launch(
            start.name,
            worker_argv(start.config, control),
            log_path=self._logs / f"{start.name}.log",
            cwd=self._sockets,
            environment=start.environment,
            extra={**start.note, "control": control.wire},
        )
        return StartedWorker(process, control)

    async def adopt(self, record: ProcessRecord) -> ManagedProcess | None:
        return self._processes.adopt(record)

    async def clean_up(self, name: str, process: RunningWorker | None, control: ControlAddress | None) -> None:
        self._processes.forget(name)
        if isinstance(control, UnixAddress):
            Path(control.path).unlink(missing_ok=True)
