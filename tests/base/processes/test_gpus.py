import sys
from types import SimpleNamespace
from typing import Any

import pytest

from clipper.base.processes.gpus import Gpu, machine_gpus

GIB = 1 << 30


class NvmlError(Exception):
    pass


def nvml(*memories: int, names: str = "GPU-", fails: bool = False) -> Any:
    """A library with these devices."""

    def init() -> None:
        if fails:
            raise NvmlError("Driver Not Loaded")

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(memories),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda index: f"{names}{index}a-b",
        nvmlDeviceGetMemoryInfo=lambda index: SimpleNamespace(total=memories[index]),
    )


@pytest.mark.parametrize("count", [1, 2, 8])
def test_devices_are_those_that_the_driver_counts(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(*[24 * GIB] * count))
    assert machine_gpus({}) == [Gpu(str(index), 24 * GIB) for index in range(count)]


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
        ("MIG-GPU-9/1/0", [Gpu("MIG-GPU-9/1/0", 0)]),
        ("7", [Gpu("7", 0)]),
    ],
)
def test_the_server_s_own_choice_is_kept(monkeypatch: pytest.MonkeyPatch, visible: str, found: list[Gpu]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1, 2))
    assert machine_gpus({"CUDA_VISIBLE_DEVICES": visible}) == found


def test_a_machine_without_a_driver_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1, fails=True))
    assert machine_gpus({}) == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert machine_gpus({}) == []
