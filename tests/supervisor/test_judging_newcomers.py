"""The verdicts on newcomers by the store's evidence: on a real registry and store, without a server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from clipper.control.messages import GetStatistics, Statistics
from clipper.control.snapshot import NO_OUTCOME, Newcomer, RampOutcome
from clipper.learning.mathematics.guardrail import Forecasts
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import EVERYONE, Observation
from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.ramps import Ramps
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Put
from clipper.values.types import ModelId

DEPLOYED = Newcomer(1, "m", "2", "1", promoted=True)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """Version 2 of m came after 1; three applications follow it, of which the last does not learn."""
    with closing(SqliteRegistry(tmp_path / "registry.sqlite3")) as registry:
        catalog = Catalog(registry)
        spec = VersionSpec("a", "import", "m:f")
        versions = [VersionRecord("m", name, spec, Batching(), True, 1, 0.0, "ready") for name in "12"]
        learning = [
            ApplicationRecord(name, "doubles", 20.0, None, Selection("thompson"), (Link("m"),), f"{name}#1")
            for name in ("one", "two")
        ]
        ramped = [replace(each, newcomers=(DEPLOYED,), ramps=1) for each in learning]
        other = ApplicationRecord("three", "doubles", 20.0, links=(Link("m"),), id="three#1")
        catalog.commit(Put(ModelRecord("m", "2", "1")), *map(Put, (*versions, *ramped, other)))
        yield catalog


def judging(catalog: Catalog, folder: Path, test: Callable[[Ramps, SqliteStore], Awaitable[None]]) -> list[bool]:
    """Run ``test``; returns an entry for each time that the reconciler was woken."""
    woken: list[bool] = []

    async def run() -> None:
        store = SqliteStore(folder / "selection.sqlite3")
        try:
            await test(Ramps(catalog, store, lambda: woken.append(True), no_workers), store)
        finally:
            await store.close()

    asyncio.run(run())
    return woken


async def no_workers(command: GetStatistics) -> list[tuple[int, Statistics]]:
    return []


async def show(store: SqliteStore, application: str, own: float, rest: float, times: int = 300) -> None:
    """So many answers of both with these losses."""
    ledger, forecasts = Ledger(), Forecasts()
    for loss, is_own in ((own, True), (rest, False)):
        shown = forecasts.observed("m:2", 1, loss, is_own=is_own, times=times)
        observation = Observation(f"{loss}-{is_own}", application, {EVERYONE: ledger.entries(shown)})
        assert await store.commit([observation]) == [True]


def newcomers(catalog: Catalog, name: str) -> tuple[Newcomer, ...]:
    return catalog.applications[name].newcomers


def test_harm_in_one_application_rolls_the_model_back_for_all(catalog: Catalog, tmp_path: Path) -> None:
    async def test(ramps: Ramps, store: SqliteStore) -> None:
        await show(store, "one#1", 1.0, 0.0)
        await ramps.look()
        (stopped,) = newcomers(catalog, "one")
        assert stopped.stopped is not None and "300 of its answers with feedback lost 1.000" in stopped.stopped
        assert newcomers(catalog, "two") == ()
        assert (catalog.models["m"].current, catalog.models["m"].previous) == ("1", None)
        assert ramps.problems() == [f"application 'one': m:2 was stopped: {stopped.stopped}"]
        await ramps.look()
        assert newcomers(catalog, "one") == (stopped,), "it does not flap"
        assert not any("ramp" in name for name in await store.load("one#1", EVERYONE))

    assert len(judging(catalog, tmp_path, test)) == 1


def test_what_does_not_run_is_not_rolled_back_to(catalog: Catalog, tmp_path: Path) -> None:
    before = catalog.versions[ModelId("m", "1")]

    async def test(ramps: Ramps, store: SqliteStore) -> None:
        await show(store, "one#1", 1.0, 0.0)
        catalog.commit(Put(replace(before, state="failed")))
        await ramps.look()
        assert newcomers(catalog, "one") == (DEPLOYED,) and catalog.models["m"].current == "2"
        catalog.commit(Put(before))
        await ramps.look()
        assert newcomers(catalog, "one")[0].stopped and catalog.models["m"].current == "1"

    judging(catalog, tmp_path, test)


def test_one_that_is_through_here_goes_on_being_ramped_there(catalog: Catalog, tmp_path: Path) -> None:
    async def test(ramps: Ramps, store: SqliteStore) -> None:
        await show(store, "one#1", 0.0, 0.0)
        await ramps.look()
        assert newcomers(catalog, "one") == () and newcomers(catalog, "two") == (DEPLOYED,)
        assert ramps.outcome(catalog.applications["two"], DEPLOYED) == NO_OUTCOME
        assert catalog.models["m"].current == "2" and ramps.problems() == []

    judging(catalog, tmp_path, test)


def test_a_state_that_cannot_be_read_holds_up_no_other_application(catalog: Catalog, tmp_path: Path) -> None:
    async def test(ramps: Ramps, store: SqliteStore) -> None:
        await store.commit([Observation("bad", "one#1", {EVERYONE: {"no key": 1.0}})])
        await show(store, "two#1", 0.0, 0.0)
        await ramps.look()
        assert newcomers(catalog, "one") == (DEPLOYED,) and newcomers(catalog, "two") == ()
        (problem,) = ramps.problems()
        assert problem.startswith("application 'one': its newcomers cannot be judged now: ") and "no key" in problem

    judging(catalog, tmp_path, test)


def test_a_newcomer_that_an_operator_has_ended_is_let_go(catalog: Catalog, tmp_path: Path) -> None:
    async def test(ramps: Ramps, store: SqliteStore) -> None:
        await show(store, "one#1", 1.0, 0.0, times=3)
        await ramps.look()
        assert ramps.outcome(catalog.applications["one"], DEPLOYED) == RampOutcome(3, 3, 1.0, 0.0)
        catalog.commit(Put(replace(catalog.applications["one"], newcomers=())))
        await ramps.look()
        assert ramps.outcome(catalog.applications["one"], DEPLOYED) == NO_OUTCOME
        assert not any("ramp" in name for name in await store.load("one#1", EVERYONE))

    judging(catalog, tmp_path, test)
