"""A query worker that says on SIGUSR2, in its log, which memory it has in use, and how many objects were in cycles."""

import gc
import signal
import sys
from types import FrameType

from benchmarks.harness.in_use import in_use
from clipper.worker.__main__ import main


def tell(number: int, frame: FrameType | None) -> None:
    in_cycles = gc.collect()
    blocks, malloc_bytes = in_use()
    print(f"in use: {blocks} {malloc_bytes} {in_cycles}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, tell)
    sys.exit(main())
