"""The port that every manager implements: how a container is started, found again and cleaned up after."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from clipper.control.snapshot import ReplicaAddress
from clipper.errors import InvalidArgument
from clipper.settings.server import MAX_OUTPUT_BYTES
from clipper.settings.telemetry import LogFormat
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.values.types import Loader

OnProgress = Callable[[str], None]
Keeper = Callable[[], Awaitable[None]]


class ContainerNote(Struct, frozen=True):
    """What is noted beside a container, enough for a later supervisor to go on with it.

    Attributes:
        number: of this start of its slot; no other start, of whatever slot, has it.
        listen: the address that it has to listen on, ``unix:PATH`` or ``tcp:HOST:PORT``.
        ready: a supervisor has seen it ready.
        build: of the runtime that it got from us; empty if it was started before builds were noted.
        log_format: of what that runtime logs.
        max_output_bytes: the bound of one output that it was started with.
    """

    model: str
    version: str
    index: int
    number: int
    listen: str
    spec: VersionSpec
    ready: bool = False
    build: str = ""
    log_format: LogFormat = "text"
    max_output_bytes: int = MAX_OUTPUT_BYTES

    @property
    def id(self) -> str:
        return f"{self.slot}.g{self.number}"

    @property
    def slot(self) -> Slot:
        return Slot(self.model, self.version, self.index)

    @property
    def log_fields(self) -> dict[str, str]:
        """What a record of a log says of it."""
        return {"model": self.model, "version": self.version, "replica": self.id}

    @property
    def name(self) -> str:
        """The name of its record, log and folder, the same for each start of its slot."""
        return slot_name(self.slot)


def slot_name(slot: Slot) -> str:
    """A slot's name in file names. No model's name has an ``@``, so no two slots get the same."""
    return f"{slot.model}@{slot.version}-{slot.index}"


def container_note(extra: Mapping[str, object]) -> ContainerNote | None:
    """The note in a process's record; None if the process is a worker, or was started by an older Clipper."""
    try:
        return msgspec.convert(extra, ContainerNote)
    except msgspec.ValidationError:
        return None


class Container(Protocol):
    """A container that was started.

    Attributes:
        address: where it can be dialled.
        exited: set once it has exited and nothing of it runs any more.
        warning: how its packages differ from those that the model was saved with; None if they do not, or if that is
            not known.
        node: what the machine that it runs on is called; None if it is this one.
    """

    address: ReplicaAddress
    exited: asyncio.Event
    warning: str | None
    node: str | None

    @property
    def pid(self) -> int | None:
        """The process id of its first process, as its ``node`` sees it; None if that is not known."""

    @property
    def how_it_ended(self) -> str:
        """The rest of a sentence about it, once it has exited."""

    async def has_exited_within(self, seconds: float) -> bool:
        """Wait for its exit, no longer than that; return whether it has exited."""

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, ``grace_s`` to finish in, then SIGKILL to all that is left. Returns when it is gone."""

    async def save_log(self) -> None:
        """Bring its log file up to date with what it has written."""

    def note_ready(self) -> None:
        """Set ``ready`` in its note. A failure to write the note is only logged."""


class Runnable(Protocol):
    """What a version, or a deployment that is to become one, says about how it runs."""

    @property
    def loader(self) -> Loader: ...

    @property
    def python(self) -> str | None: ...

    @property
    def gpus(self) -> str | None: ...

    @property
    def resources(self) -> Mapping[str, float]: ...

    @property
    def placement(self) -> str | None: ...


def check_needs_no_cluster(asked: Runnable, manager: str) -> None:
    """Check that it asks nothing of a cluster: for a manager that has one machine.

    Raises:
        InvalidArgument: it does.
    """
    for name, given in (("resources", bool(asked.resources)), ("placement", asked.placement is not None)):
        if given:
            raise InvalidArgument(
                f"{name} is for a manager of several machines: expected manager 'ray', not {manager!r}, or no {name}"
            )


class Launcher(Protocol):
    """Starts containers of one kind, and knows each by its note."""

    def check(self, asked: Runnable) -> None:
        """Check that containers of this kind can run it.

        Raises:
            InvalidArgument: they cannot; the message says what to change.
        """

    def keepers(self) -> Mapping[str, Keeper]:
        """Tasks that run as long as the server, by what they do, such as ``holding replicas to their bounds``.

        One may return when it has done what there is to do, except on a node of a cluster, where an end is a failure.
        """

    def choose_address(self, number: int) -> str:
        """Choose the address that the container with this number has to listen on. ``clean_up`` gives it back.

        No other container has the number.

        Raises:
            OSError: there is no free address.
        """

    async def launch(self, note: ContainerNote, log_path: Path, on_progress: OnProgress) -> Container:
        """Start a container. What it writes is added to ``log_path``. If this is cancelled, it leaves nothing running.

        Args:
            on_progress: called with what goes on meanwhile: the container's environment may take minutes to make.

        Raises:
            ContainerFailed: it cannot be started as its version says.
            Unavailable, OSError: no container of this kind can be started now.
        """

    async def seen(self) -> list[tuple[ContainerNote, int | None]]:
        """The containers of the home that run now, and their process ids, if those are known here.

        Read-only: a supervisor may be taking them over meanwhile.

        A cluster is not asked: that takes long, and ``clipper cluster list`` does it.
        """

    async def left(self) -> list[ContainerNote]:
        """The containers that an earlier supervisor started; some may be gone. Called before anything is launched.

        It also removes what is left of containers that have no note any more.
        """

    async def adopt(self, note: ContainerNote, log_path: Path) -> Container | None:
        """Take over one of ``left``; None if it is gone, or cannot be taken over now."""

    def expect(self, asleep: Mapping[str, VersionSpec]) -> None:
        """Be told, before its keepers run, what the next queries may have it start: versions that sleep.

        ``asleep``: by the names of their containers.
        """

    async def clean_up(self, note: ContainerNote) -> None:
        """Remove what a container that is gone leaves behind, except its log."""

    async def prune(self, artifacts: Collection[str]) -> None:
        """Remove what is kept for versions whose artifacts are not among these digests."""
