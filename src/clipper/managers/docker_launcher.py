"""Containers in Docker."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Callable, Collection
from pathlib import Path

from msgspec.structs import replace

from clipper.errors import ClipperError, NotFound, Unavailable
from clipper.managers.docker.log_lines import line_time, lines_after, nanoseconds
from clipper.managers.docker.options import (
    HOME_LABEL,
    Surroundings,
    User,
    container_name,
    creation,
    limits,
    noted,
)
from clipper.managers.docker_engine import Engine, State
from clipper.managers.docker_images import Images, Sources
from clipper.managers.launcher import ContainerNote

log = logging.getLogger(__name__)

# One question for all containers of the home.
LOOK_EVERY_S = 0.25
# What a shell says of a process that a signal ended, and so what Docker says.
_SIGNAL_BASE = 128
BEFORE_ALL = line_time(0)


class DockerContainer:
    """A ``Container`` that dockerd has. What it writes is added to its log when that is asked for, and at its end."""

    def __init__(self, id_: str, pid: int, engine: Engine, log_path: Path, saved_until: str) -> None:
        """``saved_until``: the time of the last line that was saved, in Docker's form."""
        self.exited = asyncio.Event()
        # An image has what it has: how that fits the model is not known.
        self.warning: str | None = None
        self._id = id_
        self._pid = pid
        self._engine = engine
        self._log_path = log_path
        self._saved_until = saved_until
        self._saving = asyncio.Lock()
        self._end: State | None = None

    @property
    def id(self) -> str:
        return self._id

    @property
    def pid(self) -> int | None:
        return self._pid or None

    @property
    def how_it_ended(self) -> str:
        if self._end is None:
            return "is gone"
        if self._end.ran_out_of_memory:
            return "ran out of its memory limit and was killed"
        code = self._end.exit_code
        if code - _SIGNAL_BASE in set(signal.Signals):
            return f"was killed by {signal.Signals(code - _SIGNAL_BASE).name}"
        return f"exited with code {code}"

    def has_ended(self, state: State | None) -> None:
        """``state`` None: dockerd has it no more, or it is given up."""
        self._end = state
        self.exited.set()

    async def has_exited_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):  # not who was first, but its state is the answer
            await asyncio.wait_for(self.exited.wait(), seconds)
        return self.exited.is_set()

    async def stop(self, grace_s: float) -> None:
        if self.exited.is_set():
            return
        try:
            await self._engine.stop(self.id, grace_s)
            self.has_ended(await self._engine.state(self.id))
        except NotFound:
            self.has_ended(None)
        except ClipperError as error:
            # Whoever stops it must not wait for dockerd to come back. The launcher removes it when that has.
            log.error("the container %s cannot be stopped now: %s", self.id, error)
            self.has_ended(None)

    async def look(self) -> None:
        """See whether it has exited: one that somebody paused has not."""
        try:
            state = await self._engine.state(self.id)
        except NotFound:
            self.has_ended(None)
        else:
            if not state.is_running:
                self.has_ended(state)

    async def save_log(self) -> None:
        async with self._saving:
            try:
                # A float is not exact: what comes twice is left out by its time.
                since_s = nanoseconds(self._saved_until) / 1e9 - 0.001
                output = await self._engine.output(self.id, since_s)
                lines, self._saved_until = lines_after(output, self._saved_until)
                await asyncio.to_thread(self._append, lines)
            except (ClipperError, OSError) as error:
                log.warning("what the container %s wrote cannot be saved: %s", self.id, error)

    def note_ready(self) -> None:
        """Its socket says so: a container makes it when it can answer."""

    def _append(self, lines: bytes) -> None:
        with self._log_path.open("ab") as file:
            file.write(lines)
        # So that a later supervisor knows where to go on.
        time_ns = nanoseconds(self._saved_until)
        os.utime(self._log_path, ns=(time_ns, time_ns))


