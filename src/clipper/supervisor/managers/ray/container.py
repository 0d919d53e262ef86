"""One container on a node of the cluster, as the server sees it."""

import asyncio
import logging
from pathlib import Path

import msgspec

from clipper.control.snapshot import ReplicaAddress
from clipper.errors import Unavailable
from clipper.supervisor.managers.launcher import ContainerNote
from clipper.supervisor.managers.ray.actor_process import ActorProcess
from clipper.supervisor.managers.ray.actors import CALL_TIMEOUT_S, Actors
from clipper.supervisor.managers.ray.connection import ActorGone
from clipper.supervisor.managers.ray.messages import LogPart, Noted

log = logging.getLogger(__name__)


class RayContainer(ActorProcess):
    """A ``Container`` that an actor runs. ``node`` is its node's address with the beginning of its id in Ray."""

    def __init__(
        self, note: ContainerNote, noted: Noted, actors: Actors, actor: str, log_path: Path, is_new: bool
    ) -> None:
        """Watch it from now on. ``is_new``: the log file has nothing of it yet."""
        launched = noted.launched
        super().__init__(actors, actor, launched.pid)
        node = launched.address.removeprefix("tcp:").rpartition(":")[0]
        self.address = ReplicaAddress(note.id, launched.address, noted.token, launched.certificate, node)
        self.node: str | None = noted.node
        self.warning: str | None = launched.warning
        self._log_path = log_path
        self._log_offset: int | None = 0 if is_new else None
        self._saving = asyncio.Lock()

    async def save_log(self) -> None:
        if self._is_lost:
            return
        async with self._saving:
            try:
                while (part := await self._next_log_part()).text:
                    await asyncio.to_thread(self._append, part.text.encode("latin-1"))
                    self._log_offset = part.next_offset
            except ActorGone:
                return  # its log is gone with it
            except (Unavailable, OSError) as error:
                log.warning(
                    "the output of container %(replica)s cannot be saved: %(error)s",
                    {"replica": self.actor, "error": error},
                )

    def note_ready(self) -> None:
        self._keep(self._note_ready())

    async def _next_log_part(self) -> LogPart:
        return msgspec.convert(await self._call("read_log", self._log_offset, within_s=CALL_TIMEOUT_S), LogPart)

    def _append(self, data: bytes) -> None:
        with self._log_path.open("ab") as file:
            file.write(data)

    async def _note_ready(self) -> None:
        try:
            await self._call("note_ready", within_s=CALL_TIMEOUT_S)
        except (ActorGone, Unavailable) as error:
            log.warning(
                "the note that container %(replica)s is ready cannot be written: %(error)s",
                {"replica": self.actor, "error": error},
            )
