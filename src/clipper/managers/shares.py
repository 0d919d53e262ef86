"""Threads, cores and GPUs, dealt out to the replicas of a machine: no clock, no process, only values."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from clipper.errors import ContainerFailed, InvalidArgument
from clipper.processes.limits import Share
from clipper.settings.version import VersionSpec

# What libraries read to know how many threads to compute with. OMP_NUM_THREADS is that of most: of PyTorch,
# scikit-learn, XGBoost, LightGBM, and of Clipper's adapters of libraries that read none.
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

# An index, or what the driver calls a device, e.g. GPU-8932f937 or MIG-….
_GPU_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gpus:
    """A wish for GPUs: so many, or just these; all if neither is set."""

    count: int | None = None
    ids: tuple[str, ...] = ()


def parse_gpus(text: str) -> Gpus:
    """Read ``all``, a count, or ids with commas between: ``0,1``.

    Raises:
        InvalidArgument: it is not one of these.
    """
    if text == "all":
        return Gpus()
    if text.isdecimal() and 1 <= int(text) <= 64:
        return Gpus(count=int(text))
    ids = tuple(text.split(","))
    if text.isdecimal() or not all(map(_GPU_ID.fullmatch, ids)):
        raise InvalidArgument(f"gpus {text[:200]!r} is not valid: expected all, how many (1 to 64), or ids such as 0,1")
    return Gpus(ids=ids)


class Shares:
    """Who has what. A container's share is among the least used, so that they spread over the machine."""

    def __init__(self, cores: Sequence[int], gpus: Sequence[str]) -> None:
        """``cores`` and ``gpus`` are the machine's that may be used."""
        self._cores = cores
        self._gpus = gpus
        self._given: dict[str, Share] = {}

    def give(self, name: str, spec: VersionSpec) -> Share:
        """A share for the container ``name``.

        Raises:
            ContainerFailed: the machine has fewer GPUs than the version asks for.
        """
        share = Share(self._free_cores(spec.cpus), self._free_gpus(spec.gpus))
        self._given[name] = share
        return share

    def has(self, name: str, share: Share) -> None:
        """A container that was taken over has this share."""
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
        wish = parse_gpus(gpus)
        if wish.count is None:
            return wish.ids or None
        if wish.count > len(self._gpus):
            raise ContainerFailed(f"it asks for {wish.count} GPUs, and this machine has {len(self._gpus)}")
        taken = [id_ for share in self._given.values() for id_ in share.gpus or ()]
        return least_used(self._gpus, wish.count, taken)


def least_used(items: Sequence[T], count: int, taken: Iterable[T]) -> tuple[T, ...]:
    """The ``count`` items that are taken least often, the first of equals, in their order."""
    times = Counter(taken)
    chosen = set(sorted(range(len(items)), key=lambda index: times[items[index]])[:count])
    return tuple(item for index, item in enumerate(items) if index in chosen)


def whole(cpus: float) -> int:
    """How many threads or cores ``cpus`` come to: a fraction of one cannot be given."""
    return max(1, math.ceil(cpus))


def environment(cpus: float | None, share: Share) -> dict[str, str]:
    """The variables that tell libraries their share.

    Without ``cpus`` it is one thread: replicas are the unit of parallelism, and were each to use every core, they would
    only slow each other down.
    """
    threads = dict.fromkeys(THREAD_VARIABLES, str(whole(cpus or 1)))
    return threads if share.gpus is None else threads | {"CUDA_VISIBLE_DEVICES": ",".join(share.gpus)}
