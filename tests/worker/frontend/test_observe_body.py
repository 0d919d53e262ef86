import gc
import json
import weakref
from typing import Any

import pytest

from clipper.control.feedback import Feedback
from clipper.errors import ClipperError, MalformedRequest, WrongInput
from clipper.values.inputs.reader import make_reader
from clipper.values.types import MAX_CONTEXT_LENGTH, InputType
from clipper.worker.frontend.observe_body import MAX_ID_LENGTH, MAX_OBSERVATIONS, ObserveReader
from tests.worker.frontend.steps import finish


def read(body: object) -> tuple[list[Feedback | ClipperError], bool]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return finish(ObserveReader(make_reader(InputType.parse("uint8[2]"))).read(text))


def read_one(body: object) -> Feedback:
    [feedback], is_list = read(body)
    assert isinstance(feedback, Feedback) and not is_list, feedback
    return feedback


def test_on_a_query() -> None:
    feedback = read_one({"query_id": 7, "label": {"a": 1}})
    assert (feedback.query_id, feedback.row, feedback.label, feedback.reward) == (7, None, b'{"a": 1}', None)
    assert read_one({"query_id": 7, "reward": 0}).reward == 0.0
    assert read_one({"query_id": 7, "label": None}).label == b"null"


def test_on_an_input() -> None:
    feedback = read_one({"input": [1, 2], "label": 3, "context": "ada"})
    assert (feedback.query_id, feedback.row, feedback.context) == (None, b"\1\2", "ada")


@pytest.mark.parametrize(
    ("fields", "context"),
    [({}, None), ({"uid": 5}, "5"), ({"context": ""}, None), ({"context": "a", "uid": "b"}, "a")],
)
def test_context(fields: dict[str, Any], context: str | None) -> None:
    assert read_one({"query_id": 7, "label": 1, **fields}).context == context


def test_feedback_on_an_input_has_no_name_and_on_a_query_there_is_one() -> None:
    assert read_one({"input": [1, 2], "label": 3}).id == ""
    assert read_one({"query_id": 7, "label": 3}).id == read_one({"query_id": 7, "label": 4}).id


@pytest.mark.parametrize("on", [{"query_id": 7}, {"input": [1, 2]}])
def test_its_sender_may_name_it(on: dict[str, Any]) -> None:
    assert read_one({**on, "label": 3, "id": "mine"}).id == "mine"


def test_no_senders_name_is_that_of_a_query_or_of_other_feedback() -> None:
    given = ["query-7", "query-8", "query--1", "given-query-7", "given-given-query-7", "given-mine", "mine", "query-x"]
    names = [read_one({"query_id": 7, "label": 3, "id": name}).id for name in given]
    on_inputs = [read_one({"input": [1, 2], "label": 3, "id": name}).id for name in given]
    of_query = read_one({"query_id": 7, "label": 3}).id
    # A sender may well name the feedback on a query as Clipper does.
    assert names[0] == of_query == "query-7" and names[1:] == on_inputs[1:]
    assert len({of_query, *on_inputs}) == len(given) + 1
    # Feedback that was stored under other names keeps its name.
    assert on_inputs[5:] == given[5:]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"query_id": 7}, "label or a reward"),
        ({"query_id": 7, "label": 1, "reward": 1}, "label or a reward"),
        ({"label": 1}, "query_id or an input"),
        ({"query_id": 7, "input": [1, 2], "label": 1}, "query_id or an input"),
        ({"input": [1, 2], "reward": 1}, "query_id"),
        ({"query_id": "7", "label": 1}, "query_id"),
        ({"query_id": 7.5, "label": 1}, "query_id"),
        ({"query_id": 7, "reward": "1"}, "reward"),
        ({"query_id": 7, "label": 1, "context": "c" * (MAX_CONTEXT_LENGTH + 1)}, "context has"),
        ({"query_id": 7, "label": 1, "id": "i" * (MAX_ID_LENGTH + 1)}, "id has"),
        (b'{"query_id": 7, "label": "\xff"}', "not an observation"),
    ],
)
def test_what_is_wrong_is_told(body: object, expected: str) -> None:
    [error], _ = read(body)
    assert isinstance(error, MalformedRequest) and expected in str(error)


def test_input_of_another_type_is_told() -> None:
    [error], _ = read({"input": [1, 2, 3], "label": 1})
    assert isinstance(error, WrongInput)


@pytest.mark.parametrize(
    "wrong", [{"input": [0.5, 1], "label": 3}, {"input": "a", "label": 3}, {"input": [1, 2]}, {"query_id": "a"}]
)
@pytest.mark.parametrize("pieces", [1, 2])
def test_an_error_in_place_of_an_observation_needs_no_collector(wrong: object, pieces: int) -> None:
    gc.disable()
    try:
        [error, *_], _ = found = read({"observations": [wrong] * pieces} if pieces > 1 else wrong)
        assert isinstance(error, ClipperError)
        gone = weakref.ref(error)
        del error, found, _
        assert gone() is None
    finally:
        gc.enable()


def test_a_list_has_an_error_in_place_of_each_that_is_wrong() -> None:
    items, is_list = read({"observations": [{"query_id": 1, "label": 1}, 5, {"query_id": 2, "label": 1}]})
    assert is_list and [type(item) for item in items] == [Feedback, MalformedRequest, Feedback]


@pytest.mark.parametrize(
    "body",
    [b"", b"[", b"5", {"observations": []}, {"observations": 1}, {"observations": [{}] * (MAX_OBSERVATIONS + 1)}],
)
def test_bodies_that_are_no_observe_call(body: object) -> None:
    with pytest.raises(MalformedRequest):
        read(body)
