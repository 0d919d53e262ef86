"""The port by which query workers are started, found again and cleaned up after, on any machine."""

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
from clipper.supervisor.managers.launcher import Running
from clipper.supervisor.managers.logs import Lines

# Signs a worker's request for a certificate, in PEM. It takes the worker's instance, which the certificate names, and
# returns the certificate and the authority's.
Sign = Callable[[bytes, int], tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """The command, settings and sockets of a worker's start.

    Attributes:
        name: the name of its process and of its log; the same over restarts.
        instance: the number of this start.
        config: its ``WorkerConfig``, without the address of its control channel, which the host decides.
        environment: further variables, which may hold secrets.
        note: the note for the next supervisor, to which the host adds ``control``.
    """

    name: str
    instance: int
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    note: Mapping[str, Any]
    node: str = ""


class RunningWorker(Running, Protocol):
    @property
    def pid(self) -> int: ...

    def terminate(self) -> None:
        """Ask the worker to drain and end."""

    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StartedWorker:
    """A started worker. ``control`` is the address on which its control channel will listen."""

    process: RunningWorker
    control: ControlAddress


class WorkerHost(Protocol):
    """A port to the machine on which workers run."""

    @property
    def is_away(self) -> bool:
        """Whether no worker could be asked or started, because the way to them is gone."""
        return False

    async def start(self, start: WorkerStart) -> StartedWorker:
        """Start a worker. Raises ClipperError or OSError if it cannot be started."""

    async def adopt(self, record: ProcessRecord) -> RunningWorker | None:
        """Take over a worker that an earlier supervisor started; None if it is gone."""

    async def regain(self, name: str, node: str) -> ProcessRecord | None:
        """Return the worker of this name that the host has restarted by itself on a node; it must be adopted.

        Raises Unavailable if it has not yet, and no other can be started meanwhile.
        """
        return None

    async def sees(self, process: RunningWorker) -> bool:
        """Whether the host knows that a process runs: if so, a silent worker hangs; if not, it may be cut off."""
        return True

    async def provide(self, process: RunningWorker, folders: Iterable[str]) -> None:
        """Let a worker have the code that its next snapshot names.

        ``folders`` are those of the modules of users' own policies, in the form of the snapshot. Raises ClipperError or
        OSError if they cannot be had now.
        """
        del process, folders

    async def clean_up(self, name: str, process: RunningWorker | None, control: ControlAddress | None) -> None:
        """Remove the files of a worker that has exited. ``process`` and ``control`` are those of its last start."""


class ClusterNode(Struct, frozen=True):
    """A node of a cluster. Several nodes may have the same ``address``.

    Attributes:
        is_up: whether the cluster has not lost it.
        is_own: whether it is this machine's.
        is_draining: whether the cluster empties it, and ends it after a while or once nothing runs there.
    """

    address: str
    is_up: bool
    is_own: bool
    is_draining: bool = False


class ClusterHost(WorkerHost, Protocol):
    """A port to the nodes of a cluster on which workers run."""

    async def nodes(self) -> list[ClusterNode]:
        """Return the nodes that the cluster knows, also lost nodes. Raises Unavailable."""

    async def logs(
        self, process: RunningWorker, name: str | None, places: Mapping[str, str], lines: int
    ) -> dict[str, tuple[Lines, str]]:
        """Return what a worker has written on its node, by the log's name, in the form of ``logs_after``.

        ``name`` is the log that is wanted; None means all logs of the worker. Raises Unavailable if the node cannot be
        asked now.
        """

    async def orphans(self) -> list[ProcessRecord]:
        """Return the records of workers that an earlier supervisor left. Each must be adopted or ended."""

    async def end(self, record: ProcessRecord) -> None:
        """End a worker of ``orphans``, and remove what it leaves."""

    def close(self) -> None:
        """Leave the cluster. Workers go on."""


def worker_argv(config: Mapping[str, Any], control: ControlAddress) -> list[str]:
    """Return the command line that starts a worker."""
    text = msgspec.json.encode({**config, "control": str(control)}).decode()
    return [sys.executable, "-m", "clipper.worker", "--config", text]


class LocalWorkerHost(WorkerHost):
    """The host of workers on this machine, where all code is. They listen for us on unix sockets."""

    def __init__(self, processes: ProcessFolder, sockets: Path, logs: Path) -> None:
        self._processes = processes
        self._sockets = sockets
        self._logs = logs

    @property
    def is_away(self) -> bool:
        """Whether the home is gone, for example unmounted."""
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
