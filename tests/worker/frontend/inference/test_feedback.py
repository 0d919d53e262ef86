"""Feedback as tensors, beside the bodies of observe calls that say the same."""

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.control import messages as control
from clipper.control.feedback import Feedback
from clipper.errors import ClipperError, MalformedRequest, RequestError, WrongInput
from clipper.settings.application import Selection
from clipper.values.inputs.reader import make_reader
from clipper.values.types import MAX_CONTEXT_LENGTH, InputType
from clipper.worker.frontend.inference.feedback import FeedbackReader, has_tensors
from clipper.worker.frontend.observe_body import MAX_ID_LENGTH, MAX_LABEL_BYTES, ObserveReader
from tests.example_counts import share_of
from tests.serving import Client, Response, Serving, application, model, serving, version
from tests.worker.frontend.steps import finish

FLOATS = InputType.parse("float64[2]")
Tensors = dict[str, tuple[list[int], str, Any]]


def request(tensors: Tensors, is_binary: bool = False, **parameters: Any) -> tuple[bytes, int]:
    """A body, and the length of its JSON; numbers come after it if ``is_binary``."""
    heads, parts = [], []
    for name, (shape, datatype, data) in tensors.items():
        head: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
        if is_binary and datatype == "BYTES":
            texts = [each.encode() for each in data]
            parts.append(b"".join(len(text).to_bytes(4, "little") + text for text in texts))
        elif is_binary:
            codes = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?", "FP32": "<f4"}
            parts.append(np.array(data, codes[datatype]).tobytes())
        else:
            head["data"] = data
        if is_binary:
            head["parameters"] = {"binary_data_size": len(parts[-1])}
        heads.append(head)
    text = json.dumps({"inputs": heads, "parameters": parameters}).encode()
    return text + b"".join(parts), len(text)


def read(
    tensors: Tensors,
    *,
    is_binary: bool = False,
    input_type: InputType = FLOATS,
    features: int | None = None,
    **more: Any,
) -> list[Feedback]:
    body, json_bytes = request(tensors, is_binary, **more)
    return finish(FeedbackReader(input_type, features).read(body, json_bytes))


def own(*observations: dict[str, Any], features: int | None = None) -> list[Feedback | ClipperError]:
    body = json.dumps({"observations": observations}).encode()
    return finish(ObserveReader(make_reader(FLOATS), features).read(body))[0]


def nameless(found: Any) -> list[Feedback]:
    """Without the ids that feedback on inputs gets."""
    return [msgspec.structs.replace(each, label=_parsed(each.label)) for each in found]


def _parsed(label: bytes | None) -> Any:
    return None if label is None else json.loads(label)


@pytest.mark.parametrize("is_binary", [False, True])
@settings(max_examples=share_of(50), deadline=None)
@given(data=st.data())
def test_tensors_say_what_an_observe_call_says(is_binary: bool, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 3))
    finite = st.floats(allow_nan=False, allow_infinity=False)

    def column(elements: Any) -> list[Any]:
        return data.draw(st.lists(elements, min_size=count, max_size=count))

    tensors: Tensors = {}
    pieces: list[dict[str, Any]] = [{} for _ in range(count)]

    def add(name: str, datatype: str, values: list[Any], shape: list[int] | None = None) -> None:
        tensors[name] = ([count, *(shape or [])], datatype, values)
        for piece, value in zip(pieces, values):
            piece[name] = value

    if on_query := data.draw(st.booleans()):
        add("query_id", "INT64", column(st.integers(0, 2**53)))
    else:
        add("input", "FP64", column(st.lists(finite, min_size=2, max_size=2)), [2])
    if on_query and data.draw(st.booleans()):
        add("reward", "FP64", column(st.floats(0, 1)))
    else:
        datatype, elements = data.draw(
            st.sampled_from(
                [
                    ("INT64", st.integers(-(2**63), 2**63 - 1)),
                    ("FP64", finite),
                    ("BOOL", st.booleans()),
                    ("BYTES", st.text()),
                ]
            )
        )
        size = data.draw(st.sampled_from([None, 1, 3])) if datatype != "BYTES" else None
        values = column(elements if size is None else st.lists(elements, min_size=size, max_size=size))
        add("label", datatype, values, None if size is None else [size])
    if data.draw(st.booleans()):
        add("id", "BYTES", column(st.text(max_size=5)))
    if data.draw(st.booleans()):
        add("context", "BYTES", column(st.text(max_size=5)))
    expected = own(*pieces)
    assert nameless(read(tensors, is_binary=is_binary)) == nameless(expected)


