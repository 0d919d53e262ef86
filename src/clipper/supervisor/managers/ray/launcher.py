"""Containers on the nodes of a Ray cluster: placed, started, found again and removed.

Each replica is a detached actor, which starts the container on its node (``actor.py``). Ray chooses the node, by the
resources that the version takes, and ends the actor with its node. The reconciler decides when to start which replica,
as for any manager.
"""

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from clipper.base.run_as import RunAs
from clipper.errors import InvalidArgument
from clipper.supervisor.managers.launcher import WAITING_FOR_ROOM, ContainerNote, Launcher, OnProgress, Runnable
from clipper.supervisor.managers.ray.actor_processes import RayContainer
from clipper.supervisor.managers.ray.actors import Actors, launched
from clipper.supervisor.managers.ray.connection import Cluster, Connection
from clipper.supervisor.managers.ray.messages import Launched, Noted
from clipper.supervisor.managers.ray.placement import check_placement, placement_of, room_of

# How often to ask for the progress of a container's start: building its environment may take minutes.
PROGRESS_EVERY_S = 0.5

# The text in place of an address: the node chooses the port.
LISTEN = "tcp:node:0"


class RayLauncher(Launcher):
    """The launcher of containers on Ray. While the cluster cannot be reached, only running containers go on.

    The driver runs only while there are containers. Nodes keep the artifacts of sleeping versions, and remove unused
    artifacts by themselves: several homes may share a node.
    """

    def __init__(
        self,
        cluster: Cluster,
        artifacts: Path,
        in_use: Path,
        ports: tuple[int, int],
        build: str,
        run_as: RunAs | None = None,
    ) -> None:
        """Make a launcher. ``in_use``: see ``Actors``. ``build``: the runtime's, which each node has to have."""
        self._actors = Actors(Connection(cluster), artifacts, in_use)
        self._ports = ports
        self._build = build
        self._run_as = run_as
        # The containers by the id of their notes, which are the names of their actors.
        self._containers: dict[str, RayContainer] = {}
        self._orphans: dict[str, Noted] = {}

    def check(self, asked: Runnable) -> None:
        if asked.loader == "image":
            raise InvalidArgument("an image runs in Docker: expected manager 'docker', not 'ray'")
        if self._run_as is not None:
            raise InvalidArgument(
                "models on Ray run as the user of each node's Ray, and this server has --run-as: "
                "expected another manager, or a server without --run-as"
            )
        check_placement(asked)

    def choose_address(self, number: int) -> str:
        return LISTEN

    async def launch(
        self, note: ContainerNote, log_path: Path, on_progress: OnProgress, variables: Mapping[str, str]
    ) -> RayContainer:
        actors = self._actors
        if (regained := await actors.regain(note.name, Noted)) is not None:
            actor, noted = regained
            before = msgspec.json.decode(noted.note, type=ContainerNote)
            if (before.spec, before.build) == (note.spec, note.build):
                container = self._containers[note.id] = RayContainer(note, noted, actors, actor, log_path, is_new=False)
                return container
            await actors.kill(actor)
            actors.drop(actor)
        noted = await actors.start(note.id, lambda: self._start(note, on_progress, variables))
        container = self._containers[note.id] = RayContainer(note, noted, actors, note.id, log_path, is_new=True)
        return container

    async def orphans(self) -> list[ContainerNote]:
        self._orphans = await self._actors.orphans(Noted)
        return [msgspec.json.decode(noted.note, type=ContainerNote) for noted in self._orphans.values()]

    async def adopt(self, note: ContainerNote, log_path: Path) -> RayContainer | None:
        noted, actors = self._orphans.pop(note.id), self._actors
        container = self._containers[note.id] = RayContainer(note, noted, actors, note.id, log_path, is_new=False)
        return container

    async def clean_up(self, note: ContainerNote) -> None:
        container = self._containers.get(note.id)
        if container is not None:
            await container.save_log()
            del self._containers[note.id]
            await container.end(note.name)

    async def _start(self, note: ContainerNote, on_progress: OnProgress, variables: Mapping[str, str]) -> Noted:
        placement = placement_of(note.spec)
        on_progress(f"{WAITING_FOR_ROOM} in the Ray cluster: {room_of(placement)} each")
        description = await self._actors.create(note.id, placement, "replica", self._build)
        await self._actors.deliver(
            note.id, description.node, note.spec.artifact, lambda: on_progress("sending its artifact to its node")
        )
        token = secrets.token_urlsafe()
        note_text = msgspec.json.encode(note).decode()
        call = self._actors.call(note.id, "launch", note_text, token, self._ports, dict(variables))
        answer = await self._with_progress(note.id, call, on_progress)
        return Noted(note_text, description.name, token, launched(answer, Launched))

    async def _with_progress(self, actor: str, answer: Any, on_progress: OnProgress) -> Any:
        answering = asyncio.ensure_future(answer)
        try:
            while not (await asyncio.wait([answering], timeout=PROGRESS_EVERY_S))[0]:
                if text := await self._actors.call(actor, "progress"):
                    on_progress(text)
            return answering.result()
        finally:
            answering.cancel()
