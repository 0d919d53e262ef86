"""Versions that are asked while they sleep: all wake at once, in one step of the registry."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from clipper.control.messages import GetStatistics, Statistics
from clipper.control.statistics import CacheStatistics, WorkerStatistics
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.scaler import Scaler
from clipper.supervisor.managers.manager import Manager
from clipper.supervisor.registry.records import ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Delete, Put
from clipper.supervisor.workers.workers import Workers
from clipper.values.types import ModelId

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
        # What is awake is not woken again, though workers still say that it is asked.
        await scaler.wake()
        assert workers.asked == 2

    asyncio.run(run())
    assert woken == [before + 2]  # the removal, and all that woke
    wanted = {version.model: version.replicas_wanted for version in registry.load().versions}
    assert wanted == {**dict.fromkeys(names, 1), "unasked": 0}
