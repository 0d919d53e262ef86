"""The server's view of what actors run on their nodes: containers and query workers."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from clipper.base.processes.process import ProcessRecord, is_set_within
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ClipperError, Unavailable
from clipper.supervisor.managers.launcher import ContainerNote
from clipper.supervisor.managers.ray.actors import CALL_TIMEOUT_S, Actors
from clipper.supervisor.managers.ray.connection import ActorGone
from clipper.supervisor.managers.ray.messages import LogPart, Method, Noted

log = logging.getLogger(__name__)

# While an actor cannot be reached, a connection to its process shows whether it runs. Ray needs a moment to notice a
# death.
ASK_AGAIN_S = 0.25
# The most parts of a log that are read at once, twice the bound on a log: a model may write faster than they are read.
MAX_PARTS = 16
# How long an actor may take to end its process, which it does at once. Once the actor is killed, its guard ends the
# process; until then nothing replaces a process on a lost node.
STOP_TIMEOUT_S = 3.0


class ActorProcess:
    """A process that an actor runs, until ``exited``.

    Attributes:
        pid: its id on its node.
        has_died: whether it has ended, and nobody here had ended it.
        is_lost: whether it has ended with its node or its actor.
    """

    def __init__(self, actors: Actors, actor: str, pid: int) -> None:
        self.exited = asyncio.Event()
        self.actor = actor
        self.how_it_ended = "is gone"
        self.has_died = self.is_lost = False
        self._actors = actors
        self.pid = pid
        # Whether its actor could not be reached to stop it. Each further call would wait for the whole timeout.
        self._is_unreachable = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = self._keep(self._watch())

    async def has_exited_within(self, seconds: float) -> bool:
        return await is_set_within(self.exited, seconds)

    async def stop(self, grace_s: float) -> None:
        if self.exited.is_set():
            return
        try:
            self._has_ended(str(await self._call("stop", grace_s, within_s=grace_s + STOP_TIMEOUT_S)))
        except ActorGone as error:
            self._has_ended(_lost(error))
        except Unavailable as error:
            self._is_unreachable = True
            # The caller must not wait until the cluster returns. The actor is killed then.
            log.error("%(replica)s cannot be stopped now: %(error)s", {"replica": self.actor, "error": error})
            self._has_ended("is gone")

    async def remove(self) -> bool:
        """Remove its files from the node, and end its actor; return whether the actor has ended."""
        self._watching.cancel()
        if not self._is_unreachable:
            with contextlib.suppress(Unavailable):  # the guard on its node does it then
                await self._call("clean_up", within_s=CALL_TIMEOUT_S)
        return await self._actors.kill(self.actor)

    async def end(self, name: str) -> None:
        """Remove the process once it has ended. ``name`` is its slot's."""
        if await self.remove() or not self.has_died:
            self._actors.drop(self.actor)
        else:
            self._actors.keep_unended(name, self.actor)

    async def _watch(self) -> None:
        while not self.exited.is_set():
            try:
                how = str(await self._call("ended"))
                self.has_died = not self.exited.is_set()
                self._has_ended(how)
            except ActorGone as error:
                self.is_lost = not self.exited.is_set()
                self._has_ended(_lost(error))
            except ClipperError:
                await asyncio.sleep(ASK_AGAIN_S)

    def _has_ended(self, how: str) -> None:
        if not self.exited.is_set():
            self.how_it_ended = how
            self.exited.set()

    async def _call(self, method: Method, *arguments: Any, within_s: float | None = None) -> Any:
        return await self._actors.call(self.actor, method, *arguments, within_s=within_s)

    def _keep(self, run: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _lost(error: ActorGone) -> str:
    return f"was lost with its node or its actor: {error}"


class RayContainer(ActorProcess):
    """A ``Container`` that an actor runs. ``node`` is its node's address with the beginning of its id in Ray."""

    def __init__(
        self, note: ContainerNote, noted: Noted, actors: Actors, actor: str, log_path: Path, is_new: bool
    ) -> None:
        """Watch a container from now on. ``is_new``: the log file has nothing of it yet."""
        launched = noted.launched
        super().__init__(actors, actor, launched.pid)
        node = launched.address.removeprefix("tcp:").rpartition(":")[0]
        self.address = ReplicaAddress(note.id, launched.address, noted.token, launched.certificate, node)
        self.node: str | None = noted.node
        self.warning: str | None = launched.warning
        self._log_path = log_path
        self._log_offset: int | None = 0 if is_new else None
        self._saving = asyncio.Lock()

    async def save_log(self) -> str | None:
        if self._is_unreachable:
            return "its actor could not be reached"
        async with self._saving:
            try:
                for _ in range(MAX_PARTS):
                    found = await self._call("read_log", self._log_offset, within_s=CALL_TIMEOUT_S)
                    if not (part := msgspec.convert(found, LogPart)).text:
                        break
                    await asyncio.to_thread(self._append, part.text.encode("latin-1"))
                    self._log_offset = part.next_offset
            except ActorGone:
                pass  # its log is gone with it
            except (Unavailable, OSError) as error:
                log.warning(
                    "the output of container %(replica)s cannot be saved: %(error)s",
                    {"replica": self.actor, "error": error},
                )
                return str(error)
        return None

    def note_ready(self) -> None:
        self._keep(self._note_ready())

    def _append(self, data: bytes) -> None:
        with self._log_path.open("ab") as file:
            file.write(data)

    async def _note_ready(self) -> None:
        try:
            await self._call("note_ready", within_s=CALL_TIMEOUT_S)
        except Unavailable as error:
            log.warning(
                "the note that container %(replica)s is ready cannot be written: %(error)s",
                {"replica": self.actor, "error": error},
            )


# A certificate is valid for 30 days. If it cannot be renewed, that is tried again after a while.
RENEW_EVERY_S = 24 * 3600.0
RENEW_AGAIN_S = 60.0


class RayWorker(ActorProcess):
    """A ``RunningWorker`` that an actor runs. ``node`` is Ray's id of its node."""

    def __init__(
        self,
        actors: Actors,
        actor: str,
        node: str,
        record: ProcessRecord,
        renew: Callable[[], Awaitable[None]] | None,
        renew_after_s: float,
    ) -> None:
        """Watch a worker. ``renew``, if any, gives it another certificate, first after ``renew_after_s``."""
        super().__init__(actors, actor, record.pid)
        self.node = node
        self._renewing = None if renew is None else self._keep(self._renew(renew, renew_after_s))

    def terminate(self) -> None:
        self._keep(self._terminate())

    def kill(self) -> None:
        self._keep(self.stop(grace_s=0.0))

    async def is_seen(self) -> bool:
        """Ask whether its actor answers, and says that it runs."""
        try:
            return bool(await self._call("is_up", within_s=CALL_TIMEOUT_S))
        except Unavailable:
            return False

    async def remove(self) -> bool:
        if self._renewing is not None:
            self._renewing.cancel()
        return await super().remove()

    async def _renew(self, renew: Callable[[], Awaitable[None]], after_s: float) -> None:
        while True:
            await asyncio.sleep(after_s)
            try:
                await renew()
                after_s = RENEW_EVERY_S
            except ActorGone:
                return
            except ClipperError as error:
                log.warning(
                    "the certificate of %(worker)s cannot be renewed: %(error)s", {"worker": self.actor, "error": error}
                )
                after_s = RENEW_AGAIN_S

    async def _terminate(self) -> None:
        with contextlib.suppress(Unavailable):
            await self._call("terminate", within_s=CALL_TIMEOUT_S)
