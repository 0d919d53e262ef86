"""Keeps containers within what they may take. The kernel bounds single processes; what they take together is here."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from clipper.processes.census import Census, Found, disk_usage, memory_bytes
from clipper.processes.excess import Bounds, Usage, excess

# What takes without end can take for so long before it is noticed. A look costs some 20 µs a process of the machine.
LOOK_EVERY_S = 0.5
# Disks are slower to fill than memory, and counting files takes longer.
LOOK_AT_DISK_EVERY = 4


class Bounded(Protocol):
    """A container on this machine.

    Attributes:
        mark: that of all its processes.
        folder: that it works in.
    """

    mark: str
    folder: Path
    bounds: Bounds

    def kill(self, reason: str) -> None:
        """End it and all that it forked; ``reason`` is the rest of a sentence about it."""


class UsageKeeper:
    """Looks at what containers take, and kills those that take too much."""

    def __init__(self, running: Callable[[], Sequence[Bounded]]) -> None:
        self._running = running
        self._census = Census()
        self._looks = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            if containers := self._running():
                usages = await asyncio.to_thread(self._look, containers)
                for container, usage in zip(containers, usages):
                    if reason := excess(usage, container.bounds):
                        container.kill(reason)
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self, containers: Sequence[Bounded]) -> list[Usage]:
        found = self._census.look()
        usages = [_usage(found.get(container.mark, []), container.bounds) for container in containers]
        self._looks += 1
        if self._looks % LOOK_AT_DISK_EVERY == 0:
            usages = [_with_disk(usage, container) for usage, container in zip(usages, containers)]
        return usages


def _usage(processes: list[Found], bounds: Bounds) -> Usage:
    return Usage(
        processes=len(processes),
        threads=sum(process.threads for process in processes),
        memory_bytes=memory_bytes(processes, bounds.memory_bytes),
    )


def _with_disk(usage: Usage, container: Bounded) -> Usage:
    size_bytes, files = disk_usage(container.folder, container.bounds.files)
    return replace(usage, disk_bytes=size_bytes, files=files)
