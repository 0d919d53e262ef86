"""Waiting for a server's process: what ends the wait, and with which words."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from clipper.api.schemas import LeaseStatus, WorkerStatus
from clipper.cli import process as processes
from clipper.cli.process import ServerStart, StartingServer, checked_start, settled, spawn, wait_until_gone
from clipper.errors import Conflict, DeadlineExceeded, InvalidArgument, Unavailable
from clipper.settings.home import lock_home
from clipper.supervisor.config import Config, parse_command_line
from tests.conftest import Api
from tests.waiting import TIMEOUT_S


@pytest.fixture
def server(api: Api) -> Iterator[StartingServer]:
    """A process that does nothing, whose management API is that of ``api``."""
    logs = api.home / "logs"
    logs.mkdir()
    log = logs / "supervisor.log"
    log.write_text("of the run before\nof this run\n")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    api.operations.pid = process.pid
    yield StartingServer(api.home, process, log, log_start=len("of the run before\n"))
    process.kill()
    process.wait(TIMEOUT_S)


def start_of(home: Path, **settings: str) -> ServerStart:
    return ServerStart(home, {"query_port": 0, "management_port": 0, "cache_bytes": 0, **settings})


def test_ready(server: StartingServer, api: Api) -> None:
    assert server.wait_until_ready().management_url == api.url


def test_a_server_that_starts_or_stops_is_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = settled(api.home)
    assert now is not None and now.management_url == api.url
    other = tmp_path / "other"
    assert settled(other) is None
    other.mkdir()
    lock = lock_home(other)
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.1)
    with pytest.raises(DeadlineExceeded, match=f"the server of {other} has neither answered nor stopped within"):
        settled(other)
    os.close(lock)
    assert settled(other) is None
    api.operations.stopping = True
    with pytest.raises(Conflict, match="until its drain delay is over: clipper stop ends the delay"):
        settled(api.home)


def test_a_standby_is_not_waited_for(server: StartingServer, api: Api) -> None:
    api.operations.causes = ["this server is a standby"]
    api.operations.worker_state = "starting"
    api.operations.lease = LeaseStatus("standby", "redis://h/0", 7, "http://leader", 1e9)
    now = server.wait_until_ready()
    assert now.lease is not None and now.lease.leader == "http://leader"


def test_a_server_that_is_not_ready_in_time(server: StartingServer, api: Api) -> None:
    api.operations.causes, api.operations.worker_state = ["worker 0 is starting"], "starting"
    with pytest.raises(DeadlineExceeded, match=r"worker 0 is starting; the last lines of .*supervisor\.log"):
        server.wait_until_ready(timeout_s=0.1)


@pytest.mark.parametrize(("state", "timeout_s"), [("crash_loop", 60), ("starting", 0.1)])
def test_models_that_are_not_ready_keep_nobody_from_the_others(
    server: StartingServer, api: Api, state: str, timeout_s: float
) -> None:
    api.operations.causes, api.operations.replica_states = ["m:1 has no replica that is ready"], {state: 1}
    now = server.wait_until_ready(timeout_s)
    assert (now.ready, now.problems) == (False, ("m:1 has no replica that is ready",))


def test_workers_that_cannot_start_end_the_wait(server: StartingServer, api: Api) -> None:
    api.operations.causes = ["no worker is ready"]
    api.operations.worker_state = "crash_loop"
    (api.home / "logs" / "worker-0.log").write_text("ImportError: no uvloop\n")
    with pytest.raises(Unavailable, match="worker 0 dies each time it starts") as caught:
        server.wait_until_ready()
    assert "ImportError: no uvloop" in str(caught.value)


def test_a_worker_that_cannot_start_ends_the_wait_if_no_other_answers(server: StartingServer, api: Api) -> None:
    api.operations.causes = ["no worker is ready"]
    taken = WorkerStatus(1, None, "crash_loop", 5, 0, "its last line is 'cannot listen on 10.0.0.2:1337'", "10.0.0.2")
    api.operations.further_workers = (taken,)
    api.operations.worker_state = "starting"
    with pytest.raises(Unavailable, match=r"worker 1 on 10\.0\.0\.2 dies .*: its last line is 'cannot listen on 10\.0"):
        server.wait_until_ready()
    api.operations.causes, api.operations.worker_state = [], "ready"
    assert server.wait_until_ready().workers[1] == taken


def test_a_server_that_ended_shows_what_it_wrote_in_this_run(server: StartingServer) -> None:
    server.process.kill()
    server.process.wait(TIMEOUT_S)
    with pytest.raises(Unavailable, match="ended with status -9 while it started") as caught:
        server.wait_until_ready()
    assert str(caught.value).endswith("supervisor.log:\nof this run")


def test_another_servers_answer_is_not_taken_for_its_own(server: StartingServer, api: Api) -> None:
    api.operations.pid = 1
    with pytest.raises(DeadlineExceeded, match="has not written its address"):
        server.wait_until_ready(timeout_s=0.1)


def test_stop_ends_the_process(server: StartingServer) -> None:
    server.stop()
    assert server.process.poll() is not None
    server.stop()


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"cannot be used.* --home"):
        spawn(start_of(tmp_path / "file" / "home"))


def test_a_server_without_a_lock_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        # Its end is waited for, though not that its parent takes note of it.
        wait_until_gone(tmp_path, process.pid)
        assert process.returncode is None
        (tmp_path / "supervisor.lock").write_text("")
        wait_until_gone(tmp_path, process.pid)
    wait_until_gone(tmp_path, process.pid)


def test_a_server_that_does_not_go_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.05)
    with pytest.raises(DeadlineExceeded, match="still runs"):
        wait_until_gone(tmp_path, os.getpid())


def test_addresses_are_not_on_the_servers_command_line(tmp_path: Path) -> None:
    start = start_of(tmp_path, store="redis://:secret@host/0", registry="redis://:secret@host/1")
    assert not any("secret" in part for part in start.argv())
    assert start.environment()["CLIPPER_STORE"] == "redis://:secret@host/0"
    assert start.environment()["CLIPPER_REGISTRY"] == "redis://:secret@host/1"


def test_a_servers_process_is_told_what_the_command_was(tmp_path: Path) -> None:
    given = {
        "host": "::1", "workers": 2, "allowed_host": ("a", "b"), "insecure": True, "api_keys": False,
        "cache_bytes": 0, "tls_cert": tmp_path / "c.pem", "tls_key": tmp_path / "c.pem", "docker_transport": "tcp",
    }  # fmt: skip
    (_, _, module, *arguments) = ServerStart(tmp_path, given).argv()
    assert module == "clipper.supervisor"
    assert parse_command_line(arguments) == Config(tmp_path, **given)


def test_a_manager_without_its_extra_is_refused(tmp_path: Path) -> None:
    assert find_spec("ray") is None, "the tests' own environment has it, so this test says nothing"
    settings = {"management_host": "127.0.0.1", "manager": "ray"}
    with pytest.raises(typer.BadParameter, match=r"pip install 'clipper-serving\[ray\]'"):
        checked_start(tmp_path, settings)
    with pytest.raises(typer.BadParameter, match="or no --run-as"):
        checked_start(tmp_path, settings | {"run_as": "nobody"})
    started = checked_start(tmp_path, settings | {"ray_python": Path("/python")})
    assert started.argv()[-4:] == ["--manager", "ray", "--ray-python", "/python"]


def test_a_port_for_grpc_without_its_extra_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.settings.server.has_grpc", lambda: False)
    settings = {"management_host": "127.0.0.1"}
    with pytest.raises(typer.BadParameter, match=r"pip install 'clipper-serving\[grpc\]'"):
        checked_start(tmp_path, settings | {"grpc_port": 1339})
    assert checked_start(tmp_path, settings | {"grpc_port": "off"}).argv()[-2:] == ["--grpc-port", "off"]
    monkeypatch.setattr("clipper.settings.server.has_grpc", lambda: True)
    assert checked_start(tmp_path, settings | {"grpc_port": 1339}).argv()[-2:] == ["--grpc-port", "1339"]


def test_options_that_the_server_refuses_are_told_in_its_words_alone(tmp_path: Path) -> None:
    starting = spawn(ServerStart(tmp_path / "home", {"workers_per_node": 2}))
    with pytest.raises(InvalidArgument) as refused:
        starting.wait_until_ready()
    assert str(refused.value) == (
        "--workers-per-node 2: nodes are those of a Ray cluster: expected --manager ray, not local"
    )