def test_features_come_with_inputs() -> None:
    label: Tensors = {"label": ([1], "INT64", [3])}
    inputs: Tensors = {"x": ([1, 2], "FP64", [[1, 2]]), **label}
    found = read({**inputs, "features": ([1, 2], "FP32", [5, 6])}, features=2)
    assert nameless(found) == nameless(own({"input": [1, 2], "label": 3, "features": [5, 6]}, features=2))
    with pytest.raises(WrongInput, match="come with 'features'"):
        read(inputs, features=2)
    with pytest.raises(WrongInput, match="expected no 'features'"):
        read({**inputs, "features": ([1, 2], "FP64", [5, 6])})
    with pytest.raises(WrongInput, match="expected no 'features'"):
        read({"query_id": ([1], "INT64", [3]), **label, "features": ([1, 2], "FP64", [5, 6])}, features=2)


def test_one_context_may_be_for_all_rows() -> None:
    tensors: Tensors = {"query_id": ([2], "INT64", [1, 2]), "label": ([2], "BOOL", [True, False])}
    assert [each.context for each in read(tensors, context=7)] == ["7", "7"]
    tensors["context"] = ([2], "BYTES", ["a", ""])
    assert [each.context for each in read(tensors, context="u")] == ["a", None]


QUERY: Tensors = {"query_id": ([1], "INT64", [1])}
INPUT: Tensors = {"x": ([1, 2], "FP64", [1, 2])}
LABEL: Tensors = {"label": ([1], "INT64", [1])}
REWARD: Tensors = {"reward": ([1], "FP64", [1])}


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        (QUERY, "'label' or 'reward'"),
        (LABEL, "'query_id'"),
        (QUERY | INPUT | LABEL, "'query_id'"),
        (QUERY | LABEL | REWARD, "'label' or 'reward'"),
        (INPUT | REWARD, "a reward is for the answer to a query"),
        (INPUT | LABEL | {"y": ([1, 2], "FP64", [1, 2])}, "the inputs 'x', 'y': expected one"),
        (QUERY | {"label": ([2], "INT64", [1, 2])}, "1 rows of 'query_id', 2 rows of 'label'"),
        ({"query_id": ([1], "FP64", [1])} | LABEL, "datatype FP64"),
        ({"query_id": ([1, 2], "INT64", [1, 2])} | LABEL, "shape [1,2]"),
        (QUERY | {"label": ([1], "WORD", ["a"])}, "datatype 'WORD'"),
        (QUERY | {"label": ([1, 2], "BYTES", ["a", "b"])}, "shape [1,2]"),
        (QUERY | {"label": ([1, 0], "FP64", [])}, "below 1"),
        (QUERY | {"label": ([1, -2], "FP64", [])}, "below 1"),
        (QUERY | {"label": ([1] * 10, "FP64", [1])}, "10 dimensions"),
        (QUERY | {"label": ([1, 2**40, 2**40], "FP64", [1])}, f"fit into {MAX_LABEL_BYTES}"),
        (QUERY | {"label": ([1], "BYTES", ["x" * MAX_LABEL_BYTES])}, f"over {MAX_LABEL_BYTES}"),
        (QUERY | LABEL | {"id": ([1], "BYTES", ["x" * (MAX_ID_LENGTH + 1)])}, f"at most {MAX_ID_LENGTH}"),
        (
            QUERY | LABEL | {"context": ([1], "BYTES", ["x" * (MAX_CONTEXT_LENGTH + 1)])},
            f"at most {MAX_CONTEXT_LENGTH}",
        ),
        (QUERY | LABEL | {"id": ([1], "INT64", [1])}, "datatype INT64"),
    ],
)
def test_what_does_not_fit_together(tensors: Tensors, told: str) -> None:
    with pytest.raises(RequestError, match=re.escape(told)):
        read(tensors)
    if any(datatype == "WORD" for _, datatype, _ in tensors.values()):
        return  # no bytes of it can be made
    with pytest.raises(RequestError, match=f"{re.escape(told)}|bytes"):
        read(tensors, is_binary=True)


