"""The supervisor end to end, with real workers and containers."""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from live_server import TIMEOUT_S, Server, answering, processes_of, until

from clipper.managers.logs import MAX_LOG_BYTES

APP: dict[str, Any] = {"name": "app", "slo_ms": 20_000, "input_type": "float64[2]", "links": [{"model": "m"}]}


def with_application(server: Server, **fields: Any) -> Server:
    server.start()
    assert server.deploy("m", answering("one"), input_type="float64[2]", **fields)["state"] == "ready"
    server.call("POST", "/applications", APP)
    return server


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

    assert server.call("POST", "/stop", status=202) == {"status": "stopping"}
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
    server.start()
    until(lambda: server.call("GET", "/status")["ready"])
    assert server.predict("app", [1, 2])["output"] == "two"
    assert server.call("GET", "/models/m")["previous"] == "1"


def test_a_killed_supervisor_leaves_all_serving_and_the_next_takes_it_over(server: Server) -> None:
    with_application(server, replicas=2)
    before = processes_of(server.home)
    place = server.place
    server.kill()
    assert server.predict("app", [1, 2])["output"] == "one"

    server.start()
    assert server.place.query_url == place.query_url
    assert server.predict("app", [3, 4])["output"] == "one"
    until(lambda: server.call("GET", "/status")["ready"])
    assert processes_of(server.home) == before
    assert server.ready_pids("m") == sorted(pid for pid, name in before.items() if name.startswith("m@"))
    # What was taken over is looked after like the rest.
    os.kill(server.ready_pids("m")[0], signal.SIGKILL)
    until(lambda: len(server.ready_pids("m")) == 2 and processes_of(server.home) != before)
    (worker,) = server.worker_pids
    os.kill(worker, signal.SIGKILL)
    until(lambda: server.worker_pids not in ([], [worker]) and server.call("GET", "/status")["ready"])
    assert server.predict("app", [5, 6])["output"] == "one"
    assert server.stop() == 0
    assert processes_of(server.home) == {}


def test_whenever_a_supervisor_is_killed_nothing_is_leaked_and_the_last_wish_holds(server: Server) -> None:
    rng = random.Random(7)
    with_application(server)
    for number in range(2, 7):
        server.deploy("m", answering(str(number)), wait=False, input_type="float64[2]", version=str(number))
        time.sleep(rng.random())  # somewhere between the request and its end; every place has to do
        server.kill()
        server.start()
    until(lambda: server.call("GET", "/models/m")["current"] == "6")
    assert server.predict("app", [1, 2])["output"] == "6"
    previous = server.call("GET", "/models/m")["previous"]
    wanted = sorted(["m@6-1", f"m@{previous}-1", "worker-0"])
    until(lambda: sorted(processes_of(server.home).values()) == wanted)
    assert server.stop() == 0
    assert processes_of(server.home) == {}


def test_idle_it_takes_little_memory(shared: Server) -> None:
    assert shared.process is not None
    pids = [shared.process.pid, *shared.worker_pids]
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    sizes_kb = [int(line.split()[1]) for text in statuses for line in text.splitlines() if line.startswith("VmRSS")]
    assert len(sizes_kb) == 2 and sum(sizes_kb) <= 150_000


