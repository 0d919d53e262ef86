"""Sets the limits that the kernel enforces on a process, and its share of the machine."""

import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipper.base.oom import end_first
from clipper.base.processes.excess import MAX_DISK_BYTES
from clipper.base.processes.proc import variable

# A third of the weight of a process that is not nice, so that a model does not starve other work on the machine.
CONTAINER_NICENESS = 5
# The largest file that a container can write, in any folder. A model that writes a file without end gets an error.
MAX_FILE_BYTES = MAX_DISK_BYTES
# A model that opens files without end gets an error long before the machine runs out of them.
MAX_OPEN_FILES = 4096


@dataclass(frozen=True, slots=True)
class Share:
    """A container's share of its machine: the ``cores`` that it may run on, and its ``gpus`` by id; None is any."""

    cores: frozenset[int] | None = None
    gpus: tuple[str, ...] | None = ()


def machine_cores() -> list[int]:
    """Return the cores that this process may use, and so may give to containers."""
    return sorted(os.sched_getaffinity(0))


def apply(pid: int, data_bytes: int | None, cores: frozenset[int] | None) -> None:
    """Limit a container from outside.

    Where processors are short, answers should leave first: a worker needs a processor for microseconds, a model for as
    long as it can get one. So containers are nice. With 128 connections on two cores, p99 fell by a fifth, and answers
    per second did not. A kernel that shares processors out by session (autogroup, the default of most distributions)
    heeds a process's niceness only within its session, and each container has one of its own. So the session becomes
    nice too. Without that, an ensemble of 16 forests on two cores answered up to 12 ms late at the 99th percentile.

    Args:
        data_bytes: bound on the memory that one process can write to. An allocation beyond it fails, which a model can
            handle.
        cores: the cores that it may run on; None is any.
    """
    with suppress(ProcessLookupError):  # it has exited already, and the one that watches it will notice
        # A server that is nicer still has nicer containers: only root may make a process less nice.
        niceness = max(CONTAINER_NICENESS, os.getpriority(os.PRIO_PROCESS, pid))
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
        # Fails where the kernel has no such groups, for a process in the root's group, whose weight is fixed (EINVAL),
        # and for users other than root who set a second one within 0.1 s. That replica then runs without.
        with suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
        end_first(pid)
        # A core dump of many GB would fill the disk that all share.
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        files = min(MAX_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, files))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
        if data_bytes is not None:
            resource.prlimit(pid, resource.RLIMIT_DATA, (data_bytes, data_bytes))
        if cores is not None:
            os.sched_setaffinity(pid, cores)


def share_of(pid: int) -> Share:
    """Return the share of a container that was taken over; the default share if the container is gone."""
    with suppress(OSError):
        cores = frozenset(os.sched_getaffinity(pid))
        visible = variable(pid, "CUDA_VISIBLE_DEVICES")
        gpus = None if visible is None else tuple(filter(None, visible.split(",")))
        return Share(None if cores >= set(machine_cores()) else cores, gpus)
    return Share()
