"""A worker's end of the control channel, without a process: what it answers is for a test to say."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

from clipper.control.address import UnixAddress
from clipper.control.messages import AnyCommand, AnyReply
from clipper.control.server import ControlServer
from clipper.supervisor.managers.worker_host import WorkerHost
from clipper.supervisor.workers.settings import WorkerSettings
from clipper.supervisor.workers.worker_process import WorkerProcess

_SETTINGS = WorkerSettings("127.0.0.1", 1, 1000, store_digest="digest")


class StandIn:
    """``process`` is the supervisor's knowledge of it: that it is up, and where it listens."""

    def __init__(self, folder: Path, index: int) -> None:
        unused = cast(WorkerHost, None)
        self.process = WorkerProcess(index, _SETTINGS, unused, "", lambda: 1, lambda: None)
        self.process.phase, self.process.instance = "ready", index + 1
        self.address = UnixAddress(str(folder / f"{index}.sock"))
        self.process.control = self.address

    async def answer(self, command: AnyCommand) -> AnyReply:
        raise NotImplementedError


@asynccontextmanager
async def listening(workers: Sequence[StandIn]) -> AsyncIterator[None]:
    """They answer meanwhile. Commands without an answer at the end are given up."""
    with ExitStack() as stack:
        for one in workers:
            server = ControlServer(one.answer)
            await server.listen(one.address)
            stack.callback(server.close)
        try:
            yield
        finally:
            own = asyncio.current_task()
            serving = [task for task in asyncio.all_tasks() if task is not own]
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
