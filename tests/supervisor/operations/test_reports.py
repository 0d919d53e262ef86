"""Reports where things are missing: no worker that tells, no model that is current, versions that are gone."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from clipper.api.reports import Report
from clipper.control.descriptions import ModelDescription
from clipper.control.messages import PolicyDescription
from clipper.control.statistics import (
    LATENCY_BOUNDS_S,
    ApplicationStatistics,
    CacheStatistics,
    HistogramData,
    ModelSelectionStatistics,
    SelectionStatistics,
    VersionStatistics,
    WorkerStatistics,
)
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import tally
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import EVERYONE, Observation
from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.history.recent import Recent
from clipper.supervisor.operations.parts import Parts
from clipper.supervisor.operations.reports import MAX_GROUPS, MAX_UNLINKED, ReportOperations
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Put
from clipper.values.types import ModelId
from tests.waiting import until_async

NOTHING = HistogramData((), 0.0)
TOLD = PolicyDescription(
    True, 9.0, (ModelDescription("m", 0.75, None, 0.0, 0.0, version="2"), ModelDescription("n", 0.25, None, 0.0, 0.0))
)


def histogram(**counts: int) -> HistogramData:
    """So many values up to each bound, given in ms."""
    indices = {LATENCY_BOUNDS_S.index(float(name[1:]) / 1000): count for name, count in counts.items()}
    return HistogramData(tuple(indices.get(index, 0) for index in range(len(LATENCY_BOUNDS_S) + 1)), 0.3)


def worker(index: int) -> WorkerStatistics:
    models = {"m": ModelSelectionStatistics(80, 2, 0, 0.0)}
    selection = SelectionStatistics(models, NOTHING, {"joined": 30, "late": 5}, 0, 0.0, 0, 0, None)
    app = ApplicationStatistics("app", 100, {"timeout": 2}, {}, 3, histogram(b5=100), selection)
    times = histogram(b2=50, b5=50)
    version = VersionStatistics("m", "2", *[0] * 9, queue_wait_s=NOTHING, batch_size=NOTHING, batch_latency_s=times)
    other = ApplicationStatistics("other", 7, {"timeout": 7}, {}, 7, NOTHING)
    cache = CacheStatistics(0, 0, 0, 0)
    return WorkerStatistics(index, 1, 1, 0, {}, (app, other), (version,), (), cache, uptime_s=60.0)


def version(id_: str) -> VersionRecord:
    model, _, name = id_.partition(":")
    return VersionRecord(model, name, VersionSpec("0" * 64, "import", "m:f"), Batching(), True, 1, 0.0, "ready")


class Workers:
    def __init__(self, description: PolicyDescription | None, statistics: Sequence[WorkerStatistics]) -> None:
        self._description = description
        self._statistics = statistics
        self.asked: list[object] = []

    async def statistics(
        self, applications: Sequence[str], versions: Sequence[ModelId], *, batches: bool
    ) -> list[WorkerStatistics]:
        self.asked.append((list(applications), sorted(map(str, versions))))
        told = [
            [one for one in each.versions if ModelId(one.model, one.version) in versions] for each in self._statistics
        ]
        return [replace(worker, versions=tuple(one)) for worker, one in zip(self._statistics, told)]

    async def describe_policy(self, application: str, context: str | None) -> PolicyDescription | None:
        return self._description


def report(
    folder: Path,
    learned: dict[str, Sequence[dict[str, float]]],
    description: PolicyDescription | None = TOLD,
    workers: int = 2,
    **asked: Any,
) -> Report:
    """Of an application that has learned these losses, by version, in these contexts."""
    told = Workers(description, [worker(index) for index in range(workers)])
    return asyncio.run(_report(folder, learned, told, asked))


async def _report(
    folder: Path,
    learned: dict[str, Sequence[dict[str, float]]],
    workers: Workers,
    asked: dict[str, Any],
) -> Report:
    store = SqliteStore(folder / "selection.sqlite3")
    with closing(SqliteRegistry(folder / "registry.sqlite3")) as registry:
        catalog = Catalog(registry)
        links = (Link("m"), Link("n"), Link("m", "1", True))
        catalog.commit(
            *(Put(ModelRecord(name, current)) for name, current in (("m", "2"), ("n", None), ("other", "1")))
        )
        catalog.commit(*map(Put, map(version, ("m:1", "m:2", "n:1", "other:1", "other:2"))))
        catalog.commit(Put(ApplicationRecord("app", "string", 20.0, id="app#1", links=links, selection=Selection())))
        ledger = Ledger()
        for context, pieces in learned.items():
            observations = [
                Observation(f"{context}-{index}", "app#1", {context: ledger.entries(tally(tuple(losses), losses))})
                for index, losses in enumerate(pieces)
            ]
            await store.commit(observations)
        sampling = SimpleNamespace(sampler=SimpleNamespace(recent=Recent(0.0)))
        looked_at = {"catalog": catalog, "workers": workers, "store": store, "sampling": sampling}
        parts = SimpleNamespace(**{field.name: looked_at.get(field.name) for field in fields(Parts)})
        given: dict[str, Any] = {"confidence": None, "tolerance": None, "context": None, "by_context": False}
        try:
            return await ReportOperations(cast(Parts, parts)).report("app", **{**given, **asked})
        finally:
            await store.close()


def test_counts_are_over_all_workers_and_of_the_application(tmp_path: Path) -> None:
    found = report(tmp_path, {EVERYONE: [{"m:2": 0.0}] * 40})
    assert (found.queries, found.defaults, found.slo_misses, found.feedback_per_s) == (200, {"timeout": 4}, 6, 1.0)
    model, unknown = found.groups[0].models
    assert (model.model, model.version, model.scored, model.asked, model.missing) == ("m", "2", 40.0, 160, 4)
    assert model.latency is not None
    assert (model.latency.p50_ms, model.latency.mean_ms) == (pytest.approx(2.0), pytest.approx(3.0))
    assert model.latency.p99_ms == pytest.approx(3 + 2 * 0.98)
    assert (unknown.model, unknown.version, unknown.scored, unknown.latency) == ("n", None, 0.0, None)
    assert found.groups[0].more_feedback is None and found.groups[0].more_s is None


def test_workers_are_asked_for_what_a_report_compares(tmp_path: Path) -> None:
    workers = Workers(TOLD, [worker(0)])
    asyncio.run(_report(tmp_path, {EVERYONE: [{"other:2": 0.0, "m:7": 0.5}]}, workers, {}))
    # Once, of the models that are linked and of what has feedback; m:7 is not there any more.
    assert workers.asked == [(["app"], ["m:1", "m:2", "n:1", "other:2"])]


def test_without_a_worker_models_are_those_of_the_registry(tmp_path: Path) -> None:
    found = report(tmp_path, {EVERYONE: [{"m:2": 0.0}, {"m:1": 1.0}]}, None, 0)
    (group,) = found.groups
    assert group.problem is not None and "clipper status" in group.problem
    shown = [(model.model, model.version, model.scored, model.is_shadow) for model in group.models]
    assert shown == [("m", "2", 1.0, False), ("n", None, 0.0, False), ("m:1", "1", 1.0, True)]
    assert (found.feedback_per_s, found.latency, group.test) == (0.0, None, None)


def test_versions_that_are_gone_show_what_is_known_and_are_not_compared(tmp_path: Path) -> None:
    gone = [{f"m:{version}": 0.25} for version in range(3, 30) for _ in range(version)]
    found = report(tmp_path, {EVERYONE: [*gone, {"m:2": 0.5}]})
    models = found.groups[0].models
    assert [model.is_linked for model in models] == [True, True] + [False] * MAX_UNLINKED
    assert models[2].model == "m:29" and models[2].mean_loss == 0.25
    assert models[2].worse_by is None and models[2].interval.low <= 0.25 <= models[2].interval.high
    assert found.groups[0].best == "m"


def test_by_context_has_those_with_most_feedback(tmp_path: Path) -> None:
    contexts = {f"u{index}": [{"m:2": 0.0}] * index for index in range(1, MAX_GROUPS + 6)}
    found = report(tmp_path, {EVERYONE: [{"m:2": 1.0}], **contexts}, by_context=True)
    assert [group.context for group in found.groups] == [None, *(f"u{index}" for index in range(MAX_GROUPS + 5, 5, -1))]
    assert [group.feedback for group in found.groups[:2]] == [1.0, MAX_GROUPS + 5]


def test_all_contexts_are_described_at_once(tmp_path: Path) -> None:
    """A worker that hangs costs its timeout once, and not for each context."""

    class Together(Workers):
        asking = 0

        async def describe_policy(self, application: str, context: str | None) -> PolicyDescription | None:
            self.asking += 1
            await until_async(lambda: self.asking == 3, timeout_s=10.0)
            return await super().describe_policy(application, context)

    learned = {EVERYONE: [{"m:2": 1.0}], "de": [{"m:2": 0.0}] * 2, "fr": [{"m:2": 0.0}]}
    found = asyncio.run(_report(tmp_path, learned, Together(TOLD, [worker(0)]), {"by_context": True}))
    assert [group.context for group in found.groups] == [None, "de", "fr"]


def test_feedback_from_before_it_was_counted_is_not_made_up(tmp_path: Path) -> None:
    old = {"observations": 500.0, "1000@0/m:2/scored": 500.0, "1000@0/m:2/loss": 100.0, "1000@0//observations": 500.0}

    async def learn() -> None:
        store = SqliteStore(tmp_path / "selection.sqlite3")
        await store.commit([Observation("old", "app#1", {EVERYONE: old})])
        await store.close()

    asyncio.run(learn())
    found = report(tmp_path, {EVERYONE: [{"m:2": 0.0}] * 3})
    assert (found.groups[0].feedback, found.groups[0].models[0].scored) == (3.0, 3.0)


def test_earlier_feedback_is_left_out_where_contexts_may_have_picked(
    tmp_path: Path,
) -> None:
    """Such a state does not say what had picked the models; a new one begins with that it does."""
    (everything,) = report(tmp_path, {EVERYONE: [{"m:2": 0.0}, {"n:1": 1.0}] * 50, "u": [{"m:2": 0.0}]}).groups
    assert (everything.estimator, everything.verdict, everything.compared, everything.feedback) == (
        "none",
        "open",
        0,
        100,
    )
    assert (everything.best, everything.sureness, everything.more_feedback) == (None, 0.0, None)
    assert "the 100 pieces of feedback so far came to an earlier version" in everything.basis
