"""Two servers of one cluster, on homes that stand for two machines, with a real Redis: one leads, one stands by."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from clipper.base.processes.proc import parent_of, pids
from clipper.errors import Unavailable
from clipper.settings.home import read_place
from tests.redis_server import RedisServer
from tests.supervisor.live_server import APP, Server, answering, with_application
from tests.tcp_proxy import TcpProxy
from tests.waiting import TIMEOUT_S, until

ROW = [1.0, 2.0]
# The docs promise operators a new leader within this time.
TAKEOVER_S = 10.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as redis:
        redis.start()
        yield redis


@pytest.fixture
def servers(tmp_path: Path, redis: RedisServer) -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        pair = [Server(tmp_path / name, "--registry", redis.url) for name in ("first", "second")]
        for server in pair:
            stack.callback(server.clean_up)
        yield pair[0], pair[1]


def lease_of(server: Server) -> Any:
    """The lease that a server reports; None while it does not answer."""
    try:
        return server.call("GET", "/status")["lease"]
    except (httpx.HTTPError, Unavailable):  # it is just starting, or has ended
        return None


def leads(server: Server) -> bool:
    lease = lease_of(server)
    return lease is not None and lease["role"] == "leader"


def answers(server: Server, output: str = "one") -> bool:
    try:
        return bool(server.predict("app", ROW).get("output") == output)
    except (httpx.HTTPError, Unavailable):  # it is just starting, or has ended
        return False


@pytest.mark.long
def test_a_leader_that_stops_hands_over_and_its_standby_has_everything(servers: tuple[Server, Server]) -> None:
    first, second = servers
    with_application(first)
    second.start()
    lease = lease_of(second)
    assert (lease["role"], lease["epoch"]) == ("standby", 1)
    assert first.place.management_url in lease["leader"]
    refusal = second.call("GET", "/models", status=503)
    assert refusal["error"] == "not_leader" and first.place.management_url in refusal["cause"]
    assert second.call("POST", "/tokens", {"name": "ci"}, status=503)["error"] == "not_leader"
    assert second.ask("GET", "/health/live").status_code == 200
    assert second.ask("GET", "/health/ready").status_code == 503

    has_taken_over = Event()

    def find() -> None:
        while not has_taken_over.is_set():
            read_place(second.home)

    with ThreadPoolExecutor(1) as thread:
        finding = thread.submit(find)
        try:
            assert first.stop() == 0
            until(lambda: leads(second))
            until(lambda: answers(second))
        finally:
            has_taken_over.set()
        finding.result()  # at each moment it was where it had been
    assert lease_of(second)["epoch"] == 2
    assert second.stop() == 0


@pytest.mark.scale
def test_a_standby_takes_over_from_a_leader_that_is_killed(servers: tuple[Server, Server]) -> None:
    first, second = servers
    with_application(first)
    second.start()
    first.kill()
    killed_at = time.monotonic()
    until(lambda: leads(second))
    took_s = time.monotonic() - killed_at
    print(f"another leads {took_s:.2f} s after SIGKILL")
    assert took_s < TAKEOVER_S
    # Queries to the machine whose supervisor died go on until the new leader answers them.
    assert first.worker_pids and answers(first)
    until(lambda: answers(second))
    second.call("POST", "/applications", {**APP, "name": "other"})

    # The one that was killed comes back as a standby, and its old workers, which know nothing of the change, end.
    (first.home / "supervisor.json").unlink()
    first.start()
    assert lease_of(first)["role"] == "standby"
    until(lambda: first.worker_pids == [])
    assert lease_of(second)["epoch"] == 2
    assert second.predict("other", ROW)["output"] == "one"


@pytest.mark.scale
def test_a_leader_that_was_paused_steps_down_and_touches_nothing(
    servers: tuple[Server, Server], redis: RedisServer
) -> None:
    first, second = servers
    with_application(first.with_options("--registry", redis.url, "--start-method", "forkserver"), replicas=2)
    second.start()
    process = first.process
    assert process is not None
    forked_from = [parent_of(pid) for pid in first.ready_pids("m")]
    assert any(parent != process.pid for parent in forked_from)
    process.send_signal(signal.SIGSTOP)
    paused_at = time.monotonic()
    until(lambda: leads(second))
    took_s = time.monotonic() - paused_at
    print(f"another leads {took_s:.2f} s after SIGSTOP")
    assert took_s < TAKEOVER_S
    until(lambda: answers(second))
    second.deploy("m", answering("two"), input_type="float64[2]")
    ready = second.ready_pids("m")

    process.send_signal(signal.SIGCONT)
    until(lambda: (lease := lease_of(first)) is not None and lease["role"] == "standby")
    assert process.poll() is None, "it goes on in its process, as a service manager expects"
    until(lambda: first.worker_pids == [])
    # Nor is anything left that has ended and that nobody reaps, such as a fork server.
    until(lambda: [pid for pid in pids() if parent_of(pid) == process.pid] == [])
    assert leads(second) and lease_of(second)["epoch"] == 2
    assert second.ready_pids("m") == ready
    assert second.predict("app", ROW)["output"] == "two"
    # And back again.
    second.kill()
    until(lambda: leads(first))
    until(lambda: answers(first, "two"))


@pytest.mark.scale
def test_a_leader_that_is_cut_off_from_redis_goes_on_with_what_is_its_own(
    servers: tuple[Server, Server], redis: RedisServer
) -> None:
    first, second = servers
    with TcpProxy(redis.port) as proxy:
        with_application(first.with_options("--registry", f"redis://127.0.0.1:{proxy.port}/0"))
        second.start()
        proxy.cut()
        cut_at = time.monotonic()
        until(lambda: leads(second))
        took_s = time.monotonic() - cut_at
        print(f"another leads {took_s:.2f} s after the cut")
        assert took_s < TAKEOVER_S
        # The one that is cut off cannot know, but it can change nothing.
        until(lambda: any("changes are refused" in problem for problem in first.call("GET", "/status")["problems"]))
        refusal = first.call("POST", "/applications", {**APP, "name": "other"}, status=503)
        assert refusal["error"] == "registry_unavailable" and "Redis" in refusal["cause"]
        assert answers(first)
        before = first.worker_pids
        os.kill(before[0], signal.SIGKILL)
        until(lambda: first.worker_pids and first.worker_pids != before and answers(first))
        until(lambda: answers(second))
        second.call("POST", "/applications", {**APP, "name": "other"})
        proxy.mend()
        until(lambda: (lease := lease_of(first)) is not None and lease["role"] == "standby")
        until(lambda: first.worker_pids == [])
        assert second.predict("other", ROW)["output"] == "one"
        assert lease_of(second)["epoch"] == 2


@pytest.mark.scale
def test_a_redis_that_is_down_costs_no_query_and_all_resumes_afterwards(
    servers: tuple[Server, Server], redis: RedisServer
) -> None:
    first, second = servers
    with_application(first)
    second.start()
    redis.kill()
    until(lambda: first.call("GET", "/status")["problems"])
    assert first.call("GET", "/status")["ready"]
    refusal = first.call("POST", "/applications", {**APP, "name": "other"}, status=503)
    assert refusal["error"] == "registry_unavailable"
    (pid,) = first.ready_pids("m")
    os.kill(pid, signal.SIGKILL)
    until(lambda: first.ready_pids("m") not in ([], [pid]))
    assert answers(first)
    # Longer than a lease. Nobody else has led, so what the leader knows still holds.
    until(lambda: "for 7 s" in first.call("GET", "/status")["problems"][0])
    redis.start()
    until(lambda: not first.call("GET", "/status")["problems"])
    first.call("POST", "/applications", {**APP, "name": "other"})
    assert (lease_of(first)["role"], lease_of(first)["epoch"], lease_of(second)["role"]) == ("leader", 1, "standby")


@pytest.mark.scale
def test_two_that_start_at_once_are_one_leader_and_one_standby(servers: tuple[Server, Server]) -> None:
    for _ in range(3):
        for server in servers:
            server.home.joinpath("logs").mkdir(parents=True, exist_ok=True)
        first, second = servers
        first.start()
        second.start()
        roles = sorted(lease_of(server)["role"] for server in servers)
        assert roles == ["leader", "standby"]
        for server in servers:
            server.stop()


@pytest.mark.long
def test_a_registry_that_is_none_ends_the_start_with_what_to_do(tmp_path: Path) -> None:
    for address, cause in (
        ("mongodb://host", "expected redis://HOST:PORT/DB"),
        ("yes", "argument --registry: registry 'yes' is not known"),
        ("redis://:secret@host:port", "registry 'redis://host:port' is not known"),
    ):
        argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(tmp_path / "home"), "--registry", address]
        argv += ["--query-port", "0", "--management-port", "0", "--store", f"sqlite:{tmp_path / 'store'}"]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert ran.returncode == 2
        assert cause in ran.stderr.splitlines()[-1]
