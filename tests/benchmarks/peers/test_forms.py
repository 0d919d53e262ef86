"""How peers are asked, and their answers read."""

import json
import struct

import pytest

from benchmarks.peers.forms import BYTES, INPUT, OUTPUT, ROWS, SPLIT, V2, V2_BINARY, Form, Row

ROW = [0.25, 1.0]
RECORD: Row = {"age": 0.25, "fare": None, "sex": "male"}


@pytest.mark.parametrize(
    ("form", "body", "answer"),
    [
        (INPUT, {"input": ROW}, {"label": 3}),
        (BYTES, {"input": ROW}, {"label": 3}),
        (OUTPUT, {"input": ROW}, {"output": 3}),
        (ROWS, {"rows": [ROW]}, [3]),
        (
            V2,
            {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": ROW}]},
            {"outputs": [{"data": [3]}]},
        ),
    ],
)
def test_a_row_and_its_answer(form: Form, body: object, answer: object) -> None:
    _, written = form.write(ROW)
    assert json.loads(written) == body
    assert form.read(answer) == 3.0


@pytest.mark.parametrize(
    ("form", "body", "answer"),
    [
        (INPUT, {"input": RECORD}, {"label": 3}),
        (OUTPUT, {"input": RECORD}, {"output": 3}),
        (ROWS, {"rows": [RECORD]}, [3]),
        (
            SPLIT,
            {"dataframe_split": {"columns": ["age", "fare", "sex"], "data": [[0.25, None, "male"]]}},
            {"predictions": [3]},
        ),
        (
            V2,
            {
                "parameters": {"content_type": "pd"},
                "inputs": [
                    {"name": "age", "shape": [1, 1], "datatype": "FP64", "data": [0.25]},
                    {"name": "fare", "shape": [1, 1], "datatype": "FP64", "data": [None]},
                    {
                        "name": "sex",
                        "shape": [1, 1],
                        "datatype": "BYTES",
                        "data": ["male"],
                        "parameters": {"content_type": "str"},
                    },
                ],
            },
            {"outputs": [{"data": [3]}]},
        ),
    ],
)
def test_a_record_and_its_answer(form: Form, body: object, answer: object) -> None:
    _, written = form.write(RECORD)
    assert json.loads(written) == body
    assert form.read(answer) == 3.0


def test_binary() -> None:
    headers, body = V2_BINARY.write(ROW)
    length = int(headers["Inference-Header-Content-Length"])
    head = json.loads(body[:length])
    assert head["inputs"][0]["parameters"]["binary_data_size"] == len(body) - length
    assert struct.unpack("<2d", body[length:]) == tuple(ROW)


def test_a_whole_request() -> None:
    head, _, body = OUTPUT.request("/m/predict", ROW).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /m/predict HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.splitlines()
    assert b"Content-Type: application/json" in head.splitlines()
