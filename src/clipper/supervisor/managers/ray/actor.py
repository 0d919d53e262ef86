"""The actor of a replica: it runs on a node of the cluster, and starts and watches the container there.

The container is a process of its own, started as the manager ``local`` starts it, so nothing of the model can hurt
Ray's worker. If it dies and no supervisor acts, the actor starts it again (``Reviver``), behind the same front.
"""

import logging
import os
from typing import Any

import msgspec
import ray
from msgspec.structs import replace

from clipper.base.build import build_id
from clipper.base.processes.gpus import Gpu
from clipper.errors import ClipperError, ContainerFailed
from clipper.supervisor.managers.environments.provider import EnvironmentProvider
from clipper.supervisor.managers.launcher import RUNTIME_PARTS, ContainerNote, Facilities
from clipper.supervisor.managers.local.launcher import LocalContainer, LocalLauncher
from clipper.supervisor.managers.logs import LogKeeper, size_bytes
from clipper.supervisor.managers.ray.actor_tasks import Reviver, WatchedTasks
from clipper.supervisor.managers.ray.front import TlsFront, bind_in_range, make_identity
from clipper.supervisor.managers.ray.messages import Launched, LogPart, Noted, NotLaunched
from clipper.supervisor.managers.ray.node_actor import NodeActor
from clipper.supervisor.managers.shares import Shares

log = logging.getLogger(__name__)

# The largest part of a log that one call returns. The next call returns the next part.
LOG_PART_BYTES = 1024 * 1024


class ReplicaActor(NodeActor[LocalContainer]):
    """The actor of a container, which it starts and watches."""

    def __init__(self) -> None:
        super().__init__(build_id(RUNTIME_PARTS))
        (self._folder / "scratch").mkdir()
        self._log_path = self._folder / "container.log"
        self._read_until = 0
        self._progress = ""
        self._variables: dict[str, str] = {}
        self._noted: Noted | None = None
        self._launcher: LocalLauncher | None = None
        # The note of the container in the form in which it is started here.
        self._here: ContainerNote | None = None
        self._facilities = Facilities(
            home=self._folder,
            artifacts=self._artifacts.folder,
            scratch=self._folder / "scratch",
            sockets=self._folder / "run",
            environments=self._environments,
            processes=self._processes,
            logs=self._folder,
            environ=os.environ,
        )

    async def noted(self) -> Any:
        """Return the note for a later supervisor; None before the container is started."""
        return msgspec.to_builtins(self._noted)

    async def launch(self, note_text: str, token: str, ports: tuple[int, int], variables: dict[str, str]) -> Any:
        """Start the container; return ``Launched`` or ``NotLaunched``. Its front listens on a port of the range.

        The version's own variables stay in this process's memory, for a restart.
        """
        self._variables = variables
        note = msgspec.json.decode(note_text, type=ContainerNote)
        try:
            launched = await self._launch(note, token, ports)
        except ContainerFailed as error:
            return msgspec.to_builtins(NotLaunched(str(error), tuple(error.log_tail)))
        except (ClipperError, OSError) as error:
            return msgspec.to_builtins(NotLaunched(str(error)))
        self._noted = Noted(note_text, self._description.name, token, launched)
        self._reviver = Reviver(self._has_died, self._start_again)
        return msgspec.to_builtins(launched)

    async def progress(self) -> str:
        return self._progress

    async def read_log(self, offset: int | None) -> Any:
        """Return the container's output since ``offset``; None means since the last read."""
        since = self._read_until if offset is None else offset
        if size_bytes(self._log_path) < since:
            since = 0  # it was full, and was cut
        with self._log_path.open("rb") as file:
            file.seek(since)
            data = file.read(LOG_PART_BYTES)
        self._read_until = since + len(data)
        return msgspec.to_builtins(LogPart(data.decode("latin-1"), self._read_until))

    async def note_ready(self) -> None:
        if self._noted is not None:
            note = msgspec.json.decode(self._noted.note, type=ContainerNote)
            self._noted = replace(self._noted, note=msgspec.json.encode(replace(note, ready=True)).decode())

    async def _launch(self, note: ContainerNote, token: str, ports: tuple[int, int]) -> Launched:
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        launcher = self._launcher = LocalLauncher(
            self._facilities,
            EnvironmentProvider(self._processes, self._facilities.artifacts, self._facilities.environments),
            # Ray has chosen the GPUs, and counts processors without binding processes to them.
            Shares(cores=(), gpus=[Gpu(id_) for id_ in gpus]),
            token,
        )
        path = self._folder / "run" / "s"
        host = self._description.host
        listener = bind_in_range(host, ports)
        self._here = replace(
            note, listen=f"unix:{path}", spec=replace(note.spec, gpus=str(len(gpus)) if gpus else None)
        )
        try:
            container = self._process = await launcher.launch(
                self._here, self._log_path, self._on_progress, self._variables
            )
        except BaseException:
            listener.close()
            raise
        certificate, context = make_identity()
        watched = self._watched = WatchedTasks(self._kill)
        watched.start("its TLS front", TlsFront(listener, context, path).run)
        watched.start("bounding its log", LogKeeper(self._folder).run)
        for what, run in launcher.keepers().items():
            watched.start(what, run)
        address = f"tcp:{host}:{listener.getsockname()[1]}"
        return Launched(address, certificate, container.pid, container.warning)

    def _on_progress(self, text: str) -> None:
        self._progress = text

    async def _start_again(self) -> None:
        assert self._launcher is not None and self._here is not None and self._noted is not None
        await self._launcher.clean_up(self._here)
        container = self._process = await self._launcher.launch(
            self._here, self._log_path, self._on_progress, self._variables
        )
        # No supervisor has seen the new container ready.
        note = msgspec.json.decode(self._noted.note, type=ContainerNote)
        launched = replace(self._noted.launched, pid=container.pid)
        self._noted = replace(
            self._noted, note=msgspec.json.encode(replace(note, ready=False)).decode(), launched=launched
        )
        log.warning("started %(replica)s again, since no supervisor did", note.log_fields)

    def _kill(self, reason: str) -> None:
        """Kill the container, which cannot go on without the tasks beside it."""
        self._let_end()
        self._running.kill(reason)
