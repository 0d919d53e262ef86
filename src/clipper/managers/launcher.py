"""How a container is started, found again and cleaned up after: the port that each kind of manager fills."""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from clipper.control.snapshot import ReplicaAddress
from clipper.managers.reconcile.plan import Slot
from clipper.settings.version import VersionSpec


class ContainerNote(Struct, frozen=True):
    """What is noted beside a container: enough for a later supervisor to go on with it.

    Attributes:
        number: of this start of its slot; no other start, of whatever slot, has it.
        listen: what it is told to listen on, ``unix:PATH`` or ``tcp:HOST:PORT``.
        ready: a supervisor saw it so.
        build: of the runtime that it got from us; empty of one from before that was noted.
    """

    model: str
    version: str
    index: int
    number: int
    listen: str
    spec: VersionSpec
    ready: bool = False
    build: str = ""

    @property
    def id(self) -> str:
        return f"{self.slot}.g{self.number}"

    @property
    def slot(self) -> Slot:
        return Slot(self.model, self.version, self.index)

    @property
    def name(self) -> str:
        """What its record, log and folder are called, the same for each start of its slot."""
        return slot_name(self.slot)


def slot_name(slot: Slot) -> str:
    """A slot's name as a file's. ``@`` is in no model's name: no two are alike."""
    return f"{slot.model}@{slot.version}-{slot.index}"


class Container(Protocol):
    """One that was started.

    Attributes:
        address: where it can be dialled.
        exited: set once it has exited and nothing of it runs any more.
        warning: how the model and what it runs with do not quite fit; None if they do, or if that is not known.
    """

    address: ReplicaAddress
    exited: asyncio.Event
    warning: str | None

    @property
    def pid(self) -> int | None:
        """Of its first process, as this machine counts; None if that is not known."""

    @property
    def how_it_ended(self) -> str:
        """The rest of a sentence about it, once it has exited."""

    async def has_exited_within(self, seconds: float) -> bool:
        """Wait for its exit, no longer than that; return whether it has exited."""

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, ``grace_s`` to finish in, then SIGKILL to all that is left. Returns when it is gone."""

    async def save_log(self) -> None:
        """Have all in its log file that it has written until now."""

    def note_ready(self) -> None:
        """Have its note say so. That it cannot be written is logged, and no more."""


class Launcher(Protocol):
    """Starts containers of one kind. Each is known by its note."""

    def choose_address(self, number: int) -> str:
        """What the container with this number, which no other has, is to listen on. ``clean_up`` gives it back.

        Raises:
            OSError: there is nothing left to choose.
        """

    async def launch(self, note: ContainerNote, log_path: Path, tell: Callable[[str], None]) -> Container:
        """Start one. What it writes is added to ``log_path``. If it is cancelled, it leaves nothing running.

        Args:
            tell: called with what is going on, where that takes long: its environment is made first.

        Raises:
            ContainerFailed: it cannot be started as its version says.
            Unavailable, OSError: nothing of this kind can be started now.
        """

    async def left(self) -> list[ContainerNote]:
        """Those that an earlier supervisor started, some of which may be gone. Nothing was launched yet."""

    async def adopt(self, note: ContainerNote, log_path: Path) -> Container | None:
        """Take over one that was left; None if it is gone, or cannot be taken over now."""

    async def clean_up(self, note: ContainerNote) -> None:
        """Remove what one that is gone leaves behind, but its log."""

    async def prune(self, artifacts: Collection[str]) -> None:
        """Remove what is kept for versions of other artifacts than these, which are given by their digests."""
