"""The GPUs of a server's machine in its metrics and status, from a driver's stand-in that may hang."""

import os
from pathlib import Path

import pytest

from tests.supervisor.live_server import Server
from tests.waiting import until

pytestmark = pytest.mark.long

# Beside the file `hangs` it answers nothing.
NVML = """
import time
from pathlib import Path
from types import SimpleNamespace

class NVMLError(Exception): ...

def nvmlInit(): ...
def nvmlShutdown(): ...

def nvmlDeviceGetCount():
    while Path(__file__).with_name("hangs").exists():
        time.sleep(0.01)
    return 2

def nvmlDeviceGetHandleByIndex(index):
    return index

def nvmlDeviceGetMemoryInfo(handle):
    return SimpleNamespace(total=2000, used=500 * handle)

def nvmlDeviceGetUtilizationRates(handle):
    if handle == 1:
        raise NVMLError("Not Supported")
    return SimpleNamespace(gpu=25)
"""


def test_a_driver_that_hangs_holds_up_neither_scrape_nor_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pynvml.py").write_text(NVML)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    server = Server(tmp_path / "home")

    def shown() -> set[str]:
        return {line for line in server.metrics.splitlines() if line.startswith("clipper_gpu_")}

    try:
        server.start()
        assert until(shown) == {
            'clipper_gpu_memory_used_bytes{gpu="0"} 0.0',
            'clipper_gpu_memory_used_bytes{gpu="1"} 500.0',
            'clipper_gpu_memory_size_bytes{gpu="0"} 2000.0',
            'clipper_gpu_memory_size_bytes{gpu="1"} 2000.0',
            'clipper_gpu_utilization_ratio{gpu="0"} 0.25',
            'clipper_gpu_utilization_ratio{gpu="1"} NaN',
        }
        assert server.call("GET", "/status")["gpus"] == [
            {"id": "0", "memory_bytes": 2000, "memory_used_bytes": 0, "utilization": 0.25},
            {"id": "1", "memory_bytes": 2000, "memory_used_bytes": 500, "utilization": None},
        ]
        (tmp_path / "hangs").touch()
        until(lambda: not shown())
        assert server.call("GET", "/status")["gpus"] == []
        assert server.stop() == 0
    finally:
        (tmp_path / "hangs").unlink(missing_ok=True)
        server.clean_up()
