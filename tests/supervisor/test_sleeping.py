"""A real server with a model that nobody asks: it sleeps, and one query of many wakes it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import httpx
import pytest

from clipper.base.processes.proc import parent_of
from clipper.supervisor.workers.ports import port_of
from tests.ports import keep_port
from tests.supervisor.live_server import APP, Server, answering, processes_of
from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.long

RANGE = {"min": 0, "max": 2}
WAKING = {**APP, "slo_ms": 50, "waking_slo_ms": 20_000, "default_output": "asleep"}
# Longer than a busy machine takes to look at what a query has woken.
IDLE = ("--idle-after", "3")
# Queries while a model changes, however slow the machine is.
LEAST_ASKED = 6


def version(server: Server) -> Any:
    return server.call("GET", "/models/m/versions/1")


def starts(server: Server) -> int:
    return server.log.count("started m:1#1.g")


def test_a_model_that_nobody_asks_sleeps_and_wakes_with_the_first_query(server: Server) -> None:
    server.start(*IDLE)
    # To be ready it has to run once.
    made = server.deploy("m", answering("one"), input_type="float64[2]", replicas=RANGE)
    assert (made["state"], made["replicas_wanted"]) == ("ready", 1)
    server.call("POST", "/applications", WAKING)
    # Of those that come once it is awake, a busy machine answers some only after 50 ms.
    server.call("POST", "/applications", {**WAKING, "name": "patient", "slo_ms": 20_000})
    until(lambda: (version(server)["state"], version(server)["replicas"]) == ("asleep", []))
    assert "no query came for 3 s" in version(server)["scaling_reason"]
    # That is no problem: it answers who asks.
    status = server.call("GET", "/status")
    assert status["ready"] and status["problems"] == []
    assert httpx.get(f"{server.place.query_url}/health/ready", timeout=TIMEOUT_S).status_code == 200
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(server.predict, ["app"] + ["patient"] * 63, [[number, 2] for number in range(64)]))
    assert {(answer["output"], answer["default"]) for answer in answers} == {("one", False)}
    assert starts(server) == 2 and version(server)["state"] == "ready"
    # The next supervisor knows that it sleeps, and wakes it as well. Without a waking SLO, the default is the answer.
    until(lambda: version(server)["replicas"] == [])
    server.kill()
    server.start("--idle-after", "600").until_ready()
    assert version(server)["state"] == "asleep"
    server.call("PATCH", "/applications/app", {"waking_slo_ms": None})
    answer = server.predict("app", [100, 2])
    assert (answer["output"], answer["default"], answer["default_explanation"]) == (
        "asleep",
        True,
        "m:1 was asleep, and has no replica yet",
    )
    until(lambda: server.predict("app", [101, 2])["output"] == "one")


def test_one_that_slept_is_forked_as_it_wakes(server: Server) -> None:
    options = (*IDLE, "--start-method", "forkserver")
    server.start(*options)
    for model in ("m", "n"):
        server.deploy(model, answering(model), input_type="float64[2]", replicas=RANGE)
    server.call("POST", "/applications", WAKING)
    until(lambda: server.call("GET", "/replicas") == [])
    assert server.predict("app", [1, 2])["output"] == "m"
    (pid,) = server.ready_pids("m")
    assert parent_of(parent_of(pid) or 0) == server.place.pid
    # So is the first that wakes under the next supervisor, whose fork server is warm before it is asked.
    until(lambda: server.call("GET", "/replicas") == [])
    server.kill()
    before = server.log.count("is warm after")
    server.start(*options)
    until(lambda: server.log.count("is warm after") > before)
    assert server.predict("app", [2, 2])["output"] == "m"
    (pid,) = server.ready_pids("m")
    assert parent_of(parent_of(pid) or 0) == server.place.pid
    assert server.stop() == 0
    assert processes_of(server.home) == {}


MODELS = 24


@pytest.mark.scale
def test_queries_to_many_that_sleep_are_all_answered_in_time(server: Server) -> None:
    """Some by their models, which wake a few at a time, and those that do not wait for that by the default."""
    server.start("--idle-after", "2", "--start-method", "forkserver", "--workers", "2")
    for number in range(MODELS):
        server.deploy(f"m{number}", answering(number), input_type="float64[2]", replicas={"min": 0, "max": 1})
        for kind, waking_slo_ms in (("patient", 60_000), ("hasty", None)):
            fields = {"slo_ms": 50, "waking_slo_ms": waking_slo_ms, "default_output": "asleep"}
            application = {**APP, **fields, "name": f"{kind}{number}", "links": [{"model": f"m{number}"}]}
            server.call("POST", "/applications", application)
    until(lambda: server.call("GET", "/replicas") == [])
    started = server.log.count("started m")
    most = 0

    def ask(number: int) -> Any:
        return server.predict(f"patient{number % MODELS}", [number, 2])["output"]

    with ThreadPoolExecutor(3 * MODELS) as threads:
        # Asked first and given up: each wakes all the same, in its turn.
        hasty = [server.predict(f"hasty{number}", [-1, 2]) for number in range(MODELS)]
        answers = [threads.submit(ask, number) for number in range(3 * MODELS)]
        while not all(answer.done() for answer in answers):
            most = max(most, sum(replica["state"] == "starting" for replica in server.call("GET", "/replicas")))
    assert [answer.result() for answer in answers] == [number % MODELS for number in range(3 * MODELS)]
    assert all(answer["output"] in ("asleep", number) for number, answer in enumerate(hasty))
    assert sum(answer["default"] for answer in hasty) > 0
    assert server.log.count("started m") - started >= MODELS
    # Those that took longer than is waited for are not counted.
    print(f"at most {most} of {MODELS} were starting at once")
    assert server.stop() == 0
    assert processes_of(server.home) == {}


@pytest.mark.scale
def test_one_that_sleeps_and_wakes_in_the_midst_of_changes(server: Server) -> None:
    """Whatever is done to it: who asks is answered, and in the end it is as was asked for."""
    random, held = Random(7), keep_port()
    port = port_of(held)
    options = ("--idle-after", "1", "--start-method", "forkserver", f"--query-port={port}")
    server.start(*options)
    server.deploy("m", answering("1"), version="1", input_type="float64[2]", replicas=RANGE)
    application = {**APP, "slo_ms": 50, "waking_slo_ms": 30_000, "default_output": "late"}
    server.call("POST", "/applications", application)
    seen, is_over = [], threading.Event()

    def ask() -> None:
        number = 0
        while number < LEAST_ASKED or not is_over.is_set():
            number += 1
            body = {"input": [number, random.random()]}
            seen.append(httpx.post(f"http://127.0.0.1:{port}/app/predict", json=body, timeout=TIMEOUT_S).json())
            is_over.wait(random.choice([0.01, 0.5, 2.5]))

    def change(version: int) -> None:
        match random.choice(["deploy", "rollback", "scale", "kill", "remove"]):
            case "deploy":
                server.deploy("m", answering(str(version)), input_type="float64[2]", replicas=RANGE)
            case "rollback":
                server.ask("POST", "/models/m/rollback", b"{}")
            case "scale":
                server.call("POST", "/models/m/scale", {"replicas": random.choice([1, 2, RANGE])})
                server.call("POST", "/models/m/scale", {"replicas": RANGE})
            case "remove":
                server.deploy("m", answering("x"), version="x", input_type="float64[2]", make_current=False)
                server.call("DELETE", "/models/m/versions/x")
            case "kill":
                server.kill()
                server.start(*options)

    with held, ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask)
        try:
            for version in range(2, 10):
                change(version)
                is_over.wait(random.choice([0.1, 1.0, 3.0]))
        finally:
            is_over.set()
        asking.result()
    until(lambda: server.call("GET", "/status")["ready"])
    assert server.predict("app", [-1, -1])["default"] is False
    until(lambda: server.call("GET", "/replicas") == [])
    assert all("output" in answer for answer in seen)
    print(f"{sum(answer['default'] for answer in seen)} of {len(seen)} got the default")
    assert server.stop() == 0
    assert processes_of(server.home) == {}


def test_a_model_that_fails_to_wake_shows_why_and_can_be_rolled_back(server: Server) -> None:
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
