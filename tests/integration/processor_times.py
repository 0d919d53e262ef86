"""The time that the machine adds to any deadline: how long a process that could run waited for a processor, or had it.

Linux counts both for each thread, in nanoseconds (``/proc/PID/schedstat``: running, waiting). So an answer that is late
because others had the processors can be told from one that is late because its process did not answer.
"""

import threading
import time
from bisect import bisect_left, bisect_right
from pathlib import Path
from types import TracebackType

# At each end of a measured time, at most about this much counts wrongly.
SAMPLE_EVERY_S = 0.004


class ProcessorTimes:
    """Samples, inside the block, a process's main thread. Times are of ``time.perf_counter``."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/schedstat")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._times_s: list[float] = []
        self._running_s: list[float] = []
        self._waiting_s: list[float] = []

    def __enter__(self) -> "ProcessorTimes":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def waiting_s(self, from_s: float, until_s: float) -> float:
        """Seconds waited from the last sample before ``from_s`` to the first after ``until_s``; in the block's time."""
        first, last = self._around(from_s, until_s)
        return self._waiting_s[last] - self._waiting_s[first]

    def busy_s(self, from_s: float, until_s: float) -> float:
        """Seconds waited or run, likewise."""
        first, last = self._around(from_s, until_s)
        return self.waiting_s(from_s, until_s) + self._running_s[last] - self._running_s[first]

    def _around(self, from_s: float, until_s: float) -> tuple[int, int]:
        first = max(0, bisect_right(self._times_s, from_s) - 1)
        last = min(len(self._times_s) - 1, bisect_left(self._times_s, until_s))
        return first, last

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            running, waiting, _ = self._path.read_bytes().split()
            self._times_s.append(time.perf_counter())
            self._running_s.append(int(running) / 1e9)
            self._waiting_s.append(int(waiting) / 1e9)
