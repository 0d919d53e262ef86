"""Containers as processes of this machine: started, taken over and cleaned up after."""

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clipper.base.processes import limits
from clipper.base.processes.enter import entering, variables_file
from clipper.base.processes.excess import Bounds
from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.gpus import machine_gpus
from clipper.base.processes.limits import Share
from clipper.base.processes.proc import user_of
from clipper.base.processes.process import KILL_TIMEOUT_S, ManagedProcess, ProcessRecord
from clipper.base.processes.usage import UsageKeeper
from clipper.base.run_as import RunAs, in_own_group
from clipper.base.trees import remove_tree
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ContainerFailed, InvalidArgument
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.environments.builder import environments_root
from clipper.supervisor.managers.environments.provider import EnvironmentProvider
from clipper.supervisor.managers.launcher import (
    Container,
    ContainerNote,
    Facilities,
    Keeper,
    Launcher,
    OnProgress,
    Runnable,
    check_needs_no_cluster,
    container_argv,
    container_note,
)
from clipper.supervisor.managers.local.fork_server import Fork
from clipper.supervisor.managers.local.fork_servers import FORK_FROM, ForkServers
from clipper.supervisor.managers.local.warmth import Warmth, warmth_of
from clipper.supervisor.managers.shares import THREAD_VARIABLES, Shares, environment, parse_gpus
from clipper.values.types import DATA_PER_MEMORY

log = logging.getLogger(__name__)


class LocalContainer(Container):
    """A process as a ``Container``, and as ``usage.Bounded``. Its output goes straight to its log."""

    def __init__(
        self,
        note: ContainerNote,
        process: ManagedProcess,
        processes: ProcessFolder,
        folder: Path,
        warning: str | None = None,
        socket_folder: Path | None = None,
        devices: tuple[str, ...] = (),
    ) -> None:
        """Watch a process that works in ``folder``. ``socket_folder``, its socket's, is closed once it is ready.

        ``devices``: the ids of the GPUs that it sees.
        """
        self.name = note.name
        self.address = ReplicaAddress(note.id, note.listen, devices=devices)
        self.exited: asyncio.Event = process.exited
        self.mark = process.mark
        self.folder = folder
        self.bounds = Bounds(note.spec.memory_bytes)
        self.warning = warning
        self._note = note
        self._process = process
        self._processes = processes
        self._socket_folder = socket_folder
        self._killed_because: str | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def how_it_ended(self) -> str:
        if self._killed_because is not None:
            return f"was killed because it {self._killed_because}"
        return self._process.how_it_ended

    def kill(self, reason: str) -> None:
        self._killed_because = self._killed_because or reason
        self._process.kill()

    async def has_exited_within(self, seconds: float) -> bool:
        if await self._process.has_exited_within(seconds):
            return True
        # The connection breaks before the exit is known, and it takes a while until all its processes have ended: on a
        # busy machine, or if a model has forked without end.
        is_ending = self._killed_because is not None or self._process.is_ending
        return is_ending and await self._process.has_exited_within(KILL_TIMEOUT_S)

    async def stop(self, grace_s: float) -> None:
        await self._process.stop(grace_s)

    async def save_log(self) -> None:
        """Do nothing: the log file is up to date."""

    def note_ready(self) -> None:
        extra = msgspec.to_builtins(msgspec.structs.replace(self._note, ready=True))
        try:
            if self._socket_folder is not None:
                # Its socket exists now, and only root dials it: from now on no other user may enter the folder.
                os.chown(self._socket_folder, 0, 0)
            self._processes.update(msgspec.structs.replace(self._process.record, extra=extra))
        except OSError as error:
            log.warning(
                "the note that %(replica)s is ready cannot be written: %(error)s",
                {**self._note.log_fields, "error": error},
            )


# The beginning of the name of a folder for a container's socket. Docker's begin with c.
SOCKET_FOLDER = "m"


@dataclass(frozen=True, slots=True)
class _Start:
    """The command and files of a container's start.

    Attributes:
        variables: those besides what every process of ours gets.
        own: the version's own variables.
    """

    note: ContainerNote
    log_path: Path
    folder: Path
    argv: tuple[str, ...]
    variables: dict[str, str]
    own: Mapping[str, str]
    run_as: RunAs | None
    share: Share


