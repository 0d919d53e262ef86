"""Finds the GPUs of this machine, and watches how much they are used."""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

LOOK_EVERY_S = 2.0
# After this long without an answer of the driver, its last one says nothing of the present.
FRESH_S = 10.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device. It stays equal while its use changes.

    Attributes:
        id: its index, as CUDA counts it, or the driver's name of it, as the server's ``CUDA_VISIBLE_DEVICES`` has it.
        memory_bytes: 0 if it is not known.
        used_bytes: how much of its memory is in use; None if it is not known.
        utilization: the share of the driver's last sample in which it computed; None if it is not known.
    """

    id: str
    memory_bytes: int = 0
    used_bytes: int | None = field(default=None, compare=False)
    utilization: float | None = field(default=None, compare=False)


class GpuWatch:
    """Reads how much the GPUs are used, on a thread of its own: a driver that hangs holds up nothing else."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._thread: threading.Thread | None = None
        self._seen: tuple[float, Sequence[Gpu]] = (0.0, ())

    def look(self) -> None:
        """Have the GPUs read again, unless the first look found none, or the driver has yet to answer the last."""
        if self._thread is None or (self._seen[1] and not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._read, daemon=True)
            self._thread.start()

    def latest(self) -> Sequence[Gpu]:
        """Return the GPUs of which the driver tells something, as last read; none if it no longer answers."""
        read_at_s, gpus = self._seen
        return gpus if time.monotonic() < read_at_s + FRESH_S else ()

    def _read(self) -> None:
        gpus = machine_gpus(self._environ)
        told = {gpu.id: gpu for gpu in gpus if gpu.memory_bytes or gpu.utilization is not None}
        if told:
            self._seen = time.monotonic(), tuple(told.values())


def machine_gpus(environ: Mapping[str, str]) -> list[Gpu]:
    """Return the devices that this process may use, and so may give to containers.

    These are the devices that ``CUDA_VISIBLE_DEVICES`` names, if it is set; else all that NVML counts; and without NVML
    (``pip install nvidia-ml-py``) those with a device file, of which nothing else is known.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        devices = Path("/dev").glob("nvidia[0-9]*")
        return list(_by_nvml(None).values()) or [Gpu(str(index)) for index, _ in enumerate(devices)]
    # As for CUDA, the first id that is no device ends the list.
    names = [name.strip() for name in visible.split(",")]
    usable = names[: next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))]
    known = _by_nvml(usable)
    return [known.get(name, Gpu(name)) for name in usable]


def _by_nvml(names: Sequence[str] | None) -> dict[str, Gpu]:
    """Return the devices of these names that NVML knows, or all of them for None; none if it is not there."""
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return {}
    found = dict[str, Gpu]()
    with suppress(nvml.NVMLError):
        nvml.nvmlInit()
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            for name in [str(index) for index in range(len(handles))] if names is None else names:
                with suppress(nvml.NVMLError):
                    found[name] = _described(nvml, name, _handle(nvml, name, handles))
        finally:
            nvml.nvmlShutdown()
    return found


def _handle(nvml: Any, name: str, handles: Sequence[Any]) -> Any:
    """Return NVML's handle of a device.

    CUDA takes an index or the beginning of a UUID; NVML finds a part of a device (MIG) by its whole UUID alone.
    """
    if name.isdecimal() and int(name) < len(handles):
        return handles[int(name)]
    for handle in handles:
        if str(nvml.nvmlDeviceGetUUID(handle)).startswith(name):
            return handle
    return nvml.nvmlDeviceGetHandleByUUID(name)


def _described(nvml: Any, name: str, handle: Any) -> Gpu:
    memory_bytes = 0
    used_bytes: int | None = None
    utilization: float | None = None
    # A device that shares the machine's memory tells nothing of it, and a part of a device not how busy it is.
    with suppress(nvml.NVMLError):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        memory_bytes, used_bytes = int(memory.total), int(memory.used)
    with suppress(nvml.NVMLError):
        utilization = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    return Gpu(name, memory_bytes, used_bytes, utilization)
