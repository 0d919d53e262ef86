"""The port that every manager implements, the server's facilities for each, and the command line of a container."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.process import is_set_within
from clipper.base.run_as import RunAs
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import InvalidArgument, Unavailable
from clipper.settings.server import MAX_OUTPUT_BYTES, LogFormat, ServerSettings
from clipper.settings.version import Deployment, ManagerName, VersionSpec
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.values.inputs.sample_types import sample_type

OnProgress = Callable[[str], None]
# The progress text of a container that waits for room in a cluster begins with this.
WAITING_FOR_ROOM = "waiting for room"
Keeper = Callable[[], Awaitable[None]]
# Managers whose containers run elsewhere than on the server's machine: the servers of a cluster share them.
ELSEWHERE: frozenset[ManagerName] = frozenset({"ray"})


class ContainerNote(Struct, frozen=True):
    """A note beside a container, with all that a later supervisor needs to go on with it.

    Attributes:
        number: the number of this start; no other start, of any slot, has it.
        listen: the address that it has to listen on, ``unix:PATH`` or ``tcp:HOST:PORT``.
        ready: whether a supervisor has seen it ready.
        build: the build of the runtime that it got from us; empty if it was started before builds were noted.
        known_type: the input type that earlier containers of its version have stated. It has to take this type even if
            a newer Clipper would derive another from the model, because applications send such inputs.
        gpus: the ids of the GPUs that were chosen for it, in Docker; None if it gets all, or if it is not in Docker.
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
    known_type: str | None = None
    gpus: tuple[str, ...] | None = None

    @property
    def id(self) -> str:
        return f"{self.slot}.g{self.number}"

    @property
    def slot(self) -> Slot:
        return Slot(self.model, self.version, self.index)

    @property
    def log_fields(self) -> dict[str, str]:
        """Return the fields that a log record has about the container."""
        return {"model": self.model, "version": self.version, "replica": self.id}

    @property
    def name(self) -> str:
        """The name of the container's record, log and folder, which is the same for each start of its slot."""
        return slot_name(self.slot)


def slot_name(slot: Slot) -> str:
    """Return a slot's name in file names. No model's name has an ``@``, so no two slots get the same."""
    return f"{slot.model}@{slot.version}-{slot.index}"


def container_note(extra: Mapping[str, object]) -> ContainerNote | None:
    """Return the note in a process's record; None if it is a worker, or an older Clipper started it."""
    try:
        return msgspec.convert(extra, ContainerNote)
    except msgspec.ValidationError:
        return None


class NodeLost(Unavailable):
    """A container cannot start where a cluster had placed it: the node is gone. Another place may do."""


class Running(Protocol):
    """A container or a worker that was started. ``exited`` is set once nothing of it runs any more."""

    exited: asyncio.Event

    @property
    def pid(self) -> int | None:
        """The process id of its first process on its machine; None if that is not known."""

    @property
    def how_it_ended(self) -> str:
        """The way that it ended, as the rest of a sentence about it."""

    async def has_exited_within(self, seconds: float) -> bool:
        """Wait for its exit, for a bounded time; return whether it has exited."""
        return await is_set_within(self.exited, seconds)

    async def stop(self, grace_s: float) -> None:
        """Send SIGTERM, wait for ``grace_s``, then send SIGKILL to all that is left. Return when it is gone."""


class Container(Running, Protocol):
    """A container that was started.

    Attributes:
        warning: how its packages differ from those with which the model was saved; None if they do not, or if that is
            not known.
        node: the name of the machine that it runs on; None if it is this one.
        is_lost: whether it has ended with its node, which says nothing about its model.
    """

    address: ReplicaAddress
    warning: str | None = None
    node: str | None = None
    is_lost: bool = False

    async def save_log(self) -> str | None:
        """Bring the container's log file up to date. Return why that cannot be done; None if it is."""

    def note_ready(self) -> None:
        """Set ``ready`` in its note. A failure to write the note is only logged."""


# The fields of a spec that say how a version runs.
Runnable = VersionSpec | Deployment


def check_needs_no_cluster(asked: Runnable, manager: str) -> None:
    """Raise InvalidArgument if a version asks for something of a cluster: for a manager that has one machine."""
    for name, given in (("resources", bool(asked.resources)), ("placement", asked.placement is not None)):
        if given:
            raise InvalidArgument(
                f"{name} is for a manager of several machines: expected manager 'ray', not {manager!r}, or no {name}"
            )


