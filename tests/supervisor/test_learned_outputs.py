"""A model without a sample: the type of its outputs is learned once for all workers, replicas and restarts."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.supervisor.live_server import Server
from tests.waiting import TIMEOUT_S, until

# A row above 0 has whole numbers for its answer, and one below a text. No row is made to warm up code of a user.
CODE = """
import numpy as np

def predict(inputs):
    return [np.arange(3, dtype=np.int32) if row[0] > 0 else "text" for row in inputs]
"""
# A row above 0 has an object of objects for its answer, which no type describes, and 0 an answer that shows no type.
OF_NO_TYPE = """
def predict(inputs):
    return [{"box": {"x": 1}} if row[0] > 0 else "text" if row[0] < 0 else None for row in inputs]
"""
# Bytes and whole numbers, whose JSON shows neither.
EXACT = """
import numpy as np

def raw(inputs):
    return [b"\\0\\xff" for _ in inputs]

def whole(inputs):
    return inputs[:, 0].astype(np.int64)

predict = {name}
"""
FORMS = {"int32[*]": ("INT32", [1, 3]), "string": ("BYTES", [1, 1])}


def infer(server: Server, number: float, name: str = "app") -> httpx.Response:
    """The answer to a request on a connection of its own, which any worker may take."""
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [number]}
    return httpx.post(f"{server.place.query_url}/v2/models/{name}/infer", json={"inputs": [tensor]}, timeout=TIMEOUT_S)


def told(server: Server) -> tuple[str, list[int]]:
    metadata = httpx.get(f"{server.place.query_url}/v2/models/app", timeout=TIMEOUT_S).json()
    (output,) = metadata["outputs"]
    return output["datatype"], output["shape"]


def recorded(server: Server, model: str = "m") -> Any:
    """The recorded type of a model's outputs; "none" if the record says that they have none."""
    version = server.call("GET", f"/models/{model}/versions/1")
    return "none" if version["output_is_untyped"] else version["output_type"]


@pytest.mark.long
def test_two_workers_that_learn_different_types_answer_one(server: Server) -> None:
    server.start("--workers", "2")
    assert server.deploy("m", CODE, input_type="float64[1]", replicas=2)["state"] == "ready"
    assert recorded(server) is None
    server.call("POST", "/applications", {"name": "app", "slo_ms": 20_000, "links": [{"model": "m"}]})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda place: infer(server, 1 - 2 * (place % 2)), range(32)))
    output_type = until(lambda: recorded(server))
    datatype, shape = FORMS[output_type]
    # Both workers: a new connection goes to either.
    until(lambda: {told(server)[0] for _ in range(12)} == {datatype})
    for number, of_type in ((1, "int32[*]"), (-1, "string")):
        answers = [infer(server, number) for _ in range(12)]
        if of_type == output_type:
            found = [(each.json()["outputs"][0]["datatype"], each.json()["outputs"][0]["shape"]) for each in answers]
            assert found == [(datatype, shape)] * 12
        else:
            assert all("--output-type" in each.json()["error"] for each in answers)
    # Neither a restart of the server nor one of its containers has it learned again.
    server.kill_everything()
    server.start("--workers", "2").until_ready()
    other = 1 if output_type == "string" else -1
    assert all("--output-type" in infer(server, other).json()["error"] for _ in range(4))
    assert {told(server)[0] for _ in range(6)} == {datatype} and recorded(server) == output_type


@pytest.mark.long
def test_a_first_answer_of_no_type_decides_for_good(server: Server) -> None:
    server.start("--workers", "2")
    for model, sample in (("plain", None), ("sampled", [1])):
        given = {} if sample is None else {"sample": sample}
        assert server.deploy(model, OF_NO_TYPE, input_type="float64[1]", replicas=2, **given)["state"] == "ready"
        server.call("POST", "/applications", {"name": model, "slo_ms": 20_000, "links": [{"model": model}]})
    assert (recorded(server, "plain"), recorded(server, "sampled")) == (None, "none"), "the sample's answer decides"

    def data(model: str, number: float) -> set[tuple[str, str]]:
        """The type and the content of answers by both workers."""
        outputs = [infer(server, number, model).json()["outputs"] for _ in range(12)]
        return {(one["datatype"], one["data"][0]) for (one,) in outputs}

    assert data("plain", 0) == {("BYTES", "null")}
    assert recorded(server, "plain") is None, "null shows nothing"
    assert data("plain", 1) == {("BYTES", '{"box":{"x":1}}')}
    until(lambda: recorded(server, "plain") == "none")
    for model in ("plain", "sampled"):
        assert data(model, -1) == {("BYTES", '"text"')}
    server.kill_everything()
    server.start("--workers", "2").until_ready()
    for model in ("plain", "sampled"):
        assert data(model, -1) == {("BYTES", '"text"')} and recorded(server, model) == "none"


def test_the_first_answer_has_the_type_that_its_json_does_not_show(server: Server) -> None:
    """Bytes were texts of base64 for good, and whole numbers floats, if no sample had shown them before."""
    server.start("--workers", "2")
    wanted = {"raw": ("BYTES", "AP8="), "whole": ("INT64", 7)}
    for model in wanted:
        server.deploy(model, EXACT.replace("{name}", model), input_type="float64[1]", replicas=2)
        server.call("POST", "/applications", {"name": model, "slo_ms": 20_000, "links": [{"model": model}]})
        for _ in range(12):
            (output,) = infer(server, 7, model).json()["outputs"]
            assert (output["datatype"], output["data"][0]) == wanted[model]
            assert output.get("parameters") == ({"content_type": "base64"} if model == "raw" else None)
    assert (until(lambda: recorded(server, "raw")), until(lambda: recorded(server, "whole"))) == ("bytes", "int64[]")
