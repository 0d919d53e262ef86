"""The health that a server reports while its applications' queries fail."""

from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.live_server import Server, answering, with_application
from tests.waiting import until

# It fails on a row that begins with 1, and is slower than any SLO of these tests on one that begins with 2.
CODE = """
import time
def predict(inputs):
    if inputs[0][0] == 2:
        time.sleep(5.0)
    if inputs[0][0] == 1:
        raise ValueError("column age\\nis missing")
    return ["one"] * len(inputs)
"""
FAILS, IS_SLOW, WORKS = [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = Server(Path(tmp_path_factory.mktemp("health")) / "home")
    try:
        with_application(server)
        assert server.deploy("faulty", CODE, input_type="float64[2]", cache=False)["state"] == "ready"
        yield server
    finally:
        server.clean_up()


def create(server: Server, name: str, slo_ms: float = 20_000, model: str = "faulty", **fields: Any) -> None:
    body = {"name": name, "slo_ms": slo_ms, "input_type": "float64[2]", "links": [{"model": model}], **fields}
    server.call("POST", "/applications", body)


def problems_of(server: Server, subject: str) -> list[str]:
    status = server.call("GET", "/status")
    assert status["ready"]
    return [text for text in status["problems"] if subject in text]


def until_told(server: Server, subject: str, text: str) -> str:
    """The problem, once it has a text: as queries come, it counts them."""
    return until(lambda: next((told for told in problems_of(server, subject) if text in told), None))


def last_minute(server: Server, name: str) -> Any:
    return server.call("GET", f"/applications/{name}")["last_minute"]


@pytest.mark.long
def test_queries_on_which_the_model_fails_are_a_problem_with_its_message(server: Server) -> None:
    """The first queries of a new application, which nothing was known of before."""
    create(server, "erring")
    for _ in range(6):
        assert server.predict("erring", FAILS)["error"] == "model_error"
    told = until_told(server, "'erring'", "6 of 6 queries")
    assert told == (
        "application 'erring': 6 of 6 queries in the last minute got an error (6 model_error); "
        "the last model_error: ValueError: column age is missing (my_model.py:7, in predict)"
    )
    # The version is told, too: in an ensemble others might answer.
    until_told(server, "model faulty:1 failed on", "its last error: ValueError: column age is missing")
    assert server.call("GET", "/models/faulty/versions/1")["condition"] == "failing"
    assert last_minute(server, "erring") == {
        "queries": 6,
        "late": 0,
        "defaults": {},
        "errors": {"model_error": 6},
        "explanations": {"model_error": "ValueError: column age\nis missing (my_model.py:7, in predict)"},
        "answered": {},
    }
    shown = {one["name"]: one["last_minute"] for one in server.call("GET", "/applications")}
    assert shown["erring"]["errors"] == {"model_error": 6} and shown["app"]["queries"] == 0
    assert server.call("GET", "/applications/erring/report")["last_minute"] == last_minute(server, "erring")
    series = server.call("GET", "/series/applications/erring?seconds=60")["series"]
    assert max(value for value in series["error_share.model_error"] if value is not None) == 1.0
    assert 'clipper_errors_total{application="erring",reason="model_error"} 6.0' in server.metrics

    # It is over once queries are answered, before a minute is.
    def is_over() -> bool:
        server.predict("erring", WORKS)
        return not problems_of(server, "'erring'") and not problems_of(server, "model faulty:1")

    until(is_over)
    assert server.call("GET", "/models/faulty/versions/1")["condition"] == "ready"


def test_time_outs_are_late_and_a_problem(server: Server) -> None:
    create(server, "slow", slo_ms=100, default_output="none")
    for _ in range(4):
        assert server.predict("slow", IS_SLOW)["default"]
    told = until_told(server, "'slow'", "4 of 4 queries in the last minute got its default (4 timeout)")
    assert "the last timeout: faulty:1 did not answer within the SLO" in told
    found = last_minute(server, "slow")
    assert (found["late"], found["defaults"], found["errors"]) == (4, {"timeout": 4}, {})
    series = server.call("GET", "/series/applications/slow?seconds=60")["series"]
    assert max(value for value in series["late_share"] if value is not None) == 1.0
    assert 'clipper_slo_misses_total{application="slow"} 4.0' in server.metrics


def test_defaults_that_the_application_asked_for_are_none(server: Server) -> None:
    assert server.deploy("unsure", answering({"a": 0.6, "b": 0.4}), input_type="float64[2]")["state"] == "ready"
    asked_for = {"default_output": "none", "confidence_threshold": 0.9, "confidence_from": "probabilities"}
    create(server, "unsure", model="unsure", **asked_for)
    for _ in range(6):
        assert server.predict("unsure", WORKS)["default"]
    until(lambda: last_minute(server, "unsure")["defaults"] == {"low_confidence": 6})
    assert problems_of(server, "'unsure'") == []


def test_a_model_that_does_not_start_is_a_problem_until_a_version_does(server: Server) -> None:
    code = "raise ImportError('no weights here')\n"
    assert server.deploy("stillborn", code, input_type="float64[2]")["state"] == "failed"
    (told,) = problems_of(server, "model 'stillborn'")
    assert "stillborn:1 has failed" in told and "no weights here" in told and "clipper logs stillborn:1" in told
    pinned = [{"model": "faulty"}, {"model": "stillborn", "version": "1"}]
    create(server, "pins", links=pinned, default_output="none")
    (told,) = problems_of(server, "application 'pins'")
    assert "stillborn:1 has failed: " in told and "no weights here" in told
    assert server.deploy("stillborn", answering("one"), input_type="float64[2]")["state"] == "ready"
    assert problems_of(server, "model 'stillborn'") == []
