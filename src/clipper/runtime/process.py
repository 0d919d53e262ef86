"""What the runtime asks of the operating system for its own process, before any of the model's code runs."""

import gc
import logging
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

# Where memory runs out, the kernel should take a model before the server that would start it again.
OOM_SCORE_ADJUSTMENT = 500


def prepare(memory_bytes: int | None) -> None:
    """Set limits and logging up. A model that goes over ``memory_bytes`` gets MemoryError, which it answers with."""
    # ^C goes to the whole group of a server in the foreground; who ends this process is the supervisor's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Absent outside Linux, and closed in some sandboxes: the model runs as well without.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJUSTMENT))
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for stream in (sys.stdout, sys.stderr):
        # Into a file these would be buffered by the block, and a crash would take the last lines with it.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    _log_to_stderr()


def settle() -> None:
    """After loading: a model's objects live for as long as the process, so the garbage collector may skip them."""
    gc.collect()
    gc.freeze()


def _log_to_stderr() -> None:
    log = logging.getLogger("clipper.runtime")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s clipper %(levelname)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    # The model may set the root logger up as it likes.
    log.propagate = False