def test_labels_that_are_not_finite_are_refused() -> None:
    for wrong in (float("nan"), float("-inf")):
        with pytest.raises(WrongInput, match="NaN or infinity"):
            read(QUERY | {"label": ([1], "FP64", [wrong])}, is_binary=True)
        with pytest.raises(WrongInput, match="NaN or infinity"):
            read(QUERY | {"reward": ([1], "FP64", [wrong])}, is_binary=True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"inputs": []}', True),
        (b'{"query_id": 1, "label": {"inputs": 1}}', False),
        (b'{"query_id": 1, "label": "\\"inputs\\""}', False),
        (b'{"other": "' + b"x" * 20_000 + b'", "inputs": [1]}', True),
        (b'{"label": {"inputs": "' + b"x" * 20_000 + b'"}}', False),
    ],
)
def test_which_bodies_have_tensors(body: bytes, expected: bool) -> None:
    assert finish(has_tensors(body)) == finish(has_tensors(bytearray(body))) == expected


def test_bodies_that_are_not_json() -> None:
    for body in (b"", b"[]", b"\xff", b"[" * 10_000, b"nonsense"):
        with pytest.raises(MalformedRequest):
            finish(has_tensors(body))


# Through a worker.

SUM = "def predict(inputs):\n    return [float(row.sum()) for row in inputs]\n"
WRONG = "def predict(inputs):\n    return [-1.0 for row in inputs]\n"
APPLICATIONS = ("plain", "tensors", "binary")


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as started:
        started.start_worker()
        models = []
        for name, code in {"right": SUM, "wrong": WRONG}.items():
            container = started.start_container(code, name, "1", "float64[2]")
            models.append(model(version(container, input_type="float64[2]"), name=name))
        selection = Selection(policy="ensemble")
        made = [
            application(name, "right", "wrong", input_type="float64[2]", selection=selection, id=name)
            for name in APPLICATIONS
        ]
        started.apply(made, models)
        yield started


@pytest.fixture
def client(system: Serving) -> Iterator[Client]:
    with system.worker.connect() as connected:
        yield connected


def observe(client: Client, name: str, tensors: Tensors, *, is_binary: bool = False, **headers: str) -> Response:
    body, json_bytes = request(tensors, is_binary)
    if is_binary:
        headers["Inference_Header_Content_Length"] = str(json_bytes)
    return client.ask(f"/v2/models/{name}/observe", body, **headers)


def learned(system: Serving, name: str, context: str | None) -> dict[str, float]:
    described = system.worker.control.ask(control.DescribePolicy(name, context))
    found = {"observations": described.observations}
    for each in described.models:
        assert each.mean_loss is not None
        found |= {f"{each.model} share": each.share, f"{each.model} scored": each.scored}
        found[f"{each.model} loss"] = each.mean_loss
    return found


