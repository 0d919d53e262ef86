"""Another Clipper takes over, or another registry: everything follows, one process at a time; no query is lost."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from clipper.base.build import build_id
from clipper.supervisor.backup import back_up, restore
from clipper.supervisor.managers.launcher import RUNTIME_PARTS
from tests.asking import Asking, clipper_of, older_clipper
from tests.supervisor.live_server import APP, NO_TLS, Server, answering, builds_of, processes_of, with_application
from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.long


def backed_up(home: Path, copy: Path) -> Path:
    with closing(sqlite3.connect(home / "registry.sqlite3")) as registry, closing(sqlite3.connect(copy)) as target:
        registry.backup(target)
    return copy


def put_back(home: Path, copy: Path | None) -> None:
    for path in home.glob("registry.sqlite3*"):
        path.unlink()
    if copy is not None:
        shutil.copy(copy, home / "registry.sqlite3")


def test_workers_follow_a_registry_that_was_restored(server: Server, tmp_path: Path) -> None:
    with_application(server)
    copy = backed_up(server.home, tmp_path / "backup")
    for _ in range(2):  # its epoch gets far from what was backed up
        server.kill()
        server.start()
    server.call("POST", "/applications", APP | {"name": "later"})
    assert server.predict("later", [1, 2])["output"] == "one"
    workers = server.worker_pids
    server.kill()
    put_back(server.home, copy)

    server.start()
    server.call("POST", "/applications", APP | {"name": "new"})
    assert server.predict("new", [1, 2])["output"] == "one"
    assert server.predict("app", [1, 2])["output"] == "one"
    url = f"{server.place.query_url}/later/predict"
    assert httpx.post(url, json={"input": [1, 2]}, verify=NO_TLS, timeout=TIMEOUT_S).status_code == 404
    assert server.worker_pids == workers
    assert server.deploy("m", answering("two"), input_type="float64[2]")["state"] == "ready"
    assert server.predict("app", [3, 4])["output"] == "two"


def test_workers_follow_a_registry_that_was_moved_away(server: Server) -> None:
    with_application(server)
    server.kill()
    server.start()
    workers, (container,) = server.worker_pids, server.ready_pids("m")
    server.kill()
    put_back(server.home, None)

    server.start()
    until(lambda: container not in processes_of(server.home))
    url = f"{server.place.query_url}/app/predict"
    until(lambda: httpx.post(url, json={"input": [1, 2]}, verify=NO_TLS, timeout=TIMEOUT_S).status_code == 404)
    assert server.worker_pids == workers
    assert server.deploy("m", answering("new"), input_type="float64[2]")["state"] == "ready"
    server.call("POST", "/applications", APP)
    assert server.predict("app", [1, 2])["output"] == "new"


def test_a_backup_of_a_running_server_brings_all_of_it_back(server: Server, tmp_path: Path) -> None:
    with_application(server)
    with Asking(f"{server.place.query_url}/app/predict", 2) as asking:
        back_up(server.home, tmp_path / "backup.tar")
    assert set(asking.answers) == {"one"}
    token = server.token
    assert server.deploy("m", answering("two"), input_type="float64[2]")["state"] == "ready"
    assert server.stop() == 0

    restore(server.home, tmp_path / "backup.tar")
    server.start().until_ready()
    assert server.token == token
    assert [one["version"] for one in server.call("GET", "/models/m")["versions"]] == ["1"]
    assert server.predict("app", [7, 8])["output"] == "one"


def test_an_upgrade_replaces_workers_then_replicas_without_losing_a_query(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(older_clipper(tmp_path / "old")))
    server.with_options("--workers", "2")
    with_application(server, replicas=2, cache=False)
    before = processes_of(server.home)
    assert set(builds_of(server.home).values()) == {
        subprocess.check_output(
            [sys.executable, "-c", f"from clipper.base.build import build_id; print(build_id({parts!r}))"], text=True
        ).strip()
        for parts in ((".",), RUNTIME_PARTS)
    }
    monkeypatch.delenv("PYTHONPATH")
    with Asking(f"{server.place.query_url}/app/predict", 2) as asking:
        server.kill()
        server.start()
        # Those that were replaced before a busy machine let us ask are told of no more; replicas come last.
        problems = server.call("GET", "/status")["problems"]
        assert any("m:1#" in one and "another Clipper's code" in one for one in problems), problems
        until(lambda: set(builds_of(server.home).values()) == {build_id(), build_id(RUNTIME_PARTS)})
        until(lambda: len(processes_of(server.home)) == 4 and not server.call("GET", "/status")["problems"])
    assert set(asking.answers) == {"one"}
    assert sorted(processes_of(server.home).values()) == sorted(before.values())
    assert not processes_of(server.home).keys() & before.keys()
    told = [(event["subject"], event["text"]) for event in server.call("GET", "/history")]
    drained = [subject for subject, text in told if text.startswith("is drained")]
    assert drained == ["worker-0", "worker-1", "worker-2"]
    assert ("m:1#3", "is started: it stands in while others are replaced") in told
    assert ("m:1#1", "leaves service: it runs another Clipper's code or other settings") in told
    status = server.call("GET", "/status")
    assert [worker["restarts"] for worker in status["workers"]] == [0, 0]


# The last commit before records and pipelines, with version 2 of the container protocol.
BEFORE_RECORDS = "6e306d23"
PEOPLE = "age: float64, sex: string"
FIRST_SEX = 'def predict(columns): return [f"{sex} of {age:g}" for sex, age in zip(columns["sex"], columns["age"])]\n'
ANNA = {"age": 31, "sex": "female"}
PATH = {"first": {"application": "people"}}


def test_records_and_pipelines_come_beside_workers_that_know_neither(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(clipper_of(BEFORE_RECORDS, tmp_path / "old")))
    server.with_options("--workers", "2")
    with_application(server, replicas=2, cache=False)
    before = processes_of(server.home)
    monkeypatch.delenv("PYTHONPATH")
    answers: list[tuple[int, object]] = []

    def all_are_new() -> bool:
        for name in ("people", "path"):
            url = f"{server.place.query_url}/{name}/predict"
            asked = httpx.post(url, json={"input": ANNA}, verify=NO_TLS, timeout=TIMEOUT_S)
            answers.append((asked.status_code, asked.json().get("output")))
        return not before.keys() & processes_of(server.home).keys()

    with Asking(f"{server.place.query_url}/app/predict", 2) as asking:
        server.kill()
        server.start()
        assert len(before.keys() & processes_of(server.home).keys()) >= 3  # both workers are old, and a replica is
        assert server.deploy("people", FIRST_SEX, input_type=PEOPLE)["state"] == "ready"
        people = {"name": "people", "input_type": PEOPLE, "links": [{"model": "people"}], "slo_ms": 20_000}
        server.call("POST", "/applications", people)
        path = {"name": "path", "input_type": PEOPLE, "steps": PATH, "slo_ms": 20_000}
        server.call("POST", "/applications", path)
        until(all_are_new)
    # An old worker knows neither; no worker failed at them, nor lost a query of its other application.
    assert set(answers) <= {(404, None), (200, "female of 31")}
    assert set(asking.answers) == {"one"}
    for name in ("people", "path"):
        assert {server.predict(name, ANNA)["output"] for _ in range(20)} == {"female of 31"}
    until(lambda: not server.call("GET", "/status")["problems"])
    assert [worker["restarts"] for worker in server.call("GET", "/status")["workers"]] == [0, 0]


def test_a_restart_of_the_same_clipper_replaces_nothing(server: Server) -> None:
    with_application(server)
    before = processes_of(server.home)
    server.kill()
    server.start().until_ready()
    assert server.call("GET", "/status")["problems"] == []
    assert processes_of(server.home) == before


def test_other_settings_come_into_force_one_worker_at_a_time(server: Server) -> None:
    with_application(server)
    before = server.worker_pids
    with Asking(f"{server.place.query_url}/app/predict", 2) as asking:
        server.kill()
        server.start("--cache-bytes", "1000000")
        until(lambda: 'clipper_cache_capacity_bytes{worker="0"} 1e+06' in server.metrics)
        until(lambda: len(server.worker_pids) == 1)
    assert set(asking.answers) == {"one"}
    assert server.worker_pids != before


def test_fewer_workers_are_asked_for_and_the_last_one_too_many_drains(server: Server) -> None:
    server.with_options("--workers", "2")
    with_application(server)
    before = processes_of(server.home)
    with Asking(f"{server.place.query_url}/app/predict", 2) as asking:
        server.kill()
        server.start("--workers", "1")
        until(lambda: "worker-1" not in processes_of(server.home).values())
    assert set(asking.answers) == {"one"}
    assert processes_of(server.home).items() < before.items()
