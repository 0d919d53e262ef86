"""A query as bytes: another server learns from it what the worker that answered it would have learned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipper.control.feedback import Feedback
from clipper.errors import ProtocolViolation
from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.costs import Costs
from clipper.settings.application import Selection
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.output import NOT_KEPT, OutputNames, RecordOutput, make_array, make_record
from clipper.values.types import DType
from clipper.worker.selection.application import Application
from clipper.worker.selection.feedback.remembered import (
    as_query,
    decode_arms,
    decode_query,
    encode_arms,
    encode_query,
)
from clipper.worker.selection.lessons import join, learn
from clipper.worker.selection.query import Path as WayOfQuery
from clipper.worker.selection.query import Query
from tests.selection_desk import ROW, SLO_S, Asking, Desk, run
from tests.waiting import until_async

THREE = {"a": b"1", "b": b"2", "c": b'{"label": 1, "probabilities": [0.2, 0.8]}'}


def again(query: Query, application: Application) -> Query:
    """Another server's reading of it: its clock is 1,000 s behind, and later 7 s have passed."""
    found = decode_query(encode_query(query, application.snapshot.id, 5000.0))
    assert (found.application, found.application_id, found.asked_s) == ("app", "app-id", 5000.0)
    arms = decode_arms(encode_arms(query.arms))
    assert arms == query.arms and arms.lineup == query.arms.lineup
    return as_query(query.id, found, arms, application.answering, query.arrival_s)


def taught(application: Application, query: Query, now_s: float, **given: Any) -> Any:
    application.surroundings.random.seed(7)
    context = query.context
    totals = application.contexts.totals(context)
    assert totals is not None
    joined = join(application, Feedback("id", query.id, **given), query, context, totals)
    scored, lessons = learn(application, joined, now_s)
    # Arrays cannot be compared by ==.
    return scored, {
        context: {key: np.asarray(amount).tolist() for key, amount in increments.items()}
        for context, increments in lessons.items()
    }


@pytest.mark.parametrize(
    "selection",
    [
        Selection("single"),
        Selection("exp4"),
        Selection("thompson"),
        Selection("cascade"),
        Selection("linucb", features=2),
        Selection("ensemble", confidence_from="votes", calibrate=True),
        Selection("exp3", label_field="label"),
    ],
    ids=lambda each: each.policy,
)
def test_it_teaches_the_same(tmp_path: Path, selection: Selection) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(selection)
        features = np.array([0.25, 0.5]).tobytes() if selection.features else None
        for context in (None, "user"):
            await application.load(context)
            for held in ("", "b", "abc"):
                desk.models.held = set(held)
                query = application.predict(ROW, Asking(), desk.loop.time(), context=context, features=features)
                if held:
                    desk.models.serve()
                    await until_async(lambda: desk.models.serve() or sum(map(len, desk.models.asked.values())))
                    desk.loop.advance(SLO_S)
                await desk.serve_until(lambda query=query: query.done)
                now_s = desk.loop.time()
                for given in ({"label": b"1"}, {"label": b"2"}, {"reward": 0.25}):
                    known = taught(application, query, now_s, **given)
                    assert taught(application, again(query, application), now_s, **given) == known

    run(tmp_path, THREE, scenario)


RECORD = make_record(
    OutputNames(("label", "probabilities")),
    (b'"yes"', make_array(OutputForm(DType.FLOAT64, (2,), DType.FLOAT64), np.array([0.25, np.nan]).tobytes())),
)
ARRAY = make_array(OutputForm(DType.FLOAT32, (1,), DType.FLOAT32), np.float32([1.5]).tobytes())


def test_outputs_of_all_kinds_stay(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        for output in (b"1", ARRAY, RECORD, NOT_KEPT):
            query = Query(application.answering, None, 5, b"row", "user", 10.0, 10.5)
            query.first_model, query.first_output, query.output = "a", output, output
            query.more_outputs, query.shadow_outputs = {"b": RECORD}, {"c": b"3"}
            query.path = WayOfQuery((("step", "one", 7),), None)
            query.failure, query.lost, query.stage, query.reason = ("timeout", "late"), ("d",), 2, "timeout"
            found = again(query, application)
            assert found.first_output is found.output and found.is_readable == query.is_readable
            for one, other in ((found.first_output, output), (found.more_outputs["b"], RECORD)):
                assert bytes(one) == bytes(other) and isinstance(one, RecordOutput) == isinstance(other, RecordOutput)
            for name in ("id", "row", "context", "arrival_s", "deadline_s", "failure", "lost", "stage", "reason"):
                assert getattr(found, name) == getattr(query, name)
            assert found.path is not None and found.path.queries == query.path.queries and found.done

    run(tmp_path, {"a": b"1"}, scenario)


def test_arms_of_all_kinds_stay() -> None:
    arms = Arms(
        {"a": (("a:2", 1.0), ("a:1", 0.5)), "b": (("b:1", 1.0),)},
        Costs({"a": 0.25}, 2.0),
        {"b": 7},
        {"a:2": "a:@digest"},
        ("a:1",),
    )
    found = decode_arms(encode_arms(arms))
    assert found == arms and found.lineup == arms.lineup and found.costs.price("a") == arms.costs.price("a")


@pytest.mark.parametrize("text", [b"", b"\xc1", b"\x90", b"\x91\xa3abc"])
def test_what_somebody_else_wrote_is_refused(text: bytes) -> None:
    for decode in (decode_query, decode_arms):
        with pytest.raises(ProtocolViolation, match="malformed"):
            decode(text)