class LocalLauncher(Launcher):
    """The launcher of processes of this machine. Each container works in a folder of its own.

    Nothing is kept for a single version: versions share environments. ``forks`` are the fork servers.
    """

    def __init__(
        self,
        facilities: Facilities,
        environments: EnvironmentProvider,
        shares: Shares | None = None,
        token: str = "",
        fork_from: int = FORK_FROM,
    ) -> None:
        """Make a launcher.

        ``shares`` is the part of this machine that containers may get; None means all of it. ``token`` is the token of
        their callers, if any. ``fork_from``: see ``ForkServers``; used if the server's start method is ``forkserver``.
        """
        self._artifacts = facilities.artifacts
        self._scratch = facilities.scratch
        self._sockets = facilities.sockets
        self._processes = facilities.processes
        self._run_as: RunAs | None = facilities.run_as
        self._environments = environments
        self._shares = shares or Shares(limits.machine_cores(), machine_gpus(facilities.environ))
        self._token = token
        forks = facilities.settings.start_method == "forkserver"
        self.forks = ForkServers(facilities.processes, facilities.logs, facilities.run_as, fork_from if forks else None)
        self._is_forking = forks
        self._running: dict[str, LocalContainer] = {}
        self._orphans: dict[str, ProcessRecord] = {}
        # The containers at this server's start, by name: adopted ones, and those that sleep.
        self._found: dict[str, VersionSpec] = {}

    @classmethod
    def open(cls, facilities: Facilities) -> "LocalLauncher":
        # Homes of a user share environments. Another user cannot reach this user's cache.
        is_own = facilities.run_as is None
        root = environments_root(facilities.environ) if is_own else facilities.environments
        return cls(facilities, EnvironmentProvider(facilities.processes, facilities.artifacts, root, facilities.run_as))

    def running(self) -> list[LocalContainer]:
        return list(self._running.values())

    def check(self, asked: Runnable) -> None:
        if asked.loader == "image":
            raise InvalidArgument("an image runs in Docker: expected manager 'docker', not 'local'")
        check_needs_no_cluster(asked, "local")
        if asked.gpus is not None:
            parse_gpus(asked.gpus)

    def keepers(self) -> Mapping[str, Keeper]:
        bounds: dict[str, Keeper] = {"holding replicas to their bounds": UsageKeeper(self.running, self._run_as).run}
        if not self._is_forking:
            return bounds
        return bounds | {
            "ending fork servers that nobody uses": self.forks.run,
            "warming up fork servers for models that sleep": self.warm_up,
        }

    def choose_address(self, number: int) -> str:
        # With --run-as, another user creates the socket, in a folder with nothing else in it.
        name = f"c{number}.sock" if self._run_as is None else f"{SOCKET_FOLDER}{number}/s"
        return f"unix:{self._sockets / name}"

    async def launch(
        self, note: ContainerNote, log_path: Path, on_progress: OnProgress, variables: Mapping[str, str]
    ) -> LocalContainer:
        own = variables
        prepared = await self._environments.prepare(note.spec, on_progress)
        folder, socket_folder = self._folder(note), self._socket_folder(note)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Temporary files go into the container's own folder: they are bounded there, and removed with it.
        variables = {"TMPDIR": str(folder)} | ({"CLIPPER_TOKEN": self._token} if self._token else {})
        run_as = self._run_as
        if run_as is not None and socket_folder is not None:
            socket_folder.mkdir(mode=0o700, exist_ok=True)
            if own:
                run_as = in_own_group(run_as, self._artifacts.parent, note.number)
            for path in (folder, socket_folder):
                # The folders of a container with variables of its own are its group's: other models have its user.
                os.chown(path, 0 if own else run_as.uid, run_as.gid)
                path.chmod(0o770 if own else 0o700)
            variables["HOME"] = str(folder)  # the server's own home is closed to it
        share = self._shares.give(note.name, note.spec)
        variables = environment(note.spec.cpus, share) | variables
        argv = container_argv(note, self._artifacts / note.spec.artifact, prepared.python)
        start = _Start(note, log_path, folder, tuple(argv), variables, own, run_as, share)
        process = await self._forked(start) or self._started(start)
        warning = "; ".join(filter(None, (prepared.warning, self._shares.crowding(note.name)))) or None
        devices = self._shares.devices(note.name)
        container = LocalContainer(note, process, self._processes, folder, warning, socket_folder, devices)
        self._running[note.name] = container
        return container

    async def _forked(self, start: _Start) -> ManagedProcess | None:
        """Fork a container from a process that has its libraries; None if it has to be started by itself."""
        note, argv = start.note, start.argv
        # A fork server would keep the variables in its memory, which all that it forks later get.
        # And a library in it may have looked for GPUs already, and found none.
        warmth = None if start.own or note.spec.gpus is not None else _warmth(note.spec, argv[0])
        if warmth is None:
            return None
        request = Fork(
            argv[argv.index("clipper.model.runtime") + 1 :],
            start.variables,
            str(start.folder),
            str(self._artifacts / note.spec.artifact / "code"),
            None if start.share.cores is None else tuple(sorted(start.share.cores)),
        )
        extra, memory_bytes = msgspec.to_builtins(note), note.spec.memory_bytes
        return await self.forks.fork(note.name, warmth, request, start.log_path, memory_bytes, extra)

    def _started(self, start: _Start) -> ManagedProcess:
        """Start a container by itself, as a program."""
        spec, argv, cores = start.note.spec, list(start.argv), start.share.cores
        # A program is limited from outside. Clipper's runtime limits itself, and Java limits its own heap.
        is_bare_program = spec.loader == "binary" and not spec.target.endswith(".jar")
        data_bytes = DATA_PER_MEMORY * spec.memory_bytes if spec.memory_bytes is not None and is_bare_program else None
        variables, inherited = start.variables | dict(start.own), []
        if start.run_as is not None:
            variables = start.variables
            if start.own:
                inherited.append(variables_file(start.own))
            argv = entering(start.run_as, data_bytes, cores, argv, *inherited)
        try:
            process = self._processes.launch(
                start.note.name,
                argv,
                log_path=start.log_path,
                cwd=start.folder,
                environment=variables,
                extra=msgspec.to_builtins(start.note),
                descriptors=inherited,
            )
        finally:
            for descriptor in inherited:
                os.close(descriptor)
        if self._run_as is None:
            try:
                limits.apply(process.pid, data_bytes, cores)
            except OSError:
                process.kill()  # it must not run without its limits
                raise
        return process

    async def seen(self) -> list[tuple[ContainerNote, int | None]]:
        records = self._processes.running()
        return [(note, record.pid) for record in records if (note := container_note(record.extra))]

    async def orphans(self) -> list[ContainerNote]:
        self._orphans = {record.name: record for record in self._processes.recorded()}
        notes = [note for record in self._orphans.values() if (note := container_note(record.extra))]
        kept = {self._socket_folder(note) for note in notes}
        for folder in self._sockets.glob(f"{SOCKET_FOLDER}[0-9]*/"):
            if folder not in kept:
                await asyncio.to_thread(remove_tree, folder)
        return notes

    async def adopt(self, note: ContainerNote, log_path: Path) -> LocalContainer | None:
        process = self._processes.adopt(self._orphans.pop(note.name))
        if process is None:
            return None
        if user_of(process.pid) != (os.geteuid() if self._run_as is None else self._run_as.uid):
            process.release()  # it is ended with all processes that were not adopted
            return None
        self._shares.has(note.name, limits.share_of(process.pid), note.spec)
        folder, sockets, devices = self._folder(note), self._socket_folder(note), self._shares.devices(note.name)
        container = LocalContainer(note, process, self._processes, folder, None, sockets, devices)
        self._running[note.name] = container
        self._found[note.name] = note.spec
        return container

    def expect(self, asleep: Mapping[str, VersionSpec]) -> None:
        self._found |= asleep

    async def warm_up(self) -> None:
        """Warm up fork servers for sleeping versions: otherwise the first of each environment would wake slowly."""
        found, self._found = self._found, {}
        for name, spec in found.items() if self._is_forking else ():
            try:
                prepared = await self._environments.prepare(spec, lambda text: None)
            except ContainerFailed as error:
                log.info("%(process)s will not start: %(error)s", {"process": name, "error": error})
                continue
            if (warmth := _warmth(spec, prepared.python)) is not None:
                self.forks.note(name, warmth, is_there=name in self._running)
            await asyncio.sleep(0)  # there may be a thousand of them
        await self.forks.warm_up()

    async def clean_up(self, note: ContainerNote) -> None:
        self._running.pop(note.name, None)
        self._shares.take_back(note.name)
        self.forks.forget(note.name)
        self._processes.forget(note.name)
        if socket_folder := self._socket_folder(note):
            await asyncio.to_thread(remove_tree, socket_folder)
        else:
            Path(note.listen.removeprefix("unix:")).unlink(missing_ok=True)
        # On a thread, because it may have made many files. The next start in the slot tries again to remove the rest.
        await asyncio.to_thread(remove_tree, self._folder(note))

    def _socket_folder(self, note: ContainerNote) -> Path | None:
        """Return the folder by the note, since an earlier supervisor may have had another ``run_as``."""
        folder = Path(note.listen.removeprefix("unix:")).parent
        return None if folder == self._sockets else folder

    def _folder(self, note: ContainerNote) -> Path:
        return self._scratch / note.name


def _warmth(spec: VersionSpec, python: str) -> Warmth | None:
    return warmth_of(spec, python, environment(spec.cpus, Share()), THREAD_VARIABLES)
