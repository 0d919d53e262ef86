"""The mark that a process of Clipper and all that it forks carry in their environment.

The mark names their run folder, and the first process's name there. A process can leave its parent, its session and its
process group, but it keeps its environment. So the mark finds processes that nothing else would find.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from clipper.base.processes.proc import pids, variable

log = logging.getLogger(__name__)

MARK = "CLIPPER_PROCESS"

# A process that forks while it is being killed can outrun one look through /proc, but hardly this many.
KILL_ROUNDS = 20

# While a process execs another program, it shows no mark. So only this many looks in a row that find no mark mean that
# no process is left. Even on a busy machine an exec is shorter than all of them.
CLEAN_LOOKS = 3
CLEAN_LOOK_S = 0.05

# How long to wait for a descriptor to look through /proc with, when this process has none left.
LOOK_AGAIN_S = 0.5
# A message lists at most this many containers whose processes cannot be searched for now.
MAX_NAMED = 3


def mark_of(pid: int) -> str:
    """Return the mark of a live process; empty without one. Raises OSError without a descriptor to look with."""
    return variable(pid, MARK) or ""


def kill_marked(is_meant: Callable[[str], bool]) -> set[str]:
    """Send SIGKILL once to every process whose mark is meant; return the marks. Raises OSError as ``mark_of``."""
    killed: set[int] = set()
    marks: set[str] = set()
    for _ in range(KILL_ROUNDS):
        meant = {pid: mark for pid in pids() if pid not in killed and is_meant(mark := mark_of(pid))}
        if not meant:
            return marks
        for pid in meant:
            _kill_if(is_meant, pid)
        killed.update(meant)
        marks.update(meant.values())
    log.error(
        "processes that should end fork faster than they can be killed: %(count)d were killed, pid %(pid)d among them",
        {"count": len(killed), "pid": max(killed)},
    )
    return marks


class Endings:
    """Ends all processes that are left of a mark.

    Each look through ``/proc`` serves all marks that are being ended: a server that stops a thousand containers would
    otherwise look at each process of the machine thousands of times.
    """

    def __init__(self) -> None:
        self._ending: dict[str, _Ending] = {}
        self._looking: asyncio.Task[None] | None = None

    async def end(self, mark: str) -> None:
        """Send SIGKILL to every process with this mark, until several looks in a row have found none."""
        ending = self._ending.setdefault(mark, _Ending())
        ending.looks = ending.clean_looks = 0
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_until_all_have_ended())
        await ending.ended.wait()

    async def _look_until_all_have_ended(self) -> None:
        try:
            while self._ending:
                await asyncio.sleep(LOOK_AGAIN_S if self._look() is None else CLEAN_LOOK_S)
        finally:
            for ending in self._ending.values():
                ending.ended.set()
            self._ending.clear()

    def _look(self) -> set[str] | None:
        """Return the marks that were found; None if this look failed and does not count."""
        try:
            found = kill_marked(self._ending.__contains__)
        except OSError as error:
            log.warning(
                "processes marked %(process)s cannot be looked for now; trying again: %(error)s",
                {"process": ", ".join(list(self._ending)[:MAX_NAMED]), "error": error},
            )
            for ending in self._ending.values():
                ending.looks = ending.clean_looks = 0
            return None
        for mark, ending in list(self._ending.items()):
            ending.looks += 1
            ending.clean_looks = 0 if mark in found else ending.clean_looks + 1
            if ending.clean_looks >= CLEAN_LOOKS or ending.looks >= KILL_ROUNDS:
                del self._ending[mark]
                ending.ended.set()
        return found


class _Ending:
    """The progress in ending the processes of a mark."""

    def __init__(self) -> None:
        self.looks = 0
        self.clean_looks = 0
        self.ended = asyncio.Event()


def send(pidfd: int, number: signal.Signals) -> None:
    """Signal the process of a pidfd. A process that has exited counts as signalled."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _kill_if(is_meant: Callable[[str], bool], pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Look again: the pid may have passed to another process before the pidfd was opened.
        if is_meant(mark_of(pid)):
            send(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
