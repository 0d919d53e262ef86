"""One container on a node of the cluster, as the server sees it."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

import msgspec

from clipper.control.snapshot import ReplicaAddress
from clipper.errors import Unavailable
from clipper.managers.launcher import ContainerNote
from clipper.managers.ray.actors import CALL_TIMEOUT_S
from clipper.managers.ray.connection import ActorGone, ActorUnreachable, Connection
from clipper.managers.ray.messages import Call, Kill, LogPart, Method, Noted

log = logging.getLogger(__name__)

# While an actor cannot be reached, pings show whether its container runs. Ray needs a moment to notice a death.
ASK_AGAIN_S = 0.25


class RayContainer:
    """A ``Container`` that an actor runs. ``node`` is its node's address with the beginning of its id in Ray."""

    def __init__(self, note: ContainerNote, noted: Noted, connection: Connection, log_path: Path, is_new: bool) -> None:
        """Watch it from now on. ``is_new``: the log file has nothing of it yet."""
        launched = noted.launched
        node = launched.address.removeprefix("tcp:").rpartition(":")[0]
        self.address = ReplicaAddress(note.id, launched.address, noted.token, launched.certificate, node)
        self.node: str | None = noted.node
        self.exited = asyncio.Event()
        self.warning: str | None = launched.warning
        self._actor = note.id
        self._pid = launched.pid
        self._connection = connection
        self._log_path = log_path
        self._log_offset: int | None = 0 if is_new else None
        self._saving = asyncio.Lock()
        self._how_it_ended = "is gone"
        # Ray could not reach its actor when it was to stop. Each further call would only fail after two seconds more.
        self._is_lost = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = self._keep(self._watch())

    @property
    def pid(self) -> int | None:
        return self._pid

    @property
    def how_it_ended(self) -> str:
        return self._how_it_ended

    async def has_exited_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):  # the event decides, not which of the two came first
            await asyncio.wait_for(self.exited.wait(), seconds)
        return self.exited.is_set()

    async def stop(self, grace_s: float) -> None:
        if self.exited.is_set():
            return
        try:
            self._has_ended(await self._call("stop", grace_s, within_s=grace_s + CALL_TIMEOUT_S))
        except ActorGone as error:
            self._has_ended(_lost(error))
        except Unavailable as error:
            self._is_lost = isinstance(error, ActorUnreachable)
            # The caller must not wait for the cluster to come back. The launcher kills the actor when it has.
            log.error(
                "container %(replica)s cannot be stopped now: %(error)s", {"replica": self._actor, "error": error}
            )
            self._has_ended("is gone")

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
                    {"replica": self._actor, "error": error},
                )

    def note_ready(self) -> None:
        self._keep(self._note_ready())

    async def remove(self) -> bool:
        """Remove what its node has of it, and end its actor; return whether that has ended."""
        self._watching.cancel()
        try:
            if not self._is_lost:
                await self._call("clean_up", within_s=CALL_TIMEOUT_S)
        except (ActorGone, Unavailable):
            log.info("container %(replica)s leaves its folder to the guard on its node", {"replica": self._actor})
        try:
            await self._connection.ask(lambda number: Kill(number, self._actor), CALL_TIMEOUT_S)
        except Unavailable as error:
            log.error(
                "actor %(replica)s cannot be killed now; the next start tries again: %(error)s",
                {"replica": self._actor, "error": str(error) or "no answer"},
            )
            return False
        return True

    async def _watch(self) -> None:
        while not self.exited.is_set():
            try:
                self._has_ended(await self._call("ended"))
            except ActorGone as error:
                self._has_ended(_lost(error))
            except Unavailable:
                await asyncio.sleep(ASK_AGAIN_S)

    def _has_ended(self, how: str) -> None:
        if not self.exited.is_set():
            self._how_it_ended = how
            self.exited.set()

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
                {"replica": self._actor, "error": error},
            )

    async def _call(self, method: Method, *arguments: Any, within_s: float | None = None) -> Any:
        return await self._connection.ask(lambda number: Call(number, self._actor, method, list(arguments)), within_s)

    def _keep(self, run: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _lost(error: ActorGone) -> str:
    return f"was lost with its node or its actor: {error}"
