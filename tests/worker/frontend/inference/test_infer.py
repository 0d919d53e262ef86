"""Infer requests to a worker, beside predict calls that ask the same."""

import base64
import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.settings.application import Selection
from clipper.values.inputs.numbers import NUMPY
from clipper.values.types import InputType
from clipper.worker.frontend import limits
from clipper.worker.frontend.inference import metadata
from clipper.worker.frontend.inference.tensors import DATATYPES, datatype_of
from tests.example_counts import share_of
from tests.serving import Client, Response, Serving, application, model, serving, version
from tests.waiting import until

# Says what it was given, so that two ways to say it can be compared.
TELL = """
def told(each):
    return each if isinstance(each, str) else each.hex() if isinstance(each, bytes) else each.tolist()

def predict(inputs):
    return [told(each) for each in inputs]
"""
FAIL = """
import time

def predict(inputs):
    if any(row.sum() == 7777 for row in inputs):
        time.sleep(3)
    return [{"a set"} if row.sum() < 0 else float(row.sum()) for row in inputs]
"""
TYPES = ["int32[3]", "int64[*]", "float32[2,2]", "float64[2,*]", "uint8[4]", "bool[3]", "string", "bytes", "float64[]"]
APPLICATIONS = {f"app{number}": name for number, name in enumerate(TYPES)}


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as started:
        started.start_worker()
        applications, models = [], []
        for name, input_type in APPLICATIONS.items():
            container = started.start_container(TELL, name, "1", input_type)
            applications.append(application(name, name, input_type=input_type))
            told = "string" if input_type == "bytes" else input_type
            declared = {"output_type": told, "output_is_declared": True}
            models.append(model(version(container, input_type=input_type, **declared), name=name))
        failing = started.start_container(FAIL, "f", "1", "float64[2]")
        models.append(model(version(failing, input_type="float64[2]"), name="f"))
        applications.append(application("fails", "f", input_type="float64[2]"))
        applications.append(application("falls_back", "f", input_type="float64[2]", default_output="-1"))
        policy = Selection(policy="epsilon_greedy")
        applications.append(application("learns", "f", input_type="float64[2]", selection=policy))
        started.apply(applications, models)
        yield started


@pytest.fixture(scope="module")
def client(system: Serving) -> Iterator[Client]:
    with system.worker.connect() as connected:
        yield connected


def infer(client: Client, name: str, head: dict[str, Any], tensors: bytes = b"", **headers: str) -> Response:
    text = json.dumps(head).encode()
    if tensors:
        headers["Inference_Header_Content_Length"] = str(len(text))
    return client.ask(f"/v2/models/{name}/infer", text + tensors, **headers)


def floats(*rows: list[float], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [len(rows), 2], "datatype": "FP64", "data": rows}], **more}


@st.composite
def batches(draw: st.DrawFn) -> tuple[str, list[Any], "np.ndarray[Any, Any] | None"]:
    """An application, its inputs as JSON has them, and the same as an array."""
    name = draw(st.sampled_from(list(APPLICATIONS)))
    input_type = InputType.parse(APPLICATIONS[name])
    count = draw(st.integers(1, 3))
    if not input_type.dtype.is_numeric:
        return name, draw(st.lists(st.text(max_size=8), min_size=count, max_size=count)), None
    open_size = draw(st.integers(1, 3))
    shape = [count, *(size or open_size for size in input_type.shape)]
    kind = NUMPY[input_type.dtype]
    elements: Any = {"b": st.booleans(), "u": st.integers(0, 255), "i": st.integers(-(2**31), 2**31 - 1)}.get(kind.kind)
    if elements is None:
        elements = st.floats(allow_nan=False, allow_infinity=False, width=32)
    total = int(np.prod(shape))
    array = np.array(draw(st.lists(elements, min_size=total, max_size=total)), kind).reshape(shape)
    return name, array.tolist(), array


@settings(max_examples=share_of(60), deadline=None)
@given(batch=batches(), is_binary=st.booleans())
def test_answers_are_those_of_predict(client: Client, batch: Any, is_binary: bool) -> None:
    name, values, array = batch
    input_type = InputType.parse(APPLICATIONS[name])
    said = [base64.b64encode(each.encode()).decode() for each in values] if str(input_type) == "bytes" else values
    expected = [
        each["output"] for each in client.ask(f"/{name}/predict", {"input_batch": said}).json["batch_predictions"]
    ]
    datatype = datatype_of(input_type.dtype).name
    shape = [len(values)] if array is None else list(array.shape)
    tensor: dict[str, Any] = {"name": "input", "shape": shape, "datatype": datatype}
    data = b""
    if is_binary:
        texts = [each.encode() for each in values] if array is None else []
        data = array.tobytes() if array is not None else b"".join(len(t).to_bytes(4, "little") + t for t in texts)
        tensor["parameters"] = {"binary_data_size": len(data)}
    else:
        tensor["data"] = values
    answer = infer(client, name, {"inputs": [tensor]}, data)
    assert answer.status == 200, answer.body
    (output,) = answer.json["outputs"]
    of_rows = output["shape"] if any(isinstance(each, list) for each in expected) else output["shape"][:1]
    assert np.array(output["data"], object).reshape(of_rows).tolist() == expected