class DockerLauncher:
    """A ``Launcher`` of containers in Docker, each with a folder of its own for its socket.

    dockerd may come and go: while it is away nothing can be started, and what runs is left to answer.
    """

    def __init__(self, engine: Engine, sources: Sources, around: Surroundings, sockets: Path) -> None:
        self._engine = engine
        self._images = Images(engine, sources, around)
        self._artifacts = sources.artifacts
        self._around = around
        self._sockets = sockets
        self._label = f"{HOME_LABEL}={around.home}"
        self._user: User | None = None
        self._containers: dict[str, DockerContainer] = {}
        self._starting: set[str] = set()
        self._left: dict[str, str] = {}
        # Containers of the home that dockerd may have, and we do not know of.
        self._may_have_strays = False
        self._watching: asyncio.Task[None] | None = None

    def socket(self, number: int) -> Path:
        # A file of its own in a folder of its own: mounting that shows a container no other's socket.
        return self._sockets / f"c{number}" / "s"

    async def launch(self, note: ContainerNote, log_path: Path, tell: Callable[[str], None]) -> DockerContainer:
        await self._remove_strays()
        image = await self._images.image_of(note.spec, tell)
        starting = asyncio.get_running_loop().create_task(self._start(note, image, log_path))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await (await starting).stop(grace_s=0)
            raise

    async def left(self) -> list[ContainerNote]:
        try:
            found = await self._engine.containers(self._label)
        except ClipperError as error:
            self._may_have_strays = True
            log.info("containers that were left in Docker, if any, are not looked for: %s", error)
            return []
        notes = [(one.id, noted(one.labels)) for one in found]
        self._may_have_strays = any(note is None for _, note in notes)
        self._left = {note.id: id_ for id_, note in notes if note}
        return [replace(note, ready=Path(note.socket).exists()) for _, note in notes if note]

    async def adopt(self, note: ContainerNote, log_path: Path) -> DockerContainer | None:
        id_ = self._left.pop(note.id)
        try:
            state = await self._engine.state(id_)
        except ClipperError as error:
            self._may_have_strays = True
            log.warning("the container of %s cannot be taken over: %s", note.id, error)
            return None
        container = self._know(note, id_, state, log_path, _changed_at(log_path))
        return container if state.is_running else None

    async def clean_up(self, note: ContainerNote) -> None:
        container = self._containers.get(note.id)
        if container is not None:
            await container.save_log()
            await self._remove(container.id)
            del self._containers[note.id]
        shutil.rmtree(Path(note.socket).parent, ignore_errors=True)  # a container that hangs may keep it

    async def prune(self, artifacts: Collection[str]) -> None:
        try:
            await self._images.prune(artifacts)
        except ClipperError as error:
            log.info("images that no version needs stay: %s", error)

    async def _start(self, note: ContainerNote, image: str, log_path: Path) -> DockerContainer:
        self._starting.add(note.id)
        try:
            id_ = await self._create(note, image)
            try:
                await self._engine.start(id_)
                return self._know(note, id_, await self._engine.state(id_), log_path, BEFORE_ALL)
            except ClipperError:
                await self._remove(id_)
                raise
        except Unavailable:
            self._may_have_strays = True
            raise
        finally:
            self._starting.remove(note.id)

    async def _create(self, note: ContainerNote, image: str) -> str:
        artifact = self._artifacts / note.spec.artifact
        Path(note.socket).parent.mkdir(mode=0o700, exist_ok=True)
        if self._user is None:
            # A rootless dockerd maps its own user to root, and our other ids to nobody's.
            self._user = User(0, 0) if await self._engine.is_rootless() else User(os.geteuid(), os.getegid())
        options = creation(note, image, self._user, artifact, self._around)
        return await self._engine.create(container_name(note), options, limits(note, artifact, self._around))

    def _know(self, note: ContainerNote, id_: str, state: State, log_path: Path, saved_until: str) -> DockerContainer:
        container = DockerContainer(id_, state.pid, self._engine, log_path, saved_until)
        if not state.is_running:
            container.has_ended(state)
        self._containers[note.id] = container
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        return container

    async def _watch(self) -> None:
        """Notice the ends of containers, as long as there are any."""
        trouble = ""
        while self._containers:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
                trouble = ""
            except ClipperError as error:
                # What runs is known by its answers meanwhile. Said once, not four times a second.
                if str(error) != trouble:
                    log.warning("whether containers in Docker run cannot be seen: %s", error)
                trouble = str(error)

    async def _look(self) -> None:
        watched = [container for container in self._containers.values() if not container.exited.is_set()]
        running = {found.id for found in await self._engine.containers(self._label) if found.is_running}
        for container in watched:
            if container.id not in running:
                await container.look()

    async def _remove(self, id_: str) -> None:
        try:
            await self._engine.remove(id_)
        except ClipperError as error:
            self._may_have_strays = True
            log.error("the container %s cannot be removed yet: %s", id_, error)

    async def _remove_strays(self) -> None:
        if not self._may_have_strays:
            return
        known = self._starting | self._containers.keys()
        for found in await self._engine.containers(self._label):
            note = noted(found.labels)
            if note is None or note.id not in known:
                await self._engine.remove(found.id)
                log.info("removed the container %s, which an earlier start left", found.id)
        self._may_have_strays = False


def _changed_at(log_path: Path) -> str:
    try:
        return line_time(log_path.stat().st_mtime_ns)
    except FileNotFoundError:
        return BEFORE_ALL
