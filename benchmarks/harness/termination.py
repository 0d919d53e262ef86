"""SIGTERM, as a time-out sends it, ends a run as ^C does: whatever was started is stopped on the way out."""

import signal
import sys
from types import FrameType


def end_in_order_at_sigterm() -> None:
    """For the main thread; without it the process ends at once, and a Clipper that it has started does not."""
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    # make and timeout pass it on besides, so more than one comes: those that follow must not cut the stopping short.
    signal.signal(signal.SIGTERM, lambda *_: None)
    sys.exit(128 + number)
