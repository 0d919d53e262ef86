"""The type of a version's outputs is recorded once, however many workers learn types of their own at the same time."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from clipper.control.messages import GetStatistics, Statistics
from clipper.control.snapshot import VersionSnapshot
from clipper.control.statistics import CacheStatistics, WorkerStatistics
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.output_types import OutputTypes
from clipper.supervisor.registry.records import ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Delete, Put
from clipper.supervisor.workers.workers import Workers
from clipper.values.types import ModelId
from clipper.worker.abstraction.output_typing import OutputTyping
from tests.worker.frontend.steps import finish

SPEC = VersionSpec("a", "import", "m:f")
A, B = ModelId("a", "1"), ModelId("b", "1")


class SmallWorker:
    """A worker with a queue for each version, whose first outputs are given."""

    def __init__(self) -> None:
        self.typing = {id_: OutputTyping(VersionSnapshot("1", "float64")) for id_ in (A, B)}

    def learn(self, id_: ModelId, output: bytes) -> None:
        finish(self.typing[id_].learning(output))

    @property
    def learned(self) -> tuple[tuple[ModelId, str], ...]:
        return tuple((id_, typing.news) for id_, typing in self.typing.items() if typing.news)

    @property
    def untyped(self) -> tuple[ModelId, ...]:
        return tuple(id_ for id_, typing in self.typing.items() if typing.news == "")


class SmallWorkers:
    def __init__(self, *workers: SmallWorker) -> None:
        self.workers = workers
        self.asked = 0

    async def ask_all(self, command: object) -> list[tuple[int, Statistics]]:
        assert command == GetStatistics((), (), ((), ())), "they answer in a turn of their loops"
        self.asked += 1
        nothing = WorkerStatistics(0, 1, 1, 0, {}, (), (), (), CacheStatistics(0, 0, 0, 0))
        return [
            (instance, Statistics(replace(nothing, learned=worker.learned, untyped=worker.untyped)))
            for instance, worker in enumerate(self.workers)
        ]


class Desk:
    """Two workers, the keeper, and a push of the records after each of its changes, as the reconciler does it."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.first, self.second = SmallWorker(), SmallWorker()
        self.workers = SmallWorkers(self.first, self.second)
        self.keeper = OutputTypes(catalog, cast(Workers, self.workers), self.push)
        self.pushes = 0

    def push(self) -> None:
        self.pushes += 1
        for worker in self.workers.workers:
            for id_, typing in worker.typing.items():
                record = self.catalog.versions.get(id_)
                if record is not None:
                    told = VersionSnapshot("1", "float64", output_type=record.output_type)
                    typing.follow(replace(told, output_is_untyped=record.output_is_untyped))

    def look(self) -> None:
        asyncio.run(self.keeper.look())

    def types(self, id_: ModelId) -> list[str]:
        return [str(worker.typing[id_].type) for worker in self.workers.workers]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with closing(SqliteRegistry(tmp_path / "registry.sqlite3")) as registry:
        catalog = Catalog(registry)
        for id_ in (A, B):
            record = VersionRecord(id_.name, id_.version, SPEC, Batching(), True, 1, 0.0, "ready")
            catalog.commit(Put(ModelRecord(id_.name, "1")), Put(record))
        yield catalog


def test_the_first_type_that_is_found_is_that_of_all_workers(catalog: Catalog) -> None:
    desk = Desk(catalog)
    desk.look()
    assert desk.types(A) == ["None", "None"] and desk.pushes == 0
    desk.second.learn(A, b'"text"')
    desk.first.learn(A, b"1.5")
    desk.look()
    assert catalog.versions[A].output_type == "float64[]" and not catalog.versions[A].output_is_declared
    assert desk.types(A) == ["float64[]", "float64[]"] and desk.pushes == 1
    desk.second.learn(A, b"true")
    desk.look()
    assert (catalog.versions[A].output_type, catalog.versions[B].output_type, desk.pushes) == ("float64[]", None, 1)
    desk.first.learn(B, b"null")
    desk.second.learn(B, b"true")
    desk.look()
    assert desk.types(B) == ["bool[]", "bool[]"]


def test_no_type_is_recorded_as_a_type_is(catalog: Catalog) -> None:
    desk = Desk(catalog)
    desk.first.learn(A, b'["no type"]')
    desk.second.learn(A, b"true")
    desk.second.learn(B, b"true")
    desk.first.learn(B, b'{"no":{"type":1}}')
    desk.look()
    found = [(record.output_type, record.output_is_untyped) for record in map(catalog.versions.__getitem__, (A, B))]
    assert found == [(None, True), (None, True)] and desk.pushes == 1
    desk.second.learn(A, b"true")
    desk.look()
    assert desk.types(A) == desk.types(B) == ["None", "None"] and desk.pushes == 1
    assert desk.workers.asked == 1


def test_nobody_is_asked_if_all_types_are_known(catalog: Catalog) -> None:
    desk = Desk(catalog)
    desk.look()
    for id_, state in ((A, "ready"), (B, "starting")):
        known = "string" if id_ == A else None
        catalog.note(replace(catalog.versions[id_], output_type=known, state=state))
    desk.look()
    assert desk.workers.asked == 1


def test_a_version_that_is_removed_meanwhile_is_passed_over(catalog: Catalog) -> None:
    desk = Desk(catalog)
    desk.first.learn(A, b"1.5")
    ask = desk.workers.ask_all

    async def ask_late(command: object) -> list[tuple[int, Statistics]]:
        replies = await ask(command)
        catalog.commit(Delete(VersionRecord, "a:1"))
        return replies

    desk.workers.ask_all = ask_late  # type: ignore[method-assign]
    desk.look()
    assert A not in catalog.versions and desk.pushes == 0
