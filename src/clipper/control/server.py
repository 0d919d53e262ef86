"""The worker's end of the control channel: a supervisor, old or new, dials in and asks."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from clipper.control.feedback import Feedback, Outcome
from clipper.control.messages import (
    Applied,
    Apply,
    Command,
    DescribePolicy,
    Drain,
    Draining,
    Framer,
    GetLoads,
    GetRecentInput,
    GetStatistics,
    Loads,
    Observe,
    Observed,
    PolicyDescription,
    RecentInput,
    Reply,
    Statistics,
    decode_command,
    encode,
)
from clipper.control.snapshot import Snapshot
from clipper.control.statistics import VersionLoad, WorkerStatistics
from clipper.errors import ClipperError
from clipper.tls.material import TlsMaterial
from clipper.types import ModelId

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024


class Controlled(Protocol):
    """What the supervisor may ask of the worker."""

    async def apply(self, snapshot: Snapshot, tls: TlsMaterial | None) -> Applied: ...

    def statistics(self) -> WorkerStatistics: ...

    def loads(self, versions: Sequence[ModelId]) -> Sequence[VersionLoad]: ...

    async def observe(self, application: str, feedback: Sequence[Feedback]) -> Sequence[Outcome]: ...

    async def describe_policy(self, application: str, context: str | None) -> PolicyDescription: ...

    def recent_input(self, model: str) -> RecentInput: ...


class ControlServer:
    """Listens on a unix socket that only this user may dial. Several supervisors in turn, or at once, do no harm."""

    def __init__(self, worker: Controlled, on_drain: Callable[[], None]) -> None:
        self._worker = worker
        self._on_drain = on_drain
        self._listener: asyncio.Server | None = None

    async def listen(self, path: str) -> None:
        """Replaces a socket that a killed worker has left there."""
        Path(path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._listener = await asyncio.start_unix_server(self._serve, path)
        finally:
            os.umask(before)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer = Framer()
        try:
            while data := await reader.read(READ_BYTES):
                for body in framer.feed(data):
                    writer.write(encode(await self._answer(decode_command(body))))
                    await writer.drain()
        except (ClipperError, ConnectionError) as error:
            log.warning("control channel: %s", error)
        except asyncio.CancelledError:
            pass  # the worker ends; up to Python 3.11 the streams would log a cancelled handler as an error
        finally:
            writer.close()

    async def _answer(self, command: Command) -> Reply:
        match command:
            case Apply(snapshot, tls):
                return await self._worker.apply(snapshot, tls)
            case GetStatistics():
                return Statistics(self._worker.statistics())
            case GetLoads(versions):
                return Loads(tuple(self._worker.loads(versions)))
            case Observe(application, feedback):
                return Observed(tuple(await self._worker.observe(application, feedback)))
            case DescribePolicy(application, context):
                return await self._worker.describe_policy(application, context)
            case GetRecentInput(model):
                return self._worker.recent_input(model)
            case Drain():
                self._on_drain()
                return Draining()
