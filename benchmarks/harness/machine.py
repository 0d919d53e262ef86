"""What a result depends on besides the code: the machine and the versions."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from benchmarks.harness.revision import revision

PACKAGES = ("clipper-serving", "uvloop", "httptools", "pysimdjson", "msgspec", "numpy", "scikit-learn", "mlxtend")


def facts() -> dict[str, object]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "wrk": _first_line(["wrk", "-v"]),
        "revision": revision(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _first_line(command: list[str]) -> str:
    """The first line that a command prints; it may exit as it likes, as ``wrk -v`` does. Few benchmarks need wrk."""
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return (done.stdout or done.stderr).partition("\n")[0].strip()
