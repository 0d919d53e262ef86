"""The supervisor end to end, with real workers and containers: its start, its stop, and all that it holds."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from clipper.client import Clipper
from clipper.errors import Unavailable
from clipper.settings.home import is_locked
from clipper.supervisor.managers.logs import MAX_LOG_BYTES
from tests.ports import keep_port, listen_once_free
from tests.started_processes import oddly_named
from tests.supervisor.live_server import APP, Server, answering, processes_of, with_application
from tests.waiting import TIMEOUT_S, until


def run_supervisor(home: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(home), *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def test_a_model_is_deployed_answers_and_stops_with_nothing_left(server: Server) -> None:
    with_application(server, replicas=2)
    assert server.predict("app", [1, 2])["output"] == "one"
    model = server.call("GET", "/models/m")
    assert (model["current"], model["previous"]) == ("1", None)
    (version,) = model["versions"]
    assert version["state"] == "ready" and version["current"] and version["input_type"] == "float64[2]"
    assert [replica["state"] for replica in version["replicas"]] == ["ready", "ready"]
    until(lambda: all(one["batch_limit"] for one in server.call("GET", "/models/m/versions/1")["replicas"]))
    assert server.call("GET", "/health/ready") == {"status": "ready"}
    assert sorted(processes_of(server.home).values()) == ["m@1-1", "m@1-2", "worker-0"]

    assert server.call("POST", "/stop", status=202) == {"status": "stopping", "drain_delay_s": 0.0}
    assert server.process is not None and server.process.wait(TIMEOUT_S) == 0
    assert processes_of(server.home) == {}
    assert not (server.home / "supervisor.json").exists()
    left = [path.name for path in (server.home / "run").iterdir()]
    assert sorted(left) == ["pythonpath", "scratch"]
    assert list((server.home / "run" / "scratch").iterdir()) == []


def test_everything_comes_back_after_a_stop(server: Server) -> None:
    with_application(server)
    server.deploy("m", answering("two"), input_type="float64[2]")
    assert server.stop() == 0
    server.start().until_ready()
    assert server.predict("app", [1, 2])["output"] == "two"
    assert server.call("GET", "/models/m")["previous"] == "1"


@pytest.mark.long
def test_a_model_of_an_odd_name_prevents_no_start_after_a_crash(server: Server) -> None:
    server.start()
    name = "open(f'/proc/{os.getpid()}/comm', 'wb', buffering=0).write(b'caf\\xe9 ) Z')"
    code = f"import os\n{name}\n{answering('one')}"
    assert server.deploy("m", code, input_type="float64[2]")["state"] == "ready"
    server.call("POST", "/applications", APP)
    with oddly_named(user=65534 if os.geteuid() == 0 else None):
        server.kill()
        assert server.start().predict("app", [1.0, 2.0])["output"] == "one"
        assert server.stop() == 0
    assert processes_of(server.home) == {}


def test_who_listens_at_a_dead_servers_port_gets_no_token(server: Server) -> None:
    held = keep_port()
    port = held.getsockname()[1]
    server.start("--management-port", str(port))
    assert server.process is not None
    with held, Clipper.connect(home=server.home) as known:
        server.process.kill()
        until(lambda: not is_locked(server.home))
        # Its process is still there, since nobody has collected its status, which might also never happen.
        with listen_once_free(port) as listener:
            with pytest.raises(Unavailable, match="is gone"):
                known.status()
            with pytest.raises(Unavailable, match="is gone"):
                Clipper.connect(home=server.home)
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_a_senders_id_takes_no_querys_feedback_away(shared: Server) -> None:
    query_id = shared.predict("app", [1.0, 2.0])["query_id"]

    def is_duplicate(**fields: Any) -> bool:
        answer = shared.observe("app", label="one", **fields)
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["duplicate"])

    other = {"input": [1.0, 2.0], "id": f"query-{query_id}"}
    assert [is_duplicate(**other), is_duplicate(query_id=query_id)] == [False, False]
    assert [is_duplicate(**other), is_duplicate(query_id=query_id)] == [True, True]


def test_idle_it_takes_little_memory(shared: Server) -> None:
    assert shared.process is not None
    pids = [shared.process.pid, *shared.worker_pids]
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    sizes_kb = [int(line.split()[1]) for text in statuses for line in text.splitlines() if line.startswith("VmRSS")]
    assert len(sizes_kb) == 2 and sum(sizes_kb) <= 150_000


def test_a_second_supervisor_on_a_home_is_refused(shared: Server) -> None:
    run = run_supervisor(shared.home, "--query-port", "0", "--management-port", "0")
    assert run.returncode == 1
    assert shared.process is not None and f"pid {shared.process.pid}" in run.stderr.splitlines()[-1]
    assert shared.predict("app", [1, 2])["output"] == "one"


@pytest.mark.parametrize("option", ["--query-port", "--management-port"])
def test_a_port_that_is_taken(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = run_supervisor(tmp_path, "--query-port", "0", "--management-port", "0", option, port)
    assert run.returncode == 1
    assert port in run.stderr.splitlines()[-1] and option in run.stderr.splitlines()[-1]
    assert processes_of(tmp_path) == {}


def test_the_port_of_another_server_is_taken_although_workers_share_it(shared: Server, tmp_path: Path) -> None:
    port = shared.place.query_url.rpartition(":")[2]
    run = run_supervisor(tmp_path, "--management-port", "0", "--query-port", port)
    assert run.returncode == 1 and port in run.stderr
    assert processes_of(tmp_path) == {}


@pytest.mark.long
def test_a_home_whose_path_is_too_long_for_sockets(server: Server, tmp_path: Path) -> None:
    server.home = tmp_path / ("long" * 30) / "home"
    with_application(server)
    assert server.predict("app", [1, 2])["output"] == "one"
    record = json.loads((server.home / "run" / "m@1-1.json").read_text())
    address = Path(record["extra"]["listen"].removeprefix("unix:"))
    assert address.is_socket() and not address.is_relative_to(server.home)
    assert address.parent.stat().st_mode & 0o777 == 0o700
    assert server.stop() == 0
    assert not address.parent.exists()


def test_sigterm_loses_no_query_that_is_under_way(server: Server) -> None:
    gate = server.home.parent / "gate"
    code = f"""