class Launcher(Protocol):
    """Starts containers of one kind, and knows each by its note."""

    def check(self, asked: Runnable) -> None:
        """Raise InvalidArgument, with what to change, if containers of this kind cannot run a version."""

    def keepers(self) -> Mapping[str, Keeper]:
        """Return tasks that run as long as the server, by their purpose, such as ``holding replicas to their bounds``.

        A task may return when it is done, except on a node of a cluster, where an end is a failure.
        """
        return {}

    def choose_address(self, number: int) -> str:
        """Choose an address for the container of this number, until ``clean_up``. Raises OSError without one."""

    async def launch(
        self, note: ContainerNote, log_path: Path, on_progress: OnProgress, variables: Mapping[str, str]
    ) -> Container:
        """Start a container. Its output is added to ``log_path``. If this is cancelled, it leaves nothing running.

        ``on_progress`` gets texts about the progress: the environment may take minutes to make. ``variables`` are the
        version's own variables, with the values of its secrets: no note, log or command line may contain them. Raises
        ContainerFailed if it cannot be started as its version says; Unavailable or OSError if no container of this kind
        can be started now.
        """

    async def seen(self) -> list[tuple[ContainerNote, int | None]]:
        """Return the containers of the home that run now, and their process ids, if those are known here.

        This changes nothing: a supervisor may be taking them over meanwhile. A cluster is not asked: ``clipper cluster
        list`` does that.
        """
        return []

    async def orphans(self) -> list[ContainerNote]:
        """Return the containers that an earlier supervisor started; some may be gone. Called before any launch.

        It also removes the rests of containers without a note.
        """

    async def adopt(self, note: ContainerNote, log_path: Path) -> Container | None:
        """Take over one of ``orphans``; None if it is gone, or cannot be taken over now."""

    def expect(self, asleep: Mapping[str, VersionSpec]) -> None:
        """Note, before the keepers run, which versions sleep, by their containers' names: queries may wake them."""
        del asleep

    async def clean_up(self, note: ContainerNote) -> None:
        """Remove everything that a container leaves behind, except its log."""

    async def prune(self, artifacts: Collection[str]) -> None:
        """Remove everything kept for versions whose artifacts are not among these digests."""
        del artifacts


@dataclass(frozen=True, slots=True)
class Facilities:
    """The server's facilities for every manager. A setting for one manager only begins with its name.

    Attributes:
        sockets: the folder in which containers make their sockets; maybe outside the home, because a socket's path must
            be short.
        environments: the folder of Python environments if models run as another user.
        run_as: the user that models run as; None is the server's. That user must not be able to write to these folders.
        cluster: the name of the registry that several homes share, of which one leads at a time; empty if it is not
            shared.
        may_act: tells whether this home leads now. A home that does not lead leaves alone what homes share, such as
            containers on Ray.
        start_again: has this server start again, to take over what it could not reach at its start.
        orphans_elsewhere: managers whose containers the leader of another home may have left to this one.
    """

    home: Path
    artifacts: Path
    scratch: Path
    sockets: Path
    environments: Path
    processes: ProcessFolder
    logs: Path
    environ: Mapping[str, str]
    settings: ServerSettings = field(default_factory=ServerSettings)
    run_as: RunAs | None = None
    cluster: str = ""
    may_act: Callable[[], bool] = lambda: True
    start_again: Callable[[], None] = lambda: None
    orphans_elsewhere: Collection[ManagerName] = ()


# The parts of the package that a container's Python imports, as paths in the package.
RUNTIME_PARTS = (
    "__init__.py",
    "base/__init__.py",
    "base/log_format.py",
    "base/masking.py",
    "base/oom.py",
    "errors.py",
    "model",
    "runtime.py",
    "values/__init__.py",
    "values/columns.py",
    "values/json_types.py",
    "values/output_arrays.py",
    "values/records.py",
    "values/types.py",
)
# Less than Linux allows for one argument.
MAX_ARGUMENT_BYTES = 100_000
# The share of a jar's memory for its heap. The rest is for Java's memory outside the heap.
JAVA_HEAP_SHARE = 0.75


def container_argv(note: ContainerNote, artifact: Path, python: str) -> list[str]:
    """Return a replica's command: its own program, or Clipper's runtime on ``python``. ``artifact`` is unpacked."""
    spec = note.spec
    if spec.loader == "binary":
        return program_argv(artifact / spec.target, spec.memory_bytes) + program_options(note, artifact)
    options = {
        "--artifact": artifact,
        "--loader": spec.loader,
        "--target": spec.target,
        "--data": spec.data,
        "--input-type": spec.input_type or _short(note.known_type),
        "--sample-type": None if spec.sample is None else _short(sample_type(spec.sample)),
        "--framework": spec.framework,
        "--output": spec.output,
        "--precision": spec.precision,
        "--memory-bytes": spec.memory_bytes,
        "--max-output-bytes": note.max_output_bytes,
    }
    if note.log_format != "text":
        options |= {"--log-format": note.log_format, "--replica": note.id}
    flags = ["--gpu"] if spec.gpus is not None else []
    return [python, "-m", "clipper.model.runtime", *_options(note, options), *flags]


def _short(input_type: str | None) -> str | None:
    """Return a type that a container can find out by itself, unless it is too long for an argument."""
    return input_type if input_type is not None and len(input_type.encode()) <= MAX_ARGUMENT_BYTES else None


def program_argv(program: Path, memory_bytes: int | None) -> list[str]:
    """Return the command that runs a program. Java gets the size of its heap, because it does not look for a limit."""
    if program.suffix != ".jar":
        return [str(program)]
    heap = [] if memory_bytes is None else [f"-Xmx{int(memory_bytes * JAVA_HEAP_SHARE)}"]
    return ["java", *heap, "-jar", str(program)]


def program_options(note: ContainerNote, artifact: Path) -> list[str]:
    """Return the options of a program, which knows nothing of artifacts."""
    data = None if note.spec.data is None else artifact / note.spec.data
    return _options(note, {"--data": data, "--input-type": note.spec.input_type})


def _options(note: ContainerNote, further: Mapping[str, object]) -> list[str]:
    """Return the options that every container gets, and further options that have a value."""
    common = ["--listen", note.listen, "--model", note.model, "--version", note.version]
    return common + [text for option, value in further.items() if value is not None for text in (option, str(value))]
