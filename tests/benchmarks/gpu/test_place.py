"""Nets go to GPUs where there are any, and to the processor where there is none; a page says which."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import place as places
from benchmarks.gpu.place import Missing, Place, found, pretend
from clipper.base.processes.gpus import Gpu

GIB = 1 << 30


def counted(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> None:
    monkeypatch.setattr(places, "machine_gpus", lambda _environ: list(gpus))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_with_gpus_nets_get_one_each(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    counted(monkeypatch, *[Gpu(str(index), 24 * GIB, GIB, 0.5) for index in range(count)])
    place = found({})
    assert place == Place(count) and place.options == ("--gpus", "1")
    assert place.note == f"Measured on GPUs: this machine has {count}."
    assert place.check("torch 2.13.0, on cuda (NVIDIA L4)") == "torch 2.13.0, on cuda (NVIDIA L4)"
    with pytest.raises(Missing, match=r"PyTorch does not compute on them \(torch 2.13.0, on CPU\): install"):
        place.check("torch 2.13.0, on CPU")


def test_without_a_gpu_nets_compute_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch)
    place = found({})
    assert place == Place() and place.options == ()
    assert place.note.startswith("**Measured on the processor**: this machine has no GPU.")
    assert place.check("torch 2.13.0") == "torch 2.13.0"


@pytest.mark.parametrize("known", [Gpu("MIG-4a", 5 * GIB, GIB, None), Gpu("0", 0, None, 0.25)])
def test_a_gpu_that_tells_something_will_do(monkeypatch: pytest.MonkeyPatch, known: Gpu) -> None:
    counted(monkeypatch, known)
    assert found({}) == Place(1)


def test_gpus_whose_use_cannot_be_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, Gpu("0"), Gpu("1"))
    with pytest.raises(Missing, match=r"this machine has 2 GPUs, but no driver .* pip install nvidia-ml-py"):
        found({})


def test_pretended_gpus_are_found_also_by_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delitem(sys.modules, "pynvml")
    pretend(tmp_path, 2)
    place = found(os.environ, is_pretended=True)
    assert place == Place(2, is_pretended=True) and place.options == ("--gpus", "1")
    assert place.note.startswith("**Measured on the processor**: its 2 GPUs are stand-ins")
    # No library computes on them.
    assert place.check("torch 2.13.0, on CPU") == "torch 2.13.0, on CPU"
    code = "import os; from clipper.base.processes.gpus import machine_gpus; print(len(machine_gpus(os.environ)))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout == "2\n"
