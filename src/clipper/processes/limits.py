"""What the kernel bounds for a process that was just started, and what it may use of the machine."""

import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipper.processes.excess import MAX_DISK_BYTES
from clipper.types import OOM_SCORE_ADJUSTMENT

# A third of the weight of a process that is not nice, so that other work on the machine does not starve a model.
CONTAINER_NICENESS = 5
# No file of a container's can be larger, in whatever folder: one that is written without end ends so.
MAX_FILE_BYTES = MAX_DISK_BYTES
# A model that opens files without end gets an error long before the machine has no more to give.
MAX_OPEN_FILES = 4096


@dataclass(frozen=True, slots=True)
class Share:
    """What a container gets of its machine.

    Attributes:
        cores: those that it may run on; None is any.
        gpus: the ids of those that it may see; None is all.
    """

    cores: frozenset[int] | None = None
    gpus: tuple[str, ...] | None = ()


def machine_cores() -> list[int]:
    """The cores that this process may use, and so may give."""
    return sorted(os.sched_getaffinity(0))


def machine_gpus() -> list[str]:
    """The indices of NVIDIA's devices, as CUDA counts them."""
    return [str(index) for index, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def apply(pid: int, data_bytes: int | None, cores: frozenset[int] | None) -> None:
    """Bound a container from without.

    Args:
        data_bytes: of memory that a process can write to, for itself; over it an allocation fails, which a model can
            answer with.
        cores: those that it may run on; None is any.
    """
    with suppress(ProcessLookupError):  # it has exited already, which whoever watches it will tell
        _yield_to_workers(pid)
        _prefer_as_victim(pid)
        # A core of many GB would be on everybody's disk.
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        files = min(MAX_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, files))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
        if data_bytes is not None:
            resource.prlimit(pid, resource.RLIMIT_DATA, (data_bytes, data_bytes))
        if cores is not None:
            os.sched_setaffinity(pid, cores)


def share_of(pid: int) -> Share:
    """What a container has that was taken over. All, if it is gone."""
    with suppress(OSError):
        cores = frozenset(os.sched_getaffinity(pid))
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return Share(None if cores >= set(machine_cores()) else cores, _visible_gpus(variables))
    return Share()


def _visible_gpus(variables: list[bytes]) -> tuple[str, ...] | None:
    for variable in variables:
        name, _, value = variable.partition(b"=")
        if name == b"CUDA_VISIBLE_DEVICES":
            return tuple(filter(None, value.decode().split(",")))
    return None


def _yield_to_workers(pid: int) -> None:
    """Where processors are short, let answers leave first: a worker needs one for microseconds, a model for all it can.

    With 128 connections on two cores, p99 fell by a fifth, and answers per second did not.

    A kernel that shares processors out by session, as those of most distributions do (autogroup), heeds a process's
    niceness within its session only, and every container has one of its own: so that gets it too. Without it an
    ensemble of 16 forests on two cores left up to 12 ms after its deadline, at the 99th percentile.
    """
    os.setpriority(os.PRIO_PROCESS, pid, CONTAINER_NICENESS)
    # Not every kernel has such groups, a process may be in the root's, whose weight is fixed (EINVAL), and others than
    # root may set one in 0.1 s: that replica then goes without.
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(CONTAINER_NICENESS))


def _prefer_as_victim(pid: int) -> None:
    # Closed in some sandboxes: the model runs as well without.
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(OOM_SCORE_ADJUSTMENT))
