"""What the runtime asks of the operating system for its own process, before any of the model's code runs."""

import ctypes
import gc
import logging
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from clipper.types import DATA_PER_MEMORY, OOM_SCORE_ADJUSTMENT

# From glibc's malloc.h, with the largest allocation that it will keep and what may stay free in all.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_ALLOCATION_BYTES = 32 * 1024 * 1024
_KEPT_FREE_BYTES = 128 * 1024 * 1024


def prepare(memory_bytes: int | None) -> None:
    """Set limits and logging up. Allocating far more than ``memory_bytes`` is a MemoryError."""
    # ^C goes to the whole group of a server in the foreground; who ends this process is the supervisor's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Absent outside Linux, and closed in some sandboxes: the model runs as well without.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJUSTMENT))
    if memory_bytes is not None:
        # What it can write to. RLIMIT_AS would count what CUDA or TensorFlow only reserve, many times what they use.
        data_bytes = DATA_PER_MEMORY * memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))
    for stream in (sys.stdout, sys.stderr):
        # Into a file these would be buffered by the block, and a crash would take the last lines with it.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    _keep_freed_memory()
    _log_to_stderr()


def settle() -> None:
    """After loading: a model's objects live for as long as the process, so the garbage collector may skip them."""
    gc.collect()
    gc.freeze()


def _keep_freed_memory() -> None:
    """Have malloc keep what a batch frees for the next batch, which is of much the same size.

    Otherwise glibc gives arrays of some hundred KB back to the kernel after each batch, and clearing new pages
    takes longer than a small model does: 64 rows of 784 float64 took 400 µs, and 100 µs with this.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Absent in other C libraries, which have rules of their own.
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_ALLOCATION_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)


def _log_to_stderr() -> None:
    log = logging.getLogger("clipper.runtime")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s clipper %(levelname)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    # The model may set the root logger up as it likes.
    log.propagate = False
