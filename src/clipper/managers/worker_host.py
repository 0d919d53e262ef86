"""The port by which query workers are started, found again and cleaned up after, on whatever machine they run."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from clipper.control.address import ControlAddress
from clipper.processes.process import ProcessRecord


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What a worker is started with.

    Attributes:
        name: of its process and of its log; the same over restarts.
        instance: the number of this start.
        config: its ``WorkerConfig``, without what the host decides: where its control channel listens.
        environment: further variables, which may hold secrets.
        note: what the host notes for the next supervisor, to which it adds ``control``.
    """

    name: str
    instance: int
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    note: Mapping[str, Any]


class RunningWorker(Protocol):
    """A worker's process. ``exited`` is set once it has exited and nothing of it runs any more."""

    exited: asyncio.Event

    @property
    def pid(self) -> int:
        """As its machine sees it."""

    @property
    def how_it_ended(self) -> str:
        """The rest of a sentence about it."""

    def terminate(self) -> None:
        """Ask it to drain and end."""

    def kill(self) -> None: ...

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, and kill it after ``grace_s``. Returns when it is gone."""

    async def has_exited_within(self, seconds: float) -> bool:
        """Wait for its exit, no longer than that; return whether it has exited."""


@dataclass(frozen=True, slots=True)
class StartedWorker:
    """``control``: where its control channel will listen."""

    process: RunningWorker
    control: ControlAddress


class WorkerHost(Protocol):
    """Where workers run."""

    @property
    def is_away(self) -> bool:
        """Whether no worker could be asked or started, because what they are reached by is away."""

    async def start(self, start: WorkerStart) -> StartedWorker:
        """
        Raises:
            ClipperError, OSError: it cannot be started.
        """

    async def adopt(self, record: ProcessRecord) -> RunningWorker | None:
        """Go on with a worker that an earlier supervisor started; None if it is gone."""

    async def clean_up(self, name: str, control: ControlAddress | None) -> None:
        """Remove what a worker that has exited has left. ``control``: of its last start."""


def worker_argv(config: Mapping[str, Any], control: ControlAddress) -> list[str]:
    """The command line that starts a worker."""
    text = msgspec.json.encode({**config, "control": str(control)}).decode()
    return [sys.executable, "-m", "clipper.worker", "--config", text]
