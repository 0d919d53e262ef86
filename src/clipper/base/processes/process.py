"""A process of Clipper: watched to its end, and ended with all that it forked."""

import asyncio
import contextlib
import logging
import os
import signal
from typing import Any, Protocol

from msgspec import Struct

from clipper.base.processes.marks import Endings, kill_marked, send
from clipper.base.processes.proc import start_time

log = logging.getLogger(__name__)

# After SIGKILL only the kernel can hold a process up, for instance while it frees many GB of memory.
KILL_TIMEOUT_S = 10.0


class ProcessRecord(Struct, frozen=True):
    """The content of ``run/<name>.json``.

    ``start_time`` counts clock ticks from boot to the process's start; with the pid it names one process for ever.
    ``extra`` holds the facts with which the starter takes the process over later.
    """

    name: str
    pid: int
    start_time: int
    argv: tuple[str, ...]
    extra: dict[str, Any]


class Child(Protocol):
    """A process's link to its parent, which knows the exit code: this process, or another process of ours."""

    @property
    def is_held(self) -> bool:
        """Whether the process keeps its process id until it is reaped."""

    async def reap(self) -> int | None:
        """Reap the exited process; return its exit code, negative for a signal, or None if it cannot be known."""


class ManagedProcess:
    """A running process: a child, or a process that an earlier supervisor left.

    Attributes:
        exited: set once the process has exited, has been reaped if it was a child, and nothing that it forked is left.
        exit_code: negative for a signal; None while the process runs, and if we cannot ask its parent for it.
        mark: the mark that the process and all that it forked have in their environment.
    """

    def __init__(self, record: ProcessRecord, child: Child | None, mark: str, endings: Endings) -> None:
        """Watch the process of a record. ``endings`` ends what it leaves behind.

        Raises ProcessLookupError if the process is gone, OSError if there is no descriptor left to watch it with.
        """
        self.record = record
        self.exited = asyncio.Event()
        self.exit_code: int | None = None
        self.mark = mark
        self._child = child
        self._endings = endings
        self._ending: asyncio.Task[None] | None = None
        self._pidfd = os.pidfd_open(record.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    @property
    def pid(self) -> int:
        return self.record.pid

    @property
    def is_ending(self) -> bool:
        """Whether the process has exited while processes that it forked are still being ended."""
        return self._ending is not None

    @property
    def how_it_ended(self) -> str:
        """The way that the process ended, as the rest of a sentence about it."""
        if self.exit_code is None:
            return "exited"
        if self.exit_code == -signal.SIGKILL:
            return "was killed by SIGKILL, by someone or by the kernel because memory ran out"
        if self.exit_code < 0:
            known = -self.exit_code in set(signal.Signals)  # real-time signals have no name
            return f"was killed by {signal.Signals(-self.exit_code).name if known else f'signal {-self.exit_code}'}"
        return f"exited with code {self.exit_code}"

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the process and to all that it forked."""
        try:
            # While it lives, no other process group can have its number.
            if start_time(self.pid) == self.record.start_time:
                kill_group(self.pid)
            elif self.exited.is_set():
                kill_marked(self.mark.__eq__)
        except OSError as error:  # no descriptor left to look with; its children are ended once it has exited
            log.warning(
                "the process group of %(process)s is not killed yet: %(error)s",
                {"process": self.record.name, "error": error},
            )
        self._signal(signal.SIGKILL)

    async def stop(self, grace_s: float) -> None:
        """Send SIGTERM, wait for ``grace_s``, then send SIGKILL to all that is left. Return when it is gone."""
        if grace_s > 0:
            self.terminate()
        if not await self.has_exited_within(grace_s):
            self.kill()
            if not await self.has_exited_within(KILL_TIMEOUT_S):
                log.error(
                    "%(process)s (pid %(pid)d) still runs %(wait_s)g s after SIGKILL",
                    {"process": self.record.name, "pid": self.pid, "wait_s": KILL_TIMEOUT_S},
                )

    def release(self) -> None:
        """Stop watching it, and leave it running."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    async def has_exited_within(self, seconds: float) -> bool:
        """Wait for its exit, for a bounded time; return whether it has exited."""
        return await is_set_within(self.exited, seconds)

    def _signal(self, number: signal.Signals) -> None:
        # Through the pidfd, a signal cannot hit another process that has got the pid since.
        if self._pidfd >= 0:
            send(self._pidfd, number)

    def _on_exit(self) -> None:
        self.release()
        if self._child is not None and self._child.is_held:
            # Until it is reaped, no other process has its pid and no other process group its number.
            kill_group(self.pid)
        elif self._child is None:
            # A supervisor that starts again in its own process keeps its children, and they have to be reaped.
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.exit_code = os.waitstatus_to_exitcode(status) if pid else None
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        if self._child is not None:
            self.exit_code = await self._child.reap()
        await self._endings.end(self.mark)
        self.exited.set()


def kill_group(pid: int) -> None:
    """Send SIGKILL to the process group that this process leads."""
    # Suppressed: nothing is left in it, or only the leader, which waits to be reaped.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, for a bounded time; return whether it is set."""
    # Not wait_for: Python 3.11's loses a cancellation that arrives together with the event.
    with contextlib.suppress(TimeoutError):  # the event decides, not which of the two came first
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
