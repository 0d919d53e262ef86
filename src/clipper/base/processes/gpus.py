"""Finds the GPUs of this machine."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device.

    Attributes:
        id: its index, as CUDA counts it, or the driver's name of it, as the server's ``CUDA_VISIBLE_DEVICES`` has it.
        memory_bytes: 0 if it is not known.
    """

    id: str
    memory_bytes: int = 0


def machine_gpus(environ: Mapping[str, str]) -> list[Gpu]:
    """Return the devices that this process may use, and so may give to containers.

    These are the devices that ``CUDA_VISIBLE_DEVICES`` names, if it is set; else all that NVML counts; and without NVML
    (``pip install nvidia-ml-py``) those with a device file, whose memory is not known.
    """
    known = _by_nvml()
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # As for CUDA, the first id that is no device ends the list.
        names = [name.strip() for name in visible.split(",")]
        usable = names[: next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))]
        return [Gpu(name, _memory(name, known)) for name in usable]
    if known:
        return [Gpu(str(index), memory_bytes) for index, (_, memory_bytes) in enumerate(known)]
    return [Gpu(str(index)) for index, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def _memory(name: str, known: list[tuple[str, int]]) -> int:
    """Return the memory of a device by its index, or by the beginning of its UUID, which is enough for CUDA."""
    if name.isdecimal():
        return known[int(name)][1] if int(name) < len(known) else 0
    return next((memory_bytes for uuid, memory_bytes in known if uuid.startswith(name)), 0)


def _by_nvml() -> list[tuple[str, int]]:
    """Return the UUID and the memory in bytes of each device; none if NVML or its library is not there."""
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return []
    with suppress(nvml.NVMLError):
        nvml.nvmlInit()
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            return [
                (str(nvml.nvmlDeviceGetUUID(each)), int(nvml.nvmlDeviceGetMemoryInfo(each).total)) for each in handles
            ]
        finally:
            nvml.nvmlShutdown()
    return []
