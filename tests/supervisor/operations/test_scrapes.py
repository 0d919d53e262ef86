"""Scrapes of real control channels: workers that count, hang, end and are taken over."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clipper.api.schemas import Status
from clipper.control.messages import AnyCommand, AnyReply, GetStatistics, Statistics
from clipper.control.statistics import (
    LATENCY_BOUNDS_S,
    ApplicationStatistics,
    CacheStatistics,
    HistogramData,
    LimitStatistics,
    WorkerStatistics,
)
from clipper.errors import InvalidArgument, Overloaded
from clipper.settings.application import Selection
from clipper.settings.version import Batching, VersionSpec, VersionState
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.managers.manager import SlotStatus
from clipper.supervisor.managers.reconcile.plan import History, Slot
from clipper.supervisor.operations import scrapes
from clipper.supervisor.operations.parts import Parts
from clipper.supervisor.operations.scrapes import MAX_WAITING, Scrapes
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Delete, Put
from clipper.supervisor.workers.workers import Workers
from clipper.values.types import ModelId
from tests.worker_stand_in import StandIn, listening

# In an answer of a worker.
PART = 50
APPLICATIONS = [f"app-{number}" for number in range(2 * PART + 1)]
NO_LATENCY = HistogramData((0,) * (len(LATENCY_BOUNDS_S) + 1), 0.0)


class Counting(StandIn):
    """A worker's end of the control channel. It says that each application had ``queries``."""

    def __init__(self, folder: Path, index: int, queries: int) -> None:
        super().__init__(folder, index)
        self.queries = queries
        self.asked: list[int] = []
        self.hangs = False
        self.never = asyncio.Event()

    async def answer(self, command: AnyCommand) -> AnyReply:
        assert isinstance(command, GetStatistics) and command.applications is not None
        self.asked.append(len(command.applications))
        if self.hangs and command.applications:
            await self.never.wait()
        defaults = {"timeout": self.queries} if self.queries else {}
        counts = tuple(
            ApplicationStatistics(name, self.queries, defaults, {}, 0, NO_LATENCY)
            for name in command.applications[:PART]
        )
        limits = (LimitStatistics("application", "app-0", 1, self.queries),)
        cache, index = CacheStatistics(0, 0, 0, 0), self.process.index
        looked = PART if len(command.applications) > PART else None
        return Statistics(WorkerStatistics(index, 1, 1, 0, {}, counts, (), (), cache, limits=limits, looked=looked))


class Server:
    def __init__(self, catalog: Catalog, *counting: Counting) -> None:
        self.catalog = catalog
        ramps = SimpleNamespace(evidence=lambda *_: None, ended=lambda record: ())
        manager = SimpleNamespace(slots=lambda id_: self.slots.get(id_, []))
        workers = Workers(lambda index, _: counting[index].process, len(counting))
        parts = SimpleNamespace(catalog=catalog, manager=manager, workers=workers, ramps=ramps)
        self.slots: dict[ModelId, list[SlotStatus]] = {}
        self.scrapes = Scrapes(cast(Parts, parts), self.status)

    async def status(self, workers: Sequence[WorkerStatistics]) -> Status:
        return Status("1", 1, "/h", "q", "m", 1.0, True, (), (), 1, 1, {})

    async def scrape(self, by_worker: bool = False, only: Sequence[str] | None = None) -> dict[tuple[str, ...], float]:
        text = (await self.scrapes.text(by_worker, only, None)).decode()
        read = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {(one.name, *one.labels.values()): one.value for one in read}

    async def queries(self, application: str = "app-7") -> float | None:
        return (await self.scrape()).get(("clipper_queries_total", application))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with closing(SqliteRegistry(tmp_path / "registry.sqlite3")) as registry:
        catalog = Catalog(registry)
        catalog.commit(*map(Put, map(application, APPLICATIONS)))
        yield catalog


def application(name: str, number: int = 1) -> ApplicationRecord:
    return ApplicationRecord(name, "string", 20.0, id=f"{name}#{number}", selection=Selection(), links=())


def run(counting: Sequence[Counting], test: Callable[[], Awaitable[None]]) -> None:
    async def answering() -> None:
        async with listening(counting):
            await test()

    asyncio.run(answering())


