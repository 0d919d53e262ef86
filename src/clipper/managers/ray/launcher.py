"""Containers on the nodes of a Ray cluster: placed, started, found again and removed.

Each replica is a detached actor, which starts the container on its node (``actor.py``). Ray decides on which node, by
what the version takes, and ends the actor with its node. When to start which is for the reconciler, as for any manager.
"""

import asyncio
import logging
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from clipper.errors import ClipperError, ContainerFailed, InvalidArgument, Unavailable
from clipper.managers.launcher import ContainerNote, Keeper, OnProgress, Runnable
from clipper.managers.ray.connection import ActorGone, Cluster, Connection
from clipper.managers.ray.container import CALL_TIMEOUT_S, RayContainer
from clipper.managers.ray.messages import (
    Call,
    Create,
    Description,
    Kill,
    Launched,
    List,
    Noted,
    NotLaunched,
    Ship,
)
from clipper.managers.ray.placement import check_placement, placement_of, room_of
from clipper.run_as import RunAs

log = logging.getLogger(__name__)

# How often to ask what goes on while a container is started: building its environment may take minutes.
PROGRESS_EVERY_S = 0.5

# What stands where other managers have an address: the node chooses the port.
LISTEN = "tcp:node:0"


class RayLauncher:
    """A ``Launcher`` of containers on the nodes of one cluster.

    The cluster may come and go. While it cannot be reached nothing can be started, and containers that run go on
    answering. The driver runs only while there are containers.
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
        """
        Args:
            in_use: a file that is there while actors of this home may run. Without it, nobody looks for any.
            ports: the first and the last port that containers listen on.
            build: of the runtime, which each node has to have.
            run_as: the user that models shall run as.
        """
        self._connection = Connection(cluster)
        self._artifacts = artifacts
        self._in_use = in_use
        self._ports = ports
        self._build = build
        self._run_as = run_as
        # All by the id of the container's note.
        self._containers: dict[str, RayContainer] = {}
        self._starting: set[str] = set()
        self._left: dict[str, Noted] = {}
        # Whether there may be actors of this home besides these: Ray was away when they should have been killed.
        self._may_be_more = False
        # One artifact is sent to one node once, also if several replicas that start wait for it.
        self._deliveries: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def check(self, asked: Runnable) -> None:
        if asked.loader == "image":
            raise InvalidArgument("an image runs in Docker: expected manager 'docker', not 'ray'")
        if self._run_as is not None:
            raise InvalidArgument(
                "models on Ray run as the user of each node's Ray, and this server has --run-as: "
                "expected another manager, or a server without --run-as"
            )
        check_placement(asked)

    def keepers(self) -> Mapping[str, Keeper]:
        return {}

    def choose_address(self, number: int) -> str:
        return LISTEN

    async def launch(self, note: ContainerNote, log_path: Path, on_progress: OnProgress) -> RayContainer:
        self._starting.add(note.id)
        try:
            self._in_use.touch()
            await self._remove_strays()
            try:
                noted = await self._start(note, on_progress)
            except BaseException as error:
                await self._kill(note.id)
                if isinstance(error, ActorGone):
                    raise Unavailable(f"its node was lost, or Ray could not start its actor: {error}") from error
                raise
            container = self._containers[note.id] = RayContainer(note, noted, self._connection, log_path, is_new=True)
            return container
        finally:
            self._starting.remove(note.id)
            self._close_if_idle()

    async def left(self) -> list[ContainerNote]:
        if not self._in_use.exists():
            return []
        try:
            for actor in await self._connection.ask(List):
                if (noted := await self._noted(actor)) is not None:
                    self._left[actor] = noted
        except Unavailable as error:
            log.info("containers that an earlier server left on Ray cannot be looked for: %(error)s", {"error": error})
            self._may_be_more = True
        self._close_if_idle()
        return [msgspec.json.decode(noted.note, type=ContainerNote) for noted in self._left.values()]

    async def adopt(self, note: ContainerNote, log_path: Path) -> RayContainer | None:
        noted = self._left.pop(note.id)
        container = self._containers[note.id] = RayContainer(note, noted, self._connection, log_path, is_new=False)
        return container

    async def clean_up(self, note: ContainerNote) -> None:
        container = self._containers.get(note.id)
        if container is not None:
            await container.save_log()
            self._may_be_more |= not await container.remove()
            del self._containers[note.id]
        self._close_if_idle()

    async def prune(self, artifacts: Collection[str]) -> None:
        """Nodes remove artifacts that nobody uses any more: several homes may share a node."""

    async def _start(self, note: ContainerNote, on_progress: OnProgress) -> Noted:
        placement = placement_of(note.spec)
        on_progress(f"waiting for room in the Ray cluster: {room_of(placement)}")
        described = await self._connection.ask(lambda number: Create(number, note.id, placement))
        description = msgspec.convert(described, Description)
        if description.build != self._build:
            raise ContainerFailed(
                f"the node at {description.host} has Clipper {description.build}, and the server {self._build}: "
                "install the same version on every node"
            )
        await self._deliver(note, description.node, on_progress)
        token = secrets.token_urlsafe()
        note_text = msgspec.json.encode(note).decode()
        answer = await self._with_progress(
            note.id, self._call(note.id, "launch", note_text, token, self._ports), on_progress
        )
        outcome = msgspec.convert(answer, Launched | NotLaunched)
        if isinstance(outcome, NotLaunched):
            raise ContainerFailed(outcome.reason, list(outcome.log_tail))
        return Noted(note_text, description.name, token, outcome)

    async def _deliver(self, note: ContainerNote, node: str, on_progress: OnProgress) -> None:
        digest = note.spec.artifact
        lock = self._deliveries.setdefault((node, digest), asyncio.Lock())
        async with lock:
            if not await self._call(note.id, "has_artifact", digest):
                on_progress("sending its artifact to its node")
                folder = str(self._artifacts / digest)
                await self._connection.ask(lambda number: Ship(number, note.id, digest, folder))

    async def _with_progress(self, actor: str, answer: Any, on_progress: OnProgress) -> Any:
        answering = asyncio.ensure_future(answer)
        try:
            while not (await asyncio.wait([answering], timeout=PROGRESS_EVERY_S))[0]:
                if text := await self._call(actor, "progress"):
                    on_progress(text)
            return answering.result()
        finally:
            answering.cancel()

    async def _noted(self, actor: str) -> Noted | None:
        """What an actor notes; None, and the actor is killed, if it has no container or does not answer."""
        try:
            noted = await self._connection.ask(lambda number: Call(number, actor, "noted"), CALL_TIMEOUT_S)
            if noted is not None:
                return msgspec.convert(noted, Noted)
        except (ActorGone, Unavailable, msgspec.ValidationError) as error:
            log.warning("container %(replica)s cannot be taken over: %(error)s", {"replica": actor, "error": error})
        await self._kill(actor)
        return None

    async def _kill(self, actor: str) -> None:
        try:
            await self._connection.ask(lambda number: Kill(number, actor))
        except ClipperError as error:
            log.error(
                "actor %(replica)s cannot be killed now; the next start tries again: %(error)s",
                {"replica": actor, "error": error},
            )
            self._may_be_more = True

    async def _remove_strays(self) -> None:
        """Kill actors of this home that we do not know: Ray was away, or an earlier supervisor was killed."""
        actors = await self._connection.ask(List)
        self._may_be_more = False
        for actor in actors:
            if actor not in self._starting | self._containers.keys() | self._left.keys():
                log.info("killing actor %(replica)s, which an earlier start left", {"replica": actor})
                await self._kill(actor)

    async def _call(self, actor: str, method: Any, *arguments: Any) -> Any:
        return await self._connection.ask(lambda number: Call(number, actor, method, list(arguments)))

    def _close_if_idle(self) -> None:
        if not (self._containers or self._starting or self._left):
            self._connection.close()
            if not self._may_be_more:
                self._in_use.unlink(missing_ok=True)
