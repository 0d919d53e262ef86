"""A container in Docker, and its log."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ClipperError, NotFound
from clipper.supervisor.managers.docker.engine import Engine, State
from clipper.supervisor.managers.docker.options import line_time, lines_after, nanoseconds
from clipper.supervisor.managers.launcher import Container

log = logging.getLogger(__name__)

# Like a shell, Docker reports a process that a signal ended by this exit code plus the signal's number.
_SIGNAL_BASE = 128
_BEFORE_ALL = line_time(0)


class DockerLog:
    """Copies a container's output to its log file, when asked to."""

    def __init__(self, id_: str, engine: Engine, path: Path, is_new: bool) -> None:
        """Make a log. ``is_new``: the file has no lines of this container yet, though maybe of the one before."""
        self._id = id_
        self._engine = engine
        self._path = path
        # The time of the last line in the file, in Docker's form.
        self._saved_until = _BEFORE_ALL
        if not is_new:
            with suppress(FileNotFoundError):
                self._saved_until = line_time(path.stat().st_mtime_ns)
        self._saving = asyncio.Lock()

    async def save(self) -> None:
        async with self._saving:
            try:
                # A float is not exact, so request a little more: lines that are already in the file are left out by
                # their times.
                since_s = nanoseconds(self._saved_until) / 1e9 - 0.001
                output = await self._engine.output(self._id, since_s)
                lines, self._saved_until = lines_after(output, self._saved_until)
                await asyncio.to_thread(self._append, lines)
            except (ClipperError, OSError) as error:
                log.warning(
                    "the output of container %(container)s cannot be saved: %(error)s",
                    {"container": self._id, "error": error},
                )

    def _append(self, lines: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(lines)
        # A later supervisor resumes from here.
        time_ns = nanoseconds(self._saved_until)
        os.utime(self._path, ns=(time_ns, time_ns))


class DockerContainer(Container):
    """A container that dockerd runs under this id."""

    def __init__(
        self,
        id_: str,
        state: State,
        address: ReplicaAddress,
        engine: Engine,
        output: DockerLog,
        note_ready: Callable[[], None],
        folder: Path | None = None,
    ) -> None:
        """Watch a container. ``note_ready`` notes it for a later supervisor. ``folder``: it may write there."""
        self.id = id_
        self.address = address
        self.exited = asyncio.Event()
        self.folder = folder
        self._killed_because: str | None = None
        self._pid = state.pid
        self._engine = engine
        self._output = output
        self._note_ready = note_ready
        self._end: State | None = None
        if not state.is_running:
            self.has_ended(state)

    @property
    def pid(self) -> int | None:
        return self._pid or None

    @property
    def how_it_ended(self) -> str:
        if self._killed_because is not None:
            return f"was killed because it {self._killed_because}"
        if self._end is None:
            return "is gone"
        if self._end.ran_out_of_memory:
            return "ran out of its memory limit and was killed"
        code = self._end.exit_code
        if code - _SIGNAL_BASE in set(signal.Signals):
            return f"was killed by {signal.Signals(code - _SIGNAL_BASE).name}"
        return f"exited with code {code}"

    def has_ended(self, state: State | None) -> None:
        """Note that the container has ended. ``state`` is None if dockerd no longer has it, or if we give it up."""
        self._end = state
        self.exited.set()

    async def kill(self, reason: str) -> None:
        """End the container. ``reason`` is the rest of a sentence about it."""
        self._killed_because = reason
        await self.stop(grace_s=0)

    async def stop(self, grace_s: float) -> None:
        if self.exited.is_set():
            return
        try:
            await self._engine.stop(self.id, grace_s)
            self.has_ended(await self._engine.state(self.id))
        except NotFound:
            self.has_ended(None)
        except ClipperError as error:
            # The caller must not wait until dockerd returns. The launcher then removes the container.
            log.error(
                "container %(container)s cannot be stopped now: %(error)s", {"container": self.id, "error": error}
            )
            self.has_ended(None)

    async def look(self) -> None:
        """Ask whether the container has exited. A paused container has not."""
        try:
            state = await self._engine.state(self.id)
        except NotFound:
            self.has_ended(None)
        else:
            if not state.is_running:
                self.has_ended(state)

    async def save_log(self) -> None:
        await self._output.save()

    def note_ready(self) -> None:
        try:
            self._note_ready()
        except OSError as error:
            log.warning(
                "the note that container %(container)s is ready cannot be written: %(error)s",
                {"container": self.id, "error": error},
            )