def test_what_is_learned_is_the_same(system: Serving, client: Client) -> None:
    rows = [[float(number), 1.0] for number in range(40)]
    labels = [sum(row) for row in rows]
    pieces = [{"input": row, "label": label, "context": "u"} for row, label in zip(rows, labels)]
    tensors: Tensors = {
        "x": ([40, 2], "FP64", rows),
        "label": ([40], "FP64", labels),
        "context": ([40], "BYTES", ["u"] * 40),
    }
    answers = [
        client.ask("/plain/observe", {"observations": pieces}),
        observe(client, "tensors", tensors),
        observe(client, "binary", tensors, is_binary=True),
    ]
    assert [each.json for each in answers] == [{"observations": [{"observed": True, "duplicate": False}] * 40}] * 3
    for context in (None, "u"):
        by_json, *by_tensors = [learned(system, name, context) for name in APPLICATIONS]
        assert by_json["right scored"] > 1
        assert by_json["right share"] > by_json["wrong share"]
        # Feedback is committed in batches, whose sums round in another order.
        assert by_tensors == [pytest.approx(by_json)] * 2


def test_feedback_on_queries(client: Client) -> None:
    ids = [client.ask("/plain/predict", {"input": [number, 0.5]}).json["query_id"] for number in range(3)]
    tensors: Tensors = {"query_id": ([3], "INT64", [*ids[:2], 5]), "label": ([3], "FP64", [0.5, 1.5, 2.5])}
    first, second, unknown = observe(client, "plain", tensors, is_binary=True).json["observations"]
    assert first == second == {"observed": True, "duplicate": False}
    assert unknown["error"] == "not_found"
    again: Tensors = {"query_id": ([1], "INT64", [ids[0]]), "reward": ([1], "FP32", [0.5])}
    assert observe(client, "plain", again).json == {"observed": True, "duplicate": True}
    last: Tensors = {"query_id": ([1], "INT64", [ids[2]]), "reward": ([1], "FP32", [0.5])}
    assert observe(client, "plain", last, is_binary=True).json == {"observed": True, "duplicate": False}


def test_an_id_counts_once_however_it_comes(client: Client) -> None:
    tensors: Tensors = INPUT | LABEL | {"id": ([1], "BYTES", ["mine"])}
    assert not observe(client, "plain", tensors).json["duplicate"]
    assert observe(client, "plain", tensors, is_binary=True).json["duplicate"]
    assert client.ask("/plain/observe", {"input": [1, 2], "label": 1, "id": "mine"}).json["duplicate"]


def test_long_and_compressed_bodies(client: Client) -> None:
    rows = [[float(number), 2.0] for number in range(1500)]
    tensors: Tensors = {"x": ([1500, 2], "FP64", rows), "label": ([1500], "FP64", [1.0] * 1500)}
    for is_binary in (False, True):
        assert len(observe(client, "plain", tensors, is_binary=is_binary).json["observations"]) == 1500
    for body in (request(tensors)[0], json.dumps({"observations": [{"input": [1, 2], "label": 1}] * 1500}).encode()):
        for content in (body, gzip.compress(body)):
            headers = {} if content is body else {"Content_Encoding": "gzip"}
            answer = client.ask("/v2/models/plain/observe", content, **headers)
            assert answer.json["observations"] == [{"observed": True, "duplicate": False}] * 1500


def test_refusals_have_the_protocols_form(client: Client) -> None:
    for body, headers, status in (
        (b"nonsense", {}, 400),
        (b'{"inputs": []}', {}, 400),
        (b"{}", {"Inference_Header_Content_Length": "3"}, 400),
        (b"{}", {"Inference_Header_Content_Length": "x"}, 400),
        (b"", {"Inference_Header_Content_Length": "0"}, 400),
        (b"{}", {"Content_Encoding": "br"}, 415),
        (gzip.compress(bytes(30_000_000)), {"Content_Encoding": "gzip"}, 413),
    ):
        answer = client.ask("/v2/models/plain/observe", body, **headers)
        assert (answer.status, answer.json.keys()) == (status, {"error", "code"}), answer.body
