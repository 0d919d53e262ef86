"""Models on a Ray cluster behind a real server: what happens when parts of it are lost."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from clipper.base.processes.marks import MARK
from clipper.base.processes.proc import start_time, variable
from clipper.client import Clipper
from clipper.settings.replicas import ReplicaRange
from clipper.settings.secret_files import SecretFiles
from scripts.ray_cluster import RayCluster, actor_of, running_cluster
from scripts.real_models import environment
from tests.manager_bench import RAY_PORTS
from tests.own_network import cut, has_own_networks, heal, own_network
from tests.redis_server import RedisServer
from tests.supervisor.live_server import APP, Server
from tests.supervisor.test_secrets import LOOKS, SECRET, VARIABLE, holders, holds
from tests.waiting import until

pytestmark = [pytest.mark.scale, pytest.mark.machine]

# Slow enough that at each moment every replica has queries in flight.
SLOW_SUM = """
import time
def predict(inputs):
    time.sleep(0.1)
    return [float(row.sum()) for row in inputs]
"""
CLIENTS = 6


@contextmanager
def running_server(home: Path, cluster: RayCluster, *options: str) -> Iterator[Server]:
    ports = "-".join(map(str, RAY_PORTS))
    of_ray = ("--ray-address", cluster.address, "--ray-python", str(cluster.python), "--ray-ports", ports)
    server = Server(home, *of_ray, *options).start()
    try:
        yield server
        assert server.stop() == 0
    finally:
        server.clean_up()


def deploy(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    (folder / "sums.py").write_text(SLOW_SUM)
    monkeypatch.chdir(folder)
    with Clipper.connect(home=server.home) as clipper:
        clipper.deploy("sum", "sums:predict", input_type="float64[2]", manager="ray", cache=False, **fields)
        clipper.create_application("sums", model="sum", slo_ms=20_000)


def folder_of(container: int) -> Path:
    """The folder of a container's actor."""
    mark = variable(container, MARK)
    assert mark is not None
    return Path(mark).parents[1]


def nodes(server: Server) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = server.call("GET", "/status")["nodes"]
    return found


