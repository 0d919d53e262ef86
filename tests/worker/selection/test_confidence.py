"""An application's confidences: from votes or an answer's own probabilities, and calibrated by feedback."""

from pathlib import Path
from typing import Any

import pytest

from clipper.control.descriptions import Reliability
from clipper.learning.mathematics.calibration import lesson
from clipper.settings.application import Selection
from clipper.worker.selection.application import Application
from clipper.worker.selection.feedback.join_table import SAID_BYTES
from tests.selection_desk import ROW, Desk, on_input, on_query, own_policy, run

OWN = {"confidence_from": "probabilities"}
CALIBRATED = OWN | {"calibrate": True}
SURE = b"[0.02,0.98]"


async def teach(desk: Desk, application: Application, *labels: bytes, **fields: Any) -> list[float]:
    """Ask once for each label, and give it as feedback; return the confidences that were answered."""
    answered = []
    for label in labels:
        asking = await desk.answer(application)
        answered.append(asking.answer[-1])
        await desk.observe(application, on_query(asking.query_id, label, **fields))
    return answered


async def answered(desk: Desk, application: Application) -> tuple[Any, ...]:
    return (await desk.answer(application)).answer


def only(application: Application) -> Reliability:
    assert application.terms.confidences is not None
    (found,) = application.terms.confidences.reliability(application.terms.models)
    return found


@pytest.mark.parametrize(
    ("selection", "output", "confidence"),
    [
        ({}, SURE, 1.0),  # what looks like probabilities is none unless it is said to be
        (OWN, SURE, 0.98),
        (OWN, b'{"label":1,"score":0.7}', 0.7),
        (OWN, b"1", 1.0),
        (OWN, b"[2,3]", 1.0),
        (CALIBRATED, SURE, 0.98),
        ({"calibrate": True}, SURE, 1.0),
    ],
)
def test_one_models_confidence_before_feedback(
    tmp_path: Path, selection: dict[str, Any], output: bytes, confidence: float
) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(**selection))
        assert await answered(desk, application) == ("prediction", output, confidence)

    run(tmp_path, {"a": output}, scenario)


def test_threshold_goes_by_the_models_own_probability(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(confidence_threshold=0.9, **OWN))
        assert (await answered(desk, application))[0] == "prediction"
        desk.models.outputs["a"] = b"[0.3,0.7]"
        assert await answered(desk, application) == ("unsure", b'"default"', b"[0.3,0.7]", 0.7)
        selection = application.statistics().selection
        assert selection is not None and sum(selection.confidence.counts) == 2

    run(tmp_path, {"a": SURE}, scenario)


def test_model_that_is_too_sure_is_found_out(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(**CALIBRATED))
        told = await teach(desk, application, *[b"1", b"0"] * 20)
        assert told[0] == 0.98 and told[-1] == pytest.approx(0.55, abs=0.1)
        found = only(application)
        assert (found.model, found.basis) == ("a", "probability")
        assert found.raw[0].confidence == pytest.approx(0.98) and found.raw[0].right == pytest.approx(0.5, abs=0.02)
        assert found.raw[0].calibrated == pytest.approx(0.55, abs=0.1)
        assert found.answered_error < found.raw_error / 2
        assert application.terms.confidences is not None
        assert application.terms.confidences.answered_error(application.terms.models) == found.answered_error
        selection = application.statistics().selection
        assert selection is not None and selection.calibration_error == found.answered_error

    run(tmp_path, {"a": SURE}, scenario)


def test_label_alone_comes_to_be_believed_as_often_as_it_is_right(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(calibrate=True))
        told = await teach(desk, application, *[b"7", b"7", b"7", b"0"] * 15)
        assert told[0] == 1.0 and told[-1] == pytest.approx(0.77, abs=0.07)

    run(tmp_path, {"a": b"7"}, scenario)


def test_vote_comes_to_be_believed_as_often_as_it_is_right(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("ensemble", {"weighting": "equal"}, calibrate=True))
        told = await teach(desk, application, *[b"1"] * 40)
        assert told[0] == pytest.approx(0.6) and told[-1] > 0.9
        found = only(application)
        assert (found.model, found.basis) == (None, "agreement")

    run(tmp_path, {"a": b"1", "b": b"1", "c": b"1", "d": b"2", "e": b"2"}, scenario)


