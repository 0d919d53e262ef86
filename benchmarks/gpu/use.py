"""How much the GPUs are used while something is measured."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from benchmarks.harness.pages import table
from clipper.base.processes.gpus import Gpu, GpuWatch

EVERY_S = 1.0
# Of the fields of a summary.
FORMS = {
    "mean_utilization": "{:.0%}",
    "most_utilization": "{:.0%}",
    "most_used_mib": "{:,} MiB",
    "memory_mib": "{:,} MiB",
}


@contextmanager
def watched(environ: Mapping[str, str], every_s: float = EVERY_S) -> Iterator[list[Sequence[Gpu]]]:
    """Look at the GPUs every second during the block; the list is what was seen."""
    watch, ended, seen = GpuWatch(environ), threading.Event(), list[Sequence[Gpu]]()

    def look() -> None:
        while not ended.wait(every_s):
            watch.look()
            seen.append(watch.latest())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def summary(seen: Sequence[Sequence[Gpu]]) -> list[dict[str, Any]]:
    """For each GPU, how busy it was in the mean and at most, and the most of its memory in use; None is not known."""
    by_id = defaultdict[str, list[Gpu]](list)
    for gpus in seen:
        for gpu in gpus:
            by_id[gpu.id].append(gpu)
    found = []
    for id_, each in by_id.items():
        busy = [gpu.utilization for gpu in each if gpu.utilization is not None]
        used = [gpu.used_bytes for gpu in each if gpu.used_bytes is not None]
        found.append(
            {
                "gpu": id_,
                "seen": len(each),
                "mean_utilization": round(fmean(busy), 3) if busy else None,
                "most_utilization": max(busy, default=None),
                "most_used_mib": round(max(used) / 2**20) if used else None,
                "memory_mib": round(each[-1].memory_bytes / 2**20) or None,
            }
        )
    return found


def describe(gpus: Sequence[Mapping[str, Any]]) -> str:
    """The same as a table; empty without GPUs."""
    rows = [
        [one["gpu"], *("–" if one[name] is None else form.format(one[name]) for name, form in FORMS.items())]
        for one in gpus
    ]
    return table(["GPU", "busy, mean", "busy, most", "memory in use, most", "memory"], rows) if rows else ""