def test_what_died_while_there_was_no_supervisor_is_replaced(server: Server) -> None:
    with_application(server, replicas=2)
    first, second = server.ready_pids("m")
    (worker,) = server.worker_pids
    server.kill()
    os.kill(first, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    server.start()
    until(lambda: len(server.ready_pids("m")) == 2 and server.call("GET", "/status")["ready"])
    assert second in server.ready_pids("m") and first not in server.ready_pids("m")
    assert server.predict("app", [1, 2])["output"] == "one"
    assert sorted(processes_of(server.home).values()) == ["m@1-1", "m@1-2", "worker-0"]


def test_workers_with_other_settings_are_replaced_and_containers_kept(server: Server) -> None:
    with_application(server)
    (worker,), containers = server.worker_pids, server.ready_pids("m")
    server.kill()
    server.start("--workers", "2", "--cache-bytes", "1000000")
    until(lambda: [one["state"] for one in server.call("GET", "/status")["workers"]] == ["ready", "ready"])
    assert len(server.worker_pids) == 2 and worker not in server.worker_pids
    assert server.ready_pids("m") == containers


def test_a_version_that_fails_leaves_the_current_one_and_says_why(server: Server) -> None:
    with_application(server)
    failed = server.deploy("m", "print('first words')\nraise RuntimeError('no weights')")
    assert failed["state"] == "failed" and "no weights" in failed["last_error"]
    assert any("no weights" in line for line in failed["log_tail"])
    until(lambda: server.call("GET", "/models/m/versions/2")["replicas"] == [])
    assert server.call("GET", "/models/m")["current"] == "1"
    logs = server.call("GET", "/models/m/logs?version=2")["lines"]
    assert any("first words" in line for line in logs["m:2#1"])
    # It may be deployed again under its name.
    again = server.deploy("m", answering("two"), version="2", input_type="float64[2]")
    assert again["state"] == "ready" and again["current"] and again["last_error"] is None
    assert server.predict("app", [1, 2])["output"] == "two"


def test_a_version_of_another_input_type_than_its_applications_fails(server: Server) -> None:
    with_application(server)
    failed = server.deploy("m", answering("two"), input_type="string")
    assert failed["state"] == "failed"
    assert "'app' has inputs float64[2]" in failed["last_error"] and "takes string" in failed["last_error"]


def test_older_versions_sleep_and_are_woken_by_a_rollback(server: Server) -> None:
    with_application(server)
    for answer in ("two", "three"):
        server.deploy("m", answering(answer), input_type="float64[2]")
    until(lambda: server.call("GET", "/models/m/versions/1")["replicas"] == [])
    assert server.call("GET", "/models/m/versions/1")["state"] == "sleeping"

    model = server.call("POST", "/models/m/rollback", {})
    assert (model["current"], model["previous"]) == ("2", "3")
    assert server.predict("app", [1, 2])["output"] == "two"
    model = server.call("POST", "/models/m/rollback", {"version": "1"})
    assert (model["current"], model["previous"]) == ("1", "2")
    assert server.predict("app", [1, 2])["output"] == "one"
    until(lambda: server.call("GET", "/models/m/versions/3")["replicas"] == [])
    assert server.call("GET", "/models/m/versions/3")["state"] == "sleeping"


def test_a_rollback_to_what_no_longer_starts_fails_and_changes_nothing(server: Server) -> None:
    marker = server.home.parent / "broken"
    code = f"import os\nassert not os.path.exists({str(marker)!r}), 'it is broken'\n" + answering("zero")
    server.start()
    server.deploy("m", code)
    for answer in ("one", "two"):
        server.deploy("m", answering(answer))
    until(lambda: server.call("GET", "/models/m/versions/1")["replicas"] == [])
    marker.touch()
    error = server.call("POST", "/models/m/rollback", {"version": "1"}, status=502)
    assert error["error"] == "container_failed" and "it is broken" in error["cause"]
    assert server.call("GET", "/models/m")["current"] == "3"
    marker.unlink()
    assert server.call("POST", "/models/m/rollback", {"version": "1"})["current"] == "1"


def test_a_deployment_that_is_not_to_be_current_runs_beside_it(server: Server) -> None:
    with_application(server)
    beside = server.deploy("m", answering("two"), input_type="float64[2]", make_current=False)
    assert beside["state"] == "ready" and not beside["current"]
    assert server.predict("app", [1, 2])["output"] == "one"
    assert server.predict("app", [1, 2], version="2")["output"] == "two"
    server.call("PUT", "/applications/app/links/m", {"version": "2"})
    assert server.predict("app", [1, 2])["output"] == "two"
    assert server.call("DELETE", "/models/m/versions/2", status=409)["error"] == "conflict"


class Load(threading.Thread):
    """Queries one after another, each answer counted."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.answers: list[Any] = []
        self.enough = False

    def run(self) -> None:
        while not self.enough:
            self.answers.append(self.server.predict("app", [len(self.answers), 0]))

    def sees(self, output: str) -> bool:
        return bool(self.answers) and self.answers[-1].get("output") == output

    def finish(self) -> None:
        self.enough = True
        self.join()
        bad = [answer for answer in self.answers if "error" in answer or answer["default"]]
        assert bad == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_query_is_lost_while_versions_change_and_scale_under_load(server: Server, workers: str) -> None:
    server.options = ("--workers", workers)
    with_application(server, replicas=2, cache=False)
    loads = [Load(server) for _ in range(4)]
    for load in loads:
        load.start()

    def all_see(output: str) -> None:
        until(lambda: all(load.sees(output) for load in loads))

    try:
        all_see("one")
        server.deploy("m", answering("two"), input_type="float64[2]", replicas=2, cache=False)
        all_see("two")
        server.deploy("m", answering("three"), input_type="float64[2]", cache=False)
        all_see("three")
        server.call("POST", "/models/m/rollback", {})
        all_see("two")
        server.call("POST", "/models/m/rollback", {"version": "1"})
        server.call("POST", "/models/m/scale", {"replicas": 1})
        until(lambda: len(server.call("GET", "/models/m/versions/1")["replicas"]) == 1)
        all_see("one")
    finally:
        for load in loads:
            load.finish()


def test_scaling_up_and_down(server: Server) -> None:
    with_application(server)
    server.call("POST", "/models/m/scale", {"replicas": 3})
    until(lambda: len(server.ready_pids("m")) == 3)
    server.call("POST", "/models/m/scale", {"replicas": 1})
    until(lambda: len(processes_of(server.home)) == 2)
    assert server.predict("app", [1, 2])["output"] == "one"
    assert server.call("POST", "/models/m/scale", {"replicas": 0}, status=400)["error"] == "invalid_argument"


def test_a_range_of_replicas_begins_with_those_in_use_and_outlives_the_supervisor(server: Server) -> None:
    with_application(server, replicas={"min": 1, "max": 3})
    told = server.call("POST", "/models/m/scale", {"replicas": {"min": 2, "max": 4}})
    assert (told["replicas_wanted"], told["scaling"]) == (2, {"min": 2, "max": 4})
    until(lambda: len(server.ready_pids("m")) == 2)
    second = server.deploy("m", answering("two"), input_type="float64[2]", replicas={"min": 1, "max": 4})
    assert (second["state"], second["replicas_wanted"]) == ("ready", 2)
    server.kill()
    server.start()
    looked = until(lambda: server.call("GET", "/models/m/versions/2")["scaling_reason"])
    assert "expected" in looked or "no load" in looked
    assert server.call("GET", "/models/m/versions/2")["scaling"] == {"min": 1, "max": 4}
    until(lambda: len(server.ready_pids("m")) == 4)
    fixed = server.call("POST", "/models/m/scale", {"replicas": 1})
    assert (fixed["scaling"], fixed["scaling_reason"]) == (None, None)


def test_a_crash_loop_is_visible_and_the_rest_unharmed(server: Server) -> None:
    with_application(server)
    gate = server.home.parent / "gate"
    code = f"import os, threading, time\ndef die():\n    while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
    server.deploy(
        "dies", f"{code}    os._exit(7)\nthreading.Thread(target=die, daemon=True).start()\n" + answering("x")
    )
    gate.touch()

    def in_a_crash_loop() -> Any:
        (replica,) = server.call("GET", "/replicas")[:1]
        return replica if replica["state"] == "crash_loop" else None

    replica = until(in_a_crash_loop)
    assert replica["restarts"] == 4 and "exited with code 7" in replica["last_error"]
    assert server.call("GET", "/models/dies/versions/1")["state"] == "ready"
    assert server.predict("app", [1, 2])["output"] == "one"


def test_deleting(server: Server) -> None:
    with_application(server)
    server.deploy("m", answering("two"), input_type="float64[2]")
    assert server.call("DELETE", "/models/m/versions/2", status=409)["error"] == "conflict"
    assert server.call("DELETE", "/models/m", status=409)["error"] == "conflict"
    server.call("DELETE", "/models/m/versions/1")
    assert server.call("GET", "/models/m")["previous"] is None
    assert server.call("GET", "/models/m/versions/1", status=404)["error"] == "not_found"
    server.call("DELETE", "/applications/app")
    assert server.predict("app", [1, 2])["error"] == "not_found"
    server.call("DELETE", "/models/m")
    assert server.call("GET", "/models") == []
    assert sorted(processes_of(server.home).values()) == ["worker-0"]
    assert list((server.home / "artifacts").iterdir()) == []
    assert [path.name for path in (server.home / "logs").glob("m@*")] == []


def test_applications_change_while_they_are_served(server: Server) -> None:
    with_application(server)
    assert server.call("POST", "/applications", APP, status=409)["error"] == "conflict"
    server.call("PATCH", "/applications/app", {"slo_ms": 500, "default_output": None})
    application = server.call("GET", "/applications/app")
    assert application["slo_ms"] == 500 and application["default_output"] is None
    server.call("DELETE", "/applications/app/links/m")
    answer = server.predict("app", [1, 2])
    assert answer["default"] is True and answer["output"] is None
    other = {"name": "other", "slo_ms": 100, "links": [{"model": "m"}]}
    assert server.call("POST", "/applications", other)["input_type"] == "float64[2]"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({**APP, "name": "A b"}, "invalid_argument"),
        ({**APP, "name": "b", "slo_ms": 0}, "invalid_argument"),
        ({**APP, "name": "b", "policy": "none-such"}, "invalid_argument"),
        ({**APP, "name": "b", "input_type": "string"}, "invalid_argument"),
        ({**APP, "name": "b", "links": [{"model": "none"}]}, "not_found"),
        ({**APP, "name": "b", "links": [{"model": "m", "version": "9"}]}, "not_found"),
        ({"name": "b", "slo_ms": 9}, "invalid_argument"),
    ],
)
def test_applications_that_cannot_be(shared: Server, body: dict[str, Any], code: str) -> None:
    status = 404 if code == "not_found" else 400
    assert shared.call("POST", "/applications", body, status=status)["error"] == code


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"replicas": 0}, "invalid_argument"),
        ({"replicas": 1000}, "invalid_argument"),
        ({"replicas": {"min": 0, "max": 2}}, "invalid_argument"),
        ({"replicas": {"min": 3, "max": 2}}, "invalid_argument"),
        ({"replicas": {"min": 1, "max": 1000}}, "invalid_argument"),
        ({"target": "no-colon"}, "invalid_argument"),
        ({"loader": "file", "target": "../../registry.sqlite3"}, "invalid_argument"),
        ({"data": "no/such/file"}, "invalid_argument"),
        ({"artifact": "ab" * 32}, "not_found"),
        ({"input_type": "complex"}, "invalid_argument"),
        ({"version": "1"}, "conflict"),
        ({"version": "a/b"}, "invalid_argument"),
        ({"memory_bytes": 10}, "invalid_argument"),
        ({"cpus": 0}, "invalid_argument"),
        ({"gpus": "0"}, "invalid_argument"),
        ({"framework": "onnx"}, "invalid_argument"),
        ({"framework": "torch_state"}, "invalid_argument"),
        ({"loader": "file", "target": "code/my_model.py", "framework": "torch_state"}, "invalid_argument"),
        ({"loader": "file", "target": "code/my_model.py", "framework": "fortran"}, "malformed_request"),
        ({"loader": "binary", "target": "code/my_model.py", "output": "labels"}, "invalid_argument"),
        ({"output": "a,,b"}, "invalid_argument"),
        ({"batching": {"max_batch": 0}}, "invalid_argument"),
        ({"start_timeout_s": 0}, "invalid_argument"),
    ],
)
def test_deployments_that_cannot_be(shared: Server, fields: dict[str, Any], code: str) -> None:
    body = {"artifact": shared.upload(answering("x")), "loader": "import", "target": "my_model:predict", **fields}
    status = {"not_found": 404, "conflict": 409}.get(code, 400)
    assert shared.call("POST", "/models/m/versions", body, status=status)["error"] == code


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = Server(tmp_path_factory.mktemp("shared") / "home")
    try:
        yield with_application(server)
        assert server.stop() == 0
        assert processes_of(server.home) == {}
    finally:
        server.clean_up()


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


def test_a_deployment_goes_on_under_the_next_supervisor(server: Server) -> None:
    with_application(server)
    gate = server.home.parent / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n" + answering("two")
    server.deploy("m", code, wait=False, input_type="float64[2]")
    until((server.home / "run" / "m@2-1.json").exists)  # without a record it would be started anew
    loading = processes_of(server.home)
    server.kill()
    server.start()
    assert server.call("GET", "/models/m/versions/2")["state"] == "starting"
    assert processes_of(server.home) == loading
    gate.touch()
    version = server.decided("m", "2")
    assert version["state"] == "ready" and version["current"]
    assert server.predict("app", [1, 2])["output"] == "two"


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
    cut = until(lambda: (server.home / "logs" / "m@1-1.log.1").exists() and log.with_name("m@1-1.log.1"))
    until(lambda: log.stat().st_size < MAX_LOG_BYTES)
    assert cut.stat().st_size <= MAX_LOG_BYTES
    # Fewer while it is being cut.
    until(lambda: len(server.call("GET", "/models/m/logs?lines=5")["lines"]["m:1#1"]) == 5)
