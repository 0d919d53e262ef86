"""Where the nets compute: on GPUs, on the processor, or on the processor with stand-ins of GPUs."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipper.base.processes.gpus import machine_gpus

# NVIDIA's library, with as many devices as are visible, whose use is made up.
LIBRARY = """
import os
from types import SimpleNamespace

class NVMLError(Exception): ...

def nvmlInit(): ...
def nvmlShutdown(): ...

def nvmlDeviceGetCount():
    return len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))

def nvmlDeviceGetHandleByIndex(index):
    return index

def nvmlDeviceGetMemoryInfo(handle):
    return SimpleNamespace(total=16 << 30, used=1 << 30)

def nvmlDeviceGetUtilizationRates(handle):
    return SimpleNamespace(gpu=50)
"""


def _counted(gpus: int) -> str:
    return "1 GPU" if gpus == 1 else f"{gpus} GPUs"


class Missing(Exception):
    """What is measured needs something that is not there; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where nets compute.

    Attributes:
        gpus: how many are counted.
        is_pretended: whether they are stand-ins, so that nets compute on the processor.
    """

    gpus: int = 0
    is_pretended: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """The options by which a net is deployed here."""
        return ("--gpus", "1") if self.gpus else ()

    @property
    def note(self) -> str:
        if self.gpus and not self.is_pretended:
            return f"Measured on GPUs: this machine has {self.gpus}."
        why = f"its {self.gpus} GPUs are stand-ins, whose use is made up" if self.gpus else "this machine has no GPU"
        return f"**Measured on the processor**: {why}. The numbers say nothing of a GPU."

    def check(self, runtime: str) -> str:
        """Return where a library computes, in the words of ``clipper model show``.

        Raises:
            Missing: there are GPUs, and it computes elsewhere.
        """
        if self.gpus and not self.is_pretended and "on cuda" not in runtime:
            raise Missing(
                f"this machine has {_counted(self.gpus)}, but PyTorch does not compute on them ({runtime}): install a "
                "PyTorch with CUDA for the driver, or set CUDA_VISIBLE_DEVICES= to measure on the processor"
            )
        return runtime


def found(environ: Mapping[str, str], is_pretended: bool = False) -> Place:
    """Return where nets compute on this machine.

    Raises:
        Missing: there are GPUs, and their use cannot be read.
    """
    gpus = machine_gpus(environ)
    if gpus and not any(gpu.memory_bytes or gpu.utilization is not None for gpu in gpus):
        raise Missing(
            f"this machine has {_counted(len(gpus))}, but no driver tells of any use: run "
            f"{sys.executable} -m pip install nvidia-ml-py, or set CUDA_VISIBLE_DEVICES= to measure on the processor"
        )
    return Place(len(gpus), is_pretended)


def pretend(folder: Path, count: int) -> None:
    """Have this process, and those that it starts, find so many GPUs, by a library in ``folder``."""
    (folder / "pynvml.py").write_text(LIBRARY)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(count)))
