"""Versions of one model in an application, through a real server: each has the feedback that it got itself."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.supervisor.live_server import Server, answering
from tests.supervisor.three_models import ROW, learned

LINKS = "/applications/app/links"
NOW_AND_THEN_WRONG = """
calls = [0]
def predict(inputs):
    calls[0] += 1
    return [1 if calls[0] % 5 else 3 for _ in inputs]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Version 1 of m, which is current, answers 1; version 2, which came after it, 2."""
    server = Server(tmp_path_factory.mktemp("versions") / "home")
    try:
        server.start()
        for number in (1, 2):
            made = server.deploy("m", answering(number), wait=False, input_type="float64[2]", make_current=number == 1)
            assert server.decided("m", made["version"])["state"] == "ready"
        yield server
    finally:
        server.clean_up()


def with_application(server: Server, **fields: Any) -> None:
    server.ask("DELETE", "/applications/app")
    app = {"name": "app", "slo_ms": 20_000, "links": [{"model": "m"}], "policy": "thompson", "half_life": None}
    server.call("POST", "/applications", {**app, **fields})


def teach(server: Server, label: int, times: int, **fields: Any) -> None:
    ids = [server.predict("app", ROW, **fields)["query_id"] for _ in range(times)]
    assert server.observe("app", observations=[{"query_id": id_, "label": label} for id_ in ids]).status_code == 200


def test_feedback_on_a_version_that_a_query_named_is_that_versions(server: Server) -> None:
    with_application(server, inherit=0.5)
    teach(server, 2, 20, version="2")
    teach(server, 2, 5)
    of_current = learned(server)["models"]["m"]
    assert (of_current["version"], of_current["mean_loss"], of_current["scored"]) == ("1", 1.0, 5.0)
    server.call("PUT", f"{LINKS}/m:2", {})
    # The first was current when the second was deployed.
    assert learned(server)["models"]["m:2"]["scored"] == 20.0 + 0.5 * 5.0


def test_right_answers_of_a_pinned_version_send_the_current_no_queries(server: Server) -> None:
    made = server.deploy("right", answering(2), wait=False, input_type="float64[2]")
    assert server.decided("right", made["version"])["state"] == "ready"
    with_application(server, links=[{"model": "m"}, {"model": "right"}], ramp=None)
    teach(server, 2, 60)
    before = learned(server)["models"]["m"]
    assert (before["version"], before["mean_loss"]) == ("1", 1.0) and before["share"] < 0.1
    # A query may name a version where one model is linked.
    server.call("DELETE", f"{LINKS}/right")
    teach(server, 2, 200, version="2")
    server.call("PUT", f"{LINKS}/right", {})
    after = learned(server)["models"]["m"]
    assert (after["mean_loss"], after["scored"]) == (1.0, before["scored"]) and after["share"] < 0.1


def test_feedback_decides_between_versions(server: Server) -> None:
    with_application(server, ramp=None)
    linked = server.call("PUT", f"{LINKS}/m:2", {})
    assert [(link["model"], link["version"]) for link in linked["links"]] == [("m", None), ("m", "2")]
    for _ in range(6):
        teach(server, 2, 10)
    models = learned(server)["models"]
    assert models["m:2"]["share"] > 0.8 and models["m:2"]["mean_loss"] < 0.1
    assert 'clipper_selection_selected_total{application="app",model="m:2"' in server.metrics
    assert server.call("GET", "/applications/app")["inherit"] == 0.02

    # The better one becomes current: both links lead to it, and it is asked by one.
    server.call("POST", "/models/m/rollback", {"version": "2"})
    after = learned(server)["models"]
    assert set(after) == {"m"} and after["m"]["version"] == "2" and after["m"]["share"] == 1.0
    assert after["m"]["scored"] >= models["m:2"]["scored"], "what was learned of it stays"
    unlinked = server.call("DELETE", f"{LINKS}/m:2")
    assert [link["version"] for link in unlinked["links"]] == [None]
    server.call("POST", "/models/m/rollback", {"version": "1"})


def test_a_new_version_that_is_always_wrong_is_left_for_another_model(server: Server) -> None:
    made = server.deploy("o", NOW_AND_THEN_WRONG, wait=False, input_type="float64[2]", cache=False)
    assert server.decided("o", made["version"])["state"] == "ready"
    with_application(server, links=[{"model": "m"}, {"model": "o"}], half_life=1000)
    teach(server, 1, 200)
    assert learned(server)["models"]["m"]["share"] > 0.8
    server.call("POST", "/models/m/rollback", {"version": "2"})
    answers = []
    for _ in range(100):
        answer = server.predict("app", ROW)
        answers.append(answer["output"])
        server.observe("app", query_id=answer["query_id"], label=1)
    assert answers.count(2) <= 40, "where its predecessor's score is its own, it is asked all the time"
    server.call("POST", "/models/m/rollback", {"version": "1"})
    assert learned(server)["models"]["m"]["mean_loss"] < 0.1


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        (f"{LINKS}/m:9", {}, "not_found"),
        (f"{LINKS}/m:2", {"version": "1"}, "invalid_argument"),
    ],
)
def test_links_that_cannot_be(server: Server, path: str, body: dict[str, Any], error: str) -> None:
    with_application(server)
    answer = server.ask("PUT", path, json.dumps(body).encode())
    assert answer.json()["error"] == error


def test_of_several_links_the_one_that_is_named_goes(server: Server) -> None:
    with_application(server, links=[{"model": "m", "version": "1"}, {"model": "m", "version": "2"}])
    assert server.ask("DELETE", f"{LINKS}/m").status_code == 404
    unlinked = server.call("DELETE", f"{LINKS}/m:1")
    assert [link["version"] for link in unlinked["links"]] == ["2"]
    assert server.call("DELETE", f"{LINKS}/m")["links"] == []
