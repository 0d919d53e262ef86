"""The mark that a process of ours and all that it forks carry in their environment.

It says which run folder they belong to, and the name of the first of them there. A process can leave its parent,
its session and its process group; it keeps its environment. So the mark finds what nothing else would.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable

from clipper.processes.proc import pids, variable

log = logging.getLogger(__name__)

MARK = "CLIPPER_PROCESS"

# A process that forks while it is being killed can outrun one look through /proc, but hardly this many.
KILL_ROUNDS = 20

# A process that is becoming another program at the moment of a look shows no mark. So only this many looks in a row
# that find nothing mean that nothing is left. Even on a busy machine the moment is shorter than all of them.
CLEAN_LOOKS = 3
CLEAN_LOOK_S = 0.05

# How long to wait for a descriptor to look through /proc with, when this process has none left.
LOOK_AGAIN_S = 0.5


def mark_of(pid: int) -> str:
    """The mark of a live process; empty if it has none, is gone or is not ours to look at.

    Raises:
        OSError: this process has no descriptor left to look with.
    """
    return variable(pid, MARK) or ""


def kill_marked(is_meant: Callable[[str], bool]) -> bool:
    """Look once: SIGKILL to every process whose mark is meant. Return whether there was one.

    Raises:
        OSError: this process has no descriptor left to look with.
    """
    killed: set[int] = set()
    for _ in range(KILL_ROUNDS):
        meant = {pid for pid in pids() if is_meant(mark_of(pid))} - killed
        if not meant:
            return bool(killed)
        for pid in meant:
            _kill_if(is_meant, pid)
        killed |= meant
    log.error(
        "processes that should end fork faster than they can be killed: %(count)d were killed, pid %(pid)d among them",
        {"count": len(killed), "pid": max(killed)},
    )
    return True


async def end_marked(mark: str) -> None:
    """SIGKILL to every process with this mark, until several looks in a row have found none."""
    clean_looks, looks = 0, 0
    while clean_looks < CLEAN_LOOKS and looks < KILL_ROUNDS:
        if looks:
            await asyncio.sleep(CLEAN_LOOK_S)
        try:
            clean_looks = 0 if kill_marked(mark.__eq__) else clean_looks + 1
            looks += 1
        except OSError as error:  # whether any are left is not known, so this look does not count
            log.warning(
                "processes marked %(process)s cannot be looked for now; trying again: %(error)s",
                {"process": mark, "error": error},
            )
            clean_looks = looks = 0
            await asyncio.sleep(LOOK_AGAIN_S)


def send(pidfd: int, number: signal.Signals) -> None:
    """Signal the process of a pidfd. One that has exited is as good as signalled."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return


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
