"""The features of queries, on the wire: alone, in batches, in large bodies and with feedback; and what is refused."""

import json
import struct
from typing import Any

import pytest

from clipper.control.feedback import Feedback
from clipper.errors import ClipperError, MalformedRequest, WrongInput
from clipper.values.inputs.reader import make_reader
from clipper.values.types import InputType
from clipper.worker.frontend.observe_body import ObserveReader
from clipper.worker.frontend.predict_body import BodyReader
from clipper.worker.frontend.predict_request import Request
from tests.worker.frontend.steps import finish

TYPE = InputType.parse("float64[*]")
# Above what is read at once.
LONG = [0.5] * 20_000


def pack(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}d", *numbers)


def read(body: dict[str, Any] | bytes, size: int | None = 2) -> Request:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return finish(BodyReader(make_reader(TYPE), size).read(text))


def observed(body: dict[str, Any], size: int | None = 2) -> Feedback | ClipperError:
    [found], _ = finish(ObserveReader(make_reader(TYPE), size).read(json.dumps(body).encode()))
    return found


@pytest.mark.parametrize("row", [[1.0], LONG])
def test_a_query_brings_its_features(row: list[float]) -> None:
    assert read({"input": row, "features": [1, -2.5]}).features == [pack(1.0, -2.5)]
    assert read({"features": [1, -2.5], "input": row}).features == [pack(1.0, -2.5)]
    assert read({"input": row}, None).features == [None]


@pytest.mark.parametrize("row", [[1.0], LONG])
def test_each_input_of_a_batch_brings_its_own(row: list[float]) -> None:
    request = read({"input_batch": [row, row], "features": [[1, 2], [3, 4]]})
    assert request.features == [pack(1, 2), pack(3, 4)] and len(request.rows) == 2
    assert read({"input_batch": [row, row]}, None).features == [None, None]


def test_the_short_way_is_only_for_queries_that_bring_none() -> None:
    body = b'{"input":[1.0,2.0]}'
    assert BodyReader(make_reader(TYPE)).read_plain(body) is not None
    assert BodyReader(make_reader(TYPE), 2).read_plain(body) is None
    assert BodyReader(make_reader(TYPE)).read_plain(b'{"input":[1.0],"features":[1.0]}') is None


@pytest.mark.parametrize("row", [[1.0], LONG])
@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("[1]", "features are a list of 1: expected a list of 2 numbers"),
        ("[1,2,3]", "features are a list of 3: expected a list of 2 numbers"),
        ("[]", "features are a list of 0: expected"),
        ("3", "features are 3: expected a list of 2 numbers"),
        ("null", "features are null: expected a list of 2 numbers"),
        ('["1",2]', "expected a list of 2 numbers"),
        ("[true,2]", "expected a list of 2 numbers"),
        ("[[1,2]]", "expected a list of 2 numbers"),
        ("[1e999,2]", "expected a list of 2 numbers"),
        ('{"a":1}', "features are an object: expected a list of 2 numbers"),
    ],
)
def test_what_they_may_not_be(row: list[float], features: str, message: str) -> None:
    text = f'{{"input":{json.dumps(row)},"features":{features}}}'.encode()
    with pytest.raises(WrongInput, match=message.replace("[", r"\[").replace("]", r"\]")):
        read(text)


@pytest.mark.parametrize("row", [[1.0], LONG])
@pytest.mark.parametrize("features", ["[NaN,2]", "[Infinity,2]", "[1,2", "[1,,2]"])
def test_what_is_not_json_is_refused(row: list[float], features: str) -> None:
    text = f'{{"input":{json.dumps(row)},"features":{features}}}'.encode()
    with pytest.raises((WrongInput, MalformedRequest)):
        read(text)


@pytest.mark.parametrize("row", [[1.0], LONG])
def test_features_that_are_missing_or_that_nobody_asked_for(row: list[float]) -> None:
    with pytest.raises(WrongInput, match='the query has no features: expected a list of 2 numbers in "features"'):
        read({"input": row})
    with pytest.raises(WrongInput, match="but its application takes none: leave them out"):
        read({"input": row, "features": [1, 2]}, None)
    with pytest.raises(WrongInput, match="the query has no features"):
        read({"input_batch": [row, row]})
    with pytest.raises(WrongInput, match="but its application takes none"):
        read({"input_batch": [row, row], "features": [[1], [2]]}, None)


@pytest.mark.parametrize("row", [[1.0], LONG])
@pytest.mark.parametrize("features", [[[1, 2]], [[1, 2]] * 3, [], [1, 2]])
def test_a_batch_has_as_many_as_inputs(row: list[float], features: list[Any]) -> None:
    with pytest.raises(WrongInput, match="features"):
        read({"input_batch": [row, row], "features": features})


def test_features_longer_than_any_are_not_parsed() -> None:
    with pytest.raises(MalformedRequest, match="expected at most 16384"):
        read({"input": LONG, "features": LONG})
    with pytest.raises(MalformedRequest, match="expected at most 16384"):
        read({"input_batch": [[1.0]], "features": [LONG]})


@pytest.mark.parametrize("row", [[1.0], LONG])
def test_feedback_on_an_input_brings_them_too(row: list[float]) -> None:
    feedback = observed({"input": row, "label": 1, "features": [1, 2]})
    assert isinstance(feedback, Feedback) and feedback.features == pack(1, 2)
    missing = observed({"input": row, "label": 1})
    assert isinstance(missing, WrongInput) and "has no features" in str(missing)


def test_feedback_on_a_query_has_those_that_the_query_came_with() -> None:
    feedback = observed({"query_id": 7, "label": 1})
    assert isinstance(feedback, Feedback) and feedback.features is None
    refused = observed({"query_id": 7, "label": 1, "features": [1, 2]})
    assert isinstance(refused, MalformedRequest) and "uses those of the query" in str(refused)
