"""A control channel over TCP for tests: its authority, a worker that listens, and who dials it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar

from clipper.base.tls.mutual import Contexts, make_contexts
from clipper.control.address import ControlAddress, TcpAddress
from clipper.control.authority import Authority, make_authority
from clipper.control.client import Connections
from clipper.control.feedback import Outcome
from clipper.control.identity import IdentityFile, PeerName, Secured, write_identity
from clipper.control.messages import (
    AnyCommand,
    AnyReply,
    Applied,
    Apply,
    ApplyDifference,
    Command,
    Drain,
    Draining,
    Observe,
    Observed,
    RecentInput,
)
from clipper.control.server import ControlServer
from tests.waiting import TIMEOUT_S

R = TypeVar("R")

NOW = datetime.now(UTC).replace(microsecond=0)
# The worker that listens, another one, and the supervisor.
LISTENS, OTHER, LEADS = PeerName("worker", 7), PeerName("worker", 8), PeerName("supervisor", 3)


@cache
def authority(number: int) -> Authority:
    return Authority(make_authority(NOW))


@cache
def contexts(name: PeerName, of: int = 0, age: timedelta = timedelta(0)) -> Contexts:
    """TLS contexts of a peer of that name. ``of``: the authority that signed for it; ``age``: of its certificate."""
    return make_contexts(authority(of).issue(name, NOW - age))


async def ask(address: ControlAddress, command: Command[R], timeout_s: float, secured: Secured | None = None) -> R:
    """Ask on a connection of its own."""
    connections = Connections()
    try:
        return await connections.ask(address, command, timeout_s, secured=secured)
    finally:
        connections.close()


class Listening:
    """A worker's end of the channel, which answers everything and keeps what it took."""

    def __init__(self, folder: Path, name: PeerName = LISTENS) -> None:
        self.path = folder / f"{name.number}.pem"
        write_identity(self.path, authority(0).issue(name, NOW))
        self.took: list[AnyCommand] = []
        self.server = ControlServer(self._answer)
        self._name = name

    @property
    def address(self) -> TcpAddress:
        return TcpAddress("127.0.0.1", self.server.port)

    async def ask(
        self,
        command: Command[R],
        context: ssl.SSLContext,
        expects: PeerName | None = None,
        by: Connections | None = None,
    ) -> R:
        """``by``: those that are kept; without it, on a connection of its own."""
        secured = Secured(context, expects or self._name)
        if by is None:
            return await ask(self.address, command, TIMEOUT_S, secured)
        return await by.ask(self.address, command, TIMEOUT_S, secured=secured)

    async def _answer(self, command: AnyCommand) -> AnyReply:
        self.took.append(command)
        match command:
            case Apply(snapshot=told) | ApplyDifference(difference=told):
                return Applied(told.generation, {}, ())
            case Observe(feedback=feedback):
                return Observed((Outcome(),) * len(feedback))
            case Drain():
                return Draining()
            case _:
                return RecentInput()


@asynccontextmanager
async def listening(folder: Path, made: Callable[[Path], Listening] = Listening) -> AsyncIterator[Listening]:
    found = made(folder)
    # Port 0 is no address that anybody is given, and the way for a test to get a free one.
    await found.server.listen(TcpAddress("127.0.0.1", 0), IdentityFile(found.path))
    try:
        yield found
    finally:
        found.server.close()
        await asyncio.sleep(0)