def test_feedback_by_query_id_is_taken_after_either(client: Client) -> None:
    ids = [client.ask("/learns/predict", {"input": [1, 2]}).json["query_id"]]
    ids.append(infer(client, "learns", floats([1, 2])).json["parameters"]["query_id"])
    asked = infer(client, "learns", floats([1, 2], [3, 4], outputs=[{"name": "query_id"}]))
    ids += asked.json["outputs"][0]["data"]
    for query_id in ids:
        for path in ("/v2/models/learns/observe", "/learns/observe"):
            answer = client.ask(path, {"query_id": query_id, "label": 3.0})
            assert (answer.status, answer.json["observed"]) == (200, True), answer.body
    refused = client.ask("/v2/models/learns/observe", {"query_id": 1})
    assert (refused.status, refused.json["code"]) == (400, "malformed_request")
    assert "label or a reward" in refused.json["error"]


def test_one_row_without_an_answer_fails_the_request(client: Client) -> None:
    answer = infer(client, "fails", floats([1, 2], [-5, 1], [3, 4]))
    assert (answer.status, answer.json["code"]) == (502, "model_error")
    assert "output of type set" in answer.json["error"]
    answer = infer(client, "falls_back", floats([1, 2], [-5, 1], outputs=[{"name": "output"}, {"name": "default"}]))
    assert [each["data"] for each in answer.json["outputs"]] == [[3.0, -1], [False, True]]
    # The rows that did not get the default are of one version.
    assert answer.json["parameters"] == {"default": True, "model": "f", "version": "1"}
    answer = infer(client, "falls_back", floats([-5, 1]))
    assert answer.json["parameters"]["default_reason"] == "model_error"


def test_a_timeout_shortens_the_slo(client: Client) -> None:
    answer = infer(client, "fails", floats([7000, 777], parameters={"timeout": 1000}))
    assert (answer.status, answer.json["code"]) == (504, "timeout")
    # Some clients mean seconds, such as tritony's 30.
    for timeout in (10**9, 0, 1, 30, 999):
        assert infer(client, "fails", floats([1, 2], parameters={"timeout": timeout})).status == 200


def predict(client: Client, name: str, head: dict[str, Any]) -> Response:
    return client.ask(f"/v2/models/{name}/predict", head)


def test_tensors_may_be_answered_as_predict_answers(client: Client) -> None:
    asked, own = predict(client, "fails", floats([1, 2])), client.ask("/fails/predict", {"input": [1, 2]})
    assert asked.json.keys() == own.json.keys()
    assert (asked.json["output"], asked.headers.keys()) == (3.0, own.headers.keys())
    fallen = predict(client, "falls_back", floats([-5, 1])).json
    assert (fallen["output"], fallen["default_reason"]) == (-1, "model_error")
    assert "output of type set" in fallen["default_explanation"]
    failed = predict(client, "fails", floats([-5, 1]))
    assert (failed.status, failed.json["code"]) == (502, "model_error")
    first, second, third = predict(client, "fails", floats([1, 2], [-5, 1], [3, 4])).json["batch_predictions"]
    assert (first["output"], second["error"], third["output"]) == (3.0, "model_error", 7.0)
    late = predict(client, "fails", floats([1, 2], [3, 4], parameters={"timeout": 1})).json["batch_predictions"]
    assert [each["error"] for each in late] == ["timeout", "timeout"]
    assert predict(client, "fails", floats([1, 2], parameters={"timeout": 1})).status == 504
    wrong = predict(client, "fails", {"inputs": []})
    assert (wrong.status, wrong.json["code"]) == (400, "malformed_request")
    pinned = client.ask("/v2/models/fails/versions/1/predict", floats([1, 2]))
    assert pinned.json["output"] == 3.0


@pytest.mark.parametrize("action", ["infer", "predict", "observe"])
@pytest.mark.parametrize("digits", [20, 4000, 4299])
def test_lengths_that_python_cannot_print_are_refused(client: Client, action: str, digits: int) -> None:
    tensor = {"name": "x", "shape": [1, 7, 7], "datatype": "FP64", "parameters": {"binary_data_size": 8}}
    text = json.dumps({"inputs": [tensor, tensor | {"name": "label"}][: 1 + (action == "observe")]})
    answer = client.ask(f"/v2/models/app3/{action}", text.replace("7", "9" * digits).encode())
    assert (answer.status, answer.json["code"]) == (400, "wrong_input"), answer.body


