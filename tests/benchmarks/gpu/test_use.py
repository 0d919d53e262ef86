"""The use of GPUs during a measurement."""

import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from benchmarks.gpu import use
from clipper.base.processes.gpus import Gpu
from tests.waiting import until

MIB = 1 << 20


def test_a_summary_has_the_mean_and_the_most_of_each_gpu() -> None:
    seen: list[Sequence[Gpu]] = [
        (),
        (Gpu("0", 1000 * MIB, 100 * MIB, 0.5), Gpu("MIG-4a", 500 * MIB, 50 * MIB, None)),
        (Gpu("0", 1000 * MIB, 300 * MIB, 1.0), Gpu("MIG-4a", 500 * MIB, 40 * MIB, None)),
    ]
    first, part = use.summary(seen)
    assert first == {
        "gpu": "0",
        "seen": 2,
        "mean_utilization": 0.75,
        "most_utilization": 1.0,
        "most_used_mib": 300,
        "memory_mib": 1000,
    }
    assert (part["mean_utilization"], part["most_used_mib"], part["memory_mib"]) == (None, 50, 500)
    assert use.describe([first, part]).splitlines()[2:] == [
        "| 0 | 75% | 100% | 300 MiB | 1,000 MiB |",
        "| MIG-4a | – | – | 50 MiB | 500 MiB |",
    ]
    assert use.summary([]) == [] and use.describe([]) == ""


def test_gpus_are_looked_at_until_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda _handle: SimpleNamespace(total=10, used=4),
        nvmlDeviceGetUtilizationRates=lambda _handle: SimpleNamespace(gpu=30),
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    with use.watched({}, every_s=0.001) as seen:
        until(lambda: seen and seen[-1])
    [gpu] = seen[-1]
    assert (gpu.memory_bytes, gpu.used_bytes, gpu.utilization) == (10, 4, 0.3)
