"""Containers as processes on this machine."""

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clipper.control.snapshot import ReplicaAddress
from clipper.managers.command import container_argv
from clipper.managers.environments.model_environments import ModelEnvironments
from clipper.managers.launcher import ContainerNote
from clipper.managers.shares import Shares, environment
from clipper.processes import limits
from clipper.processes.enter import entering
from clipper.processes.excess import Bounds
from clipper.processes.managed import ManagedProcess, ProcessFolder, ProcessRecord
from clipper.run_as import RunAs
from clipper.settings.version import VersionSpec
from clipper.types import DATA_PER_MEMORY

log = logging.getLogger(__name__)

# What the folder of a container's socket is called, with its number behind. Those of containers in Docker begin with c.
OWN_FOLDER = "m"


@dataclass(frozen=True, slots=True)
class Folders:
    """Where containers find and leave things. ``sockets`` is apart: a socket's path must be short."""

    artifacts: Path
    scratch: Path
    sockets: Path


class LocalContainer:
    """A process that is a ``Container``. Its output goes straight to its log. See ``usage.Bounded``, too."""

    def __init__(
        self,
        note: ContainerNote,
        process: ManagedProcess,
        processes: ProcessFolder,
        folder: Path,
        warning: str | None = None,
        own_folder: Path | None = None,
    ) -> None:
        """``own_folder``: that it makes its socket in, if it has one that others of its user are to be kept out of."""
        self.address = ReplicaAddress(note.id, note.listen)
        self.exited: asyncio.Event = process.exited
        self.mark = process.mark
        self.folder = folder
        self.bounds = Bounds(note.spec.memory_bytes)
        self.warning = warning
        self._note = note
        self._process = process
        self._processes = processes
        self._own_folder = own_folder
        self._killed_because: str | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def how_it_ended(self) -> str:
        if self._killed_because is not None:
            return f"was killed since it {self._killed_because}"
        return self._process.how_it_ended

    def kill(self, reason: str) -> None:
        self._killed_because = self._killed_because or reason
        self._process.kill()

    async def has_exited_within(self, seconds: float) -> bool:
        return await self._process.has_exited_within(seconds)

    async def stop(self, grace_s: float) -> None:
        await self._process.stop(grace_s)

    async def save_log(self) -> None:
        """It is in its file already."""

    @property
    def name(self) -> str:
        return self._note.name

    def note_ready(self) -> None:
        extra = msgspec.to_builtins(msgspec.structs.replace(self._note, ready=True))
        try:
            if self._own_folder is not None:
                # It has made its socket, and who dials it is root: nobody else is let in there from now on.
                os.chown(self._own_folder, 0, 0)
            self._processes.update(msgspec.structs.replace(self._process.record, extra=extra))
        except OSError as error:
            log.warning("that %s is ready cannot be recorded: %s", self._note.id, error)


