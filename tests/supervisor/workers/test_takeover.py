"""Supervisors that are killed, and what the next one takes over: real workers and containers."""

import os
import random
import signal
import time

import pytest

from tests.supervisor.live_server import Server, answering, processes_of, with_application
from tests.waiting import until


def test_a_killed_supervisor_leaves_all_serving_and_the_next_takes_over(server: Server) -> None:
    with_application(server, replicas=2)
    before = processes_of(server.home)
    place = server.place
    server.kill()
    assert server.predict("app", [1, 2])["output"] == "one"

    server.start()
    assert server.place.query_url == place.query_url
    assert server.predict("app", [3, 4])["output"] == "one"
    server.until_ready()
    assert processes_of(server.home) == before
    assert server.ready_pids("m") == sorted(pid for pid, name in before.items() if name.startswith("m@"))
    # Adopted processes are looked after like the rest.
    os.kill(server.ready_pids("m")[0], signal.SIGKILL)
    until(lambda: len(server.ready_pids("m")) == 2 and processes_of(server.home) != before)
    server.kill_workers()
    assert server.predict("app", [5, 6])["output"] == "one"
    assert server.stop() == 0
    assert processes_of(server.home) == {}


@pytest.mark.long
def test_a_supervisor_killed_at_any_time_leaks_nothing_and_keeps_wishes(server: Server) -> None:
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


@pytest.mark.long
def test_what_died_while_there_was_no_supervisor_is_replaced(server: Server) -> None:
    with_application(server, replicas=2)
    first, second = server.ready_pids("m")
    (worker,) = server.worker_pids
    server.kill()
    os.kill(first, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    server.start()
    until(lambda: len(server.ready_pids("m")) == 2)
    server.until_ready()
    assert second in server.ready_pids("m") and first not in server.ready_pids("m")
    assert server.predict("app", [1, 2])["output"] == "one"
    assert sorted(processes_of(server.home).values()) == ["m@1-1", "m@1-2", "worker-0"]


@pytest.mark.long
def test_workers_with_other_settings_are_replaced_and_containers_kept(server: Server) -> None:
    with_application(server)
    (worker,), containers = server.worker_pids, server.ready_pids("m")
    server.kill()
    server.start("--workers", "2", "--cache-bytes", "1000000")
    until(lambda: [one["state"] for one in server.call("GET", "/status")["workers"]] == ["ready", "ready"])
    assert len(server.worker_pids) == 2 and worker not in server.worker_pids
    assert server.ready_pids("m") == containers


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
