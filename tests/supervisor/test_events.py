"""Events of a real server: what happened is told, and is kept over restarts."""

import os
import signal
from typing import Any

import pytest

from clipper.client import Clipper
from tests.supervisor.live_server import APP, Server, answering
from tests.waiting import until


def told(server: Server, kind: str | None = None) -> list[tuple[str, str]]:
    found = server.call("GET", "/events" if kind is None else f"/events?kind={kind}")
    return [(one["subject"], one["message"]) for one in found["events"]]


def newest(server: Server) -> int:
    found: int = server.call("GET", "/events?limit=1")["next"]
    return found


def since(server: Server, after: int, kind: str) -> list[Any]:
    found: list[Any] = server.call("GET", f"/events?after={after}&kind={kind}")["events"]
    return found


def test_a_life_is_told_and_kept_over_restarts(shared: Server) -> None:
    subjects = [subject for subject, _ in told(shared)]
    assert subjects[0] == "server"
    assert told(shared, "deployment") == [
        ("model m", "version 1 is deployed, with 1 replica"),
        ("model m", "version 1 is ready"),
        ("model m", "version 1 is current"),
    ]
    assert told(shared, "application") == [("application app", "the application is created: m, policy single")]

    before = newest(shared)
    (pid,) = shared.ready_pids("m")
    os.kill(pid, signal.SIGKILL)
    (ended,) = until(lambda: since(shared, before, "restart"))
    assert (ended["subject"], ended["version"], ended["level"]) == ("model m", "1", "warning")
    assert ended["message"].startswith("replica m:1#1 has ended and is started again: ")
    (pid,) = shared.worker_pids
    os.kill(pid, signal.SIGKILL)
    until(lambda: since(shared, before, "restart")[1:])
    assert since(shared, before, "restart")[1]["subject"] == "worker 0"
    until(lambda: shared.worker_pids not in ([], [pid]) and len(shared.ready_pids("m")) == 1)

    shared.deploy("m", answering("two"), input_type="float64[2]", make_current=True)
    shared.call("POST", "/models/m/rollback", {})
    assert told(shared, "rollback") == [("model m", "the model is rolled back to version 1 from version 2")]
    shared.call("POST", "/models/m/scale", {"replicas": 2})
    assert told(shared, "scaling") == [("model m", "version 1 gets 2 replicas in place of 1")]
    until(lambda: len(shared.ready_pids("m")) >= 2)

    # Nobody told the supervisor that it ends: all that was told is there, and the numbers go on.
    before, kept = newest(shared), shared.call("GET", "/events?limit=1000")["events"]
    shared.kill()
    shared.start()
    after = shared.call("GET", "/events?limit=1000&after=0")["events"]
    assert after[: len(kept)] == kept
    (started,) = since(shared, before, "server")
    assert started["id"] == before + 1 and "taken over 1 workers and" in started["message"]
    with Clipper.connect(home=shared.home) as clipper:
        assert clipper.events(before, kind="server").events[0].message == started["message"]


def test_an_application_that_is_deleted_and_made_again(shared: Server) -> None:
    before = newest(shared)
    shared.call("DELETE", "/applications/app")
    shared.call("POST", "/applications", APP)
    shared.call("PATCH", "/applications/app", {"slo_ms": 10_000})
    assert [one["message"] for one in since(shared, before, "application")] == [
        "the application is deleted",
        "the application is created: m, policy single",
        "the application is changed: slo_ms 10000.0 in place of 20000.0",
    ]


@pytest.mark.long
def test_a_file_that_cannot_be_written_stops_nothing(shared: Server) -> None:
    path = shared.home / "events.jsonl"
    assert shared.stop() == 0
    assert '"the server is stopped"' in path.read_text().splitlines()[-1]
    kept = path.rename(path.with_name("elsewhere"))
    path.mkdir()
    shared.start()
    try:
        (problem,) = [one for one in shared.call("GET", "/status")["problems"] if "events" in one]
        assert problem.startswith(f"events cannot be kept in {path}: ")
        shared.call("POST", "/keys", {"name": "web"})
        assert told(shared, "key") == [("key web", "the key is made")]
        until(lambda: shared.predict("app", [1.0, 2.0]).get("output") == "one")
        assert shared.ask("GET", "/health/ready").status_code == 200
    finally:
        path.rmdir()
    kept.rename(path)
    shared.call("DELETE", "/keys/web")
    assert '"the key is revoked"' in path.read_text().splitlines()[-1]
    assert not [one for one in shared.call("GET", "/status")["problems"] if "events" in one]


def test_each_change_says_whose_it_was_and_from_where(shared: Server) -> None:
    before = newest(shared)
    token = shared.call("POST", "/tokens", {"name": "ci", "role": "admin"})["token"]
    with Clipper.connect(shared.place.management_url, token=token) as clipper:
        clipper.change_application("app", slo_ms=15_000)
        shared.deploy("m", answering("three"), input_type="float64[2]", make_current=True)
        clipper.rollback("m")
        found = clipper.events(before, who="ci").events
    assert [(one.kind, one.who, one.address) for one in found] == [
        ("application", "ci", "127.0.0.1"),
        ("rollback", "ci", "127.0.0.1"),
    ]
    whole = shared.call("GET", f"/events?after={before}")["events"]
    by = {one["message"].partition(",")[0]: (one["who"], one["address"]) for one in whole}
    assert by["the token is made"] == ("operator", "127.0.0.1")
    deployed = [one for one in whole if one["kind"] == "deployment"]
    assert [(one["message"].split()[3], one["who"]) for one in deployed] == [
        ("deployed,", "operator"),
        ("ready", "clipper"),
        ("current,", "operator"),
    ]
