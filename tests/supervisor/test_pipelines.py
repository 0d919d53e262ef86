"""Pipelines through a whole server: applications whose answers are made from the answers of others."""

import itertools
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from clipper.cli.main import main
from tests.supervisor.live_server import Server, answering
from tests.waiting import TIMEOUT_S, until

UPPER = "def predict(inputs): return [text.upper() for text in inputs]\n"
# Sleeps for longer than any test waits.
WEAK = """
import os, time
def predict(inputs):
    if "die" in inputs:
        os._exit(1)
    if "hang" in inputs:
        time.sleep(3600)
    return inputs
"""
ENCODE = """
import numpy as np
def predict(inputs):
    return np.array([[len(text), text.count("A")] for text in inputs], np.float32)
"""
ADD = "def predict(inputs): return [float(row.sum()) for row in inputs]\n"
GATE = """
def predict(inputs):
    return [{"label": text[:1], "sure": len(text) / 10} for text in inputs]
"""
BOXES = """
def predict(inputs):
    return [[[float(place), 1.0] for place in range(int(text))] for text in inputs]
"""
RANK = """
def predict(inputs):
    return [float(left[0] * 10 + right[1]) for left, right in zip(inputs["left"], inputs["right"])]
"""
NAME = "def predict(inputs): return [f'box {row[0]:g}' for row in inputs]\n"
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "upper": (UPPER, {"input_type": "string", "output_type": "string"}),
    "encode": (ENCODE, {"input_type": "string", "output_type": "float32[2]"}),
    "add": (ADD, {"input_type": "float64[2]"}),
    "gate": (GATE, {"input_type": "string", "output_type": "label: string, sure: float64"}),
    "boxes": (BOXES, {"input_type": "string", "output_type": "float64[*,2]", "sample": "3"}),
    "rank": (RANK, {"input_type": "left: float64[2], right: float64[2]"}),
    "name": (NAME, {"input_type": "float64[2]"}),
    "right": (answering("yes"), {"input_type": "string"}),
    "wrong": (answering("no"), {"input_type": "string"}),
}
SLO_MS = 20_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the models, and an application of the same name for each."""
    server = Server(tmp_path_factory.mktemp("pipelines") / "home").start()
    try:
        versions = {
            name: server.deploy(name, code, wait=False, **fields)["version"] for name, (code, fields) in MODELS.items()
        }
        for name, version in versions.items():
            found = server.decided(name, version)
            assert found["state"] == "ready", found
            server.call("POST", "/applications", {"name": name, "slo_ms": SLO_MS, "links": [{"model": name}]})
        yield server
        assert server.stop() == 0
    finally:
        server.clean_up()


def pipeline(server: Server, name: str, steps: dict[str, Any], **fields: Any) -> None:
    """Make a pipeline whose steps ask the applications of the same names, unless they name others."""
    steps = {step: {"application": step, **wiring} for step, wiring in steps.items()}
    fields = {"name": name, "slo_ms": SLO_MS, "input_type": "string", "steps": steps, **fields}
    server.call("POST", "/applications", fields)


def refusal(server: Server, name: str, steps: dict[str, Any], **fields: Any) -> tuple[int, str]:
    steps = {step: {"application": step, **wiring} for step, wiring in steps.items()}
    body = {"name": name, "slo_ms": SLO_MS, "input_type": "string", "steps": steps, **fields}
    answer = server.ask("POST", "/applications", json.dumps(body).encode())
    return answer.status_code, answer.text


def test_chain_of_three_says_which_versions_answered(server: Server) -> None:
    pipeline(server, "chain", {"upper": {}, "encode": {"input": "upper"}, "add": {"input": "encode"}})
    answer = server.predict("chain", "banana")
    assert answer["output"] == 9.0
    assert answer["models"] == ["upper:1", "encode:1", "add:1"]
    assert [part["output"] for part in server.predict_batch("chain", ["a", "", "xAx"])] == [2.0, 0.0, 4.0]


def test_two_encoders_side_by_side_make_a_record(server: Server) -> None:
    steps = {
        "encode": {},
        "upper": {},
        "again": {"application": "encode", "input": "upper"},
        "rank": {"input": {"left": "encode", "right": "again"}},
    }
    pipeline(server, "ranking", steps, output={"score": "rank", "text": "upper", "query": "query", "vector": "encode"})
    assert server.predict("ranking", "banana")["output"] == {
        "score": 63.0,
        "text": "BANANA",
        "query": "banana",
        "vector": [6.0, 0.0],
    }


def test_step_is_asked_only_when_its_comparison_holds(server: Server) -> None:
    pipeline(server, "cascade", {"gate": {}, "upper": {"when": "gate.sure < 0.5"}}, output="upper or gate.label")
    assert server.predict("cascade", "abc")["output"] == "ABC"
    answer = server.predict("cascade", "abcdef")
    assert answer["output"] == "a"
    assert (answer["model"], answer["version"]) == ("gate", "1")
    # If no step has an output, the query gets none.
    pipeline(server, "nothing", {"gate": {}, "upper": {"when": 'gate.label == "x"'}}, output="upper")
    assert server.predict("nothing", "abc")["output"] is None


def test_each_element_of_a_list_is_a_row(server: Server) -> None:
    pipeline(server, "detector", {"boxes": {}, "name": {"for_each": "boxes", "input": "item", "at_most": 5}})
    assert server.predict("detector", "3")["output"] == ["box 0", "box 1", "box 2"]
    assert server.predict("detector", "0")["output"] == []
    refused = server.predict("detector", "6")
    assert refused["error"] == "model_error"
    assert "step name: boxes has 6 elements: expected at most 5" in refused["cause"]
    many = {"boxes": {}, "add": {"for_each": "boxes", "input": "item", "at_most": 1000}}
    pipeline(server, "many", many, output={"sums": "add"})
    assert server.predict("many", "1000")["output"]["sums"] == [place + 1.0 for place in range(1000)]


@pytest.mark.parametrize("text", [pytest.param("hang", marks=pytest.mark.long), "die"])
def test_step_without_an_answer_is_named_or_takes_its_default(server: Server, text: str) -> None:
    weak = f"weak-{text}"
    assert server.deploy(weak, WEAK, input_type="string", sample="fine")["state"] == "ready"
    for name, fields in (("bare", {}), ("safe", {"default_output": "AAA"}), ("absent", {"default_output": None})):
        own = {"name": f"{text}-{name}-step", "slo_ms": 4000, "links": [{"model": weak}], **fields}
        server.call("POST", "/applications", own)
        steps = {"first": {"application": own["name"]}, "encode": {"input": "first or query"}}
        pipeline(server, f"{text}-{name}", steps, slo_ms=4000, default_output="all late")
    answer = server.predict(f"{text}-bare", text)
    assert (answer["output"], answer["default"]) == ("all late", True)
    assert answer["default_reason"] in ("timeout", "no_replica", "model_error", "overloaded")
    assert "step first: " in answer["default_explanation"]
    assert server.predict(f"{text}-safe", text)["output"] == [3.0, 3.0]
    # A default of null is an output that is missing.
    assert server.predict(f"{text}-absent", text)["output"] == [float(len(text)), 0.0]


def test_answer_of_another_type_is_told_with_both_steps(server: Server) -> None:
    # The type of its outputs is learned as a text, so the server does not know that they are no numbers.
    code = "def predict(inputs): return [[1.0, 2.0] if text == 'fits' else 'a text' for text in inputs]\n"
    assert server.deploy("odd", code, input_type="string", sample="fits")["state"] == "ready"
    server.call("POST", "/applications", {"name": "odd", "slo_ms": SLO_MS, "links": [{"model": "odd"}]})
    pipeline(server, "mismatch", {"odd": {}, "add": {"input": "odd"}})
    assert server.predict("mismatch", "fits")["output"] == 3.0
    answer = server.predict("mismatch", "other")
    assert answer["error"] == "model_error"
    assert 'step add: its input has "a text": expected float64[2]' in answer["cause"]


def test_steps_change_and_go_while_it_serves(server: Server) -> None:
    pipeline(server, "changing", {"gate": {}}, output="gate.label")
    assert server.predict("changing", "abc")["output"] == "a"
    steps = {"upper": {"application": "upper"}}
    server.call("PATCH", "/applications/changing", {"steps": steps, "output": "upper"})
    shown = server.call("GET", "/applications/changing")
    assert (shown["steps"], shown["output"]) == (steps, "upper")
    until(lambda: server.predict("changing", "abc")["output"] == "ABC")
    # An application that a pipeline asks stays, and its model may go: queries are then told which step lacks it.
    assert "step 'upper' of 'ch" in server.call("DELETE", "/applications/upper", status=409)["cause"]
    own = {"name": "left", "slo_ms": SLO_MS, "input_type": "string", "links": [{"model": "right"}]}
    server.call("POST", "/applications", own)
    server.call("PATCH", "/applications/changing", {"steps": {"only": {"application": "left"}}, "output": None})
    until(lambda: server.predict("changing", "abc")["output"] == "yes")
    server.call("DELETE", "/applications/left/links/right")
    until(lambda: server.predict("changing", "abc").get("error") == "no_replica")
    assert "step only: " in server.predict("changing", "abc")["cause"]
    server.call("DELETE", "/applications/changing")
    server.call("DELETE", "/applications/left")


def test_what_does_not_fit_is_refused_with_its_place(server: Server) -> None:
    chain = {"upper": {}, "add": {"input": "upper"}}
    assert refusal(server, "bad", chain) == (
        400,
        '{"error":"invalid_argument","cause":"steps.add.input: it is string: expected float64[2]"}',
    )
    assert "application 'nobody' does not exist" in refusal(server, "bad", {"nobody": {}})[1]
    assert (
        "steps need each other in a circle"
        in refusal(server, "bad", {"upper": {"input": "gate"}, "gate": {"input": "upper"}})[1]
    )
    assert (
        "steps.add.input: upper is string and has no 'x'"
        in refusal(server, "bad", {"upper": {}, "add": {"input": "upper.x"}})[1]
    )
    assert "links no models" in refusal(server, "bad", {"upper": {}}, links=[{"model": "upper"}])[1]
    assert "is a pipeline itself" in refusal(server, "bad", {"bad": {}})[1]
    pipeline(server, "inner", {"upper": {}})
    assert "is a pipeline itself" in refusal(server, "bad", {"inner": {}})[1]
    assert refusal(server, "bad", {"upper": {}}, policy={"name": "exp3"})[0] == 400
    assert refusal(server, "bad", {}, output="upper")[0] == 400
    # The query's type follows from the step that takes it as it is.
    server.call("POST", "/applications", {"name": "typed", "steps": {"add": {"application": "add"}}})
    assert server.call("GET", "/applications/typed")["input_type"] == "float64[2]"


def test_label_of_the_end_teaches_each_step(server: Server) -> None:
    links = [{"model": "wrong"}, {"model": "right"}]
    fields = {"slo_ms": SLO_MS, "links": links, "policy": {"name": "epsilon_greedy", "parameters": {"epsilon": 0.2}}}
    server.call("POST", "/applications", {"name": "choosing", "ramp": None, "half_life": None, **fields})
    pipeline(server, "taught", {"choosing": {}, "upper": {"input": "choosing"}})
    for place in range(40):
        query_id = server.predict("taught", f"text {place}")["query_id"]
        assert server.observe("taught", query_id=query_id, label="YES").is_success
    known = server.call("GET", "/applications/choosing/policy")
    assert known["observations"] == 40
    best = max(known["models"], key=lambda model: model["share"])
    assert best["model"] == "right"
    told = server.observe("taught", input="text", label="YES")
    assert (told.status_code, "is a pipeline: send feedback on it with the query_id" in told.text) == (404, True)
    # Feedback counts once, for the steps, too.
    assert server.observe("taught", query_id=query_id, label="YES").is_success
    assert server.call("GET", "/applications/choosing/policy")["observations"] == 40


def test_equal_queries_of_a_step_are_computed_once(server: Server) -> None:
    pipeline(server, "cached", {"gate": {}, "encode": {}}, output={"label": "gate.label", "vector": "encode"})
    before = batches(server, "encode")
    assert {json.dumps(server.predict("cached", "same")["output"]) for _ in range(5)} == {
        '{"label": "s", "vector": [4.0, 0.0]}'
    }
    assert batches(server, "encode") - before == 1


# By text: a step's answer, which the next step cannot take unless the text is another.
NONSENSE = """
import numpy as np
def predict(inputs):
    answers = {
        "nan": lambda: [float("nan"), float("inf")],
        "deep": lambda: eval("[" * 60 + "]" * 60),
        "object": lambda: {"boxes": {"x": 1}},
        "set": lambda: {1, 2},
        "nothing": lambda: None,
        "ten thousand": lambda: [[1.0, 2.0]] * 10_000,
        "short": lambda: [[1.0]],
        "texts": lambda: ["a", "b"],
    }
    return [answers.get(text, lambda: [[1.0, 2.0]])() for text in inputs]
