"""Large outputs through a worker: the same bytes in every form, a bound that costs one query, no harm to others."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from clipper.settings.application import Selection
from clipper.values.outputs.output import TEXT_TIMES
from tests.serving import SUM, Response, Serving, application, model, serving, version

# Answers what its input's first number says; the second is how large it is.
SIZED = """
import numpy as np


def one(kind, size):
    match kind:
        case 0:
            return np.random.default_rng(size).random((size, size), np.float32)
        case 1:
            return [[1.5, 2.5e-7, -3.0]] * size
        case 2:
            return [{"a": number, "b": [True, None]} for number in range(size)]
        case 3:
            return "é\\\\" * size
        case 4:
            return np.full((size, size), np.nan, np.float32)
    return np.arange(size * size).reshape(size, size) % 2 == 0


def predict(inputs):
    return [one(int(row[0]), int(row[1])) for row in inputs]
"""
ARRAY, LISTS, OBJECTS, TEXT, NANS, BOOLS = range(6)
BOUND_BYTES = 500_000


def square(size: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.random.default_rng(size).random((size, size), np.float32)


def expected(kind: int, size: int) -> object:
    match kind:
        case 0:
            return square(size).tolist()
        case 1:
            return [[1.5, 2.5e-7, -3.0]] * size
        case 2:
            return [{"a": number, "b": [True, None]} for number in range(size)]
        case 3:
            return "é\\" * size
    return (np.arange(size * size).reshape(size, size) % 2 == 0).tolist()


LARGE = [(ARRAY, 300), (LISTS, 20_000), (OBJECTS, 15_000), (TEXT, 50_000), (BOOLS, 600)]


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as system:
        system.start_worker(max_output_bytes=BOUND_BYTES)
        sized, total = system.start_container(SIZED, input_type="float64[2]"), system.start_container(SUM, "total")
        twin = system.start_container(SIZED, "twin", input_type="float64[2]")
        arrays = system.start_container(SIZED, "arrays", input_type="float64[2]")
        lists = system.start_container(SIZED, "lists", input_type="float64[2]")
        # Each has answers of one kind, since a version's type is learned once.
        untyped = {name: system.start_container(SIZED, name, input_type="float64[2]") for name in ("objects", "texts")}
        applications = [
            application(input_type="float64[2]", slo_ms=20_000),
            application("total", "total", slo_ms=20_000),
            application("arrays", "arrays", input_type="float64[2]", slo_ms=20_000),
            application("lists", "lists", input_type="float64[2]", slo_ms=20_000),
            *(application(name, name, input_type="float64[2]", slo_ms=20_000) for name in untyped),
            application("both", "m", "twin", input_type="float64[2]", selection=Selection(policy="ensemble")),
        ]
        models = [
            model(version(sized, input_type="float64[2]", cache=True)),
            model(version(total), name="total"),
            model(version(twin, input_type="float64[2]"), name="twin"),
            model(version(arrays, input_type="float64[2]", output_type="float32[*,*]"), name="arrays"),
            model(version(lists, input_type="float64[2]", output_type="float64[*,3]"), name="lists"),
            *(model(version(container, input_type="float64[2]"), name=name) for name, container in untyped.items()),
        ]
        assert system.apply(applications, models).unlinked == {}
        yield system


def ask(system: Serving, path: str, body: object) -> Response:
    with system.worker.connect() as client:
        return client.ask(path, body)


@pytest.mark.parametrize(("kind", "size"), LARGE)
def test_a_large_output_is_the_text_that_python_writes(system: Serving, kind: int, size: int) -> None:
    for _ in range(2):  # the second from the cache, or made again
        answer = ask(system, "/app/predict", {"input": [kind, size]})
        text = json.dumps(expected(kind, size), separators=(",", ":")).encode()
        query_id = answer.json["query_id"]
        assert answer.body == b'{"query_id":%d,"output":%b,"default":false,"confidence":1.0%b}' % (
            query_id,
            text,
            answer.body.rpartition(b'"confidence":1.0')[2][:-1],
        )


def test_large_and_small_outputs_of_one_batch_call(system: Serving) -> None:
    inputs = [[ARRAY, 300], [ARRAY, 2], [LISTS, 20_000], [ARRAY, 301]]
    answer = ask(system, "/app/predict", {"input_batch": inputs})
    outputs = [each["output"] for each in answer.json["batch_predictions"]]
    assert outputs == [expected(kind, size) for kind, size in inputs]


def infer(
    system: Serving, kind: int, size: int, *, is_binary: bool, rows: int = 1, application: str = "app"
) -> Response:
    tensor = {"name": "input", "shape": [rows, 2], "datatype": "FP64", "data": [kind, size] * rows}
    output = {"name": "output", "parameters": {"binary_data": is_binary}}
    return ask(system, f"/v2/models/{application}/infer", {"inputs": [tensor], "outputs": [output]})


@pytest.mark.parametrize("rows", [1, 3])
def test_a_large_array_as_a_tensor(system: Serving, rows: int) -> None:
    (output,) = infer(system, ARRAY, 300, is_binary=False, rows=rows, application="arrays").json["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP32", [rows, 300, 300])
    assert output["data"] == square(300).ravel().tolist() * rows
    answer = infer(system, ARRAY, 300, is_binary=True, rows=rows, application="arrays")
    start = int(answer.headers["inference-header-content-length"])
    assert answer.body[start:] == square(300).tobytes() * rows
    assert json.loads(answer.body[:start])["outputs"][0]["parameters"] == {"binary_data_size": rows * 360_000}


@pytest.mark.parametrize("is_binary", [True, False])
def test_long_lists_of_texts_as_a_tensor(system: Serving, is_binary: bool) -> None:
    answer = infer(system, LISTS, 20_000, is_binary=is_binary, application="lists")
    if is_binary:
        data = answer.body[int(answer.headers["inference-header-content-length"]) :]
        assert np.array_equal(np.frombuffer(data).reshape(20_000, 3), expected(LISTS, 20_000))
    else:
        (output,) = answer.json["outputs"]
        assert (output["datatype"], output["shape"]) == ("FP64", [1, 20_000, 3])
        assert output["data"] == [number for row in expected(LISTS, 20_000) for number in row]  # type: ignore[attr-defined]
    (output,) = infer(system, OBJECTS, 15_000, is_binary=False, application="objects").json["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 1])
    # An output without a type is sent as its JSON.
    assert json.loads(output["data"][0]) == expected(OBJECTS, 15_000)
    (output,) = infer(system, TEXT, 50_000, is_binary=False, application="texts").json["outputs"]
    assert output["data"] == [expected(TEXT, 50_000)]


@pytest.mark.parametrize(("kind", "size"), [(ARRAY, 400), (LISTS, 200_000), (OBJECTS, 150_000), (TEXT, 500_000)])
def test_an_output_over_the_bound_fails_its_query_alone(system: Serving, kind: int, size: int) -> None:
    inputs = [[kind, size], [TEXT, 2], [kind, size]]
    answers = ask(system, "/app/predict", {"input_batch": inputs}).json["batch_predictions"]
    assert answers[1]["output"] == expected(TEXT, 2)
    for answer in (answers[0], answers[2]) if kind != ARRAY else ():
        assert answer["error"] == "output_too_large"
        most = BOUND_BYTES if kind == ARRAY else TEXT_TIMES * BOUND_BYTES
        assert f"expected at most {most}" in answer["cause"] and "--max-output-size" in answer["cause"]
    answer = ask(system, "/app/predict", {"input": [kind, size + 1]})
    assert (answer.status, answer.json["error"]) == (502, "output_too_large")


def test_a_policy_combines_no_output_that_is_too_large_for_it(system: Serving) -> None:
    answers = ask(system, "/both/predict", {"input_batch": [[ARRAY, 300], [ARRAY, 50]]}).json["batch_predictions"]
    assert answers[0]["error"] == "output_too_large" and "policy to combine it" in answers[0]["cause"]
    assert answers[1]["output"] == expected(ARRAY, 50)


def test_nan_in_a_large_array_is_null(system: Serving) -> None:
    answers = ask(system, "/app/predict", {"input_batch": [[NANS, 300], [ARRAY, 300]]}).json["batch_predictions"]
    assert answers[0]["output"] == [[None] * 300] * 300
    assert answers[1]["output"] == expected(ARRAY, 300)


@pytest.mark.parametrize("kind", [ARRAY, LISTS])
def test_feedback_on_a_large_output_is_a_reward(system: Serving, kind: int) -> None:
    size = 340 if kind == ARRAY else 70_000
    query_id = ask(system, "/app/predict", {"input": [kind, size]}).json["query_id"]
    for body in ({"query_id": query_id, "label": 1}, {"input": [kind, size], "label": 1}):
        answer = ask(system, "/app/observe", body)
        assert (answer.status, answer.json["error"]) == (502, "output_too_large")
        assert "send a reward" in answer.json["cause"]
    assert ask(system, "/app/observe", {"query_id": query_id, "reward": 0.5}).status == 200


def test_by_default_an_output_of_64_mb_is_too_large() -> None:
    """It was taken for a hung worker: 16 million numbers became one text in one turn of the loop."""
    with serving() as system:
        system.start_worker()
        sized = system.start_container(SIZED, input_type="float64[2]")
        system.apply(
            [application(input_type="float64[2]", slo_ms=30_000)], [model(version(sized, input_type="float64[2]"))]
        )
        answer = ask(system, "/app/predict", {"input": [ARRAY, 4096]})
        assert (answer.status, answer.json["error"]) == (502, "output_too_large")
        assert "67108864 bytes: expected at most 33554432" in answer.json["cause"]


# Outputs of a container that are no JSON, as its Python code writes them.
LONG_LIES = (
    "b'[' + b'1,' * 300_000 + b'x]'",
    "b'[' + b'1,' * 300_000 + b'1'",
    "b'[' * 2_000_000",
    "b'[' + b'1,' * 300_000 + b'\"\\xff\"]'",
    "b'[' + b'1,' * 300_000 + b'1e999]'",
    "b'1,' * 300_000 + b'1'",
)


def test_a_long_text_that_is_not_json_fails_its_query() -> None:
    # The input is the number of the lie, and comes last in the batch.
    lie = f"({', '.join(LONG_LIES)})[int(struct.unpack('<d', body[-8:])[0])]"
    action = f"send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'\\n'.join([{lie}] * rows))"
    with serving() as system:
        system.start_worker()
        liar, honest = system.start_liar(on_predict=action), system.start_container(SUM, "total")
        applications = [application(slo_ms=20_000), application("total", "total", slo_ms=20_000)]
        system.apply(applications, [model(version(liar)), model(version(honest), name="total")])
        with system.worker.connect() as client:
            for number in range(len(LONG_LIES)):
                answer = client.ask("/app/predict", {"input": [number]})
                assert (number, answer.status, answer.json["error"]) == (number, 502, "model_error")
                assert "not JSON" in answer.json["cause"]
                assert client.ask("/total/predict", {"input": [1.0, 2.0]}).json["output"] == 3.0


def test_outputs_too_large_together_are_evaluated_in_smaller_batches() -> None:
    action = (
        "send(ERROR, batch, b'batch_too_large: outputs are 600 bytes') if rows > 2 else "
        "send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'\\n'.join([b'%d' % rows] * rows))"
    )
    with serving() as system:
        system.start_worker()
        liar = system.start_liar(on_predict=action)
        system.apply([application(slo_ms=20_000)], [model(version(liar))])
        with system.worker.connect() as client:
            values = [[float(value)] for value in range(40)]
            answers = client.ask("/app/predict", {"input_batch": values}).json["batch_predictions"]
        assert {answer["output"] for answer in answers} <= {1, 2}


def test_a_giant_frame_is_dropped_as_it_comes() -> None:
    action = "raw(struct.pack('<IBBHQ', 1 << 29, RESULTS, 0, 0, batch)); [raw(bytes(1 << 20)) for _ in range(512)]"
    with serving() as system:
        system.start_worker()
        liar, honest = system.start_liar(on_predict=action), system.start_container(SUM, "total")
        applications = [application(slo_ms=30_000), application("total", "total", slo_ms=30_000)]
        system.apply(applications, [model(version(liar)), model(version(honest), name="total")])
        with system.worker.connect() as client:
            answer = client.ask("/app/predict", {"input": [1.0]})
            assert (answer.status, answer.json["error"]) == (502, "output_too_large")
            assert client.ask("/total/predict", {"input": [1.0, 2.0]}).json["output"] == 3.0
