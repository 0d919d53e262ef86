"""Keeps containers within their bounds.

The kernel limits each process by itself. This module bounds what all processes of a container use together.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from clipper.base.processes.census import Census, disk_usage, memory_bytes
from clipper.base.processes.excess import Bounds, Usage, excess
from clipper.base.run_as import RunAs

# A container can exceed its bounds for this long before it is noticed. A look costs some 20 µs for each process of the
# machine.
LOOK_EVERY_S = 0.5
# Disks fill more slowly than memory, and counting files costs more.
LOOK_AT_DISK_EVERY = 4


class Bounded(Protocol):
    """A container on this machine. ``mark``: the mark of all its processes. ``folder``: the folder it works in."""

    mark: str
    folder: Path
    bounds: Bounds

    def kill(self, reason: str) -> None:
        """End the container and all that it forked; ``reason`` is the rest of a sentence about it."""


class UsageKeeper:
    """Measures what containers use, and kills containers that exceed their bounds."""

    def __init__(self, running: Callable[[], Sequence[Bounded]], run_as: RunAs | None = None) -> None:
        """``run_as``: the user that they run as, if it is not ours."""
        self._running = running
        self._census = Census({os.geteuid()} if run_as is None else {os.geteuid(), run_as.uid})
        self._looks = 0

    async def run(self) -> None:
        while True:
            if containers := self._running():
                usages = await asyncio.to_thread(self._look, containers)
                for container, usage in zip(containers, usages):
                    if reason := excess(usage, container.bounds):
                        container.kill(reason)
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self, containers: Sequence[Bounded]) -> list[Usage]:
        entries = self._census.look()
        self._looks += 1
        usages = []
        for container in containers:
            processes = entries.get(container.mark, [])
            looks_at_disk = self._looks % LOOK_AT_DISK_EVERY == 0
            usage = replace(
                disk_usage(container.folder, container.bounds.files) if looks_at_disk else Usage(),
                processes=len(processes),
                threads=sum(process.threads for process in processes),
                memory_bytes=memory_bytes(processes, container.bounds.memory_bytes),
            )
            usages.append(usage)
        return usages
