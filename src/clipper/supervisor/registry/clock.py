"""The clock by which a lease is counted."""

import time


def clock_s() -> float:
    """Seconds on a clock that never goes back, and that also counts while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
