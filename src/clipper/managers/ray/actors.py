"""The detached actors of one namespace, as the server sees them: listed, called, provided with artifacts and killed."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec

from clipper.errors import ClipperError, Unavailable
from clipper.managers.ray.connection import ActorGone, Connection
from clipper.managers.ray.messages import Call, Kill, List, Method, Ship

log = logging.getLogger(__name__)

N = TypeVar("N")

# What an actor does at once. One that takes longer is in trouble, and is killed.
CALL_TIMEOUT_S = 10.0


class Actors:
    """Those that somebody uses are *known*.

    The cluster may come and go. While it cannot be reached nothing can be started, and what runs goes on.
    """

    def __init__(self, connection: Connection, artifacts: Path, in_use: Path, *, closes_when_idle: bool = True) -> None:
        """
        Args:
            artifacts: the folder of unpacked artifacts, by their digests.
            in_use: a file that is there while actors of this home may run. Without it, nobody looks for any.
            closes_when_idle: whether to close the connection while none is known.
        """
        self.connection = connection
        self._artifacts = artifacts
        self._in_use = in_use
        self._closes_when_idle = closes_when_idle
        self._known: set[str] = set()
        # Whether there may be actors of this home besides these: Ray was away when they should have been killed.
        self._may_be_more = False
        # One artifact is sent to one node once, also if several actors that start wait for it.
        self._deliveries: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def use(self, actor: str) -> None:
        """It is known from now on."""
        self._known.add(actor)
        self._in_use.touch()

    def drop(self, actor: str, *, may_run: bool = False) -> None:
        """Nobody uses it any more. ``may_run``: it could not be killed."""
        self._known.discard(actor)
        self._may_be_more |= may_run
        self.close_if_idle()

    def close_if_idle(self) -> None:
        if not self._known:
            if self._closes_when_idle:
                self.connection.close()
            if not self._may_be_more:
                self._in_use.unlink(missing_ok=True)

    async def call(self, actor: str, method: Method, *arguments: Any, within_s: float | None = None) -> Any:
        """Call a method of an actor; return its value.

        Raises:
            ActorGone, Unavailable: as ``Connection.ask``.
        """
        return await self.connection.ask(lambda number: Call(number, actor, method, list(arguments)), within_s)

    async def kill(self, actor: str) -> None:
        """End an actor, or note that it could not be ended now."""
        try:
            await self.connection.ask(lambda number: Kill(number, actor), CALL_TIMEOUT_S)
        except ClipperError as error:
            log.error(
                "actor %(replica)s cannot be killed now; the next start tries again: %(error)s",
                {"replica": actor, "error": error},
            )
            self._may_be_more = True

    async def remove_strays(self) -> None:
        """Kill actors of this home that nobody knows: Ray was away, or an earlier supervisor was killed."""
        actors = await self.connection.ask(List)
        self._may_be_more = False
        for actor in actors:
            if actor not in self._known:
                log.info("killing actor %(replica)s, which an earlier start left", {"replica": actor})
                await self.kill(actor)

    async def left(self, noted: type[N]) -> dict[str, N]:
        """What an earlier supervisor left: what each actor notes, by its name. They are known from now on.

        An actor that notes nothing, or does not answer, is killed.
        """
        found: dict[str, N] = {}
        if not self._in_use.exists():
            return found
        try:
            for actor in await self.connection.ask(List):
                if (note := await self._noted(actor, noted)) is not None:
                    found[actor] = note
                    self._known.add(actor)
        except Unavailable as error:
            log.info("what an earlier server left on Ray cannot be looked for: %(error)s", {"error": error})
            self._may_be_more = True
        self.close_if_idle()
        return found

    async def deliver(self, actor: str, node: str, digest: str, on_sending: Callable[[], None]) -> None:
        """Let an actor's node have an artifact. ``node``: Ray's id of it."""
        lock = self._deliveries.setdefault((node, digest), asyncio.Lock())
        async with lock:
            if not await self.call(actor, "has_artifact", digest):
                on_sending()
                folder = str(self._artifacts / digest)
                await self.connection.ask(lambda number: Ship(number, actor, digest, folder))

    async def _noted(self, actor: str, noted: type[N]) -> N | None:
        try:
            note = await self.call(actor, "noted", within_s=CALL_TIMEOUT_S)
            if note is not None:
                return msgspec.convert(note, noted)
        except (ActorGone, Unavailable, msgspec.ValidationError) as error:
            log.warning("actor %(replica)s cannot be taken over: %(error)s", {"replica": actor, "error": error})
        await self.kill(actor)
        return None
