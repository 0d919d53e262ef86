"""What is read of a process."""

import mmap
import os
import tempfile
import threading
from pathlib import Path

import pytest

from benchmarks.soak.processes import read


def test_memory_descriptors_and_threads_of_this_process() -> None:
    before, started = read(os.getpid(), 1.0)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    # Memory of its own: what others have freed may be enough for anything else.
    kept = mmap.mmap(-1, 8 << 20)
    kept.write(b"x" * len(kept))
    with tempfile.TemporaryFile():
        after, started_again = read(os.getpid(), 2.0)
    stop.set()
    thread.join()
    assert (before.at_s, after.at_s) == (1.0, 2.0)
    assert started == started_again
    assert after.descriptors == before.descriptors + 1
    assert after.threads == before.threads + 1
    assert after.rss - before.rss > len(kept) / 2
    assert after.uss <= after.pss <= after.rss


def test_one_that_has_gone() -> None:
    none = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    with pytest.raises(OSError, match=str(none)):
        read(none, 0.0)
