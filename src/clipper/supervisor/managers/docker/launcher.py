"""Containers in Docker: created, found again, watched and removed."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from clipper.base.processes.census import disk_usage
from clipper.base.processes.excess import Bounds, excess
from clipper.base.processes.gpus import Gpu
from clipper.base.processes.limits import Share
from clipper.base.trees import remove_tree
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ClipperError, InvalidArgument
from clipper.supervisor.managers.docker import options
from clipper.supervisor.managers.docker.container import DockerContainer, DockerLog
from clipper.supervisor.managers.docker.engine import Engine, ListedContainer, State
from clipper.supervisor.managers.docker.images import Images, Sources
from clipper.supervisor.managers.launcher import ContainerNote, Launcher, OnProgress, Runnable, check_needs_no_cluster
from clipper.supervisor.managers.shares import Shares, parse_gpus


class Addresses:
    """The addresses of a home's containers, and what a later supervisor needs to dial them."""

    def __init__(self, sockets: Path, setting: options.Setting) -> None:
        self._sockets = sockets
        self._setting = setting
        # While a port is bound here, the system gives it to no other process. A container can still listen on it.
        self._held: dict[int, socket.socket] = {}

    def choose(self, number: int) -> str:
        """Choose the address for the container with this number to listen on: see ``Launcher.choose_address``."""
        if self._setting.transport == "unix":
            return f"unix:{self._folder(number) / 's'}"
        if self._setting.publishes:
            return options.PUBLISHED
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((options.LOOPBACK, 0))
        self._held[number] = held
        return f"tcp:{options.LOOPBACK}:{held.getsockname()[1]}"

    def prepare(self, note: ContainerNote) -> str:
        """Make a container's folder; return a new token, or an empty text if it needs no token."""
        # Each container has its own folder, which it mounts, so that it cannot see another container's socket.
        folder = self._folder(note.number)
        folder.mkdir(mode=0o700, exist_ok=True)
        if note.listen.startswith("unix:"):
            return ""
        token = secrets.token_urlsafe()
        with open(folder / "token", "w", opener=partial(os.open, mode=0o600)) as file:
            file.write(token)
        return token

    def token(self, note: ContainerNote) -> str:
        """Return the token that ``prepare`` returned, maybe to an earlier supervisor. Raises OSError."""
        return "" if note.listen.startswith("unix:") else (self._folder(note.number) / "token").read_text()

    def shared_folder(self, note: ContainerNote) -> Path | None:
        """Return the folder that a container may write to; None if it shares none with us."""
        return self._folder(note.number) if note.listen.startswith("unix:") else None

    def is_ready(self, note: ContainerNote) -> bool:
        return self._ready(note.number).exists()

    def note_ready(self, note: ContainerNote) -> None:
        """Make ``is_ready`` true, also for later supervisors. Raises OSError if that cannot be written."""
        self._ready(note.number).touch()

    def give_back(self, note: ContainerNote) -> None:
        """Free an address on which nobody listens any more."""
        if held := self._held.pop(note.number, None):
            held.close()
        self._ready(note.number).unlink(missing_ok=True)
        remove_tree(self._folder(note.number))

    def give_back_others(self, notes: Collection[ContainerNote]) -> None:
        """Remove the files that an earlier supervisor left of containers that are not among these."""
        kept = {path for note in notes for path in (self._folder(note.number), self._ready(note.number))}
        for ready in self._sockets.glob("c[0-9]*.ready"):
            if ready not in kept:
                ready.unlink(missing_ok=True)
        for folder in self._sockets.glob("c[0-9]*/"):
            if folder not in kept:
                remove_tree(folder)

    def _ready(self, number: int) -> Path:
        """Return the file of readiness. It is beside the folder, in which the container could make it itself."""
        return self._sockets / f"c{number}.ready"

    def _folder(self, number: int) -> Path:
        return self._sockets / f"c{number}"


log = logging.getLogger(__name__)

