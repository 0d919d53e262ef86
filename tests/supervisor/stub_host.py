"""A cluster whose nodes are in this process: of each worker there is only the control channel, which answers."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from clipper.base.processes.process import ProcessRecord
from clipper.control.address import ControlAddress, UnixAddress
from clipper.control.messages import (
    AnyCommand,
    AnyReply,
    Applied,
    Apply,
    ApplyDifference,
    Drain,
    Draining,
    GetStatistics,
    Statistics,
)
from clipper.control.server import ControlServer
from clipper.control.statistics import CacheStatistics, WorkerStatistics
from clipper.errors import Unavailable
from clipper.supervisor.managers.logs import Lines
from clipper.supervisor.managers.worker_host import ClusterNode, RunningWorker, StartedWorker, WorkerStart


class StubWorker:
    """A ``RunningWorker``. ``told``: the generations that it was sent, with whether the snapshot was whole."""

    def __init__(self, start: WorkerStart, path: Path) -> None:
        self.start = start
        self.exited = asyncio.Event()
        self.path = path
        self.told: list[tuple[int, bool]] = []
        self.generation = 0
        self.is_stopping = False
        self._how_it_ended = "exited"
        self._control = ControlServer(self.answer)

    @property
    def pid(self) -> int:
        return self.start.instance

    @property
    def how_it_ended(self) -> str:
        return self._how_it_ended

    async def listen(self) -> None:
        await self._control.listen(UnixAddress(str(self.path)))

    def cut(self) -> None:
        """Nobody can reach it any more, and it goes on."""
        self.path.rename(self.path.with_suffix(".cut"))

    def heal(self) -> None:
        self.path.with_suffix(".cut").rename(self.path)

    async def answer(self, command: AnyCommand) -> AnyReply:
        match command:
            case Apply(snapshot, _, is_stopping):
                self.is_stopping = is_stopping
                return self._serve_by(snapshot.generation, True)
            case ApplyDifference(difference, _, is_stopping):
                self.is_stopping = is_stopping
                return self._serve_by(difference.generation, False)
            case Drain():
                self.end("drained")
                return Draining()
            case GetStatistics():
                return Statistics(statistics(self.start.config["index"], self.generation))
        raise AssertionError(command)

    def end(self, how: str) -> None:
        self._how_it_ended = self._how_it_ended if self.exited.is_set() else how
        self.exited.set()
        if self._control._listener is not None:
            self._control._listener.close()

    def terminate(self) -> None:
        self.end("was asked to end")

    def kill(self) -> None:
        self.end("was killed")

    async def stop(self, grace_s: float) -> None:
        self.end("was stopped")

    async def has_exited_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.exited.wait()
        except TimeoutError:
            pass
        return self.exited.is_set()

    def _serve_by(self, generation: int, is_whole: bool) -> Applied:
        self.told.append((generation, is_whole))
        self.generation = max(self.generation, generation)
        return Applied(self.generation, {}, ())


class StubHost:
    """A ``ClusterHost``.

    Attributes:
        up: addresses of nodes; ``draining``: of those among them that are emptied.
        cluster_is_away: the cluster does not answer.
        running: by node and the worker's name.
        seen: whether it knows what processes do.
        regained: what it has started again by itself, by the worker's name; ``stands_in`` is that worker.
        on_look: called when it is next asked what a process does.
        provided: the folders that workers were to have, in order; ``lacks`` says why they cannot have them.
    """

    def __init__(self, folder: Path, *up: str) -> None:
        self.up = list(up)
        self.draining: list[str] = []
        self.cluster_is_away = False
        self.running: dict[tuple[str, str], StubWorker] = {}
        self.seen = True
        self.provided: list[list[str]] = []
        self.lacks = ""
        self.regained: dict[str, ProcessRecord] = {}
        self.stands_in: StubWorker | None = None
        self.on_look: Callable[[], None] | None = None
        self.records: list[ProcessRecord] = []
        self.ended: list[str] = []
        self._folder = folder

    @property
    def is_away(self) -> bool:
        return False

    def names(self) -> list[str]:
        return sorted(f"{name} on {node}" for node, name in self.running)

    async def nodes(self) -> list[ClusterNode]:
        if self.cluster_is_away:
            raise Unavailable("Ray: no answer within 10 s")
        nodes = [
            ClusterNode(address, True, number == 0, address in self.draining) for number, address in enumerate(self.up)
        ]
        return [*nodes, ClusterNode("10.9.9.9", False, False)]

    async def start(self, start: WorkerStart) -> StartedWorker:
        worker = StubWorker(start, self._folder / f"w{start.instance}.sock")
        await worker.listen()
        self.running[start.node, start.name] = worker
        return StartedWorker(worker, UnixAddress(str(worker.path)))

    async def adopt(self, record: ProcessRecord) -> RunningWorker | None:
        if self.stands_in is not None:
            worker, self.stands_in = self.stands_in, None
            await worker.listen()
            self.running[worker.start.node, worker.start.name] = worker
            return worker
        (found,) = (one for (_, name), one in self.running.items() if name == record.name)
        return found

    async def logs(
        self, process: RunningWorker, name: str | None, places: Mapping[str, str], lines: int
    ) -> dict[str, tuple[Lines, str]]:
        if self.cluster_is_away:
            raise Unavailable("Ray: no answer within 5 s")
        assert isinstance(process, StubWorker)
        names = [f"{kind}-{process.start.config['index']}" for kind in ("access", "worker")]
        return {one: ((f"{one} {lines}",), "7.") for one in names if name in (None, one)}

    async def orphans(self) -> list[ProcessRecord]:
        return self.records

    async def end(self, record: ProcessRecord) -> None:
        self.ended.append(record.name)

    async def regain(self, name: str, node: str) -> ProcessRecord | None:
        return self.regained.pop(name, None)

    async def sees(self, process: RunningWorker) -> bool:
        if self.on_look is not None:
            on_look, self.on_look = self.on_look, None
            on_look()
        return self.seen

    async def provide(self, process: RunningWorker, folders: Iterable[str]) -> None:
        if self.lacks:
            raise Unavailable(self.lacks)
        self.provided.append(list(folders))

    async def clean_up(self, name: str, process: RunningWorker | None, control: ControlAddress | None) -> None:
        for key, one in list(self.running.items()):
            if one is process:
                one.end("was removed")
                del self.running[key]

    def close(self) -> None: ...


def statistics(index: int, generation: int) -> Any:
    return WorkerStatistics(
        index=index,
        pid=1,
        generation=generation,
        connections=0,
        requests_refused={},
        applications=(),
        versions=(),
        replicas=(),
        cache=CacheStatistics(0, 0, 0, 0),
    )
