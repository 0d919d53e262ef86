"""``python -m benchmarks.scale.hosts SOCKET [--at-once]``: many query workers in one process.

Each line that comes is the configuration of a worker to start. All of it is the code of real workers, except that they
share an event loop, and that their connections to replicas are in memory, or none at all (``--at-once``).
"""

import asyncio
import sys

import msgspec
import uvloop

from benchmarks.scale import stubs
from clipper.base.open_files import raise_limit
from clipper.control.address import parse_address
from clipper.control.server import ControlServer
from clipper.worker import link
from clipper.worker.__main__ import PreciseLoop
from clipper.worker.config import WorkerConfig
from clipper.worker.worker import Worker


class Host:
    def __init__(self) -> None:
        self._workers: list[tuple[Worker, ControlServer]] = []

    async def start(self, config: WorkerConfig) -> None:
        worker = Worker(config, lambda: None, max_connections=100)
        worker.begin()
        control = ControlServer(worker.answer)
        await control.listen(parse_address(config.control))
        self._workers.append((worker, control))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await self.start(msgspec.json.decode(line, type=WorkerConfig))
        writer.close()


async def run(path: str) -> None:
    server = await asyncio.start_unix_server(Host().serve, path, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    raise_limit()
    if "--at-once" in sys.argv:
        link.ReplicaLink.open = stubs.link_at_once  # type: ignore[method-assign, assignment]
    link._connect = stubs.connect
    uvloop.run(run(sys.argv[1]), loop_factory=PreciseLoop)
