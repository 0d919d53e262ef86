"""The server's view of the detached actors of a namespace: listed, called, provided with artifacts and killed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec

from clipper.errors import ClipperError, ContainerFailed, Unavailable
from clipper.supervisor.managers.launcher import NodeLost
from clipper.supervisor.managers.ray import messages
from clipper.supervisor.managers.ray.connection import ActorGone, ActorUnreachable, Connection

log = logging.getLogger(__name__)

N = TypeVar("N")
T = TypeVar("T")

# The timeout of a call that an actor carries out at once. An actor that takes longer is considered broken, and is
# killed.
CALL_TIMEOUT_S = 10.0
# How long to wait for an actor to restart its process, while this server may not: the actor's first pauses,
# and a start. After that the caller tries again later, by its own rules.
REVIVAL_TIMEOUT_S = 20.0
LOOK_EVERY_S = 0.5
# How long an actor that could not be ended is spared once others are ended: by then its slot is started again.
SPARED_FOR_S = 60.0


def launched(answer: Any, kind: type[N]) -> N:
    """Read an actor's answer about the process that it has started. Raises ContainerFailed if it could not start it."""
    outcome: N | messages.NotLaunched = msgspec.convert(answer, kind | messages.NotLaunched)
    if isinstance(outcome, messages.NotLaunched):
        raise ContainerFailed(outcome.reason, list(outcome.log_tail))
    return outcome