import os, time
def predict(inputs):
    print('in hand')
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.01)
    return ['slow' for _ in inputs]
"""
    server.start()
    server.deploy("m", code, input_type="float64[2]")
    server.call("POST", "/applications", APP)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(server.predict("app", [1, 2])))
    asking.start()
    until(lambda: "in hand" in (server.home / "logs" / "m@1-1.log").read_text())
    assert server.process is not None
    server.process.terminate()
    until(lambda: "stopping" in server.log)
    gate.touch()
    assert server.process.wait(TIMEOUT_S) == 0
    asking.join()
    assert [answer["output"] for answer in answers] == ["slow"]


def test_a_registry_that_cannot_be_written_stops_changes_and_nothing_else(server: Server) -> None:
    with_application(server)
    other = sqlite3.connect(server.home / "registry.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    error = server.call("POST", "/applications", {**APP, "name": "other"}, status=503)
    assert error["error"] == "registry_unavailable" and "locked" in error["cause"]
    (pid,) = server.ready_pids("m")
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.ready_pids("m") not in ([], [pid]))
    assert server.predict("app", [1, 2])["output"] == "one"
    other.execute("ROLLBACK")
    other.close()
    server.call("POST", "/applications", {**APP, "name": "other"})
    assert server.predict("other", [1, 2])["output"] == "one"


@pytest.mark.long
def test_what_a_registry_could_not_take_down_is_stored_later(server: Server) -> None:
    with_application(server)
    gate = server.home.parent / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n" + answering("two")
    server.deploy("m", code, wait=False, input_type="float64[2]")
    other = sqlite3.connect(server.home / "registry.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    gate.touch()
    until(lambda: "locked" in server.log)
    other.execute("ROLLBACK")
    other.close()
    assert server.decided("m", "2")["current"]


def test_the_logs_of_a_model_that_prints_without_end_are_bounded(server: Server) -> None:
    code = "import threading\ndef talk():\n    while True: print('x' * 1000)\n"
    server.start()
    server.deploy("m", code + "threading.Thread(target=talk, daemon=True).start()\n" + answering("one"))
    log = server.home / "logs" / "m@1-1.log"
    cut = log.with_name("m@1-1.log.1")
    until(cut.exists)
    until(lambda: log.stat().st_size < MAX_LOG_BYTES)
    assert cut.stat().st_size <= MAX_LOG_BYTES
    # Fewer while it is being cut.
    until(lambda: len(server.call("GET", "/models/m/logs?lines=5")["lines"]["m:1#1"]) == 5)


def test_a_home_that_is_moved_away_is_told_of_until_it_is_back(server: Server) -> None:
    with_application(server)
    status, headers = f"{server.place.management_url}/status", {"Authorization": f"Bearer {server.token}"}
    predict = f"{server.place.query_url}/app/predict"
    away = server.home.with_name("away")
    server.home.rename(away)
    try:
        (problem,) = httpx.get(status, headers=headers, timeout=TIMEOUT_S).json()["problems"]
        assert problem.startswith(f"its home {server.home} is gone: ")
        answer = httpx.post(predict, json={"input": [1, 2]}, timeout=TIMEOUT_S)
        assert answer.json()["output"] == "one"
    finally:
        away.rename(server.home)
    assert server.call("GET", "/status")["problems"] == []


@pytest.mark.long
def test_an_unreadable_row_of_the_registry_is_told_and_the_rest_is_served(server: Server) -> None:
    with_application(server)
    server.call("POST", "/applications", {**APP, "name": "lost"})
    assert server.stop() == 0
    with closing(sqlite3.connect(server.home / "registry.sqlite3", isolation_level=None)) as registry:
        registry.execute("UPDATE applications SET record = '{' WHERE name = 'lost'")
        registry.execute("INSERT INTO versions VALUES ('m', '9', 'null')")
    server.start().until_ready()
    assert server.predict("app", [1, 2])["output"] == "one"
    told = server.call("GET", "/status")["problems"]
    assert [text.partition(" is left out")[0] for text in told] == ["application 'lost'", "version 'm:9'"]
    assert server.deploy("m", answering("two"), input_type="float64[2]")["version"] == "10"
    server.call("POST", "/applications", {**APP, "name": "lost"})
    assert len(server.call("GET", "/status")["problems"]) == 1


def test_the_previous_version_keeps_a_replica_and_a_rollback_gets_all(shared: Server) -> None:
    """It kept all of its replicas, so a model took twice its room, and three times while it was deployed."""
    for value in (1, 2):
        assert shared.deploy("kept", answering(value), input_type="float64[2]", replicas=3)["state"] == "ready"

    def ready() -> list[tuple[int, int]]:
        versions = shared.call("GET", "/models/kept")["versions"]
        return [
            (sum(one["state"] == "ready" for one in each["replicas"]), each["replicas_wanted"]) for each in versions
        ]

    until(lambda: ready() == [(1, 1), (3, 3)])
    shared.call("POST", "/models/kept/rollback", {})
    assert ready()[0] == (3, 3)
    until(lambda: ready() == [(3, 3), (1, 1)])
    shared.call("DELETE", "/models/kept")
