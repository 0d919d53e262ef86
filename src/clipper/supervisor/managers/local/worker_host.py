"""Query workers as processes of this machine."""

from collections.abc import Iterable
from pathlib import Path

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.process import ManagedProcess, ProcessRecord
from clipper.control.address import ControlAddress, UnixAddress
from clipper.supervisor.managers.worker_host import RunningWorker, StartedWorker, WorkerStart, worker_argv


class LocalWorkerHost:
    """A ``WorkerHost`` whose workers listen for us on unix sockets."""

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

    async def regain(self, name: str, node: str) -> None:
        """Only a supervisor starts workers on its machine."""

    async def sees(self, process: RunningWorker) -> bool:
        return True

    async def provide(self, process: RunningWorker, folders: Iterable[str]) -> None:
        """All code is on this machine."""

    async def clean_up(self, name: str, process: RunningWorker | None, control: ControlAddress | None) -> None:
        self._processes.forget(name)
        if isinstance(control, UnixAddress):
            Path(control.path).unlink(missing_ok=True)