@pytest.mark.parametrize("is_large", [False, True])
def test_many_rows_in_any_encoding_are_answered_one_by_one(client: Client, is_large: bool) -> None:
    rows = [[1.5, 2.5]] * (9000 if is_large else 2)
    body = gzip.compress(json.dumps(floats(*rows)).encode())
    answer = client.ask("/v2/models/fails/predict", body, Content_Encoding="gzip")
    assert [each["output"] for each in answer.json["batch_predictions"]] == [4.0] * len(rows)


def test_metadata_tell_the_slo(client: Client) -> None:
    client.send(b"GET /v2/models/fails HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.read("GET").json["parameters"] == {"slo_ms": 20_000.0, "input_type": "float64[2]"}


@pytest.mark.parametrize("is_large", [False, True])
def test_bodies_may_be_compressed(client: Client, is_large: bool) -> None:
    rows = [[1.5, 2.5]] * (9000 if is_large else 1)
    body = gzip.compress(json.dumps(floats(*rows)).encode())
    answer = client.ask("/v2/models/fails/infer", body, Content_Encoding="GZIP")
    assert answer.json["outputs"][0]["data"] == [4.0] * len(rows)
    refused = client.ask("/v2/models/fails/infer", body, Content_Encoding="br")
    assert (refused.status, refused.json["code"]) == (415, "unsupported_media_type")


def test_a_bomb_is_refused(client: Client) -> None:
    answer = client.ask("/v2/models/fails/infer", gzip.compress(bytes(30_000_000)), Content_Encoding="gzip")
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert infer(client, "fails", floats([1, 2])).status == 200


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "100", str(2**63), "9" * 40, "3, 3", ""])
def test_a_length_of_the_json_that_lies(client: Client, length: str) -> None:
    answer = client.ask("/v2/models/fails/infer", b"{}", Inference_Header_Content_Length=length)
    assert (answer.status, answer.json["code"]) == (400, "malformed_request")


def test_an_empty_body_is_no_data_unless_its_head_says_so(client: Client) -> None:
    answer = client.ask("/v2/models/fails/infer", b"")
    assert (answer.status, answer.json["code"]) == (400, "malformed_request")


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/v2/models/nobody/infer", 404, "clipper app list"),
        ("/v2/models/fails/versions/9/infer", 404, "no running version '9'"),
        ("/v2/models/fails/generate_stream", 501, "a query has one answer, and not several parts"),
        ("/v2/models/fails/generated", 404, "nothing at '/v2/models/fails/generated': expected /v2/models/MODEL"),
        ("/v2/", 405, "use GET"),
        ("/v2/anything", 404, "expected /v2/models/MODEL"),
        ("/v2/models/fails", 405, "use GET"),
        ("/v2/repository/models/fails/load", 501, "clipper deploy"),
        ("/v2/systemsharedmemory/status", 501, "shared memory"),
    ],
)
def test_paths_that_are_refused(client: Client, path: str, status: int, told: str) -> None:
    answer = client.ask(path, b"{}")
    assert (answer.status, told in answer.json["error"]) == (status, True), answer.body


def test_a_body_that_is_too_large_is_refused_in_the_protocols_form(client: Client) -> None:
    with Client(client.socket.getpeername()[1]) as other:
        other.send(b"POST /v2/models/fails/infer HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n")
        answer = other.read()
        assert (answer.status, answer.json["code"]) == (413, "too_large")
        assert "--max-body-size" in answer.json["error"]


def test_a_batch_of_pictures_is_taken() -> None:
    own = "float32[3,224,224]"
    with serving() as system:
        container = system.start_container("def predict(inputs):\n    return [0] * len(inputs)\n", input_type=own)
        worker = system.start_worker()
        applications = [application(input_type=own, slo_ms=60_000)]
        system.apply(applications, [model(version(container, input_type=own))])
        with worker.connect() as client, worker.connect() as other:
            most = get(client, "/v2/models/app/config").json["max_batch_size"]
            assert most == (limits.MAX_TYPED_BODY_BYTES - metadata.HEAD_BYTES) // (4 * 3 * 224 * 224)

            def ask(client: Client, rows: int) -> Response:
                data = bytes(rows * 4 * 3 * 224 * 224)
                tensor = {"name": "input", "datatype": "FP32", "shape": [rows, 3, 224, 224]}
                return infer(
                    client, "app", {"inputs": [tensor | {"parameters": {"binary_data_size": len(data)}}]}, data
                )

            assert ask(client, 16).json["outputs"][0]["shape"] == [16, 1]
            assert ask(client, most).json["outputs"][0]["shape"] == [most, 1]
            other.send(
                b"POST /v2/models/app/infer HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (limits.MAX_TYPED_BODY_BYTES + 1)
            )
            assert other.read().status == 413