# Each look is one call to dockerd, for all containers of the home.
LOOK_EVERY_S = 0.25
# Disks fill more slowly than containers end.
LOOK_AT_FOLDERS_EVERY = 4
_FOLDER = Bounds(disk_bytes=options.MAX_FOLDER_BYTES, files=options.MAX_FOLDER_FILES)


class DockerLauncher(Launcher):
    """The launcher of containers in Docker. While dockerd is away nothing can be started; running containers go on."""

    def __init__(
        self, engine: Engine, sources: Sources, setting: options.Setting, sockets: Path, gpus: Sequence[Gpu] = ()
    ) -> None:
        """Make a launcher. ``gpus`` are those of dockerd's machine."""
        self._engine = engine
        # Docker itself divides the processors.
        self._shares = Shares((), gpus)
        self._images = Images(engine, sources, setting)
        self._artifacts = sources.artifacts
        self._setting = setting
        self._addresses = Addresses(sockets, setting)
        self._label = f"{options.HOME_LABEL}={setting.home}"
        # UID:GID of containers; empty until dockerd was asked.
        self._user = ""
        # All by the id of the container's note. ``_orphans`` has the Docker ids of orphaned containers.
        self._containers: dict[str, DockerContainer] = {}
        self._starting: set[str] = set()
        self._orphans: dict[str, str] = {}
        self._removing_strays = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    def check(self, asked: Runnable) -> None:
        if asked.python is not None:
            raise InvalidArgument("python is for the manager 'local': in Docker, models run in the base image's Python")
        check_needs_no_cluster(asked, "docker")
        if asked.gpus is not None:
            parse_gpus(asked.gpus)

    def choose_address(self, number: int) -> str:
        return self._addresses.choose(number)

    async def launch(
        self, note: ContainerNote, log_path: Path, on_progress: OnProgress, variables: Mapping[str, str]
    ) -> DockerContainer:
        await self._remove_strays()
        image = await self._images.image_of(note.spec, on_progress)
        if note.spec.gpus is not None and self._shares.has_gpus:
            note = replace(note, gpus=self._shares.give(note.name, replace(note.spec, cpus=None)).gpus)
        starting = asyncio.get_running_loop().create_task(self._start(note, image, log_path, variables))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The call to dockerd continues in its thread: without this, a container would start that nobody knows.
            await (await starting).stop(grace_s=0)
            raise

    async def seen(self) -> list[tuple[ContainerNote, int | None]]:
        return [(note, None) for one, note in await self._noted() or [] if one.is_running]

    async def orphans(self) -> list[ContainerNote]:
        found = await self._noted()
        if found is None:
            return []
        self._orphans = {note.id: one.id for one, note in found}
        notes = [note for _, note in found]
        self._addresses.give_back_others(notes)
        return [replace(note, ready=self._addresses.is_ready(note)) for note in notes]

    async def _noted(self) -> list[tuple[ListedContainer, ContainerNote]] | None:
        """Return the containers of the home with their notes; None if dockerd cannot be asked."""
        try:
            found = await self._engine.containers(self._label)
        except ClipperError as error:
            log.info("the server cannot list its containers in Docker: %(error)s", {"error": error})
            return None
        return [(one, note) for one in found if (note := options.noted(one.labels))]

    async def adopt(self, note: ContainerNote, log_path: Path) -> DockerContainer | None:
        id_ = self._orphans.pop(note.id)
        try:
            state, token = await self._engine.state(id_), self._addresses.token(note)
        except (ClipperError, OSError) as error:
            log.warning("container %(replica)s cannot be taken over: %(error)s", {**note.log_fields, "error": error})
            return None
        self._shares.has(note.name, Share(gpus=note.gpus), note.spec)
        container = self._know(note, id_, state, token, DockerLog(id_, self._engine, log_path, is_new=False))
        return container if state.is_running else None

    async def clean_up(self, note: ContainerNote) -> None:
        self._shares.take_back(note.name)
        container = self._containers.get(note.id)
        if container is not None:
            await container.save_log()
            await self._remove(container.id)
            del self._containers[note.id]
        self._addresses.give_back(note)

    async def prune(self, artifacts: Collection[str]) -> None:
        try:
            await self._images.prune(artifacts)
        except ClipperError as error:
            # Without Docker, this would be logged for each removed version.
            log.debug("images that no version needs stay: %(error)s", {"error": error})

    async def _start(
        self, note: ContainerNote, image: str, log_path: Path, variables: Mapping[str, str]
    ) -> DockerContainer:
        self._starting.add(note.id)
        try:
            token = self._addresses.prepare(note)
            id_ = await self._create(note, image, token, variables)
            try:
                await self._engine.start(id_)
                state = await self._engine.state(id_)
            except ClipperError:
                await self._remove(id_)
                raise
            return self._know(note, id_, state, token, DockerLog(id_, self._engine, log_path, is_new=True))
        finally:
            self._starting.remove(note.id)

    async def _create(self, note: ContainerNote, image: str, token: str, variables: Mapping[str, str]) -> str:
        artifact = self._artifacts / note.spec.artifact
        if not self._user:
            # A rootless dockerd maps its user to root in the container, and all other users to nobody.
            self._user = "0:0" if await self._engine.is_rootless() else f"{os.geteuid()}:{os.getegid()}"
        asked = options.creation(note, image, self._user, artifact, self._setting, token, variables)
        name = options.container_name(note, secrets.token_hex(3))
        return await self._engine.create(name, asked, options.limits(note, artifact, self._setting))

    def _know(self, note: ContainerNote, id_: str, state: State, token: str, output: DockerLog) -> DockerContainer:
        # If the machine's GPUs are not known, dockerd chooses them, and does not report which.
        named = () if note.spec.gpus is None else parse_gpus(note.spec.gpus).ids
        devices = self._shares.devices(note.name) or named
        address = ReplicaAddress(note.id, options.dial_address(note.listen, state.ports), token, devices=devices)
        note_ready = partial(self._addresses.note_ready, note)
        folder = self._addresses.shared_folder(note)
        container = DockerContainer(id_, state, address, self._engine, output, note_ready, folder)
        container.warning = self._shares.crowding(note.name)
        self._containers[note.id] = container
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        return container

    async def _watch(self) -> None:
        """Notice when containers end or fill the folders that they share with us; return when there are none."""
        trouble, looks = "", 0
        while self._containers:
            await asyncio.sleep(LOOK_EVERY_S)
            looks += 1
            try:
                await self._look()
                if looks % LOOK_AT_FOLDERS_EVERY == 0:
                    await self._look_at_folders()
                trouble = ""
            except (ClipperError, OSError) as error:
                # Meanwhile pings show which containers run. Log this once, not four times a second.
                if str(error) != trouble:
                    log.warning("the server cannot look at its containers in Docker now: %(error)s", {"error": error})
                trouble = str(error)

    async def _look(self) -> None:
        watched = self._running()
        running = {found.id for found in await self._engine.containers(self._label) if found.is_running}
        for container in watched:
            if container.id not in running:
                await container.look()

    async def _look_at_folders(self) -> None:
        for container in self._running():
            if container.folder is not None:
                usage = await asyncio.to_thread(disk_usage, container.folder, options.MAX_FOLDER_FILES)
                if reason := excess(usage, _FOLDER):
                    await container.kill(reason)

    def _running(self) -> list[DockerContainer]:
        return [container for container in self._containers.values() if not container.exited.is_set()]

    async def _remove(self, id_: str) -> None:
        try:
            await self._engine.remove(id_)
        except ClipperError as error:
            log.error(
                "container %(container)s cannot be removed now; the next start tries again: %(error)s",
                {"container": id_, "error": error},
            )

    async def _remove_strays(self) -> None:
        """Remove unknown containers of this home: dockerd was away, or an earlier supervisor was killed."""
        async with self._removing_strays:
            for found in await self._engine.containers(self._label):
                note = options.noted(found.labels)
                # Looked up only now: another start may have created it meanwhile.
                if note is None or note.id not in self._starting | self._containers.keys():
                    log.info("removing container %(container)s, which an earlier start left", {"container": found.id})
                    await self._remove(found.id)
                    if note is not None:
                        self._addresses.give_back(note)
