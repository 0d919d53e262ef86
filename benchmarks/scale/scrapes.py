"""``python -m benchmarks.scale.scrapes``: what a scrape of /metrics takes the supervisor, by what has changed since.

The catalog, the questions, the control channels, the sums and the text are real. Replicas have no processes, and the
workers are stubs in a process of their own, which answer questions with made-up readings as a real worker does.
"""

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import IO, cast

from benchmarks.harness import servers
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.rows.footprint import resident_mb
from benchmarks.scale.fleet import Size, fill, model_name
from clipper.api.schemas import Status
from clipper.control.address import UnixAddress
from clipper.control.messages import AnyCommand, AnyReply, GetStatistics, Statistics
from clipper.control.server import ControlServer
from clipper.control.statistics import (
    CONFIDENCE_BOUNDS,
    LATENCY_BOUNDS_S,
    SIZE_BOUNDS,
    ApplicationStatistics,
    CacheStatistics,
    HistogramData,
    ModelSelectionStatistics,
    ReplicaStatistics,
    SelectionStatistics,
    VersionStatistics,
    WorkerStatistics,
)
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.folders import open_home
from clipper.supervisor.managers.manager import SlotStatus
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.managers.worker_host import WorkerHost
from clipper.supervisor.operations import scrapes
from clipper.supervisor.operations.parts import Parts
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.workers.settings import WorkerSettings
from clipper.supervisor.workers.worker_process import WorkerProcess
from clipper.supervisor.workers.workers import Workers
from clipper.values.types import ModelId
from clipper.worker.readings import MOST_READINGS

REPLICAS_OF_MODEL = 5
# Before each scrape: the share of the things that count in this share of the workers.
CHANGES = {
    "everything, at the first scrape": (0.0, 0.0),
    "nothing": (0.0, 0.0),
    "1 % of the models, in all workers": (0.01, 1.0),
    "10 % of the models, in all workers": (0.1, 1.0),
    "all models, in one worker": (1.0, 0.0),
    "all models, in all workers": (1.0, 1.0),
}
ROUNDS = 3


class StubWorker:
    def __init__(self, index: int, models: int) -> None:
        self._index = index
        self.counts = [0] * models

    async def answer(self, command: AnyCommand) -> AnyReply:
        assert isinstance(command, GetStatistics) and command.applications is not None and command.known is not None
        applications: list[ApplicationStatistics] = []
        versions: list[VersionStatistics] = []
        replicas: list[ReplicaStatistics] = []
        looked = None
        for place, (of_application, of_version) in enumerate(zip(*command.known)):
            number = int(command.applications[place].removeprefix("app-"))
            count = self.counts[number]
            if of_application != count:
                applications.append(_application(number, count))
            if of_version != count:
                versions.append(_version(number, count))
                replicas += [_replica(number, index, count) for index in range(1, REPLICAS_OF_MODEL + 1)]
            if len(applications) + len(versions) >= MOST_READINGS:
                looked = place + 1
                break
        of, cache = (tuple(applications), tuple(versions), tuple(replicas)), CacheStatistics(0, 0, 0, 0)
        return Statistics(WorkerStatistics(self._index, 1, 1, 0, {}, *of, cache, looked=looked))


def _histogram(bounds: Sequence[float], count: int) -> HistogramData:
    return HistogramData((count,) * (len(bounds) + 1), count / 8)


def _application(number: int, count: int) -> ApplicationStatistics:
    models = {model_name(number): ModelSelectionStatistics(count, 0, count, count / 4)}
    confidence = _histogram(CONFIDENCE_BOUNDS, count)
    selection = SelectionStatistics(models, confidence, {"joined": count}, count, count / 4, 0, 0, None)
    latency, id_ = _histogram(LATENCY_BOUNDS_S, count), f"app-{number}#1"
    return ApplicationStatistics(f"app-{number}", count, {}, {}, 0, latency, selection, mark=count, id=id_)


def _version(number: int, count: int) -> VersionStatistics:
    seconds, sizes = _histogram(LATENCY_BOUNDS_S, count), _histogram(SIZE_BOUNDS, count)
    counts = (0, 0, count, 0, 0, 0, 0, 0, 0)
    return VersionStatistics(model_name(number), "1", *counts, seconds, sizes, seconds, count, mark=count)


def _replica(number: int, index: int, count: int) -> ReplicaStatistics:
    name = model_name(number)
    return ReplicaStatistics(f"{name}:1#{index}.g{number}", name, "1", "linked", 8, 0, count, None)


