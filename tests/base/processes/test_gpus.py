import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from clipper.base.processes import gpus
from clipper.base.processes.gpus import Gpu, GpuWatch, machine_gpus
from tests.waiting import TIMEOUT_S, until

GIB = 1 << 30
# Parts of a device, by their whole UUIDs as the driver says them since version 470 and before.
MIG, OLD_MIG = "MIG-41b36b44-9b1c-5a9e-b4f3-6a1e2a9d5b7c", "MIG-GPU-9f/1/0"


class NvmlError(Exception):
    pass


def nvml(*memories: int, fails: bool = False, parts: tuple[str, ...] = (), **calls: Any) -> Any:
    """A library with devices of these memories, a quarter of each in use; ``parts``: the UUIDs of parts of them."""

    def init() -> None:
        if fails:
            raise NvmlError("Driver Not Loaded")

    def by_uuid(uuid: str) -> str:
        if uuid not in parts:
            raise NvmlError("Not Found")
        return uuid

    def memory_of(handle: int | str) -> Any:
        total = 5 * GIB if handle in parts else memories[int(handle)]
        return SimpleNamespace(total=total, used=total // 4)

    def rates_of(handle: int | str) -> Any:
        if handle in parts:
            raise NvmlError("Not Supported")
        return SimpleNamespace(gpu=10 * int(handle))

    known = {
        "NVMLError": NvmlError,
        "nvmlInit": init,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(memories),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetHandleByUUID": by_uuid,
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}a-b",
        "nvmlDeviceGetMemoryInfo": memory_of,
        "nvmlDeviceGetUtilizationRates": rates_of,
    }
    return SimpleNamespace(**known | calls)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_devices_are_those_that_the_driver_counts(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(*[24 * GIB] * count))
    found = machine_gpus({})
    assert found == [Gpu(str(index), 24 * GIB) for index in range(count)]
    assert [(gpu.used_bytes, gpu.utilization) for gpu in found] == [(6 * GIB, index / 10) for index in range(count)]


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("", []),
        ("-1", []),
        ("1", [Gpu("1", 2)]),
        ("1, 0", [Gpu("1", 2), Gpu("0", 1)]),
        ("GPU-1a,0", [Gpu("GPU-1a", 2), Gpu("0", 1)]),
        # The first that is none ends the list, as for CUDA.
        ("0,-1,1", [Gpu("0", 1)]),
        (f"{MIG},{OLD_MIG}", [Gpu(MIG, 5 * GIB), Gpu(OLD_MIG, 5 * GIB)]),
        ("MIG-GPU-9f/7/0", [Gpu("MIG-GPU-9f/7/0", 0)]),
        ("7", [Gpu("7", 0)]),
    ],
)
def test_the_server_s_own_choice_is_kept(monkeypatch: pytest.MonkeyPatch, visible: str, found: list[Gpu]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1, 2, parts=(MIG, OLD_MIG)))
    assert machine_gpus({"CUDA_VISIBLE_DEVICES": visible}) == found


def test_a_machine_without_a_driver_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1, fails=True))
    assert machine_gpus({}) == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert machine_gpus({}) == []


def test_a_part_of_a_device_tells_its_memory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(40 * GIB, parts=(MIG,)))
    [part] = machine_gpus({"CUDA_VISIBLE_DEVICES": MIG})
    assert (part.memory_bytes, part.used_bytes, part.utilization) == (5 * GIB, 5 * GIB // 4, None)


def refusing(_handle: object) -> Any:
    raise NvmlError("Not Supported")


def test_a_device_that_shares_the_machine_s_memory_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1, nvmlDeviceGetMemoryInfo=refusing))
    [gpu] = machine_gpus({})
    assert gpu == Gpu("0", 0) and (gpu.used_bytes, gpu.utilization) == (None, 0.0)


def test_a_watch_shows_what_it_read_last(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = GpuWatch({})
    assert watch.latest() == ()
    monkeypatch.setitem(sys.modules, "pynvml", nvml(GIB, GIB))
    watch.look()
    assert [gpu.utilization for gpu in until(watch.latest)] == [0.0, 0.1]
    # A device that is named twice is one.
    twice = GpuWatch({"CUDA_VISIBLE_DEVICES": "1,1"})
    twice.look()
    assert until(twice.latest) == (Gpu("1", GIB),)
    busy = nvml(GIB, GIB, nvmlDeviceGetUtilizationRates=lambda _handle: SimpleNamespace(gpu=100))
    monkeypatch.setitem(sys.modules, "pynvml", busy)

    def is_busy() -> bool:
        watch.look()
        return [gpu.utilization for gpu in watch.latest()] == [1.0, 1.0]

    until(is_busy)


def test_a_watch_does_not_wait_for_a_driver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, asked = threading.Event(), list[int]()

    def count() -> int:
        asked.append(1)
        assert goes_on.wait(TIMEOUT_S)
        return 1

    monkeypatch.setitem(sys.modules, "pynvml", nvml(GIB, nvmlDeviceGetCount=count))
    watch = GpuWatch({})
    for _ in range(3):
        watch.look()
        assert watch.latest() == ()
    until(lambda: asked)
    assert asked == [1]
    goes_on.set()
    assert until(watch.latest) == (Gpu("0", GIB),)
    # An old reading is not shown.
    monkeypatch.setattr(gpus, "FRESH_S", 0.0)
    assert watch.latest() == ()


@pytest.mark.parametrize("missing", ["library", "driver", "device", "numbers"])
def test_a_machine_without_gpus_is_looked_at_once(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    asked = list[int]()

    def count() -> int:
        asked.append(1)
        return int(missing == "numbers")

    silent = dict.fromkeys(("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates"), refusing)
    library = nvml(GIB, fails=missing == "driver", nvmlDeviceGetCount=count, **silent)
    monkeypatch.setitem(sys.modules, "pynvml", None if missing == "library" else library)
    watch = GpuWatch({})
    watch.look()
    assert watch._thread is not None
    watch._thread.join(TIMEOUT_S)
    watch.look()
    watch._thread.join(TIMEOUT_S)
    assert watch.latest() == () and len(asked) == (missing in ("device", "numbers"))


def test_a_driver_that_fails_later_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = GpuWatch({})
    monkeypatch.setitem(sys.modules, "pynvml", nvml(GIB))
    watch.look()
    until(watch.latest)
    monkeypatch.setitem(sys.modules, "pynvml", nvml(GIB, fails=True))
    watch._thread.join(TIMEOUT_S)
    watch.look()
    watch._thread.join(TIMEOUT_S)
    monkeypatch.setitem(sys.modules, "pynvml", nvml(2 * GIB))

    def is_back() -> bool:
        watch.look()
        return watch.latest() == (Gpu("0", 2 * GIB),)

    until(is_back)