def test_all_workers_are_asked_part_by_part_and_added_up(tmp_path: Path, catalog: Catalog) -> None:
    workers = [Counting(tmp_path, index, 10 + index) for index in range(3)]
    server = Server(catalog, *workers)

    async def test() -> None:
        found = await server.scrape()
        assert {name: found["clipper_queries_total", name] for name in APPLICATIONS} == dict.fromkeys(
            APPLICATIONS, 33.0
        )
        assert found["clipper_limit_refused_total", "app-0", "application"] == 33.0
        assert [one.asked for one in workers] == [[101, 51, 1]] * 3
        each = await server.scrape(by_worker=True)
        assert [each["clipper_queries_total", "app-100", str(index)] for index in range(3)] == [10.0, 11.0, 12.0]
        some = await server.scrape(only=["app-1", "app-2", "nobody"])
        assert {labels[0] for name, *labels in some if name.startswith("clipper_")} == {"app-1", "app-2"}
        assert some["clipper_queries_total", "app-1"] == 33.0

    run(workers, test)


def test_a_worker_that_never_answers_is_awaited_once_and_counts_as_before(tmp_path: Path, catalog: Catalog) -> None:
    hanging, other = Counting(tmp_path, 0, 5), Counting(tmp_path, 1, 7)
    server = Server(catalog, hanging, other)

    async def test() -> None:
        assert await server.queries() == 12.0
        hanging.hangs = True
        hanging.asked.clear()
        other.queries = 9
        assert await server.queries() == 14.0
        assert hanging.asked == [101]
        hanging.process.phase = "dead"  # type: ignore[assignment]
        assert await server.queries() == 14.0
        hanging.process.instance = 77  # it was started again, and is not up yet
        assert await server.queries() == 14.0

    run([hanging, other], test)


def test_counts_begin_at_0_under_a_supervisor_that_took_workers_over(tmp_path: Path, catalog: Catalog) -> None:
    worker = Counting(tmp_path, 0, 1000)
    worker.process.is_adopted = True
    server = Server(catalog, worker)

    async def test() -> None:
        assert await server.queries() == 0.0
        worker.queries = 1003
        assert await server.queries() == 3.0
        server.catalog.commit(Delete(ApplicationRecord, "app-7"))
        server.catalog.commit(Put(application("app-7", 2)))
        worker.process.is_adopted, worker.process.instance, worker.queries = False, 2, 4
        assert await server.queries() == 4.0, "another application of that name"
        assert await server.queries("app-8") == 7.0

    run([worker], test)


def test_too_many_series_and_too_many_scrapes_are_refused(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, other = Counting(tmp_path, 0, 1), Counting(tmp_path, 1, 1)
    server, larger = Server(catalog, worker), Server(catalog, worker, other)

    async def test() -> None:
        found = await asyncio.gather(*(server.queries() for _ in range(MAX_WAITING + 1)), return_exceptions=True)
        assert found[:-1] == [1.0] * MAX_WAITING and isinstance(found[-1], Overloaded)
        monkeypatch.setattr(scrapes, "MAX_SERIES", 6059)
        with pytest.raises(InvalidArgument, match=r"6060 series.*application=NAME") as refused:
            await server.scrape()
        assert "by_worker" not in str(refused.value)
        with pytest.raises(InvalidArgument, match="without by_worker"):
            await larger.scrape(by_worker=True)
        assert (await server.scrape(only=["app-1"]))["clipper_queries_total", "app-1"] == 1.0

    run([worker, other], test)


def test_what_the_supervisor_knows_of_versions_and_replicas(tmp_path: Path, catalog: Catalog) -> None:
    spec = VersionSpec("0" * 64, "import", "m:predict")
    states: dict[str, tuple[VersionState, int]] = {"1": ("ready", 3), "2": ("failed", 3), "3": ("ready", 0)}
    catalog.commit(Put(ModelRecord("m", "1")))
    for version, (state, wanted) in states.items():
        record = VersionRecord("m", version, spec, Batching(), True, wanted, float(version), state, kept=True)
        catalog.commit(Put(record))
    worker = Counting(tmp_path, 0, 1)
    server = Server(catalog, worker)
    looping = History(crash_loop=True)
    slots = [SlotStatus(Slot("m", "1", 1), spec), SlotStatus(Slot("m", "1", 2), spec, history=looping, restarts=4)]
    server.slots[ModelId("m", "1")] = slots

    async def test() -> None:
        found = await server.scrape()
        assert [found["clipper_replicas_wanted", "m", version] for version in states] == [3.0, 0.0, 0.0]
        of_second = ("m", "m:1#2", "1")
        assert found["clipper_replica_restarts_total", *of_second] == 4.0
        assert found["clipper_replica_state", *of_second, "crash_loop"] == 1.0
        assert found["clipper_replica_state", "m", "m:1#1", "1", "backing_off"] == 1.0
        slots[1].restarts = 5
        assert (await server.scrape())["clipper_replica_restarts_total", *of_second] == 5.0
        slots.pop()
        assert ("clipper_replica_restarts_total", *of_second) not in await server.scrape()

    run([worker], test)
