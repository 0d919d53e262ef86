"""Versions are ready only once they are warm: a real server, whose models tell in their logs what they were asked."""

import os
import signal
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.supervisor.live_server import Server
from tests.waiting import until

TELLS = "def predict(inputs):\n    print('asked', len(inputs), float(inputs[0][0]))\n    return [7.0 for _ in inputs]\n"
REFUSES = "def predict(inputs):\n    print('asked', len(inputs))\n    raise ValueError('weights are missing')\n"
TYPE = "float64[2]"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("warm") / "home").start()
    yield server
    server.clean_up()


def asked(server: Server, model: str, version: str = "1") -> list[str]:
    lines = server.call("GET", f"/models/{model}/logs?version={version}")["lines"]
    return [line.removeprefix("asked ") for log in lines.values() for line in log if line.startswith("asked")]


def with_application(server: Server, name: str) -> None:
    links = [{"model": name}]
    server.call("POST", "/applications", {"name": name, "slo_ms": 20_000, "input_type": TYPE, "links": links})


def test_a_given_sample_is_answered_before_a_version_is_ready(shared: Server) -> None:
    assert shared.deploy("given", TELLS, input_type=TYPE, sample=[3, 4])["state"] == "ready"
    assert asked(shared, "given") == ["1 3.0", "8 3.0"]
    # Nor is a batch larger than the deployment allows.
    shared.deploy("single", TELLS, input_type=TYPE, sample=[3, 4], batching={"policy": "none"})
    assert asked(shared, "single") == ["1 3.0"]


def test_the_next_version_is_warmed_up_with_the_sample_of_the_one_before(shared: Server) -> None:
    shared.deploy("kept", TELLS, input_type=TYPE, sample=[5, 6])
    shared.deploy("kept", TELLS, input_type=TYPE)
    assert asked(shared, "kept", "2") == ["1 5.0", "8 5.0"]
    # Not where it takes something else.
    shared.deploy("kept", TELLS, input_type="float64[3]")
    assert asked(shared, "kept", "3") == []


def test_an_input_that_was_asked_warms_up_what_comes_after(shared: Server) -> None:
    shared.deploy("used", TELLS, input_type=TYPE)
    assert asked(shared, "used") == []
    with_application(shared, "used")
    assert shared.predict("used", [8, 9])["output"] == 7.0
    shared.deploy("used", TELLS, input_type=TYPE)
    assert asked(shared, "used", "2") == ["1 8.0", "8 8.0"]
    # That it fails on a query's input says nothing against a version; it is warm all the same.
    assert shared.deploy("used", REFUSES, input_type=TYPE)["state"] == "ready"
    assert asked(shared, "used", "3")[0] == "1"
    assert "used:3#1" in shared.log and "failed on a remembered sample: ValueError: weights are missing" in shared.log


def test_a_model_file_is_warmed_up_with_zeros_of_the_type_that_it_states(shared: Server) -> None:
    def deploy(model: str, predict: str, input_type: str | None = TYPE) -> Any:
        code = f"class Model:\n    input_type = {input_type!r}\n    def predict_batch(self, inputs):\n{predict}\n"
        # The pickle of an instance.
        pickled = b"cmy_model\nModel\n)\x81."
        digest = shared.upload_files({"code/my_model.py": code.encode(), "m.pkl": pickled})
        body = {"artifact": digest, "loader": "file", "target": "m.pkl", "framework": "pickle"}
        made = shared.call("POST", f"/models/{model}/versions", body)
        return shared.decided(model, made["version"])

    tells = "        print('asked', len(inputs), inputs[0].sum(), flush=True)\n        return [7.0 for _ in inputs]"
    assert deploy("file", tells)["state"] == "ready"
    assert asked(shared, "file") == ["1 0.0", "8 0.0"]
    with_application(shared, "file")
    shared.predict("file", [8, 9])
    assert deploy("file", tells)["state"] == "ready"
    assert asked(shared, "file", "2") == ["1 17.0", "8 17.0"], "what was asked is better"
    # That it fails on zeros, or dies of them, fails no deployment.
    assert deploy("refuses", "        raise ValueError('zeros')")["state"] == "ready"
    assert "failed on a row that Clipper made, which says nothing against it: ValueError: zeros" in shared.log
    # But nobody knows of an input that it takes, which deploy, model show and status say until it answers one.
    unknown = "no input that Clipper tried could be answered (last error: ValueError: zeros"
    shown = shared.call("GET", "/models/refuses/versions/1")
    assert shown["warning"].startswith(unknown) and "--sample INPUT" in shown["warning"]
    assert any(text.startswith(f"refuses:1: {unknown}") for text in shared.call("GET", "/status")["problems"])
    assert shared.call("GET", "/models/file/versions/1")["warning"] is None
    picky = (
        "        if not inputs[0].any():\n            raise ValueError('zeros')\n        return [7.0 for _ in inputs]"
    )
    assert deploy("picky", picky)["warning"].startswith(unknown)
    with_application(shared, "picky")
    assert shared.predict("picky", [8, 9])["output"] == 7.0
    until(lambda: shared.call("GET", "/models/picky/versions/1")["warning"] is None)
    # It stays so: the next start is warmed up with that.
    (pid,) = shared.ready_pids("picky")
    os.kill(pid, signal.SIGKILL)
    until(lambda: shared.ready_pids("picky") not in ([], [pid]))
    assert shared.call("GET", "/models/picky/versions/1")["warning"] is None
    assert deploy("dies", "        import os; os._exit(9)")["state"] == "ready"
    # A model without a declared input type is asked nothing.
    assert deploy("unsaid", tells, None)["state"] == "ready"
    assert asked(shared, "unsaid") == []


