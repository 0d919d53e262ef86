"""A real server with a model that nobody asks: it sleeps, and one query of many wakes it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from live_server import APP, Server, answering

from waiting import until

RANGE = {"min": 0, "max": 2}


def version(server: Server) -> Any:
    return server.call("GET", "/models/m/versions/1")


def starts(server: Server) -> int:
    return server.log.count("started m:1#1.g")


def test_a_model_that_nobody_asks_sleeps_and_wakes_with_the_first_query(server: Server) -> None:
    server.start("--idle-after", "1")
    # To be ready it has to run once.
    made = server.deploy("m", answering("one"), input_type="float64[2]", replicas=RANGE)
    assert (made["state"], made["replicas_wanted"]) == ("ready", 1)
    application = {**APP, "slo_ms": 50, "waking_slo_ms": 20_000, "default_output": "asleep"}
    server.call("POST", "/applications", application)
    until(lambda: (version(server)["state"], version(server)["replicas"]) == ("asleep", []))
    assert "no query came for 1 s" in version(server)["scaling_reason"]
    # That is no problem: it answers who asks.
    status = server.call("GET", "/status")
    assert status["ready"] and status["problems"] == []
    assert httpx.get(f"{server.place.query_url}/health/ready").status_code == 200
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: server.predict("app", [number, 2]), range(64)))
    assert {(answer["output"], answer["default"]) for answer in answers} == {("one", False)}
    assert starts(server) == 2 and version(server)["state"] == "ready"
    # The next supervisor knows that it sleeps, and wakes it as well. Without a waking SLO, the default is the answer.
    until(lambda: version(server)["replicas"] == [])
    server.kill()
    server.start("--idle-after", "600")
    until(lambda: server.call("GET", "/status")["ready"])
    assert version(server)["state"] == "asleep"
    server.call("PATCH", "/applications/app", {"waking_slo_ms": None})
    answer = server.predict("app", [100, 2])
    assert (answer["output"], answer["default"], answer["default_explanation"]) == (
        "asleep",
        True,
        "m:1 was asleep, and has no replica yet",
    )
    until(lambda: server.predict("app", [101, 2])["output"] == "one")


def test_a_model_that_fails_to_wake_shows_why_and_one_that_rests_can_be_rolled_back_to(server: Server) -> None:
    server.start("--idle-after", "1")
    marker = server.home / "broken"
    code = f"import os\nassert not os.path.exists({str(marker)!r}), 'no such weights'\n" + answering("one")
    server.deploy("m", code, input_type="float64[2]", replicas=RANGE)
    server.call("POST", "/applications", {**APP, "slo_ms": 50, "default_output": "asleep"})
    until(lambda: version(server)["replicas"] == [])
    marker.touch()
    assert server.predict("app", [1, 2])["output"] == "asleep"
    until(lambda: "no such weights" in str([replica["last_error"] for replica in version(server)["replicas"]]))
    marker.unlink()
    server.deploy("m", answering("two"), version="2", input_type="float64[2]")
    until(lambda: version(server)["replicas"] == [])
    # A version has to have a replica to become current.
    server.call("POST", "/models/m/rollback", {})
    until(lambda: server.predict("app", [3, 2])["output"] == "one")
