"""One container as a process of this machine."""

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from clipper.base.processes.excess import Bounds
from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.process import KILL_TIMEOUT_S, ManagedProcess
from clipper.control.snapshot import ReplicaAddress
from clipper.supervisor.managers.launcher import ContainerNote

log = logging.getLogger(__name__)


class LocalContainer:
    """A process that is a ``Container``, and ``usage.Bounded`` too. Its output goes straight to its log."""

    def __init__(
        self,
        note: ContainerNote,
        process: ManagedProcess,
        processes: ProcessFolder,
        folder: Path,
        warning: str | None = None,
        socket_folder: Path | None = None,
    ) -> None:
        """
        Args:
            folder: the folder that it works in.
            socket_folder: the folder of its socket alone, if there is one. It is closed once the container is ready.
        """
        self.name = note.name
        self.address = ReplicaAddress(note.id, note.listen)
        self.exited: asyncio.Event = process.exited
        self.mark = process.mark
        self.folder = folder
        self.bounds = Bounds(note.spec.memory_bytes)
        self.warning = warning
        self.node: str | None = None
        self._note = note
        self._process = process
        self._processes = processes
        self._socket_folder = socket_folder
        self._killed_because: str | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def how_it_ended(self) -> str:
        if self._killed_because is not None:
            return f"was killed because it {self._killed_because}"
        return self._process.how_it_ended

    def kill(self, reason: str) -> None:
        self._killed_because = self._killed_because or reason
        self._process.kill()

    async def has_exited_within(self, seconds: float) -> bool:
        if await self._process.has_exited_within(seconds):
            return True
        # Its connection breaks before its exit is known, and it takes a while until nothing of it runs: on a busy
        # machine, or where a model has forked without end.
        is_ending = self._killed_because is not None or self._process.is_ending
        return is_ending and await self._process.has_exited_within(KILL_TIMEOUT_S)

    async def stop(self, grace_s: float) -> None:
        await self._process.stop(grace_s)

    async def save_log(self) -> None:
        """Its log file is up to date already."""

    def note_ready(self) -> None:
        extra = msgspec.to_builtins(msgspec.structs.replace(self._note, ready=True))
        try:
            if self._socket_folder is not None:
                # Its socket exists now, and only root dials it. So from now on nobody else may enter the folder.
                os.chown(self._socket_folder, 0, 0)
            self._processes.update(msgspec.structs.replace(self._process.record, extra=extra))
        except OSError as error:
            log.warning(
                "the note that %(replica)s is ready cannot be written: %(error)s",
                {**self._note.log_fields, "error": error},
            )