def ports_of(actor: int) -> list[int]:
    """The ports that an actor listens on for callers of its container."""
    inodes = set()
    for path in Path(f"/proc/{actor}/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            inodes.add(path.readlink().name)
    sockets = [line.split() for line in Path(f"/proc/{actor}/net/tcp").read_text().splitlines()[1:]]
    listening = [
        int(one[1].rpartition(":")[2], 16) for one in sockets if one[3] == "0A" and f"socket:[{one[9]}]" in inodes
    ]
    return [port for port in listening if RAY_PORTS[0] <= port <= RAY_PORTS[1]]


class Load:
    """Clients that each ask one query after another."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stopped = threading.Event()
        self.answers: list[tuple[float, Any]] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        row = float(number)
        while not self._stopped.is_set():
            row += CLIENTS
            self.answers.append((row + 1, self._server.predict("sums", [row, 1])))

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def test_a_node_is_lost_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_cluster(environment("ray"), 0, 2, 2) as cluster, running_server(tmp_path / "home", cluster) as server:
        deploy(server, tmp_path, monkeypatch, replicas=2)
        one, other = nodes(server)
        assert nodes(server) == {one: {"ready": 1}, other: {"ready": 1}}
        folders = [folder_of(replica["pid"]) for replica in server.call("GET", "/replicas")]
        load = Load(server)
        try:
            until(lambda: len(load.answers) > 4 * CLIENTS)
            (lost,) = (id_ for id_ in cluster.nodes() if id_[:8] in one)
            cluster.kill(lost)
            so_far = len(load.answers)
            # It is placed anew, where there is room.
            until(lambda: nodes(server) == {other: {"ready": 2}})
            # Nothing is left on the lost node, though nobody there could be asked to remove it.
            until(lambda: [folder.exists() for folder in folders].count(True) == 1)
            until(lambda: len(load.answers) > so_far + 4 * CLIENTS)
        finally:
            load.stop()
        wrong = [(expected, answer) for expected, answer in load.answers if answer.get("output") != expected]
        assert wrong == []
        assert not any(answer["default"] for _, answer in load.answers)


def test_variables_and_secrets_are_in_their_own_containers_alone(tmp_path: Path) -> None:
    with running_cluster(environment("ray"), 0, 2, 2) as cluster, running_server(tmp_path / "home", cluster) as server:
        SecretFiles(server.home, {}).set("db-password", SECRET)
        own: Any = {"env": {"LEVEL": VARIABLE}, "secrets": ["PASSWORD=db-password"]}
        for model, settings in (("m", own), ("other", {})):
            fields = {"input_type": "string", "cache": False, "manager": "ray", **settings}
            assert server.deploy(model, LOOKS, **fields)["state"] == "ready"
            links = [{"model": model}]
            server.call("POST", "/applications", {**APP, "name": model, "input_type": "string", "links": links})
        seen = "os.environ['PASSWORD'], os.environ['LEVEL']"
        assert server.predict("m", seen)["output"] == str((SECRET, VARIABLE))
        assert not holds(server.predict("other", "dict(os.environ)")["output"])
        # Not that of its actor or of anything else of Ray's either.
        (pid,) = server.ready_pids("m")
        assert holders() == {pid}
        until(lambda: "begun with ***" in server.ask("GET", "/models/m/logs").text)
        assert not holds(server.ask("GET", "/models/m/logs").text) and not holds(server.log)
        for path in Path("/tmp/ray/session_latest/logs").rglob("*"):
            assert not path.is_file() or not holds(path.read_bytes().decode(errors="replace")), path
        # Its actor starts it again, with them.
        os.kill(pid, signal.SIGKILL)
        until(lambda: server.predict("m", seen).get("output") == str((SECRET, VARIABLE)))
        assert holders() == set(server.ready_pids("m")) != {pid}


def test_one_that_nobody_asks_sleeps_and_wakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        running_cluster(environment("ray"), 0, 2) as cluster,
        running_server(tmp_path / "home", cluster, "--idle-after", "1") as server,
    ):
        deploy(server, tmp_path, monkeypatch, replicas=ReplicaRange(0, 1))
        server.call("PATCH", "/applications/sums", {"slo_ms": 500, "waking_slo_ms": 60_000})
        for number in range(2):
            # Its actor is gone, and what it took of the node is free.
            until(lambda: server.call("GET", "/models/sum/versions/1")["state"] == "asleep")
            until(lambda: server.call("GET", "/replicas") == [])
            assert server.predict("sums", [number, 2])["output"] == number + 2


def test_the_head_is_lost_and_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray's own minute, in which nodes wait for their head.
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    with running_cluster(environment("ray"), 0, 2, 2) as cluster, running_server(tmp_path / "home", cluster) as server:
        deploy(server, tmp_path, monkeypatch, replicas=2)
        before = {replica["id"]: replica["pid"] for replica in server.call("GET", "/replicas")}
        cluster.kill_head()
        assert server.predict("sums", [1, 2])["output"] == 3.0
        # Without their head, the nodes end with all that runs there.
        until(lambda: [pid for pid in before.values() if start_time(pid) is not None] == [])
        lost = server.predict("sums", [1, 3])
        assert lost.get("output") is None and "sum:1 has no replica" in " ".join(
            server.call("GET", "/status")["problems"]
        )
        cluster.start_head()
        cluster.add(2)
        # Nobody tells the server.
        until(lambda: [sum(states.values()) for states in nodes(server).values()] == [2])
        until(lambda: server.predict("sums", [1, 4]).get("output") == 5.0)
        after = {replica["id"]: replica["pid"] for replica in server.call("GET", "/replicas")}
        assert not before.keys() & after.keys()


@pytest.mark.skipif(not has_own_networks(), reason="making a network takes root, ip and iptables")
def test_the_network_to_a_replica_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        own_network(),
        running_cluster(environment("ray"), 0, 2, 2) as cluster,
        running_server(tmp_path / "home", cluster) as server,
    ):
        deploy(server, tmp_path, monkeypatch, replicas=2)
        before = {replica["pid"]: replica["id"] for replica in server.call("GET", "/replicas")}
        pid = min(before)
        load = Load(server)
        try:
            until(lambda: len(load.answers) > 4 * CLIENTS)
            cut(*ports_of(actor_of(pid)))
            so_far = len(load.answers)
            # Another takes its place, on whichever node.
            until(lambda: start_time(pid) is None)
            until(lambda: before[pid] not in {replica["id"] for replica in server.call("GET", "/replicas")})
            until(
                lambda: (
                    [sum(states.values()) for states in nodes(server).values() if "ready" in states] in ([2], [1, 1])
                )
            )
            until(lambda: len(load.answers) > so_far + 4 * CLIENTS)
        finally:
            load.stop()
        after = {replica["pid"]: replica["id"] for replica in server.call("GET", "/replicas")}
        assert len(after) == 2 and before[pid] not in after.values()
        # Queries in flight there were asked again elsewhere, well before their deadlines.
        assert [(expected, answer) for expected, answer in load.answers if answer.get("output") != expected] == []


@pytest.mark.skipif(not has_own_networks(), reason="making a network takes root, ip and iptables")
def test_a_network_that_is_cut_for_a_moment_costs_no_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        own_network(),
        running_cluster(environment("ray"), 2) as cluster,
        running_server(tmp_path / "home", cluster) as server,
    ):
        deploy(server, tmp_path, monkeypatch)
        (replica,) = server.call("GET", "/replicas")
        load = Load(server)
        try:
            until(lambda: len(load.answers) > 4 * CLIENTS)
            cut(*ports_of(actor_of(replica["pid"])))
            waits = threading.Timer(1.0, heal)
            so_far = len(load.answers)
            waits.start()
            waits.join()
            until(lambda: len(load.answers) > so_far + 4 * CLIENTS)
        finally:
            load.stop()
        assert [one["id"] for one in server.call("GET", "/replicas")] == [replica["id"]]
        assert [(expected, answer) for expected, answer in load.answers if answer.get("output") != expected] == []


def test_the_next_server_goes_on_with_what_runs_and_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_cluster(environment("ray"), 2, 2) as cluster:
        with running_server(tmp_path / "home", cluster) as server:
            deploy(server, tmp_path, monkeypatch, replicas=2)
            replicas = {replica["id"]: replica["pid"] for replica in server.call("GET", "/replicas")}
            actors = [actor_of(pid) for pid in replicas.values()]
            server.kill()
            assert server.predict("sums", [1, 2])["output"] == 3.0
            server.start()
            assert {replica["id"]: replica["pid"] for replica in server.call("GET", "/replicas")} == replicas
            assert server.predict("sums", [1, 3])["output"] == 4.0
            with Clipper.connect(home=server.home) as clipper:
                lines = [line for log in clipper.logs("sum").lines.values() for line in log]
                assert sum("listening on" in line for line in lines) == 2
                clipper.scale("sum", replicas=1)
            until(lambda: sum(sum(states.values()) for states in nodes(server).values()) == 1)
        until(lambda: [pid for pid in actors if start_time(pid) is not None] == [])


def test_another_server_of_the_cluster_takes_over_what_runs_on_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as redis, running_cluster(environment("ray"), 2, 2) as cluster:
        redis.start()
        shared = ("--registry", redis.url)
        with running_server(tmp_path / "first", cluster, *shared) as first:
            with running_server(tmp_path / "second", cluster, *shared) as second:
                deploy(first, tmp_path, monkeypatch, replicas=2)
                replicas = {replica["id"]: replica["pid"] for replica in first.call("GET", "/replicas")}
                actors = [actor_of(pid) for pid in replicas.values()]
                first.kill()
                killed_at = time.monotonic()
                until(lambda: second.call("GET", "/status")["lease"]["role"] == "leader")
                print(f"another leads {time.monotonic() - killed_at:.2f} s after SIGKILL")
                assert {replica["id"]: replica["pid"] for replica in second.call("GET", "/replicas")} == replicas
                until(lambda: second.call("GET", "/status")["ready"])
                assert second.predict("sums", [1, 3])["output"] == 4.0
                first.start()
                until(lambda: first.worker_pids == [])
                assert {replica["id"]: replica["pid"] for replica in second.call("GET", "/replicas")} == replicas
                assert second.predict("sums", [1, 4])["output"] == 5.0
            # It has left them to the first, which ends them only if it leads when it is told to stop.
            until(lambda: first.call("GET", "/status")["lease"]["role"] == "leader")
            assert {replica["id"]: replica["pid"] for replica in first.call("GET", "/replicas")} == replicas
        until(lambda: [pid for pid in actors if start_time(pid) is not None] == [])