def get(client: Client, path: str) -> Any:
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client.read("GET")


def test_what_is_told_of_models(client: Client) -> None:
    for name, input_type in APPLICATIONS.items():
        told = get(client, f"/v2/models/{name}").json
        (tensor,) = told["inputs"]
        assert (told["name"], told["versions"]) == (name, ["1"])
        assert DATATYPES[tensor["datatype"]] == datatype_of(InputType.parse(input_type).dtype)
        configured = get(client, f"/v2/models/{name}/versions/1/config").json
        assert configured["input"][0]["dims"] == tensor["shape"][1:]
        assert configured["input"][0]["optional"] is False
        assert configured["model_transaction_policy"] == {"decoupled": False}
        assert configured["max_batch_size"] == 10_000
    assert get(client, "/v2/health/ready").json == {"live": True, "ready": True}
    assert get(client, "/v2/models/fails/ready").json == {"name": "fails", "ready": True}
    index = client.ask("/v2/repository/index", b"")
    assert {"name": "fails", "version": "1", "state": "READY", "reason": ""} in index.json
    assert client.ask("/v2/repository/index", b"[]").status == 400
    before = get(client, "/v2/models/fails/stats").json["model_stats"][0]["inference_stats"]["queue"]["count"]
    assert infer(client, "fails", floats([1, 2])).status == 200
    after = get(client, "/v2/models/fails/versions/1/stats").json["model_stats"][0]["inference_stats"]["queue"]["count"]
    assert after == before + 1


def test_outputs_are_told_as_the_container_has_answered() -> None:
    with serving() as system:
        container = system.start_container()
        worker = system.start_worker()
        system.apply([application()], [model(version(container))])
        unknown = {"name": "output", "datatype": "BYTES", "shape": [-1, 1]}
        known = {"name": "output", "datatype": "FP64", "shape": [-1, 1]}
        with worker.connect() as client:
            assert get(client, "/v2/models/app").json["outputs"] == [unknown]
            assert client.ask("/app/predict", {"input": [1]}).status == 200
            assert get(client, "/v2/models/app").json["outputs"] == [known]
        later = system.start_worker()
        later_only = [application()], [model(version(container))]
        system.apply(*later_only)
        assert later.statistics().applications[0].queries == 0
        worker.stop()  # of the two that share the port, the one that has not seen an output is left
        system.workers.remove(worker)
        with later.connect() as client:
            assert get(client, "/v2/models/app").json["outputs"] == [known]


def test_a_model_without_a_replica_is_not_ready() -> None:
    with serving() as system:
        worker = system.start_worker()
        system.apply([application("alone")], [model(version())])
        with worker.connect() as client:
            ready = get(client, "/v2/models/alone/ready")
            assert (ready.status, ready.json) == (503, {"name": "alone", "ready": False})
            ready = get(client, "/v2/health/ready")
            assert (ready.status, ready.json) == (503, {"live": True, "ready": False})
            index = client.ask("/v2/repository/index", {"ready": False})
            assert [each["state"] for each in index.json] == ["UNAVAILABLE"]
            assert client.ask("/v2/repository/index", {"ready": True}).json == []


def test_all_workers_are_counted() -> None:
    with serving() as system:
        container = system.start_container()
        for _ in range(2):
            system.start_worker()
        system.apply([application()], [model(version(container))])
        system.apply([application()], [model(version(container))])  # now each knows where the other is
        for _ in range(8):
            with system.worker.connect() as client:
                assert client.ask("/app/predict", {"input": [1]}).status == 200

        def stats() -> Any:
            """Of both: a worker that does not answer the other in time is left out."""
            with system.worker.connect() as client:
                (told,) = get(client, "/v2/models/stats").json["model_stats"]
            return told if told["inference_count"] == 8 else None

        told = until(stats)
        assert time.time() - 600 < told["last_inference"] / 1000 <= time.time()
        (batches,) = told["batch_stats"]
        assert (batches["batch_size"], batches["compute_infer"]["count"], told["execution_count"]) == (1, 8, 8)
        assert batches["compute_infer"]["ns"] == told["inference_stats"]["compute_infer"]["ns"] > 0


def test_an_application_that_is_called_as_the_protocol_is() -> None:
    with serving() as system:
        container = system.start_container()
        worker = system.start_worker()
        system.apply([application("v2")], [model(version(container))])
        with worker.connect() as client:
            assert client.ask("/v2/predict", {"input": [1]}).json["output"] == 1.0
            assert client.ask("/v2/predict", b"?").json["error"] == "malformed_request"
            assert get(client, "/v2/models/v2").json["name"] == "v2"