def test_mean_of_probabilities_states_a_probability(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        selection = Selection("ensemble", {"answer": "mean"}, **OWN)
        assert await answered(desk, await desk.application(selection)) == ("prediction", b"[0.25,0.75]", 0.75)

    run(tmp_path, {"a": b"[0.5,0.5]", "b": b"[0.0,1.0]"}, scenario)


def test_answers_below_the_threshold_are_learned_from_and_come_back(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(confidence_threshold=0.8, **CALIBRATED))
        assert (await answered(desk, application))[0] == "unsure"
        # The default was wrong, and the answer that was not believed right: the label tells of both.
        await teach(desk, application, *[b"1"] * 30)
        assert (await answered(desk, application))[0] == "prediction"
        # A reward for a default says nothing of the answer.
        await desk.observe(application, on_query((await desk.answer(application)).query_id, reward=0.0))
        unsure = await desk.application(Selection(confidence_threshold=1.0, **CALIBRATED), id="other")
        for _ in range(3):
            await desk.observe(unsure, on_query((await desk.answer(unsure)).query_id, reward=0.0))
        assert unsure.terms.confidences is not None and unsure.terms.confidences.reliability(("a",)) == ()

    run(tmp_path, {"a": b"[0.3,0.7]"}, scenario)


def test_reward_says_how_right_an_answer_was(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(**CALIBRATED))
        for reward in (1.0, 0.25):
            await desk.observe(application, on_query((await desk.answer(application)).query_id, reward=reward))
        (found,) = only(application).raw
        assert found.right == pytest.approx(0.625, abs=0.01)

    run(tmp_path, {"a": SURE}, scenario)


@pytest.mark.parametrize(
    ("loss", "output", "label", "right"),
    [
        ("zero_one", SURE, b"1", 1.0),
        ("log", SURE, b"1", 1.0),  # it decides for the label, however much less than certain it is of it
        ("log", SURE, b"0", 0.0),
        ("absolute", b"0.5", b"0.75", 0.75),
    ],
)
def test_right_is_one_minus_the_loss_but_for_log(
    tmp_path: Path, loss: str, output: bytes, label: bytes, right: float
) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(loss=loss, **CALIBRATED))
        await teach(desk, application, label)
        (found,) = only(application).raw
        assert found.right == pytest.approx(right)

    run(tmp_path, {"a": output}, scenario)


def test_feedback_on_inputs_calibrates_and_duplicates_do_not(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(**CALIBRATED))
        for _ in range(20):
            await desk.observe(application, on_input(b"r" * 8, b"0"))
        assert (await answered(desk, application))[-1] < 0.5
        asking = await desk.answer(application)
        before = only(application).raw
        assert await desk.observe(application, on_query(asking.query_id, b"0"))
        once = only(application).raw
        assert not await desk.observe(application, on_query(asking.query_id, b"0"))
        assert only(application).raw == once != before

    run(tmp_path, {"a": SURE}, scenario)


@pytest.mark.parametrize("cache", [False, True])
def test_feedback_on_inputs_reads_the_probability_beside_the_label(tmp_path: Path, cache: bool) -> None:
    """As a query's answer does, though the label is compared with one of the values alone."""

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(label_field="label", **CALIBRATED))
        assert (await answered(desk, application))[-1] == 0.98
        for _ in range(20):
            await desk.observe(application, on_input(ROW, b"0"))
        assert only(application).basis == "probability"
        assert (await answered(desk, application))[-1] < 0.5

    run(tmp_path, {"a": b'{"label":1,"probabilities":[0.02,0.98]}'}, scenario, cache=cache)


