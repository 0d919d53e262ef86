"""Decides which threads, cores and GPUs of a machine each replica gets."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from clipper.base.processes.limits import Share
from clipper.errors import ContainerFailed, InvalidArgument
from clipper.settings.version import VersionSpec

# The variables by which libraries know how many threads to compute with. Most read OMP_NUM_THREADS: PyTorch,
# scikit-learn, XGBoost, LightGBM, and Clipper's adapters of libraries that read no variable.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",
)

# An index, or the driver's name of a device, e.g. GPU-8932f937 or MIG-….
_GPU_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs that a version asks for: how many, or which; all if neither is set."""

    count: int | None = None
    ids: tuple[str, ...] = ()


def parse_gpus(text: str) -> Gpus:
    """Read ``all``, a count, or ids separated by commas: ``0,1``. Raises InvalidArgument."""
    if text == "all":
        return Gpus()
    if text.isdecimal() and 1 <= int(text) <= 64:
        return Gpus(count=int(text))
    ids = tuple(text.split(","))
    if text.isdecimal() or not all(map(_GPU_ID.fullmatch, ids)):
        raise InvalidArgument(f"gpus {text[:200]!r} is not valid: expected all, how many (1 to 64), or ids such as 0,1")
    return Gpus(ids=ids)


class Shares:
    """The shares of containers. A new container gets what is used least, so they spread over the machine."""

    def __init__(self, cores: Sequence[int], gpus: Sequence[str]) -> None:
        """Give out these ``cores`` and ``gpus`` of the machine."""
        self._cores = cores
        self._gpus = gpus
        self._given: dict[str, Share] = {}

    def give(self, name: str, spec: VersionSpec) -> Share:
        """Choose a share for the container ``name``. Raises ContainerFailed if the machine has too few GPUs."""
        share = Share(self._free_cores(spec.cpus), self._free_gpus(spec.gpus))
        self._given[name] = share
        return share

    def has(self, name: str, share: Share) -> None:
        """Note the share of a container that was taken over."""
        self._given[name] = share

    def take_back(self, name: str) -> None:
        self._given.pop(name, None)

    def _free_cores(self, cpus: float | None) -> frozenset[int] | None:
        if cpus is None or whole(cpus) >= len(self._cores):
            return None
        taken = [core for share in self._given.values() for core in share.cores or ()]
        return frozenset(least_used(self._cores, whole(cpus), taken))

    def _free_gpus(self, gpus: str | None) -> tuple[str, ...] | None:
        if gpus is None:
            return ()
        asked = parse_gpus(gpus)
        if asked.count is None:
            return asked.ids or None
        if asked.count > len(self._gpus):
            raise ContainerFailed(f"it asks for {asked.count} GPUs, and this machine has {len(self._gpus)}")
        taken = [id_ for share in self._given.values() for id_ in share.gpus or ()]
        return least_used(self._gpus, asked.count, taken)


def least_used(items: Sequence[T], count: int, taken: Iterable[T]) -> tuple[T, ...]:
    """Return the ``count`` items that are taken least often, in their order; of equal items the first."""
    times = Counter(taken)
    chosen = set(sorted(range(len(items)), key=lambda index: times[items[index]])[:count])
    return tuple(item for index, item in enumerate(items) if index in chosen)


def whole(cpus: float) -> int:
    """Return the number of threads or cores for ``cpus``, rounded up, because a part of a core cannot be had."""
    return max(1, math.ceil(cpus))


def environment(cpus: float | None, share: Share) -> dict[str, str]:
    """Return the variables that tell libraries their share.

    Without ``cpus`` that is one thread: replicas are the unit of parallelism, and would slow each other down if each
    used every core.
    """
    threads = dict.fromkeys(THREAD_VARIABLES, str(whole(cpus or 1)))
    return threads if share.gpus is None else threads | {"CUDA_VISIBLE_DEVICES": ",".join(share.gpus)}
