"""The actor of a query worker: it starts the worker, a process of its own, on its node, and watches it.

If the worker dies and no supervisor acts, the actor starts it again (``Reviver``) at the same address, and it serves by
its last snapshot (``worker.snapshot_file``).
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import ray

from clipper.base.build import build_id
from clipper.base.processes.process import ManagedProcess
from clipper.base.tls.material import TlsMaterial
from clipper.control.address import TcpAddress
from clipper.control.authority import make_request
from clipper.control.identity import write_identity
from clipper.errors import ClipperError
from clipper.supervisor.managers.logs import LogKeeper, logs_after, tail
from clipper.supervisor.managers.ray.actor_tasks import Reviver, WatchedTasks
from clipper.supervisor.managers.ray.front import bind_in_range
from clipper.supervisor.managers.ray.messages import NotLaunched, WorkerLaunch, WorkerLaunched
from clipper.supervisor.managers.ray.node_actor import NodeActor
from clipper.supervisor.managers.worker_host import worker_argv

log = logging.getLogger(__name__)


class WorkerActor(NodeActor[ManagedProcess]):
    """The actor of a query worker."""

    def __init__(self) -> None:
        super().__init__(build_id())
        (self._folder / "run" / "scratch").mkdir()
        # Files of the node's workers of this home that outlast them.
        self._kept: Path = self._cache / "workers" / ray.get_runtime_context().namespace
        self._log_path = Path()
        self._identity = self._folder / "run" / "identity.pem"
        self._key = b""
        self._launched: WorkerLaunched | None = None
        self._restarts = 0
        self._killed_because = ""

    async def noted(self) -> Any:
        """Return the note for a later supervisor; None before the worker is started."""
        return msgspec.to_builtins(self._launched)

    async def request_identity(self) -> str:
        """Make a key, which stays here, and return the request to sign a certificate for it, in PEM."""
        self._key, request = make_request()
        return request.decode()

    async def take_identity(self, certificate: str, authority: str) -> None:
        """Have the worker show this certificate from now on, which was signed for the last request."""
        write_identity(self._identity, TlsMaterial(certificate.encode(), self._key, authority.encode()))

    async def launch(self, text: str, ports: tuple[int, int]) -> Any:
        """Start the worker, which has an identity; return ``WorkerLaunched`` or ``NotLaunched``.

        ``text`` is a ``WorkerLaunch`` as JSON. Its control channel listens on a port of the range ``ports``.
        """
        launch = msgspec.json.decode(text, type=WorkerLaunch)
        try:
            # The port is free now. If another process takes it first, the worker ends, and the next start chooses
            # another port.
            with bind_in_range(self._description.host, ports) as bound:
                control = TcpAddress(self._description.host, bound.getsockname()[1])
            self._start(launch, control)
        except (ClipperError, OSError) as error:
            return msgspec.to_builtins(NotLaunched(str(error)))

        async def start_again() -> None:
            self._restarts += 1
            self._start(launch, control)
            log.warning(
                "started %(worker)s again, pid %(pid)d, since no supervisor did",
                {"worker": launch.name, "pid": self._running.pid},
            )

        self._reviver = Reviver(self._has_died, start_again)
        return msgspec.to_builtins(self._launched)

    async def read_logs(self, name: str | None, places: dict[str, str], lines: int) -> Any:
        """Return the worker's logs by name, in the form of ``logs_after``. ``name``: only this log."""
        if self._launched is None:
            return {}
        folder = self._log_path.parent
        paths = {path.stem: path for path in folder.glob("*.log") if name in (None, path.stem)}
        return await asyncio.to_thread(logs_after, paths, places, lines)

    async def terminate(self) -> None:
        self._let_end()
        if self._process is not None:
            self._process.terminate()

    def _start(self, launch: WorkerLaunch, control: TcpAddress) -> None:
        """Start the worker. Raises ClipperError or OSError if it cannot be started."""
        # A folder for each worker, since each actor bounds its own worker's logs.
        logs = self._kept / "logs" / launch.name
        self._log_path = logs / f"{launch.name}.log"
        for folder in (self._kept, logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        of_node = {
            "host": control.host,
            "node": control.host,
            "identity": str(self._identity),
            "run": str(self._folder / "run"),
            "logs": str(logs),
            "decisions": str(self._kept / "decisions"),
            "artifacts": str(self._artifacts.folder),
            "kept": str(self._folder / "run" / "kept.snapshot"),
            "restart": self._restarts,
        }
        self._killed_because = ""
        process = self._process = self._processes.launch(
            launch.name,
            worker_argv(launch.config | of_node, control),
            log_path=self._log_path,
            cwd=self._folder / "run",
            environment=launch.environment,
            extra=launch.note | {"control": control.wire},
        )
        self._launched = WorkerLaunched(self._description.node, process.record)
        if self._watched is None:
            self._watched = WatchedTasks(self._kill)
            self._watched.start("bounding its log", LogKeeper(logs).run)

    async def _has_died(self) -> None:
        process = self._running
        await super()._has_died()
        if process.exit_code == 0:  # it has drained because it was told to
            self._let_end()

    def _kill(self, reason: str) -> None:
        self._let_end()
        self._killed_because = reason
        if self._process is not None:
            self._process.kill()

    def _how_it_ended(self, process: ManagedProcess) -> str:
        """Return how the worker ended, as the rest of a sentence, with the last line of its log, which stays here."""
        if self._killed_because:
            return self._killed_because
        last = tail(self._log_path, 1)
        return process.how_it_ended + (f", and its last line is {last[0][:500]!r}" if last else "")