def test_calibration_covers_all_contexts_and_outlives_a_restart(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        selection = Selection("thompson", **CALIBRATED)
        application = await desk.application(selection, linked=["a"])
        for number in range(30):
            asking = await desk.answer(application, context=f"user {number}")
            await desk.observe(application, on_query(asking.query_id, b"0"))
        last = (await desk.answer(application, context="somebody new")).answer[-1]
        assert last < 0.4
        again = await desk.application(selection, linked=["a"])
        assert (await answered(desk, again))[-1] == pytest.approx(last, abs=0.02)

    run(tmp_path, {"a": SURE}, scenario, store=None)


def test_early_leaving_goes_by_the_calibrated_confidence(tmp_path: Path) -> None:
    """That three of five agree is too little by itself; by feedback it is enough, so nobody else is waited for."""

    async def scenario(desk: Desk) -> None:
        selection = Selection(
            "ensemble", {"weighting": "equal"}, wait="decided", confidence_threshold=0.7, calibrate=True
        )
        application = await desk.application(selection)
        desk.models.held |= {"d", "e"}
        _, query = desk.ask(application)
        await desk.serve_until(lambda: len(query.outputs) == 3)
        assert not query.done
        desk.models.held.clear()
        await desk.serve_until(lambda: query.done)
        await teach(desk, application, *[b"1"] * 40)
        desk.models.held |= {"d", "e"}
        asking, query = desk.ask(application)
        await desk.serve_until(lambda: asking.answer)
        assert query.is_settled and asking.answer[0] == "prediction" and asking.answer[-1] > 0.7

    run(tmp_path, {"a": b"1", "b": b"1", "c": b"1", "d": b"2", "e": b"2"}, scenario)


def test_users_own_policys_confidence_is_calibrated_too(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        own = own_policy(tmp_path)
        application = await desk.application(Selection(own.policy, code=own.code, calibrate=True))
        told = await teach(desk, application, *[b"7"] * 30)
        assert told[0] == 0.5 and told[-1] > 0.8

    run(tmp_path, {"a": b"1", "b": b"1"}, scenario)


def test_switched_on_while_it_serves(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection())
        early = await desk.answer(application)
        application.follow(desk.snapshot(Selection(**CALIBRATED)))
        # It was answered when nobody had to know.
        await desk.observe(application, on_query(early.query_id, b"0"))
        assert application.terms.confidences is not None and application.terms.confidences.reliability(("a",)) == ()
        late = await desk.answer(application)
        await teach(desk, application, b"0", b"0")
        application.follow(desk.snapshot(Selection(**OWN)))
        assert await answered(desk, application) == ("prediction", SURE, 0.98)
        assert application.terms.confidences is not None and application.terms.confidences.reliability(("a",)) == ()
        assert application.terms.confidences.answered_error(("a",)) is None
        application.follow(desk.snapshot(Selection()))
        await desk.observe(application, on_query(late.query_id, b"0"))
        assert application.terms.confidences is None
        assert await answered(desk, application) == ("prediction", SURE, 1.0)

    run(tmp_path, {"a": SURE}, scenario)


def test_what_was_said_counts_as_memory_for_as_long_as_it_is_kept(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        joins = desk.surroundings.joins
        application = await desk.application(Selection(feedback_ttl_s=200.0))
        await desk.answer(application)
        without = joins.size_bytes
        calibrated = await desk.application(Selection(feedback_ttl_s=200.0, **CALIBRATED), id="other")
        asking = await desk.answer(calibrated)
        assert joins.size_bytes == 2 * without + SAID_BYTES
        desk.loop.advance(500.0)
        assert joins.find(asking.query_id, desk.loop.time()) is None
        assert joins.size_bytes == 0

    run(tmp_path, {"a": SURE}, scenario)


def test_curve_is_fitted_anew_only_once_enough_has_come(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(half_life=None, **CALIBRATED))
        await teach(desk, application, *[b"1", b"0"] * 5)
        # By one piece in ten it changes with each.
        told = await teach(desk, application, b"1", b"1", b"1")
        assert told[0] < told[1] < told[2]
        taught = {key: 500 * each for key, each in lesson("a:1", "probability", 0.98, 0.98, 1.0).items()}
        application.contexts.end(None, application.contexts.begin(None, taught), was_added=True)
        told = await teach(desk, application, *[b"0"] * 12)
        # And by one in five hundred with each sixth.
        assert 2 <= len(set(told)) <= 3

    run(tmp_path, {"a": SURE}, scenario)
