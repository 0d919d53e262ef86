"""Predict calls against a real worker and real containers: what comes back for which body, model and fault."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipper.settings.version import Batching
from tests.serving import SUM, TELLS_APART, Serving, application, model, post, serving, version
from tests.waiting import until

# Raises for a row that begins with a negative number; the other rows are summed.
PICKY = """
def predict(inputs):
    if any(row[0] < 0 for row in inputs):
        raise ValueError("cannot take a negative number")
    return [float(row.sum()) for row in inputs]
"""
SLOW = "import time\ndef predict(inputs):\n    time.sleep(3)\n    return [0] * len(inputs)\n"
TEXTS = "def predict(inputs):\n    return [text[::-1] for text in inputs]\n"
BYTES = "def predict(inputs):\n    return [len(data) for data in inputs]\n"
SHAPES = "def predict(inputs):\n    return [[list(x.shape), str(x.dtype), float(x.sum())] for x in inputs]\n"

TENSORS = ["int32[2]", "int64[*]", "float32[2,3]", "float64[1]", "uint8[2,*]", "bool[3]"]


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as system:
        system.start_worker()
        one, two = (
            system.start_container(SUM),
            system.start_container("def predict(inputs):\n    return [2] * len(inputs)\n", version="2"),
        )
        picky = system.start_container(TELLS_APART + PICKY, "picky")
        slow = system.start_container(SLOW, "slow")
        texts = system.start_container(TEXTS, "texts", input_type="string")
        raw = system.start_container(BYTES, "raw", input_type="bytes")
        applications = [
            application("sum"),
            application("quiet", show_model=False),
            application("picky", "picky"),
            application("picky-default", "picky", default_output='"none"'),
            application("slow", "slow", slo_ms=50.0),
            application("slow-default", "slow", slo_ms=50.0, default_output="-1"),
            application("texts", "texts", input_type="string"),
            application("raw", "raw", input_type="bytes"),
            application("away", "away"),
            application("away-default", "away", default_output="7"),
            application("unlinked", "gone"),
        ]
        models = [
            model(version(one, cache=True), version(two, name="2")),
            model(version(picky), name="picky"),
            model(version(slow, batching=Batching("none")), name="slow"),
            model(version(texts, input_type="string"), name="texts"),
            model(version(raw, input_type="bytes"), name="raw"),
            model(version(), name="away"),
        ]
        for number, input_type in enumerate(TENSORS):
            name = f"tensor-{number}"
            container = system.start_container(SHAPES, name, input_type=input_type)
            applications.append(application(name, name, input_type=input_type))
            models.append(model(version(container, input_type=input_type), name=name))
        applied = system.apply(applications, models)
        assert applied.unlinked == {}
        yield system


def ask(system: Serving, path: str, body: object) -> Any:
    with system.worker.connect() as client:
        response = client.ask(path, body)
    return {"status": response.status, "headers": response.headers} | response.json


def test_answer_has_output_id_and_confidence(system: Serving) -> None:
    with system.worker.connect() as client:
        answer = client.ask("/sum/predict", {"input": [1, 2.5]}).json
    expected = {"output": 3.5, "default": False, "confidence": 1.0, "model": "m", "version": "1"}
    assert answer == {"query_id": answer["query_id"]} | expected


@pytest.mark.parametrize(("more", "version"), [({}, "1"), ({"version": "2"}, "2"), ({"version": 1}, "1")])
def test_answer_names_the_version_that_gave_it_from_the_cache_too(
    system: Serving, more: dict[str, object], version: str
) -> None:
    for _ in range(2):
        answer = ask(system, "/sum/predict", {"input": [9, 9]} | more)
        assert (answer["model"], answer["version"]) == ("m", version)
    batch = ask(system, "/sum/predict", {"input_batch": [[1], [2]]} | more)["batch_predictions"]
    assert [(each["model"], each["version"]) for each in batch] == [("m", version)] * 2


def test_default_names_no_model(system: Serving) -> None:
    answer = ask(system, "/away-default/predict", {"input": [1]})
    assert answer["default"] is True and not {"model", "version", "models"} & answer.keys()


def test_application_may_keep_its_models_to_itself(system: Serving) -> None:
    quiet = ask(system, "/quiet/predict", {"input": [1]})
    assert quiet["output"] == 1 and not {"model", "version", "models"} & quiet.keys()
    infer = {"inputs": [{"name": "input", "shape": [1, 1], "datatype": "FP64", "data": [1]}]}
    reply = ask(system, "/v2/models/quiet/infer", infer)
    assert "model_version" not in reply and reply["parameters"].keys() == {"query_id", "default", "confidence"}


def test_infer_names_the_version_that_gave_the_answer(system: Serving) -> None:
    def tensor(rows: int) -> dict[str, object]:
        return {"name": "input", "shape": [rows, 1], "datatype": "FP64", "data": [3.5] * rows}

    one = ask(system, "/v2/models/sum/infer", {"inputs": [tensor(1)]})
    assert (one["model_name"], one["model_version"]) == ("sum", "1")
    assert (one["parameters"]["model"], one["parameters"]["version"]) == ("m", "1")
    three = ask(system, "/v2/models/sum/versions/2/infer", {"inputs": [tensor(3)], "outputs": [{"name": "models"}]})
    assert three["model_version"] == three["parameters"]["version"] == "2"
    assert three["outputs"] == [{"name": "models", "datatype": "BYTES", "shape": [3], "data": ["m:2"] * 3}]
    default = ask(system, "/v2/models/away-default/infer", {"inputs": [tensor(1)]})
    assert default["parameters"]["default"] is True
    assert "model_version" not in default and "model" not in default["parameters"]


def test_query_ids_are_unique_and_whole_in_any_json_reader(system: Serving) -> None:
    with system.worker.connect() as client:
        ids = [client.ask("/sum/predict", {"input": [number]}).json["query_id"] for number in range(50)]
        batch = client.ask("/sum/predict", {"input_batch": [[1]] * 50}).json["batch_predictions"]
    ids += [part["query_id"] for part in batch]
    assert len(set(ids)) == 100
    assert all(0 < number < 2**53 for number in ids)


@pytest.mark.parametrize("action", ["predict", "predict/", "predict?x=1"])
def test_paths_of_predict(system: Serving, action: str) -> None:
    assert ask(system, f"/sum/{action}", {"input": [1]})["output"] == 1


@pytest.mark.parametrize("action", ["observe", "update"])
def test_paths_of_observe(system: Serving, action: str) -> None:
    query_id = ask(system, "/sum/predict", {"input": [1]})["query_id"]
    answer = ask(system, f"/sum/{action}", {"query_id": query_id, "label": 1})
    assert (answer["status"], answer["observed"], answer["duplicate"]) == (200, True, False)


@pytest.mark.parametrize(
    "more",
    [
        {"context": "user-1"},
        {"context": 7},
        {"context": None},
        {"uid": 0},
        {"uid": "a", "context": "b"},
        {"version": None},
        {"version": "1"},
        {"version": 1},
        {"timeout_ms": 1e9},
        {"timeout_ms": None},
        {"of": {"another": ["kind", [1]]}},
        {"model_name": "x", "selection_policy": []},
    ],
)
def test_what_may_come_with_an_input(system: Serving, more: dict[str, object]) -> None:
    assert ask(system, "/sum/predict", {"input": [1, 2]} | more)["output"] == 3
    assert ask(system, "/sum/predict", more | {"input": [1, 2]})["output"] == 3


@pytest.mark.parametrize(
    "more",
    [
        {"context": 1.5},
        {"context": True},
        {"uid": ["a"]},
        {"version": {}},
        {"version": 1.0},
        {"version": False},
        {"timeout_ms": "9"},
        {"timeout_ms": True},
        {"timeout_ms": 0},
        {"timeout_ms": -0.5},
    ],
)
def test_what_is_of_a_wrong_type_is_named(system: Serving, more: dict[str, object]) -> None:
    answer = ask(system, "/sum/predict", {"input": [1, 2]} | more)
    assert (answer["status"], answer["error"]) == (400, "malformed_request")
    assert next(iter(more)) in answer["cause"]


@pytest.mark.parametrize("wanted", ["2", 2])
def test_version_picks_one_that_is_not_current(system: Serving, wanted: object) -> None:
    assert ask(system, "/sum/predict", {"input": [7], "version": wanted})["output"] == 2
    assert ask(system, "/sum/predict", {"version": wanted, "input": [7]})["output"] == 2
    batch = ask(system, "/sum/predict", {"input_batch": [[7], [8]], "version": wanted})
    assert [part["output"] for part in batch["batch_predictions"]] == [2, 2]


@pytest.mark.parametrize("body", [{"input": [7]}, {"input_batch": [[7], [8]]}])
@pytest.mark.parametrize("wanted", ["3", "", "\U0001f600" * 1000])
def test_unknown_version_is_not_found(system: Serving, body: dict[str, object], wanted: str) -> None:
    answer = ask(system, "/sum/predict", body | {"version": wanted})
    assert (answer["status"], answer["error"]) == (404, "not_found")
    assert "version" in answer["cause"] and len(answer["cause"]) < 1000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[1, 2]",
        b'"input"',
        b"{}",
        b'{"inputs": [1]}',
        b'{"input": [1], "input_batch": [[1]]}',
        b'{"input": [1, 2]} x',
        b'{"input": [1, 2],}',
        b'{"input": [NaN]}',
        b'{"input": [1e400]}',
        b"{'input': [1]}",
        b'{"input": [1]}\xff',
        b'\xff{"input": [1]}',
        b'{"input_batch": []}',
        b'{"input_batch": {}}',
        b'{"input_batch": 1}',
        b'{"input_batch": [[1], [NaN]]}',
        b'{"input_batch": [' + b",".join([b"[1]"] * 10_001) + b"]}",
        b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"input": ' + b"[" * 100_000,
        b'{"input": [1], "version": ' + b"1" * 5000 + b"}",
        b"\x00" * 1000,
    ],
)
def test_malformed_body_is_refused_with_its_cause(system: Serving, body: bytes) -> None:
    before = system.worker.statistics().requests_refused.get("malformed_request", 0)
    answer = ask(system, "/sum/predict", body)
    assert (answer["status"], answer["error"]) == (400, "malformed_request")
    assert 0 < len(answer["cause"]) < 1000
    assert system.worker.statistics().requests_refused["malformed_request"] == before + 1


@pytest.mark.parametrize(
    "text", ["1", '"1"', "null", "true", "{}", '{"a": [1]}', "[[1]]", '["1"]', "[null]", "[true]", "[{}]", "[1, [2]]"]
)
@pytest.mark.parametrize("form", ['{"input": %s}', '{"input_batch": [[1], %s]}'])
def test_input_of_a_wrong_kind_is_refused_with_what_was_expected(system: Serving, form: str, text: str) -> None:
    answer = ask(system, "/sum/predict", (form % text).encode())
    assert (answer["status"], answer["error"]) == (400, "wrong_input")
    assert "float64" in answer["cause"]


def test_the_last_of_equal_keys_counts(system: Serving) -> None:
    assert ask(system, "/sum/predict", b'{"input": [1], "input": [2]}')["output"] == 2


def test_key_may_be_written_with_escapes(system: Serving) -> None:
    assert ask(system, "/sum/predict", rb'{"\u0069nput": [3]}')["output"] == 3


@pytest.mark.parametrize("size", [1, 2, 10_000])
def test_batch_answers_each_input_in_order(system: Serving, size: int) -> None:
    answer = ask(system, "/sum/predict", {"input_batch": [[number, 1] for number in range(size)]})
    assert [part["output"] for part in answer["batch_predictions"]] == [number + 1 for number in range(size)]


def test_empty_list_is_an_input_where_any_length_will_do(system: Serving) -> None:
    assert ask(system, "/sum/predict", {"input": []})["output"] == 0


@pytest.mark.parametrize("text", ["", "abc", "é \U0001f600", 'quote " slash \\ \n\t\u0001', "\u0000", "x" * 100_000])
def test_strings(system: Serving, text: str) -> None:
    for body in ({"input": text}, {"input": text, "context": "c"}):
        assert ask(system, "/texts/predict", body)["output"] == text[::-1]
        assert ask(system, "/texts/predict", json.dumps(body, ensure_ascii=False).encode())["output"] == text[::-1]


@pytest.mark.parametrize("body", [rb'{"input": "\ud800"}', b'{"input": "\xff"}', b'{"input": "a\nb"}', b'{"input": "a'])
def test_strings_that_are_not_unicode_text_are_refused(system: Serving, body: bytes) -> None:
    answer = ask(system, "/texts/predict", body)
    assert (answer["status"], answer["error"]) == (400, "malformed_request")


@pytest.mark.parametrize(("text", "size"), [("", 0), ("AA==", 1), ("AAAA", 3), ("/+8=", 2)])
def test_bytes_are_base64(system: Serving, text: str, size: int) -> None:
    assert ask(system, "/raw/predict", {"input": text})["output"] == size


@pytest.mark.parametrize("value", ["A", "AA", "AA=", "A A=", "_-8=", "é", 5, ["AA=="], None])
def test_bytes_that_are_not_base64_are_refused(system: Serving, value: object) -> None:
    answer = ask(system, "/raw/predict", {"input": value})
    assert (answer["status"], answer["error"]) == (400, "wrong_input")
    assert "base64" in answer["cause"]


@pytest.mark.parametrize(
    ("number", "value", "output"),
    [
        (0, [1, -2], [[2], "int32", -1.0]),
        (1, [1, 2**40, 3], [[3], "int64", 2.0**40 + 4]),
        (2, [[1, 2, 3], [4, 5, 6.5]], [[2, 3], "float32", 21.5]),
        (3, [4], [[1], "float64", 4.0]),
        (4, [[1, 2, 3], [4, 5, 255]], [[2, 3], "uint8", 270.0]),
        (5, [True, False, 1], [[3], "bool", 2.0]),
    ],
)
def test_the_model_gets_the_declared_type_and_shape(
    system: Serving, number: int, value: object, output: object
) -> None:
    assert ask(system, f"/tensor-{number}/predict", {"input": value})["output"] == output


@pytest.mark.parametrize(
    ("number", "value"),
    [(0, [1]), (0, [1, 2, 3]), (1, [[1]]), (2, [[1, 2], [3]]), (2, [1] * 6), (3, []), (4, [[1], [2, 3]]), (5, [1, 0])],
)
def test_wrong_shape_is_refused_with_the_declared_one(system: Serving, number: int, value: object) -> None:
    answer = ask(system, f"/tensor-{number}/predict", {"input": value})
    assert (answer["status"], answer["error"]) == (400, "wrong_input")
    assert TENSORS[number] in answer["cause"]


def test_model_that_raises_on_one_row_answers_the_others(system: Serving) -> None:
    answer = ask(system, "/picky/predict", {"input_batch": [[1], [-1], [3]]})
    first, second, third = answer["batch_predictions"]
    assert (first["output"], third["output"]) == (1, 3)
    assert second["error"] == "model_error"
    assert "cannot take a negative number" in second["cause"]


def test_model_error_without_default(system: Serving) -> None:
    answer = ask(system, "/picky/predict", {"input": [-1]})
    assert (answer["status"], answer["error"]) == (502, "model_error")
    assert "cannot take a negative number" in answer["cause"]


def test_model_error_with_default(system: Serving) -> None:
    answer = ask(system, "/picky-default/predict", {"input": [-1]})
    assert (answer["status"], answer["output"], answer["default"]) == (200, "none", True)
    assert answer["default_reason"] == "model_error"
    assert "cannot take a negative number" in answer["default_explanation"]


def test_timeout_without_default(system: Serving) -> None:
    answer = ask(system, "/slow/predict", {"input": [1]})
    assert (answer["status"], answer["error"]) == (504, "timeout")
    assert "slow:1" in answer["cause"]


@pytest.mark.parametrize("padding", ["", " " * 20_000])
def test_a_timeout_of_a_call_shortens_the_slo(system: Serving, padding: str) -> None:
    # Inputs that no other test sends: an answer from the cache is there at once.
    rest = f', "timeout_ms": 0.001{padding}}}'
    answer = ask(system, "/sum/predict", f'{{"input": [-1, 0.{len(padding)}]{rest}'.encode())
    assert (answer["status"], answer["error"]) == (504, "timeout")
    batch = ask(system, "/sum/predict", f'{{"input_batch": [[-2], [-3, 0.{len(padding)}]]{rest}'.encode())
    assert [each["error"] for each in batch["batch_predictions"]] == ["timeout", "timeout"]


def test_timeout_with_default(system: Serving) -> None:
    answer = ask(system, "/slow-default/predict", {"input": [2]})
    assert (answer["status"], answer["output"], answer["default"]) == (200, -1, True)
    assert answer["default_reason"] == "timeout"


def test_no_replica_without_default(system: Serving) -> None:
    answer = ask(system, "/away/predict", {"input": [1]})
    assert (answer["status"], answer["error"]) == (503, "no_replica")
    assert answer["headers"]["retry-after"] == "1"


def test_no_replica_with_default(system: Serving) -> None:
    answer = ask(system, "/away-default/predict", {"input": [1]})
    assert (answer["status"], answer["output"], answer["default_reason"]) == (200, 7, "no_replica")


def test_linked_model_that_is_not_deployed(system: Serving) -> None:
    answer = ask(system, "/unlinked/predict", {"input": [1]})
    assert (answer["status"], answer["error"]) == (503, "no_replica")
    assert "gone" in answer["cause"]


def test_more_than_the_queue_takes_is_overloaded_at_once(tmp_path: Path) -> None:
    may_answer = tmp_path / "may answer"
    waits = (
        f"import os, time\ndef predict(inputs):\n    while not os.path.exists({str(may_answer)!r}): time.sleep(0.01)\n"
    )
    with serving() as system:
        system.start_worker()
        slow = system.start_container(waits + "    return [0] * len(inputs)\n")
        system.apply([application(slo_ms=100_000.0)], [model(version(slow))])
        with system.worker.connect() as client:
            call = post("/app/predict", {"input_batch": [[number] for number in range(10_000)]})
            client.send(call + call)
            # None of them is answered by then.
            until(lambda: system.worker.statistics().versions[0].rejected > 3000)
            may_answer.touch()
            parts = [part for _ in range(2) for part in client.read().json["batch_predictions"]]
        assert {part.get("error") for part in parts} == {None, "overloaded"}
        assert sum(part.get("error") == "overloaded" for part in parts) > 3000


# Holds a batch until it is killed, and tells that it has one.
HOLDING = "import time\ndef predict(inputs):\n    print('got', len(inputs), flush=True)\n    time.sleep(60)\n"


def test_query_of_a_killed_replica_is_sent_to_another() -> None:
    with serving() as system:
        system.start_worker()
        holding, good = system.start_container(HOLDING), system.start_container(SUM)
        system.apply([application(slo_ms=20_000.0)], [model(version(holding, batching=Batching("none")))])
        with system.worker.connect() as client:
            client.send(post("/app/predict", {"input": [20, 22]}))
            until(lambda: "got 1" in holding.log)
            both = version(holding, good, batching=Batching("none"))
            assert system.apply([application(slo_ms=20_000.0)], [model(both)]).unlinked == {}
            holding.send(signal.SIGKILL)
            assert client.read().json["output"] == 42


@pytest.mark.long
def test_query_of_the_only_replica_killed_says_so_at_its_deadline() -> None:
    with serving() as system:
        system.start_worker()
        holding = system.start_container(HOLDING)
        system.apply([application(slo_ms=8000.0, default_output="0")], [model(version(holding))])
        with system.worker.connect() as client:
            client.send(post("/app/predict", {"input": [1]}))
            until(lambda: "got 1" in holding.log)
            holding.send(signal.SIGKILL)
            answer = client.read().json
        assert (answer["default"], answer["default_reason"]) == (True, "no_replica")
        assert "m:1" in answer["default_explanation"]


def test_input_that_kills_containers_is_not_tried_for_ever() -> None:
    deadly = "import os\ndef predict(inputs):\n    os.kill(os.getpid(), 9)\n"
    with serving() as system:
        system.start_worker()
        replicas = [system.start_container(deadly) for _ in range(3)]
        system.apply([application(slo_ms=20_000.0)], [model(version(*replicas))])
        answer = ask(system, "/app/predict", {"input": [1]})
        assert (answer["status"], answer["error"]) == (502, "model_error")
        assert "died" in answer["cause"]
        until(lambda: sum(replica.is_running for replica in replicas) == 1)


def test_container_that_hangs_times_its_queries_out_and_then_goes_on() -> None:
    with serving() as system:
        system.start_worker()
        container = system.start_container(SUM)
        system.apply([application(), application("hasty", slo_ms=200.0)], [model(version(container))])
        # On a busy machine not at once; who is believed to be late would not be asked.
        until(lambda: ask(system, "/hasty/predict", {"input": [1]}).get("output") == 1)
        container.send(signal.SIGSTOP)
        assert ask(system, "/hasty/predict", {"input": [2]})["error"] == "timeout"
        container.send(signal.SIGCONT)
        assert ask(system, "/app/predict", {"input": [3]})["output"] == 3
