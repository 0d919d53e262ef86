"""Policies that go by features, through a whole server: each region of them gets the model that is right there."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from clipper.cli.main import cli
from tests.supervisor.live_server import Server
from tests.supervisor.test_decisions import exported
from tests.supervisor.three_models import ROW, until_learned, with_application
from tests.waiting import until

# The right label at each corner; the models answer 1, 2 and 3 whatever they are asked.
RIGHT = {(1.0, 0.0): 1, (0.0, 1.0): 2, (-1.0, -1.0): 3}


def teach(server: Server, times: int) -> int:
    observations: list[dict[str, Any]] = []
    for _ in range(times):
        for features, label in RIGHT.items():
            answer = server.predict("app", ROW, features=features)
            observations.append({"query_id": answer["query_id"], "label": label})
    assert server.observe("app", observations=observations).is_success
    return len(observations)


def answers_right(server: Server) -> bool:
    answers = [server.predict("app", ROW, features=features) for features in RIGHT for _ in range(5)]
    # After a start not all models are up at once.
    return [answer.get("output") for answer in answers] == [label for label in RIGHT.values() for _ in range(5)]


@pytest.mark.long
def test_what_two_workers_learn_of_regions_is_shared_logged_and_kept(server: Server) -> None:
    policy = {"name": "linear_thompson", "parameters": {"exploration": 0.1}}
    with_application(server, "--workers", "2", policy=policy, features=2, half_life=None, log_decisions=1.0)
    taught = 0
    for _ in range(5):
        taught += teach(server, 10)
        until_learned(server, taught)
    # The other worker hears of the last of it a moment later.
    until(lambda: answers_right(server))

    batch = server.predict_batch("app", [ROW] * 3, features=list(RIGHT))
    assert [part["output"] for part in batch] == [1, 2, 3]
    told = server.observe("app", input=ROW, features=[1, 0], label=1)
    assert told.is_success, told.text
    refused = server.predict("app", ROW, features=[1, 2, 3])
    assert (refused["error"], "expected a list of 2 numbers" in refused["cause"]) == ("wrong_input", True)
    assert server.predict("app", ROW)["error"] == "wrong_input"

    assert server.stop() == 0
    rows = exported(server)
    assert {tuple(row["features"]) for row in rows} == set(RIGHT)
    assert all(0 < row["shares"][0] <= 1 for row in rows)
    command = ["app", "whatif", "app", "--policy", "linucb", "--home", str(server.home), "--json"]
    asked = CliRunner().invoke(cli, command)
    assert asked.exit_code == 0, asked.output
    assert json.loads(asked.stdout)["queries"] == taught

    server.start("--workers", "1").until_ready()
    until(lambda: answers_right(server))


def test_an_input_may_be_its_own_features(server: Server) -> None:
    with_application(server, policy="linucb", features="input", log_decisions=1)

    def told() -> list[int]:
        answers = {label: server.predict("app", features) for features, label in RIGHT.items()}
        for label, answer in answers.items():
            assert server.observe("app", query_id=answer["query_id"], label=label).is_success
        return [answer["output"] for answer in answers.values()]

    # A policy that does not see them may answer all three rightly by luck, but not time and again.
    until(lambda: all(told() == [1, 2, 3] for _ in range(5)))
    assert server.predict("app", ROW, features=[1, 2])["error"] == "wrong_input"
    assert server.stop() == 0
    assert {tuple(row["features"]) for row in exported(server)} == set(RIGHT)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"policy": "linucb"}, "policy linucb needs features: expected how many numbers each query brings"),
        ({"features": 0}, "features is 0: expected a number from 1 to 64"),
        ({"features": 65}, "features is 65: expected a number from 1 to 64"),
        (
            {"features": "input", "input_type": "float64[*]"},
            "inputs of float64[*] cannot be features: ",
        ),
        ({"features": "input", "input_type": "float64[65]"}, "inputs of float64[65] cannot be features"),
        ({"features": "input", "input_type": "string"}, "inputs of string cannot be features"),
        ({"features": "output"}, "features"),
        ({"features": 2.5}, "features"),
    ],
)
def test_features_that_an_application_cannot_take(refusing: Server, fields: dict[str, Any], cause: str) -> None:
    wrong = {"name": "wrong", "slo_ms": 20, "input_type": "int32[2]", **fields}
    answer = refusing.call("POST", "/applications", wrong, 400)
    assert cause in answer["cause"]


def test_features_cannot_be_taken_from_a_policy_that_goes_by_them(refusing: Server) -> None:
    refusing.call("POST", "/applications", {"name": "by-two", "slo_ms": 20, "input_type": "int32[2]", "features": 2})
    refusing.call("PATCH", "/applications/by-two", {"policy": "linucb"})
    assert refusing.call("GET", "/applications/by-two")["features"] == 2
    answer = refusing.call("PATCH", "/applications/by-two", {"features": None}, 400)
    assert "needs features" in answer["cause"]


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = Server(tmp_path_factory.mktemp("refusing") / "home")
    try:
        yield server.start()
    finally:
        server.clean_up()