class Actors:
    """The actors of a namespace. Actors in use are *known*. While the cluster is away, only running ones go on."""

    def __init__(self, connection: Connection, artifacts: Path, in_use: Path, *, closes_when_idle: bool = True) -> None:
        """Know no actor yet.

        ``in_use`` is a file that exists while actors of this home may run; without it, nobody looks for any.
        ``closes_when_idle``: close the connection while no actor is known.
        """
        self.connection = connection
        self._artifacts = artifacts
        self._in_use = in_use
        self._closes_when_idle = closes_when_idle
        self._known: set[str] = set()
        # Whether there may be more actors of this home: Ray was away when they should have been killed.
        self._may_be_more = False
        # Whether Ray was away when actors of an earlier supervisor should have been taken over.
        self._has_missed = False
        # By slot, the actors that could not be ended when their processes had ended; and how long each is spared.
        self._unended: dict[str, str] = {}
        self._spared_until_s: dict[str, float] = {}
        # An artifact is sent to a node once, even if several starting actors wait for it.
        self._deliveries: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def use(self, actor: str) -> None:
        """Note that an actor is known from now on."""
        self._known.add(actor)
        self._in_use.touch()

    async def start(self, actor: str, start: Callable[[], Awaitable[T]]) -> T:
        """Use a new actor, which ``start`` creates. If that fails, it is killed; a lost node raises NodeLost."""
        self.use(actor)
        try:
            await self.remove_strays()
            try:
                return await start()
            except BaseException as error:
                await self.kill(actor)
                if isinstance(error, ActorGone | ActorUnreachable):
                    raise NodeLost(f"its node was lost, or Ray could not start its actor: {error}") from error
                raise
        except BaseException:
            self.drop(actor)
            raise

    async def create(
        self, actor: str, placement: messages.Placement, kind: messages.Kind, build: str, within_s: float | None = None
    ) -> messages.Description:
        """Create an actor, once Ray has found a node. Raises ContainerFailed if the node has another Clipper."""
        described = await self.connection.ask(lambda number: messages.Create(number, actor, placement, kind), within_s)
        description = msgspec.convert(described, messages.Description)
        if description.build != build:
            raise ContainerFailed(
                f"the node at {description.host} has Clipper {description.build}, and the server {build}: "
                "install the same version on every node"
            )
        return description

    def drop(self, actor: str) -> None:
        """Note that nobody uses an actor any more."""
        self._known.discard(actor)
        self.close_if_idle()

    def close_if_idle(self) -> None:
        if not self._known:
            if self._closes_when_idle:
                self.connection.close()
            if not self._may_be_more:
                self._in_use.unlink(missing_ok=True)

    async def call(self, actor: str, method: messages.Method, *arguments: Any, within_s: float | None = None) -> Any:
        """Call a method of an actor; return its value. Raises the same errors as ``Connection.ask``."""
        return await self.connection.ask(lambda number: messages.Call(number, actor, method, list(arguments)), within_s)

    async def kill(self, actor: str) -> bool:
        """End an actor, or note that it could not be ended now; return whether it has ended."""
        try:
            await self.connection.ask(lambda number: messages.Kill(number, actor), CALL_TIMEOUT_S)
        except ClipperError as error:
            log.error(
                "actor %(replica)s cannot be killed now; the next start tries again: %(error)s",
                {"replica": actor, "error": error},
            )
            self._may_be_more = True
            return False
        return True

    def keep_unended(self, name: str, actor: str) -> None:
        """Remember an actor that cannot be ended now though its process in slot ``name`` has died: see ``regain``."""
        self._unended[name] = actor

    async def regain(self, name: str, noted: type[N]) -> tuple[str, N] | None:
        """Return the name and note of a slot's actor, which has restarted its process because nobody could end it.

        Raises Unavailable if it has not, and this server may not start another now.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + REVIVAL_TIMEOUT_S
        while (actor := self._unended.get(name)) is not None:
            try:
                is_up = await self.call(actor, "is_up", within_s=CALL_TIMEOUT_S)
                note = await self.call(actor, "noted", within_s=CALL_TIMEOUT_S) if is_up else None
            except ActorGone:
                self._forget(name)
                continue
            if note is not None:
                del self._unended[name]
                self._spared_until_s.pop(actor, None)
                log.info("going on with %(replica)s, which its actor has started again", {"replica": actor})
                return actor, msgspec.convert(note, noted)
            if self.connection.may_act and await self.kill(actor):
                self._forget(name)
            elif loop.time() > give_up_s:
                raise Unavailable(f"its actor {actor} has not started it again, and this server may not do so now")
            else:
                await asyncio.sleep(LOOK_EVERY_S)
        return None

    async def remove_strays(self) -> None:
        """Kill unknown actors of this home: Ray was away, or an earlier supervisor was killed.

        Raises NodeLost if some of them have yet to be taken over: then this server starts again.
        """
        actors = await self.connection.ask(messages.List)
        if self._has_missed and actors:
            self.connection.start_again()
            raise NodeLost("Ray can be reached now: this server starts again and takes over what runs there")
        self._has_missed = False
        self._may_be_more = False
        now_s = asyncio.get_running_loop().time()
        for name, actor in list(self._unended.items()):
            if now_s > self._spared_until_s.setdefault(actor, now_s + SPARED_FOR_S):
                self._forget(name)
        for actor in actors:
            if actor not in self._known:
                log.info("killing actor %(replica)s, which an earlier start left", {"replica": actor})
                await self.kill(actor)

    async def orphans(self, noted: type[N]) -> dict[str, N]:
        """Return the notes of actors that an earlier supervisor left, by name; they are known from now on.

        An actor without a note, or that does not answer, is killed.
        """
        found: dict[str, N] = {}
        if not self._in_use.exists():
            return found
        try:
            actors: list[str] = await self.connection.ask(messages.List)
            # All at once: on a node that is cut off, each call takes its whole timeout.
            for actor, note in zip(actors, await asyncio.gather(*(self._noted(actor, noted) for actor in actors))):
                if note is not None:
                    found[actor] = note
                    self._known.add(actor)
        except Unavailable as error:
            log.info("the server cannot look for what an earlier one left on Ray: %(error)s", {"error": error})
            self._may_be_more = self._has_missed = True
        self.close_if_idle()
        return found

    async def deliver(self, actor: str, node: str, digest: str, on_sending: Callable[[], None]) -> None:
        """Let an actor's node have an artifact. ``node`` is Ray's id of the node."""
        lock = self._deliveries.setdefault((node, digest), asyncio.Lock())
        async with lock:
            if not await self.call(actor, "has_artifact", digest):
                on_sending()
                folder = str(self._artifacts / digest)
                await self.connection.ask(lambda number: messages.Ship(number, actor, digest, folder))

    def _forget(self, name: str) -> None:
        """Forget the actor of a slot, which is gone or no longer spared."""
        actor = self._unended.pop(name)
        self._spared_until_s.pop(actor, None)
        self.drop(actor)

    async def _noted(self, actor: str, noted: type[N]) -> N | None:
        try:
            note = await self.call(actor, "noted", within_s=CALL_TIMEOUT_S)
            if note is not None:
                return msgspec.convert(note, noted)
        except (Unavailable, msgspec.ValidationError) as error:
            log.warning("actor %(replica)s cannot be taken over: %(error)s", {"replica": actor, "error": error})
        await self.kill(actor)
        return None
