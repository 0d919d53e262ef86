"""A supervisor that is dead while its workers and containers serve: what commands say and do then."""

import json
import os
import signal
from pathlib import Path

import httpx
import pytest

from clipper.cli.process import running
from clipper.settings.home import lock_home, read_place
from tests.cli.commands import Command, succeed
from tests.supervisor.live_server import processes_of
from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.long

FREE_PORTS = ["--query-port", "0", "--management-port", "0"]
INPUT = {"input": [1, 2, 3, 4]}


def killed(clipper: Command, home: Path) -> str:
    """Serve, kill the supervisor, and return the URL where queries are still answered."""
    succeed(clipper("start", *FREE_PORTS))
    succeed(clipper("deploy", "sum", "model:Sum", "--replicas", "2"))
    succeed(clipper("app", "create", "sum", "--model", "sum", "--slo-ms", "20000"))
    place = read_place(home)
    os.kill(place.pid, signal.SIGKILL)
    until(lambda: running(home) is None)
    url = f"{place.query_url}/sum/predict"
    assert httpx.post(url, json=INPUT, timeout=TIMEOUT_S).status_code == 200
    return url


def test_status_shows_what_a_dead_supervisor_left_and_stop_ends_it(clipper: Command, home: Path) -> None:
    url = killed(clipper, home)
    shown = clipper("status")
    assert shown.returncode == 1
    rows = {line.split("  ")[0]: line for line in shown.stdout.splitlines()}
    port = str(httpx.URL(url).port)
    assert port in rows["worker 0"] and {"sum:1#1", "sum:1#2"} < rows.keys()
    assert "is gone, and 1 worker and 2 containers still run" in shown.stderr
    found = json.loads(clipper("status", "--json").stdout)
    assert {orphan["pid"] for orphan in found["orphans"]} == set(processes_of(home))
    # Looking has ended nothing.
    assert httpx.post(url, json=INPUT, timeout=TIMEOUT_S).status_code == 200

    assert "stopped" in succeed(clipper("stop"))
    assert set(processes_of(home)) == set()
    again = clipper("stop")
    assert again.returncode == 1 and f"no Clipper runs in {home}" in again.stderr
    assert "clipper start" in clipper("status").stderr


def test_start_takes_over_what_a_dead_supervisor_left(clipper: Command, home: Path) -> None:
    url = killed(clipper, home)
    before = set(processes_of(home))
    succeed(clipper("start", *FREE_PORTS))
    assert set(processes_of(home)) == before
    assert httpx.post(url, json=INPUT, timeout=TIMEOUT_S).status_code == 200


def test_a_supervisor_that_does_not_answer_is_not_taken_for_a_dead_one(clipper: Command, home: Path) -> None:
    home.mkdir()
    lock = lock_home(home)
    for command in ("status", "stop"):
        refused = clipper(command)
        assert refused.returncode == 1
        assert f"a supervisor (pid {os.getpid()}) has {home} and does not answer" in refused.stderr
    os.close(lock)
    assert f"no Clipper runs in {home}" in clipper("status").stderr


def test_a_home_of_another_user(clipper: Command, home: Path) -> None:
    home.mkdir()
    (home / "supervisor.lock").mkdir()  # as root, no file is closed to a test
    refused = clipper("status")
    assert refused.returncode == 1 and "run this as the server's user" in refused.stderr
