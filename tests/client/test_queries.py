"""Both clients against a real worker: arrays get the answers that lists get."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipper import AsyncClipper, Clipper
from clipper.client.query_calls import Prediction
from clipper.errors import (
    ClipperError,
    DeadlineExceeded,
    InvalidArgument,
    MalformedRequest,
    ModelFailed,
    NotFound,
    Unavailable,
    WrongInput,
)
from clipper.settings.application import Selection
from tests.client.scripted_server import Accepted, Blocking, scripted
from tests.ports import keep_port
from tests.serving import Serving, application, model, serving, version

TELL = """
def told(each):
    return each if isinstance(each, str) else each.hex() if isinstance(each, bytes) else each.tolist()

def predict(inputs):
    return [told(each) for each in inputs]
"""
FAIL = """
def predict(inputs):
    return [object() if row.sum() < 0 else float(row.sum()) for row in inputs]
"""
# An input type, inputs as lists, and arrays that say the same.
SAME: dict[str, tuple[list[Any], list[Any]]] = {
    "int32[3]": ([[1, 2, 3], [4, 5, 6]], [np.arange(1, 7).reshape(2, 3), np.arange(1, 7, dtype="u2").reshape(2, 3)]),
    "float32[2]": ([[0.1, 2], [3, 1e-30]], [np.array([[0.1, 2], [3, 1e-30]]), np.array([[0.1, 2], [3, 1e-30]], "f4")]),
    "float64[2,*]": ([[[1, 2, 3], [4, 5, 6]]], [np.arange(1.0, 7).reshape(1, 2, 3)]),
    "float64[]": ([1.5, 2.5], [np.array([1.5, 2.5]), [np.float64(1.5), np.float64(2.5)]]),
    "float64": ([[1.5], [2.5]], [np.array([[1.5], [2.5]]), [np.array([1.5]), np.array([2.5])]]),
    "bool[2]": ([[True, False]], [np.array([[True, False]])]),
    "uint8[2,2]": ([[[1, 2], [3, 4]]], [np.arange(1, 5, dtype="u1").reshape(1, 2, 2), [bytes([1, 2, 3, 4])]]),
    "string": (["ä", ""], [["ä".encode(), b""], np.array(["ä", ""])]),
    "bytes": ([base64.b64encode(b"\0a").decode()], [[b"\0a"], [bytearray(b"\0a")]]),
}
NAMES = {input_type: f"app{number}" for number, input_type in enumerate(SAME)}
both = pytest.mark.parametrize("kind", ["sync", "async"])


def applications() -> list[Any]:
    made = [application(name, name, input_type=input_type) for input_type, name in NAMES.items()]
    for name, fields in {"fails": {}, "falls_back": {"default_output": "-1"}}.items():
        made.append(application(name, "f", input_type="float64[2]", **fields))
    policy = Selection(policy="epsilon_greedy", features=3)
    return [*made, application("learns", "f", input_type="float64[2]", selection=policy)]


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as started:
        started.start_worker()
        models = []
        for input_type, name in NAMES.items():
            container = started.start_container(TELL, name, "1", input_type)
            models.append(model(version(container, input_type=input_type), name=name))
        failing = started.start_container(FAIL, "f", "1", "float64[2]")
        models.append(model(version(failing, input_type="float64[2]"), name="f"))
        started.apply(applications(), models)
        yield started


@pytest.fixture(params=["sync", "async"])
def client(system: Serving, request: pytest.FixtureRequest) -> Iterator[Blocking]:
    with Blocking(f"http://127.0.0.1:{system.port}", request.param) as made:
        yield made


def outputs(found: list[Prediction | ClipperError]) -> list[Any]:
    return [each.output if isinstance(each, Prediction) else each for each in found]


@pytest.mark.parametrize("input_type", SAME)
def test_arrays_and_lists_get_the_same_answers(client: Blocking, input_type: str) -> None:
    name, (lists, arrays) = NAMES[input_type], SAME[input_type]
    expected = outputs(client.predict_batch(name, lists))
    assert expected == [client.predict(name, each).output for each in lists]
    for array in arrays:
        assert outputs(client.predict_batch(name, array)) == expected
        assert [client.predict(name, each).output for each in array] == expected


def test_a_prediction_says_which_model_and_version_gave_it(client: Blocking) -> None:
    name = NAMES["float64"]
    one, two = client.predict(name, [1.5]), client.predict(name, np.array([1.5]))
    assert {(each.model, each.version, each.models) for each in (one, two)} == {(name, "1", ())}
    default = client.predict("falls_back", [-5, 1])
    assert (default.default, default.model, default.version) == (True, None, None)


def test_nan_and_infinity_go_in_arrays_alone(client: Blocking) -> None:
    assert client.predict(NAMES["float64"], np.array([0.5])).output == [0.5]
    # The model got it, and answered it.
    assert client.predict("fails", np.array([np.nan, 1])).output is None
    with pytest.raises(WrongInput):
        client.predict("fails", [float("nan"), 1])


def test_an_input_that_fails_has_its_error_in_its_place(client: Blocking) -> None:
    for inputs in ([[1, 2], [-5, 1], [3, 4]], np.array([[1.0, 2], [-5, 1], [3, 4]])):
        first, failed, last = client.predict_batch("fails", inputs)
        assert (first.output, last.output, first.query_id != last.query_id) == (3, 7, True)
        assert isinstance(failed, ModelFailed) and "object" in str(failed)
        assert outputs(client.predict_batch("falls_back", inputs)) == [3, -1, 7]
    (alone,) = client.predict_batch("fails", np.array([[-5.0, 1]]))
    assert isinstance(alone, ModelFailed)
    found = client.predict("falls_back", np.array([-5.0, 1]))
    assert (found.default, found.default_reason, "object" in found.default_explanation) == (True, "model_error", True)


@pytest.mark.parametrize("row", [[1.0, 2.0], np.array([1.0, 2.0])])
def test_the_arguments_of_a_prediction(client: Blocking, row: Any) -> None:
    with pytest.raises(NotFound, match="9"):
        client.predict("fails", row, version="9")
    assert client.predict("fails", row, version="1").output == 3
    with pytest.raises(DeadlineExceeded):
        client.predict("fails", row, timeout_s=1e-9)
    assert client.predict("fails", row, timeout_s=1e9).output == 3
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InvalidArgument, match="timeout_s"):
            client.predict("fails", row, timeout_s=wrong)
    with pytest.raises((WrongInput, MalformedRequest), match="features"):
        client.predict("learns", row)
    for features in ([1, 2, 3], np.arange(3), np.arange(3, dtype="f4")):
        assert client.predict("learns", row, features=features, context="user").output == 3
        assert outputs(client.predict_batch("learns", [row, row], features=[features, features])) == [3, 3]
    with pytest.raises((WrongInput, MalformedRequest), match="features"):
        client.predict("learns", row, features=[1, 2])


def test_inputs_that_are_refused(client: Blocking) -> None:
    for wrong in (np.ones(3), np.ones((1, 2)), np.array(["a", "b"]), [1], "text", b"bytes", None):
        with pytest.raises((WrongInput, MalformedRequest)):
            client.predict("fails", wrong)
    for wrong in (np.ones(2, complex), object(), [1 << 70], np.ones(2, np.longdouble)):
        with pytest.raises((InvalidArgument, WrongInput)):
            client.predict("fails", wrong)
    with pytest.raises(NotFound, match="nobody"):
        client.predict("nobody", np.ones(2))
    with pytest.raises((WrongInput, MalformedRequest), match="10000"):
        client.predict_batch("fails", np.ones((10_001, 2)))
    with pytest.raises((WrongInput, MalformedRequest)):
        client.predict_batch("fails", np.ones((0, 2)))


def test_feedback_by_query_id_after_arrays(client: Blocking) -> None:
    found = client.predict("learns", np.array([1.0, 2.0]), features=[1, 2, 3])
    assert client.observe("learns", query_id=found.query_id, label=np.float64(3)).observed
    assert client.observe("learns", query_id=found.query_id, label=3).duplicate


def test_feedback_on_arrays_counts_as_on_lists(client: Blocking, request: pytest.FixtureRequest) -> None:
    own = f"named by {request.node.name}"
    given = {"label": np.float64(3), "features": [1, 2, 3], "context": "u"}
    assert not client.observe("learns", input=np.array([1.0, 2]), id=own, **given).duplicate
    assert client.observe("learns", input=[1, 2], id=own, **given).duplicate
    for label in (3, 2.5, True, "three", {"any": ["JSON"]}, None, float("nan"), np.arange(3)):
        assert client.observe("learns", input=np.array([1.0, 2], "f4"), label=label, features=np.arange(3)).observed
    with pytest.raises((WrongInput, MalformedRequest), match="features"):
        client.observe("learns", input=np.array([1.0, 2]), label=3)
    with pytest.raises(MalformedRequest, match="reward"):
        client.observe("learns", input=np.array([1.0, 2]), reward=1, features=[1, 2, 3])


def test_feedback_on_several_arrays_counts_as_on_lists(client: Blocking, request: pytest.FixtureRequest) -> None:
    def pieces(form: Any) -> list[dict[str, Any]]:
        rows = ([1.0, 2], [3.0, 4], [5.0, 6])
        named = [f"{number} of {request.node.name}" for number in range(3)]
        return [
            {"input": form(row), "label": row[0], "features": form([1, 2, 3]), "context": "u", "id": name}
            for row, name in zip(rows, named)
        ]

    assert [each.duplicate for each in client.observe_batch("learns", pieces(np.array))] == [False] * 3
    assert [each.duplicate for each in client.observe_batch("learns", pieces(list))] == [True] * 3


def test_a_piece_on_an_array_that_is_refused_has_its_error_in_its_place(client: Blocking) -> None:
    row, features = np.array([1.0, 2]), [1, 2, 3]
    good = {"input": row, "label": 1, "features": features}
    for wrong in ({"label": None}, {"features": [1, 2]}, {"input": np.ones(3)}, {"reward": 1.0}, {"id": 7}):
        first, refused, last = client.observe_batch("learns", [good, good | wrong, good])
        assert first.observed and last.observed
        assert isinstance(refused, (WrongInput, MalformedRequest)) or wrong == {"label": None}, wrong
    assert [each.observed for each in client.observe_batch("learns", [good])] == [True]
    refused_all = client.observe_batch("learns", [good | {"features": np.ones(2)}] * 2)
    assert [type(each) for each in refused_all] == [WrongInput, WrongInput]


@pytest.mark.long
@both
def test_a_client_outlives_a_new_type_and_a_new_server(kind: str) -> None:
    with serving() as system:
        system.start_worker()
        types = ("int32[3]", "float64[2]")
        models = []
        for name, input_type in zip("ab", types):
            container = system.start_container(TELL, name, "1", input_type)
            models.append(model(version(container, input_type=input_type), name=name))
        ints, floats = ([application("app", name, input_type=each)] for name, each in zip("ab", types))
        with Blocking(f"http://127.0.0.1:{system.port}", kind) as client:
            system.apply(ints, models)
            assert client.predict("app", np.arange(3)).output == [0, 1, 2]
            system.apply(floats, models)
            # The client still knows a type of whole numbers, for which it sends these as JSON.
            assert client.predict("app", np.array([0.5, 1])).output == [0.5, 1]
            with pytest.raises(WrongInput):
                client.predict("app", np.arange(3))
            assert client.predict("app", np.array([0.5, 1], "f4")).output == [0.5, 1]
            old = system.worker
            system.start_worker()
            system.workers.remove(old)
            old.stop()
            system.apply(ints, models)
            assert client.predict("app", np.arange(3, dtype="u1")).output == [0, 1, 2]
            with pytest.raises(NotFound):
                client.predict("gone", np.arange(3))


def test_whoever_only_queries_needs_no_token(system: Serving, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{system.port}"
    with Clipper.connect(query_url=url, home=tmp_path) as clipper:
        assert clipper.query_url == url
        assert clipper.predict("fails", np.array([1.0, 2])).output == 3
        assert clipper.observe("learns", input=[1, 2], label=3, features=[1, 2, 3]).observed
        with pytest.raises(InvalidArgument, match=r"connected by query_url.*connect another one by url"):
            clipper.models()

    async def ask() -> Any:
        async with await AsyncClipper.connect(query_url=url, home=tmp_path) as clipper:
            return (await clipper.predict("fails", np.array([1.0, 2]))).output

    assert asyncio.run(ask()) == 3


def test_a_query_url_that_leads_to_no_server(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="url and query_url are both given"):
        Clipper.connect("http://127.0.0.1:1338", query_url="http://127.0.0.1:1337")
    with pytest.raises(InvalidArgument, match="expected http://HOST:PORT"):
        Clipper.connect(query_url="127.0.0.1:1337")
    with keep_port() as kept, pytest.raises(Unavailable, match="no Clipper answers"):
        Clipper.connect(query_url=f"http://127.0.0.1:{kept.getsockname()[1]}", home=tmp_path)

    def other(connection: Accepted) -> None:
        connection.read()
        connection.answer({"message": "welcome"})

    with scripted(other) as server, pytest.raises(Unavailable, match="is not Clipper"):
        Clipper.connect(query_url=server.url, home=tmp_path)