class LocalLauncher:
    """A ``Launcher`` of processes, each with a folder of its own to work in."""

    def __init__(
        self,
        processes: ProcessFolder,
        folders: Folders,
        environments: ModelEnvironments,
        run_as: RunAs | None = None,
    ) -> None:
        """``run_as``: the user that containers run as; none of ``folders`` may be that user's to write to."""
        self._processes = processes
        self._folders = folders
        self._environments = environments
        self._run_as = run_as
        self._shares = Shares(limits.machine_cores(), limits.machine_gpus())
        self._running: dict[str, LocalContainer] = {}

    def running(self) -> list[LocalContainer]:
        return list(self._running.values())

    def choose_address(self, number: int) -> str:
        # Another user is to make a socket, and nothing else beside ours: so in a folder of its own.
        name = f"c{number}.sock" if self._run_as is None else f"{OWN_FOLDER}{number}/s"
        return f"unix:{self._folders.sockets / name}"

    async def launch(self, note: ContainerNote, log_path: Path, tell: Callable[[str], None]) -> LocalContainer:
        prepared = await self._environments.prepare(note.spec, tell)
        scratch, own_folder = self._scratch(note), self._own_folder(note)
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        surroundings = {"TMPDIR": str(scratch)}
        if self._run_as is not None and own_folder is not None:
            own_folder.mkdir(mode=0o700, exist_ok=True)
            for folder in (scratch, own_folder):
                os.chown(folder, self._run_as.uid, self._run_as.gid)
            surroundings["HOME"] = str(scratch)  # ours is closed to it
        share, data_bytes = self._shares.give(note.name, note.spec), _data_bytes(note.spec)
        argv = container_argv(note, self._folders.artifacts / note.spec.artifact, prepared.python)
        if self._run_as is not None:
            argv = entering(self._run_as, data_bytes, share.cores, argv)
        process = self._processes.launch(
            note.name,
            argv,
            log_path=log_path,
            cwd=scratch,
            # So that its temporary files are its own, bounded and removed as its folder is.
            environment=environment(note.spec.cpus, share) | surroundings,
            extra=msgspec.to_builtins(note),
        )
        try:
            if self._run_as is None:
                limits.apply(process.pid, data_bytes, share.cores)
        except OSError:
            process.kill()  # without its bounds it must not run
            raise
        return self._started(LocalContainer(note, process, self._processes, scratch, prepared.warning, own_folder))

    async def left(self) -> list[ContainerNote]:
        return [note for record in self._processes.recorded() if (note := container_note(record))]

    async def adopt(self, note: ContainerNote, log_path: Path) -> LocalContainer | None:
        for record in self._processes.recorded():
            if record.name == note.name and (process := self._processes.adopt(record)):
                if user_of(process.pid) != (os.geteuid() if self._run_as is None else self._run_as.uid):
                    process.release()  # it is ended with all else that was not taken over
                    return None
                self._shares.has(note.name, limits.share_of(process.pid))
                scratch, own_folder = self._scratch(note), self._own_folder(note)
                return self._started(LocalContainer(note, process, self._processes, scratch, own_folder=own_folder))
        return None

    async def clean_up(self, note: ContainerNote) -> None:
        self._running.pop(note.name, None)
        self._shares.take_back(note.name)
        self._processes.forget(note.name)
        if own_folder := self._own_folder(note):
            await asyncio.to_thread(shutil.rmtree, own_folder, ignore_errors=True)
        else:
            Path(note.listen.removeprefix("unix:")).unlink(missing_ok=True)
        # In a thread: it may have made many files. What stays, the next start in the slot tries to remove again.
        await asyncio.to_thread(shutil.rmtree, self._scratch(note), ignore_errors=True)

    async def prune(self, artifacts: Collection[str]) -> None:
        """Nothing is kept for one version: environments are shared."""

    def _own_folder(self, note: ContainerNote) -> Path | None:
        """That of its socket, where it has one: an earlier supervisor may have run it as another user or as none."""
        folder = Path(note.listen.removeprefix("unix:")).parent
        return None if folder == self._folders.sockets else folder

    def _scratch(self, note: ContainerNote) -> Path:
        return self._folders.scratch / note.name

    def _started(self, container: LocalContainer) -> LocalContainer:
        self._running[container.name] = container
        return container


def container_note(record: ProcessRecord) -> ContainerNote | None:
    """What a record says of a container; None if it is a worker's, or one that an older Clipper wrote."""
    try:
        return msgspec.convert(record.extra, ContainerNote)
    except msgspec.ValidationError:
        return None


def user_of(pid: int) -> int | None:
    """The number of the user that a process acts as; None if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return next((int(line.split()[2]) for line in status.splitlines() if line.startswith("Uid:")), None)


def _data_bytes(spec: VersionSpec) -> int | None:
    """A program's bound from without; Clipper's own runtime sets it up for itself, and so does Java for its heap."""
    if spec.memory_bytes is None or spec.loader != "binary" or spec.target.endswith(".jar"):
        return None
    return DATA_PER_MEMORY * spec.memory_bytes
