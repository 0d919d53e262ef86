"""Queries to an application, a model of which has no replica while one is starting."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from clipper.control.snapshot import Snapshot
from clipper.settings.application import Selection
from tests.selection_desk import SLO_S, Asking, Desk, run
from tests.waiting import until_async


def begin_again(desk: Desk, generation: int, *names: str) -> None:
    """The supervisor says that these models have no replica, and that one of each is starting."""
    models = [
        replace(model, versions=(replace(model.versions[0], replicas=(), is_starting=True),))
        if model.name in names
        else model
        for model in desk.models.snapshots()
    ]
    desk.predictor.apply(Snapshot(generation, (), tuple(models)))


def test_a_query_that_no_other_model_may_answer_waits_until_its_deadline(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(), linked="a")
        begin_again(desk, 2, "a", "b")
        late, _ = desk.ask(application)
        assert not late.answer
        desk.loop.advance(SLO_S)
        await until_async(lambda: late.answer)
        starting = "a replica of a:1 is starting, and no other is connected"
        assert late.answer == ("default", b'"default"', "no_replica", starting)
        patient, _ = desk.ask(application, b"p" * 8)
        desk.predictor.apply(Snapshot(3, (), desk.models.snapshots()))
        await desk.serve_until(lambda: patient.answer)
        assert patient.answer[:2] == ("prediction", b"1")

    run(tmp_path, {"a": b"1", "b": b"2"}, scenario)


@pytest.mark.parametrize(
    "selection",
    [Selection("ensemble"), Selection("cascade", {"threshold": 0.75}, half_life=None)],
    ids=lambda selection: selection.policy,
)
def test_a_query_that_another_model_may_answer_does_not_wait(tmp_path: Path, selection: Selection) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(selection)
        begin_again(desk, 2, "a")
        asking = await desk.answer(application)
        assert asking.answer[0] in ("prediction", "unsure")
        # The desk's time stands still: the deadline has not come. A version that is named is asked alone, and waits.
        named = Asking()
        application.predict(b"n" * 8, named, desk.loop.time(), version="1")
        assert not named.answer

    run(tmp_path, {"a": b'"x"', "b": b'"x"'}, scenario)
