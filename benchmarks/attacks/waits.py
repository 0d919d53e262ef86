"""How long a server's process waited for a processor, which attackers on the same machine take from it.

Linux counts it for each thread, in nanoseconds (``/proc/PID/schedstat``: running, waiting).
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

SAMPLE_EVERY_S = 0.002


class Waits:
    """Samples, inside the block, how long a process's main thread has waited for a processor."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/schedstat")
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._times_s: list[float] = []
        self._waited_s: list[float] = []

    def __enter__(self) -> "Waits":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._thread.join()

    def within_ms(self, window_ms: float, share: float) -> float:
        """Return for how long it waited in a window of that length, in all but a share of the windows, at most."""
        return 1000.0 * longest_waits_s(self._times_s, self._waited_s, window_ms / 1000.0, share)

    def _sample(self) -> None:
        while not self._has_ended.wait(SAMPLE_EVERY_S):
            _, waited_ns, _ = self._path.read_bytes().split()
            self._times_s.append(time.monotonic())
            self._waited_s.append(int(waited_ns) / 1e9)


def longest_waits_s(times_s: Sequence[float], waited_s: Sequence[float], window_s: float, share: float) -> float:
    """Return the quantile, at ``1 - share``, of what was waited in a window that begins with each sample.

    Args:
        times_s: when each sample was taken, ascending.
        waited_s: all that was waited until then.
        window_s: the length of a window. Windows that begin too late to end within the samples do not count.
        share: of the windows, those that may have waited longer.
    """
    waits = []
    for index, begin_s in enumerate(times_s):
        end = bisect_left(times_s, begin_s + window_s)
        if end == len(times_s):
            break
        # Linux counts a wait when it ends, so it may have begun before the window.
        waits.append(min(waited_s[end] - waited_s[index], window_s))
    return sorted(waits)[min(int((1.0 - share) * len(waits)), len(waits) - 1)] if waits else 0.0