"""


@pytest.fixture(scope="module")
def nonsense(server: Server) -> Server:
    """A pipeline whose first step answers what the second one cannot take."""
    found = server.deploy("nonsense", NONSENSE, input_type="string", sample="fine")
    assert found["state"] == "ready", found
    server.call("POST", "/applications", {"name": "nonsense", "slo_ms": SLO_MS, "links": [{"model": "nonsense"}]})
    pipeline(server, "odd-boxes", {"nonsense": {}, "add": {"for_each": "nonsense", "input": "item"}})
    return server


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nan", "step add: "),
        ("deep", "step add: "),
        ("object", "step add: nonsense is no list"),
        ("set", "step nonsense: "),
        ("ten thousand", "step add: nonsense has 10000 elements: expected at most 100"),
        ("short", "step add: "),
        ("texts", "step add: "),
    ],
)
def test_nonsense_of_a_step_is_an_error_that_names_the_step(nonsense: Server, text: str, says: str) -> None:
    answer = nonsense.predict("odd-boxes", text)
    assert answer["error"] == "model_error", answer
    assert answer["cause"].startswith(says), answer
    assert nonsense.predict("odd-boxes", "fine")["output"] == [3.0]


def test_nothing_in_place_of_a_list_skips_the_step(nonsense: Server) -> None:
    assert nonsense.predict("odd-boxes", "nothing")["output"] is None


def test_step_whose_model_is_scaled_to_0_is_named_at_once(server: Server) -> None:
    assert server.deploy("idle", UPPER, input_type="string")["state"] == "ready"
    server.call("POST", "/applications", {"name": "idle", "slo_ms": SLO_MS, "links": [{"model": "idle"}]})
    pipeline(server, "idled", {"upper": {}, "idle": {"input": "upper"}})
    assert server.predict("idled", "a")["output"] == "A"
    server.call("POST", "/models/idle/scale", {"replicas": 0})
    # A query that comes before the workers know has its output in the cache.
    numbers = itertools.count()
    answer = until(lambda: (found := server.predict("idled", f"b{next(numbers)}")).get("error") and found)
    assert (answer["error"], answer["cause"].startswith("step idle: ")) == ("no_replica", True)
    # The cache has lost the model's earlier outputs, too.
    assert server.predict("idled", "a")["error"] == "no_replica"
    server.call("POST", "/models/idle/scale", {"replicas": 1})
    until(lambda: server.predict("idled", "c").get("output") == "C")


def test_steps_that_change_and_go_under_load_answer_every_query_once(server: Server) -> None:
    """Queries are between steps while the steps are exchanged, and while an application of one is made anew."""
    slow = "import time\ndef predict(inputs):\n    time.sleep(0.02)\n    return inputs\n"
    assert server.deploy("slow", slow, input_type="string", output_type="string", cache=False)["state"] == "ready"
    for name in ("slow", "renamed"):
        server.call("POST", "/applications", {"name": name, "slo_ms": SLO_MS, "links": [{"model": "slow"}]})
    forms = (
        {"first": {"application": "slow"}, "last": {"application": "upper", "input": "first"}},
        {"other": {"application": "renamed"}, "last": {"application": "upper", "input": "other"}},
    )
    pipeline(server, "moving", forms[0])
    url, stopped = f"{server.place.query_url}/moving/predict", threading.Event()

    def ask(worker: int) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        with httpx.Client(timeout=TIMEOUT_S) as client:
            while True:
                is_last, text = stopped.is_set(), f"q {worker} {len(found)}"
                found.append((text, client.post(url, json={"input": text}).json()))
                if is_last:
                    return found

    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(ask, worker) for worker in range(4)]
        for turn in range(12):
            own = {"name": "renamed", "slo_ms": SLO_MS, "links": [{"model": "slow"}]}
            server.call("PATCH", "/applications/moving", {"steps": forms[(turn + 1) % 2]})
            if turn % 2:  # nothing new asks it now
                server.call("DELETE", "/applications/renamed")
                server.call("POST", "/applications", own)
        stopped.set()
        answers = [each for one in asking for each in one.result()]
    for text, answer in answers:
        if "error" in answer:  # its step's application went under it
            assert answer["cause"].startswith("step other: "), answer
        else:
            assert answer["output"] == text.upper()
    assert all("error" not in one.result()[-1][1] for one in asking)
    ids = [answer["query_id"] for _, answer in answers if "query_id" in answer]
    assert len(set(ids)) == len(ids)


def test_label_for_a_step_teaches_its_application(server: Server) -> None:
    links = [{"model": "wrong"}, {"model": "right"}]
    fields = {"slo_ms": SLO_MS, "links": links, "policy": {"name": "epsilon_greedy"}}
    server.call("POST", "/applications", {"name": "judged", "ramp": None, "half_life": None, **fields})
    pipeline(server, "by-step", {"judged": {}, "upper": {"input": "judged"}})
    query_id = server.predict("by-step", "a text")["query_id"]
    assert server.observe("by-step", query_id=query_id, step="judged", label="yes").json() == {
        "observed": True,
        "duplicate": False,
    }
    assert server.call("GET", "/applications/judged/policy")["observations"] == 1
    wrong = server.observe("by-step", query_id=query_id, step="nobody", label="yes")
    assert (wrong.status_code, "expected judged, upper" in wrong.text) == (400, True)
    wrong = server.observe("by-step", input="a text", step="judged", label="yes")
    assert (wrong.status_code, "step goes with a query_id" in wrong.text) == (400, True)


def test_report_and_plan_have_the_steps_and_their_measured_times(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline(server, "planned", {"boxes": {}, "name": {"for_each": "boxes", "input": "item"}})
    for place in range(1, 8):
        assert len(server.predict("planned", str(place))["output"]) == place
    steps = server.call("GET", "/applications/planned/report")["steps"]
    assert [(step["step"], step["application"]) for step in steps] == [("boxes", "boxes"), ("name", "name")]
    for step in steps:
        [model] = step["models"]
        assert (model["version"], model["replicas"], model["cpus"], model["scales"]) == ("1", 1, None, False)
        assert sum(count for count, _ in model["batches"].values()) > 0
        assert step["queries"] >= model["asked"] >= 7
    alone = server.call("GET", "/applications/add/report")["steps"]
    assert [(step["step"], step["application"]) for step in alone] == [("add", "add")]
    for line, says in (
        (["app", "report", "planned"], "share of time"),
        (["plan", "planned", "--rate", "5", "--slo-ms", "5000"], "of 5/s are answered within 5000 ms"),
        (["plan", "name", "--rate", "5", "--slo-ms", "5000"], "name limits it"),
    ):
        monkeypatch.setattr(sys, "argv", ["clipper", *line, "--home", str(server.home)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        assert says in said.out


def batches(server: Server, model: str) -> float:
    lines = [line for line in server.metrics.splitlines() if line.startswith("clipper_batch_size_count")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if f'model="{model}"' in line)
