"""Decides which threads, cores and GPUs of a machine each replica gets."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from clipper.base.processes.gpus import Gpu
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
_GPU_ID = re.compile(r"[0-9]{1,3}|[A-Za-z][A-Za-z0-9._/-]{0,127}")

_COUNT = re.compile(r"[0-9]{1,2}")
# No machine has more.
MAX_GPUS = 64
# A part of a device is less than 1.
_PART = re.compile(r"0?\.[0-9]{1,6}")
# Rounding errors: ten tenths may add up to slightly more than 1.
_ROUNDING = 1e-9

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs that a version asks for: how many, a part of one, or which; all if none of these is set."""

    count: int | None = None
    part: float | None = None
    ids: tuple[str, ...] = ()


def parse_gpus(text: str) -> Gpus:
    """Read ``all``, a count, a part of one such as ``0.5``, or ids with commas between. Raises InvalidArgument."""
    if text == "all":
        return Gpus()
    if _COUNT.fullmatch(text) and 1 <= int(text) <= MAX_GPUS:
        return Gpus(count=int(text))
    if _PART.fullmatch(text) and float(text) > 0:
        return Gpus(part=float(text))
    ids = tuple(text.split(","))
    if text.isdecimal() or len(ids) > MAX_GPUS or not all(map(_GPU_ID.fullmatch, ids)):
        raise InvalidArgument(
            f"gpus {text[:200]!r} is not valid: expected all, how many (1 to {MAX_GPUS}), a part of one such as 0.5, "
            "or ids such as 0,1"
        )
    return Gpus(ids=ids)


@dataclass(frozen=True, slots=True)
class Hold:
    """A container's part of each of its GPUs: of the device, and of its memory, in bytes."""

    ids: tuple[str, ...] | None
    part: float = 1.0
    memory_bytes: int = 0

    def has(self, id_: str) -> bool:
        return self.ids is None or id_ in self.ids


class Shares:
    """The shares of containers. A new container gets what is used least, so they spread over the machine.

    Containers that ask for a part of a GPU, or for some of its memory, are packed instead: each gets the fullest GPU
    with room for it (best fit), so that whole GPUs stay free for those that ask for one.
    """

    def __init__(self, cores: Sequence[int], gpus: Sequence[Gpu]) -> None:
        """Give out these ``cores`` and ``gpus`` of the machine."""
        self._cores = cores
        self._gpus = {gpu.id: gpu for gpu in gpus}
        self._given: dict[str, Share] = {}
        self._held: dict[str, Hold] = {}

    @property
    def has_gpus(self) -> bool:
        return bool(self._gpus)

    def give(self, name: str, spec: VersionSpec) -> Share:
        """Choose a share for the container ``name``. Raises ContainerFailed if the machine has no such GPUs left."""
        share = Share(self._free_cores(spec.cpus), self._free_gpus(spec))
        self.has(name, share, spec)
        return share

    def has(self, name: str, share: Share, spec: VersionSpec) -> None:
        """Note the share of a container that was taken over."""
        self._given[name] = share
        if spec.gpus is not None:
            self._held[name] = Hold(share.gpus, parse_gpus(spec.gpus).part or 1.0, spec.gpu_memory_bytes or 0)

    def devices(self, name: str) -> tuple[str, ...]:
        """Return the GPUs of a container, by which workers know what shares one."""
        held = self._held.get(name)
        if held is None:
            return ()
        return tuple(self._gpus) if held.ids is None else held.ids

    def take_back(self, name: str) -> None:
        self._given.pop(name, None)
        self._held.pop(name, None)

    def crowding(self, name: str) -> str | None:
        """Return a warning if the GPUs of a container are asked for more often than they exist; None if not."""
        held = self._held.get(name)
        for id_ in (held.ids or ()) if held is not None else ():
            parts = [each.part for each in self._held.values() if each.has(id_)]
            if sum(parts) > 1.0 + _ROUNDING:
                return (
                    f"its GPU {id_} is shared by {len(parts)} replicas, which ask for {sum(parts):g} GPUs together: "
                    f"this machine has {len(self._gpus)}"
                )
        return None

    def _free_cores(self, cpus: float | None) -> frozenset[int] | None:
        if cpus is None or whole(cpus) >= len(self._cores):
            return None
        taken = [core for share in self._given.values() for core in share.cores or ()]
        return frozenset(least_used(self._cores, whole(cpus), taken))

    def _free_gpus(self, spec: VersionSpec) -> tuple[str, ...] | None:
        if spec.gpus is None:
            return ()
        asked, memory_bytes = parse_gpus(spec.gpus), spec.gpu_memory_bytes
        if asked.part is not None or (memory_bytes and asked.count == 1):
            return (self._with_room(asked.part, memory_bytes or 0),)
        if asked.count is None:
            return asked.ids or None
        if asked.count > len(self._gpus):
            raise ContainerFailed(f"it asks for {asked.count} GPUs, and this machine has {len(self._gpus)}")
        taken = [id_ for held in self._held.values() for id_ in held.ids or ()]
        return least_used(list(self._gpus), asked.count, taken)

    def _with_room(self, part: float | None, memory_bytes: int) -> str:
        """Return the GPU with the least room that has a part of its time left, and the memory."""
        rooms: list[tuple[float, int, str]] = []
        for gpu in self._gpus.values():
            held = [each for each in self._held.values() if each.has(gpu.id)]
            free = 1.0 - sum(each.part for each in held)
            free_bytes = gpu.memory_bytes - sum(each.memory_bytes for each in held)
            # A replica that names memory alone shares the time with all that have room beside it.
            has_time = part is None or free + _ROUNDING >= part
            if has_time and (not memory_bytes or free_bytes >= memory_bytes):
                rooms.append((free if part is not None else 0.0, free_bytes, gpu.id))
        if rooms:
            return min(rooms)[2]
        if not self._gpus:
            raise ContainerFailed("it asks for a GPU, and this machine has none")
        of_part = "" if part is None else f"{part:g} of a GPU"
        of_memory = f"{memory_bytes / 1e9:.3g} GB of a GPU's memory" if memory_bytes else ""
        if memory_bytes and not any(gpu.memory_bytes for gpu in self._gpus.values()):
            raise ContainerFailed(
                f"it asks for {of_memory}, and the memory of this machine's GPUs is not known: "
                "install nvidia-ml-py, or ask for a part such as --gpus 0.5"
            )
        raise ContainerFailed(
            f"it asks for {' and '.join(filter(None, (of_part, of_memory)))}, and none of this machine's "
            f"{len(self._gpus)} GPUs has that left"
        )


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
    if share.gpus is None:
        return threads
    # NVML orders devices by their place on the bus, CUDA by their speed unless this variable is set.
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if share.gpus else {}
    return threads | order | {"CUDA_VISIBLE_DEVICES": ",".join(share.gpus)}