async def listen(folder: str, workers: int, models: int) -> None:
    """Answer as these workers. A line that comes says what shall count: a share of the models, and of the workers."""
    stubs = [StubWorker(index, models) for index in range(workers)]
    listening = [ControlServer(stub.answer) for stub in stubs]
    for index, server in enumerate(listening):
        await server.listen(UnixAddress(f"{folder}/{index}.sock"))
    print("listens", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        of_models, of_workers = map(float, line.split())
        for stub in stubs[: max(1, round(of_workers * workers))]:
            for number in range(round(of_models * models)):
                stub.counts[number] += 1
        print("done", flush=True)


def processes(folder: str, count: int) -> list[WorkerProcess]:
    """The supervisor's side of the stubs."""
    settings, unused = WorkerSettings("127.0.0.1", 1, 1000, store_digest=""), cast(WorkerHost, None)
    found = [WorkerProcess(index, settings, unused, "", lambda: 1, lambda: None) for index in range(count)]
    for index, one in enumerate(found):
        one.phase, one.instance, one.control = "ready", index + 1, UnixAddress(f"{folder}/{index}.sock")
    return found


async def status(workers: Sequence[WorkerStatistics]) -> Status:
    return Status("1", 1, "", "", "", 1.0, True, (), (), 1, 1, {})


async def measure(catalog: Catalog, size: Size, folder: str, stubs: "subprocess.Popen[str]") -> None:
    slots: dict[ModelId, list[SlotStatus]] = {}
    for id_, record in catalog.versions.items():
        indexes = range(1, REPLICAS_OF_MODEL + 1)
        slots[id_] = [SlotStatus(Slot(id_.name, id_.version, index), record.spec) for index in indexes]
    own = processes(folder, size.workers)
    manager = SimpleNamespace(slots=slots.__getitem__)
    workers = Workers(lambda index, _: own[index], size.workers)
    parts = SimpleNamespace(catalog=catalog, manager=manager, workers=workers, ramps=None)
    scraped = scrapes.Scrapes(cast(Parts, parts), status)
    loop = cast(WatchedLoop, asyncio.get_running_loop())
    commands, answers = cast(IO[str], stubs.stdin), cast(IO[str], stubs.stdout)
    for name, (models, of_workers) in CHANGES.items():
        for _ in range(1 if "first" in name else ROUNDS):
            print(models, of_workers, file=commands, flush=True)
            answers.readline()
            loop.longest_s = 0.0
            cpu_s, loop_s, stubs_ns = time.process_time(), time.thread_time(), servers.processor_ns(stubs.pid)
            text = await scraped.text(False, None, None)
            cpu_s, loop_s = time.process_time() - cpu_s, time.thread_time() - loop_s
            each_ms = (servers.processor_ns(stubs.pid) - stubs_ns) / 1e6 / size.workers
            print(
                f"| {name} | {cpu_s:.2f} s | {loop_s * 1e3:.0f} ms | {loop.longest_s * 1e3:.0f} ms | {each_ms:.1f} ms "
                f"| {len(text) / 1e6:.1f} MB | {resident_mb(os.getpid()):.0f} MB |",
                flush=True,
            )


class WatchedLoop(asyncio.SelectorEventLoop):
    """``longest_s``: the most processor time that its thread has taken in a turn."""

    longest_s = 0.0

    def _run_once(self) -> None:
        began_s = time.thread_time()
        super()._run_once()  # type: ignore[misc]
        self.longest_s = max(self.longest_s, time.thread_time() - began_s)


def main(models: int, workers: int) -> None:
    size = Size(models, models * REPLICAS_OF_MODEL, workers)
    gc.freeze()  # as the supervisor does
    # The machine may be busy with other work: all workers shall answer.
    scrapes.__dict__.update(ASK_S=300.0, ANSWER_TIMEOUT_S=60.0)
    with tempfile.TemporaryDirectory(prefix="scrapes-") as folder:
        home = Path(folder) / "home"
        fill(home, size, "0" * 64)
        listens = [sys.executable, "-m", "benchmarks.scale.scrapes", "--listen", folder]
        sizes = ["--models", str(models), "--workers", str(workers)]
        stubs = subprocess.Popen([*listens, *sizes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            cast(IO[str], stubs.stdout).readline()
            registry = SqliteRegistry(open_home(home).registry)
            with closing(registry), asyncio.Runner(loop_factory=WatchedLoop) as runner:
                runner.run(measure(Catalog(registry), size, folder, stubs))
        finally:
            stubs.kill()
            stubs.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale.scrapes", description=__doc__)
    parser.add_argument("--models", type=int, default=1000, help="with an application and five replicas each (1000)")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--listen", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    end_in_order_at_sigterm()
    if asked.listen:
        asyncio.run(listen(asked.listen, asked.workers, asked.models))
    else:
        columns = ("changed", "processor time", "on the loop", "longest turn", "each stub", "text", "memory")
        print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
        main(asked.models, asked.workers)