@pytest.mark.long
def test_a_guessed_type_is_told_with_the_line_to_type(shared: Server) -> None:
    table = pd.DataFrame({"age": [22.0, 38.0, 26.0, 35.0], "is_alone": [True, False, True, True]})
    columns = make_column_transformer((StandardScaler(), ["age"]), ("passthrough", ["is_alone"]))
    fitted = make_pipeline(columns, LinearRegression()).fit(table, [0.0, 1.0, 1.0, 0.5])
    file = BytesIO()
    joblib.dump(fitted, file)
    digest = shared.upload_files({"m.joblib": file.getvalue()})

    def deploy(**how: Any) -> Any:
        body = {"artifact": digest, "loader": "file", "target": "m.joblib", "framework": "joblib", **how}
        return shared.decided("alone", shared.call("POST", "/models/alone/versions", body)["version"])

    guessed = deploy()
    assert guessed["state"] == "ready"
    assert guessed["warning"].startswith(
        "the model does not say the types of its columns is_alone, which are guessed: "
    )
    assert "--sample @FILE" in guessed["warning"]
    assert guessed["warning"].endswith("--input-type 'age: float64, is_alone: float64'")
    record = "age: float64, is_alone: bool"
    for how in ({"sample": {"age": 22, "is_alone": True}}, {"input_type": record}):
        known = deploy(**how)
        assert (known["state"], known["input_type"], known["warning"]) == ("ready", record, None)
    body = {"name": "alone", "slo_ms": 20_000, "input_type": record, "links": [{"model": "alone"}]}
    shared.call("POST", "/applications", body)
    output = shared.predict("alone", {"age": 38, "is_alone": False})["output"]
    assert output == pytest.approx(fitted.predict(table)[1])


class Load(threading.Thread):
    """Queries one after another."""

    def __init__(self, server: Server, application: str) -> None:
        super().__init__()
        self.server, self.application = server, application
        self.answers: list[Any] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            self.answers.append(self.server.predict(self.application, [len(self.answers), 0]))


def test_a_version_that_fails_on_its_sample_leaves_the_old_one_serving(shared: Server) -> None:
    shared.deploy("good", TELLS, input_type=TYPE, cache=False)
    with_application(shared, "good")
    load = Load(shared, "good")
    load.start()
    try:
        failed = shared.deploy("good", REFUSES, input_type=TYPE, sample=[1, 2], cache=False)
    finally:
        load.enough.set()
        load.join()
    assert failed["state"] == "failed" and not failed["current"]
    assert "good:2#1 failed on its sample: ValueError: weights are missing (my_model.py:3" in failed["last_error"]
    assert shared.call("GET", "/models/good")["current"] == "1"
    assert load.answers
    assert [answer for answer in load.answers if answer.get("output") != 7.0 or answer["default"]] == []


