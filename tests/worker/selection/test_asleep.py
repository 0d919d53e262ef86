"""Queries to an application whose models are asleep."""

from pathlib import Path

from msgspec.structs import replace

from clipper.control.snapshot import Snapshot
from clipper.settings.application import Selection
from tests.selection_desk import Asking, Desk, run
from tests.waiting import until_async

SLO_S, WAKING_SLO_S = 0.5, 60.0


def tell(desk: Desk, generation: int, *, is_awake: bool) -> None:
    """The supervisor says that the models have replicas, or that they are asleep."""
    models = []
    for model in desk.models.snapshots():
        (version,) = model.versions
        replicas = version.replicas if is_awake else ()
        models.append(replace(model, versions=(replace(version, wakes=True, replicas=replicas),)))
    desk.predictor.apply(Snapshot(generation, (), tuple(models)))


def test_who_asks_a_sleeping_one_may_wait_longer_also_once_it_is_awake(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        tell(desk, 2, is_awake=False)
        slos = {"slo_ms": SLO_S * 1000, "waking_slo_ms": WAKING_SLO_S * 1000}
        application = await desk.application(Selection(), **slos)
        assert application.terms.is_waking and application.terms.slo_s == WAKING_SLO_S
        late, _ = desk.ask(application, bytes(8))
        patient, _ = desk.ask(application, b"p" * 8)
        # It wakes, and does not answer yet. A query that comes now gets the default by the usual SLO.
        desk.models.held.add("a")
        tell(desk, 3, is_awake=True)
        application.follow(application.snapshot)
        assert not application.terms.is_waking and application.terms.slo_s == SLO_S
        await desk.predictor.settle()
        hasty, _ = desk.ask(application, b"h" * 8)
        assert application.in_flight == 3
        desk.loop.advance(SLO_S)
        await until_async(lambda: hasty.answer)
        assert hasty.answer[:2] == ("default", b'"default"')
        assert (late.answer, patient.answer, application.in_flight) == ((), (), 2)
        desk.models.held.clear()
        await desk.serve_until(lambda: late.answer and patient.answer)
        assert late.answer[0] == patient.answer[0] == "prediction"

    run(tmp_path, {"a": b"1"}, scenario)


def test_without_a_waking_slo_or_beside_one_that_is_awake_it_is_as_ever(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        tell(desk, 2, is_awake=False)
        plain = await desk.application(Selection(), linked="a", slo_ms=SLO_S * 1000)
        assert not plain.terms.is_waking and plain.terms.slo_s == SLO_S and plain.terms.is_ready
        asking: Asking = desk.ask(plain)[0]
        desk.loop.advance(SLO_S)
        await until_async(lambda: asking.answer)
        assert asking.answer == ("default", b'"default"', "no_replica", "a:1 was asleep, and has no replica yet")
        # One of two is awake.
        asleep, awake = desk.models.snapshots()
        version = replace(asleep.versions[0], wakes=True, replicas=())
        desk.predictor.apply(Snapshot(3, (), (replace(asleep, versions=(version,)), awake)))
        both = await desk.application(Selection("ensemble"), slo_ms=SLO_S * 1000, waking_slo_ms=WAKING_SLO_S * 1000)
        assert not both.terms.is_waking and both.terms.slo_s == SLO_S
        # When the worker ends, queries that wait are answered, and later queries still wait.
        waking = await desk.application(Selection(), linked="a", slo_ms=50.0, waking_slo_ms=WAKING_SLO_S * 1000)
        waiting, _ = desk.ask(waking)
        waking.end_waits()
        later, _ = desk.ask(waking, b"l" * 8)
        await until_async(lambda: waiting.answer)
        assert waiting.answer[0] == "default" and not later.answer and waking.in_flight == 1
        # When the application goes, queries that wait are answered.
        waking = await desk.application(Selection(), linked="a", slo_ms=50.0, waking_slo_ms=WAKING_SLO_S * 1000)
        waiting, _ = desk.ask(waking)
        waking.close()
        assert waiting.answer[0] == "default"

    run(tmp_path, {"a": b"1", "b": b"1"}, scenario)
