"""Models on a Ray cluster behind a real server: what happens when parts of it are lost."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live_server import Server

from benchmarks.ray_cluster import RayCluster, actor_of, running_cluster
from benchmarks.real_models import environment
from clipper.client import Clipper
from clipper.processes.marks import MARK
from clipper.processes.proc import start_time, variable
from manager_bench import RAY_PORTS
from redis_server import RedisServer
from waiting import until

pytestmark = pytest.mark.scale

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
    """What a container's actor works in."""
    mark = variable(container, MARK)
    assert mark is not None
    return Path(mark).parents[1]


def nodes(server: Server) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = server.call("GET", "/status")["nodes"]
    return found


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
        with (
            running_server(tmp_path / "first", cluster, *shared) as first,
            running_server(tmp_path / "second", cluster, *shared) as second,
        ):
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
        until(lambda: [pid for pid in actors if start_time(pid) is not None] == [])
