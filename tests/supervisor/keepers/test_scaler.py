"""Versions that are asked while they sleep: all wake at once, in one step of the registry."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from clipper.control.messages import GetStatistics, Statistics
from clipper.control.statistics import CacheStatistics, ModelSelectionStatistics, WorkerStatistics
from clipper.settings.application import Link
from clipper.settings.pipeline import Step
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.scaler import Scaler
from clipper.supervisor.managers.manager import Manager
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Delete, Put
from clipper.supervisor.workers.workers import Workers
from clipper.values.types import ModelId
from tests.supervisor.history.readings import answer, reading, version_reading

SPEC = VersionSpec("a", "import", "m:f")
MODELS = 200


class CountingRegistry(SqliteRegistry):
    writes = 0

    def write(self, *changes: Any) -> None:
        self.writes += 1
        super().write(*changes)


class AskedWorkers:
    """Two, both of which were asked for the same, in other orders."""

    def __init__(self, *demanded: ModelId) -> None:
        self.demanded = demanded
        self.asked = 0

    async def ask_all(self, command: object) -> list[tuple[int, Statistics]]:
        assert command == GetStatistics((), (), ((), ())), "they answer in a turn of their loops"
        self.asked += 1
        nothing = WorkerStatistics(0, 1, 1, 0, {}, (), (), (), CacheStatistics(0, 0, 0, 0))
        orders = self.demanded, self.demanded[::-1]
        return [(number, Statistics(replace(nothing, demanded=one))) for number, one in enumerate(orders)]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[CountingRegistry]:
    with closing(CountingRegistry(tmp_path / "registry.sqlite3")) as registry:
        yield registry


def asleep(name: str) -> VersionRecord:
    scaling = ReplicaRange(0, 2)
    return VersionRecord(name, "1", SPEC, Batching(), True, 0, 0.0, "ready", scaling=scaling)


def test_hundreds_wake_in_one_step(registry: CountingRegistry) -> None:
    catalog, woken = Catalog(registry), []
    names = [f"m{number}" for number in range(MODELS)]
    for name in [*names, "unasked", "gone"]:
        catalog.commit(Put(ModelRecord(name, "1")), Put(asleep(name)))
    before = registry.writes

    async def run() -> None:
        asked = [ModelId(name, "1") for name in [*names, "gone", "never-there"]]
        workers = AskedWorkers(*asked)
        scaler = Scaler(
            catalog, cast(Manager, None), cast(Workers, workers), lambda: woken.append(registry.writes), 600.0
        )
        # It learns which there are by its looks at loads, and one may go before it asks.
        scaler._follow_catalog()
        catalog.commit(Delete(ModelRecord, "gone"))
        await scaler.wake()
        assert len(woken) == 1
        # A model that is awake is not woken again, though workers still say that it is asked.
        await scaler.wake()
        assert workers.asked == 2

    asyncio.run(run())
    assert woken == [before + 2]  # the removal, and all that woke
    wanted = {version.model: version.replicas_wanted for version in registry.load().versions}
    assert wanted == {**dict.fromkeys(names, 1), "unasked": 0}


class LoadedWorkers:
    """One worker whose counts of a pipeline of two steps a test sets."""

    def __init__(self) -> None:
        self.queries = self.first = self.second = 0

    async def ask_all(self, command: GetStatistics) -> list[tuple[int, Statistics]]:
        assert command.applications == ("desk", "desk.a", "desk.b")
        applications = [reading(self.queries, name="desk")]
        for name, model, rows in (("desk.a", "a", self.first), ("desk.b", "b", self.second)):
            models = {model: ModelSelectionStatistics(rows, 0, 0, 0.0)}
            applications.append(reading(rows, name=name, models=models))
        rates = {"x": 100.0}
        versions = [
            replace(version_reading(), model=model, arrivals=rows, slo_s=1.0, rows_per_s=rates)
            for model, rows in (("a", self.first), ("b", self.second))
        ]
        return [(1, Statistics(answer(applications, versions)))]


class OneReplica:
    """A manager where each version has one replica in service."""

    def slots(self, id_: ModelId) -> list[Any]:
        return [SimpleNamespace(phase="ready", replica=None)]


def scaled_pipeline(catalog: Catalog, max_replicas: int | None = None) -> None:
    for name in ("a", "b"):
        scaling = ReplicaRange(1, 8)
        version = VersionRecord(name, "1", SPEC, Batching(), True, 1, 0.0, "ready", scaling=scaling)
        catalog.commit(Put(ModelRecord(name, "1")), Put(version))
        catalog.commit(Put(ApplicationRecord(f"desk.{name}", "string", 1000.0, links=(Link(name),))))
    steps = {"a": Step(), "b": Step(for_each="a", input="item")}
    catalog.commit(Put(ApplicationRecord("desk", "string", 1000.0, steps=steps, max_replicas=max_replicas)))


@pytest.mark.parametrize(("max_replicas", "expected"), [(None, {"a": 2, "b": 3}), (4, {"a": 2, "b": 2})])
def test_steps_of_a_pipeline_rise_together(
    registry: CountingRegistry, max_replicas: int | None, expected: dict[str, int]
) -> None:
    """The first step is full, so that the second one's own arrivals do not grow."""
    catalog, workers = Catalog(registry), LoadedWorkers()
    scaled_pipeline(catalog, max_replicas)

    async def run() -> None:
        scaler = Scaler(catalog, cast(Manager, OneReplica()), cast(Workers, workers), lambda: None, 600.0)
        loop, now_s = asyncio.get_running_loop(), 0.0
        loop.time = lambda: now_s  # type: ignore[method-assign]
        for look in range(30):
            now_s = 0.5 * look
            is_rush = look >= 24
            workers.queries += 60 if is_rush else 10
            workers.first += 60 if is_rush else 10
            workers.second += 25 if is_rush else 20
            await scaler.look()
            if look == 23:
                assert wanted() == {"a": 1, "b": 1}

    def wanted() -> dict[str, int]:
        return {version.model: version.replicas_wanted for version in registry.load().versions}

    asyncio.run(run())
    assert wanted() == expected
