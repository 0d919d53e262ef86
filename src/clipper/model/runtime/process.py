"""Sets up the runtime's own process before any code of the model runs."""

import ctypes
import gc
import logging
import resource
import signal
import sys
from collections.abc import Mapping

from clipper.base.log_format import JsonFormatter
from clipper.base.oom import end_first
from clipper.values.types import DATA_PER_MEMORY

# The exit code of a process that cannot load its model.
EXIT_NOT_LOADED = 3
# Options of glibc's malloc.h; then the largest allocation that malloc keeps when it is freed, and how much it keeps.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_ALLOCATION_BYTES = 32 * 1024 * 1024
_KEPT_FREE_BYTES = 128 * 1024 * 1024


def prepare(memory_bytes: int | None) -> None:
    """Set up limits and streams. To allocate far more than ``memory_bytes`` then raises MemoryError."""
    # ^C reaches the whole process group of a server in the foreground. The supervisor decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_first("self")
    if memory_bytes is not None:
        # RLIMIT_DATA counts memory that can be written to. RLIMIT_AS would also count what CUDA or TensorFlow reserve,
        # which is many times what they use.
        data_bytes = DATA_PER_MEMORY * memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))
    for stream in (sys.stdout, sys.stderr):
        # Output to a file is buffered in blocks by default, and a crash would lose the last lines.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    # The model's code is in an artifact that nobody writes to, but root's Python would.
    sys.dont_write_bytecode = True
    _keep_freed_memory()


def settle() -> None:
    """Let the garbage collector skip the loaded model's objects, which live as long as the process."""
    gc.collect()
    gc.freeze()


def _keep_freed_memory() -> None:
    """Let malloc keep the memory that a batch frees for the next batch, which has about the same size.

    By default glibc gives arrays of some hundred KB back to the kernel after each batch. Clearing new pages then takes
    longer than a small model: 64 rows of 784 float64 took 400 µs, and take 100 µs with this.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Other C libraries do not have this function, and behave differently anyway.
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_ALLOCATION_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)


class TextFormatter(logging.Formatter):
    """Writes ``TIME clipper LEVEL: MESSAGE``; and ``clipper: MESSAGE``, after the traceback, when the process ends."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s clipper %(levelname)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno < logging.CRITICAL:
            return super().format(record)
        traceback = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        return "\n".join([*traceback, f"clipper: {record.getMessage()}"])


def start_log(log_format: str, about: Mapping[str, str | None]) -> None:
    """Let the runtime's own records go to standard error, as ``text`` or ``json``. ``about``: further members of each
    line in JSON; those that are None are left out.
    """
    log = logging.getLogger("clipper.runtime")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(about) if log_format == "json" else TextFormatter())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    # The model may set up the root logger as it likes.
    log.propagate = False