def test_a_sample_that_is_no_input_of_the_model(shared: Server) -> None:
    digest = shared.upload(TELLS)
    body: dict[str, Any] = {"artifact": digest, "loader": "import", "target": "my_model:predict", "sample": [1, 2, 3]}
    refused = shared.call("POST", "/models/odd/versions", {**body, "input_type": TYPE}, status=400)
    assert refused["error"] == "wrong_input" and "[3]" in refused["cause"]
    # Only the container declares the input type: a list of numbers.
    failed = shared.deploy("odd", TELLS, sample="text")
    assert failed["state"] == "failed"
    assert 'the sample for odd:1 is not valid: input is "text": expected float64[*]' in failed["last_error"]


def test_a_sample_is_asked_for_again_at_every_start(shared: Server) -> None:
    shared.deploy("again", TELLS, input_type=TYPE, sample=[1, 2])
    shared.call("POST", "/models/again/scale", {"replicas": 2})
    until(lambda: len(shared.ready_pids("again")) == 2)
    assert asked(shared, "again") == ["1 1.0", "8 1.0"] * 2


# Bears a single query, and no batch: as a model does whose batch of 8 takes more than its memory.
BEARS_ONE = TELLS.replace("def predict", "import os\ndef predict").replace(
    "    return", "    if len(inputs) > 1: os._exit(9)\n    return"
)
# Answers, and ends of what it has begun: as one does whose processes fork without end, until it is killed for them.
ENDS_LATER = TELLS.replace("def predict", "import os, threading\ndef predict").replace(
    "    return", "    threading.Timer(1.5, os._exit, [9]).start()\n    return"
)


def until_up_again(server: Server, model: str, restarts: int) -> None:
    def is_up() -> bool:
        (found,) = (one for one in server.call("GET", "/replicas") if one["model"] == model)
        return found["state"] == "ready" and found["restarts"] == restarts

    until(is_up)


def test_a_remembered_sample_costs_no_model_its_life(shared: Server) -> None:
    shared.deploy("frail", BEARS_ONE, input_type=TYPE, cache=False)
    with_application(shared, "frail")
    assert shared.predict("frail", [1, 2])["output"] == 7.0
    os.kill(shared.ready_pids("frail")[0], signal.SIGKILL)
    until_up_again(shared, "frail", restarts=2)  # the second since it died of 8
    assert asked(shared, "frail") == ["1 1.0", "1 1.0", "8 1.0", "1 1.0"]
    assert "a replica of frail:1 ended over a warm-up batch of 8" in shared.log
    # Nor is it tried again with the next replica, and deploying it anew is not refused for it.
    shared.call("POST", "/models/frail/scale", {"replicas": 2})
    until(lambda: len(shared.ready_pids("frail")) == 2)
    assert asked(shared, "frail")[4:] == ["1 1.0"]
    assert shared.deploy("frail", BEARS_ONE, input_type=TYPE, cache=False)["state"] == "ready"
    assert shared.predict("frail", [1, 2])["output"] == 7.0


def test_nor_does_one_that_kills_a_while_after(shared: Server) -> None:
    shared.deploy("forks", ENDS_LATER, input_type=TYPE, cache=False)
    with_application(shared, "forks")
    assert shared.predict("forks", [1, 2])["output"] == 7.0
    until_up_again(shared, "forks", restarts=3)
    assert asked(shared, "forks") == ["1 1.0", "1 1.0", "8 1.0", "1 1.0"]
    assert (
        "ended over a warm-up batch of 1, or shortly after: its next starts warm up with at most 0 rows" in shared.log
    )


def test_what_a_warm_up_has_cost_outlives_the_server(shared: Server) -> None:
    shared.kill()
    shared.start()
    os.kill(until(lambda: shared.ready_pids("forks"))[0], signal.SIGKILL)
    until_up_again(shared, "forks", restarts=1)
    assert len(asked(shared, "forks")) == 4


def test_a_given_sample_that_a_running_version_bears_no_more(shared: Server, tmp_path: Path) -> None:
    grown = tmp_path / "grown"
    code = BEARS_ONE.replace("len(inputs) > 1", f"len(inputs) > 1 and os.path.exists({str(grown)!r})")
    assert shared.deploy("ages", code, input_type=TYPE, sample=[3, 4])["state"] == "ready"
    grown.touch()
    (before,) = shared.ready_pids("ages")
    os.kill(before, signal.SIGKILL)
    until(lambda: shared.ready_pids("ages") not in ([], [before]))
    # A new version still fails over that sample: the sample is given to find such failures.
    failed = shared.deploy("ages", code, input_type=TYPE, sample=[3, 4])
    assert failed["state"] == "failed" and "exited with code 9 over the warm-up sample" in failed["last_error"]
