"""Versions of models in an application: whose feedback it is, and several of one model side by side."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from clipper.learning.decisions.evaluation.samples import samples_of
from clipper.learning.decisions.export import row_of
from clipper.learning.decisions.joining import joined
from clipper.learning.decisions.log import DecisionLog
from clipper.learning.decisions.reading import LogReader
from clipper.learning.stores.store import EVERYONE, Observation
from clipper.settings.application import Link, Selection, link_names
from clipper.settings.server import LEAST_LOG_BYTES
from tests.selection_desk import ROW, SLO_S, Desk, on_input, on_query, run
from tests.two_versions import TWO, ask_version, scored, show, with_versions
from tests.waiting import until_async

LEARNS = Selection("thompson", half_life=None)


def test_names_tell_versions_apart_where_there_are_several() -> None:
    assert link_names((Link("m", "1"), Link("o"))) == ("m", "o")
    assert link_names((Link("m"), Link("m", "2"), Link("m", "1", shadow=True))) == ("m", "m:2", "m:1")


def test_feedback_on_a_pinned_version_is_not_the_current_ones(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, LEARNS, Link("m"))
        pinned = await ask_version(desk, application, "1")
        assert pinned.answer == ("prediction", b"1", 1.0)
        assert await desk.observe(application, on_query(pinned.query_id, b"1"))
        assert scored(application, "m") == (0.02, 0.0), "of the first version's the second inherits a fiftieth"
        await desk.observe(application, on_input(ROW, b"1"))
        assert scored(application, "m") == (1.02, 1.0)
        assert (await desk.store.load("app-id", EVERYONE))["never@0/m:1/scored"] == 1.0

    run(tmp_path, TWO, scenario)


def test_a_version_that_is_rolled_back_to_has_what_was_learned_of_it(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, LEARNS, Link("m"), current="1")
        await desk.observe(application, on_input(ROW, b"1"))
        show(desk, "2")
        application.follow(application.snapshot)
        await desk.observe(application, on_input(ROW, b"1"))
        assert scored(application, "m") == (1.02, 1.0)
        show(desk, "1")
        application.follow(application.snapshot)
        assert scored(application, "m") == (1.0, 0.0)

    run(tmp_path, TWO, scenario)


def test_confidence_of_a_version_is_calibrated_by_its_own_feedback(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        selection = Selection(half_life=None, calibrate=True)
        application = await with_versions(desk, selection, Link("m"), current="1")
        for _ in range(30):
            await desk.observe(application, on_query((await desk.answer(application)).query_id, b"0"))
        always_wrong = (await desk.answer(application)).answer[-1]
        assert always_wrong < 0.3
        show(desk, "2")
        application.follow(application.snapshot)
        # Of those 30 it has what is half of one, which is not believed much.
        assert 0.4 < (await desk.answer(application)).answer[-1] < 0.8
        assert (await ask_version(desk, application, "1")).answer[-1] == 1.0, "no link leads there: as it is"
        show(desk, "1")
        application.follow(application.snapshot)
        assert (await desk.answer(application)).answer[-1] == pytest.approx(always_wrong)

    run(tmp_path, TWO, scenario)


@pytest.mark.parametrize("policy", ["thompson", "exp3", "ensemble"])
def test_feedback_decides_between_versions_of_one_model(tmp_path: Path, policy: str) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, Selection(policy, half_life=None), Link("m"), Link("m", "1"))
        assert application.terms.models == ("m", "m:1")
        for _ in range(60):
            asking = await desk.answer(application)
            await desk.observe(application, on_query(asking.query_id, b"1"))
        right, wrong = scored(application, "m:1"), scored(application, "m")
        assert right[0] > 20 and right[1] == 0.0
        # The second version's losses are its own: the evidence that it takes over from the first version has no loss.
        assert wrong[1] == pytest.approx(wrong[0] - 0.02 * right[0])
        await desk.observe(application, on_input(ROW, b"1"))

    run(tmp_path, TWO, scenario)


def test_two_links_that_lead_to_one_version_ask_it_once(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, Selection("ensemble"), Link("m"), Link("m", "2"), Link("m", "1"))
        assert application.terms.models == ("m", "m:1")
        asking = await desk.answer(application)
        assert asking.answer[0] == "prediction" and len(desk.models.asked["b"]) == 1
        show(desk, "1")
        application.follow(application.snapshot)
        assert application.terms.models == ("m", "m:2")

    run(tmp_path, TWO, scenario)


def test_shadow_versions_are_scored_beside_the_current_one(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(
            desk, Selection("single", half_life=None), Link("m"), Link("m", "1", shadow=True)
        )
        asking, query = desk.ask(application)
        await desk.serve_until(lambda: query.done and query.shadow_outputs)
        assert asking.answer == ("prediction", b"2", 1.0)
        await desk.observe(application, on_query(asking.query_id, b"1"))
        assert (scored(application, "m")[1], scored(application, "m:1")) == (1.0, (1.0, 0.0))

    run(tmp_path, TWO, scenario)


def test_what_an_older_clipper_learned_by_model_is_read(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        old = {"observations": 10.0, "never@0//observations": 10.0, "never@0/m/scored": 10.0, "never@0/m/loss": 4.0}
        await desk.store.commit([Observation("old", "app-id", {EVERYONE: old, "ada": old})])
        application = await with_versions(desk, LEARNS, Link("m", "1"))
        assert scored(application, "m") == (10.0, 4.0)
        await application.load("ada")
        totals = application.contexts.totals("ada")
        assert totals is not None and totals.number("m", "scored") == 20.0
        await desk.observe(application, on_input(ROW, b"1"))
        assert scored(application, "m") == (11.0, 4.0)

    run(tmp_path, TWO, scenario)


def test_the_decision_log_has_losses_by_the_names_that_were_chosen(tmp_path: Path) -> None:
    """Whatever has become current since, and whatever the state calls the versions: by these samples find them."""

    async def scenario(desk: Desk) -> None:
        folder = tmp_path / "decisions"
        log = DecisionLog(folder, "w", LEAST_LOG_BYTES)
        desk.surroundings = replace(desk.surroundings, decisions=log)
        selection = msgspec.structs.replace(LEARNS, log_decisions=1.0)
        application = await with_versions(desk, selection, Link("m"), Link("m", "1"), current="2")
        both = [await desk.answer(application) for _ in range(8)]
        pinned = await ask_version(desk, application, "1")
        # From here on both links mean the first version.
        show(desk, "1")
        application.follow(application.snapshot)
        for asking in (*both, pinned):
            await desk.observe(application, on_query(asking.query_id, b"1"))
        await log.close()
        found = list(joined(LogReader(folder)))
        assert len(found) == 9
        for each in found:
            assert each.judgement is not None and each.judgement.losses is not None
            assert each.judgement.losses.keys() == set(each.decision.models)
            assert each.setting.models == ("m", "m:1") and each.setting.versions == ("2", "1")
        samples = samples_of(found)
        assert {(sample.model, sample.loss) for sample in samples.taken} == {("m", 1.0), ("m:1", 0.0)}
        assert samples.left_out == {"the query named a version, which bypasses the policy": 1}

    run(tmp_path, TWO, scenario)


def test_the_decision_log_has_what_was_answered_in_place_of_a_late_model(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        folder = tmp_path / "decisions"
        log = DecisionLog(folder, "w", LEAST_LOG_BYTES)
        desk.surroundings = replace(desk.surroundings, decisions=log)
        selection = msgspec.structs.replace(LEARNS, log_decisions=1.0)
        application = await with_versions(desk, selection, Link("m"), Link("m", "1"))
        asking, query = desk.ask(application)
        desk.loop.advance(SLO_S)
        await until_async(lambda: query.done)
        assert asking.answer[:2] == ("default", b'"default"')
        await desk.observe(application, on_query(asking.query_id, b'"default"'))
        await log.close()
        (found,) = joined(LogReader(folder))
        assert found.decision.reason == query.reason == asking.answer[2]
        assert found.decision.outputs == (None,)
        (sample,) = samples_of([found]).taken
        assert (sample.model, sample.loss, row_of(found)["loss"]) == (query.choice.models[0], 0.0, 0.0)

    run(tmp_path, TWO, scenario)
