"""Query workers on the nodes of a real Ray cluster, behind a real server with a real Redis."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis

import clipper
from clipper.base.processes.proc import start_time
from clipper.cli.commands.cluster import clean, list_all
from clipper.client import Clipper
from clipper.errors import ClipperError
from clipper.supervisor.registry.lease import DURATION_S
from clipper.supervisor.registry.redis import PREFIX
from scripts.ray_cluster import RayCluster, actor_of, running_cluster
from scripts.real_models import environment
from tests.manager_bench import RAY_PORTS
from tests.own_network import cut, has_own_networks, heal, own_network
from tests.redis_server import RedisServer
from tests.supervisor.live_server import Server
from tests.waiting import TIMEOUT_S, until

pytestmark = [pytest.mark.scale, pytest.mark.machine]

# Of nodes besides the head's, which has the machine's own address.
SECOND, THIRD = "127.0.0.2", "127.0.0.3"
QUERY_PORT = 21337
SUM = "def predict(inputs):\n    return [float(row.sum()) for row in inputs]\n"
# Slow enough that at each moment every node has queries in flight.
SLOW_SUM = f"import time\n{SUM}".replace("    return", "    time.sleep(0.05)\n    return")
# A policy of the user's own: the first model, and it learns nothing.
OWN_POLICY = """
from clipper.learning.policies.single import Single
class Mine(Single):
    pass
"""
CLIENTS = 6


class OnNodes:
    """A server whose workers are on three nodes, each at an address of its own."""

    def __init__(self, cluster: RayCluster, server: Server, redis: RedisServer) -> None:
        self.cluster = cluster
        self.server = server
        self.redis = redis
        self.hosts = [cluster.host, SECOND, THIRD]

    @property
    def workers(self) -> dict[str, str]:
        """The state of each worker, by its node."""
        return {one["node"]: one["state"] for one in self.server.call("GET", "/status")["workers"]}

    def pids(self) -> dict[str, int]:
        return {one["node"]: one["pid"] for one in self.server.call("GET", "/status")["workers"]}

    def until_ready(self, *hosts: str) -> None:
        until(lambda: self.workers == dict.fromkeys(hosts, "ready"))


def call(host: str, path: str, **body: Any) -> Any:
    answer = httpx.post(f"http://{host}:{QUERY_PORT}/{path}", json=body, timeout=TIMEOUT_S)
    return answer.json() | {"status": answer.status_code}


@contextmanager
def running(folder: Path, *options: str, is_shared: bool = False) -> Iterator[OnNodes]:
    """Three nodes, with a processor of Ray's each, and a server with a worker on each.

    ``is_shared``: the registry is in Redis, under a lease.
    """
    (folder / "redis").mkdir()
    with RedisServer(folder / "redis") as store, running_cluster(environment("ray-workers"), 1) as cluster:
        store.start()
        for host in (SECOND, THIRD):
            cluster.add(1, node_ip_address=host)
        ports = "-".join(map(str, RAY_PORTS))
        of_ray = ("--manager", "ray", "--ray-address", cluster.address, "--ray-python", str(cluster.python))
        of_workers = ("--workers-per-node", "1", "--store", store.url, "--query-port", str(QUERY_PORT))
        shared = ("--registry", store.url) if is_shared else ()
        server = Server(folder / "home", *shared, *of_ray, "--ray-ports", ports, *of_workers, *options).start()
        try:
            yield OnNodes(cluster, server, store)
            assert server.stop() == 0
        finally:
            server.clean_up()


def deploy(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, code: str = SUM, **fields: Any) -> None:
    (folder / "sums.py").write_text(code)
    monkeypatch.chdir(folder)
    with Clipper.connect(home=server.home) as client:
        client.deploy("sum", "sums:predict", input_type="float64[2]", cache=False, **fields)
        client.create_application("sums", model="sum", slo_ms=20_000)


class Load:
    """Clients that each ask one query after another, on any node, as behind a balancer: one that cannot be reached is
    left for another."""

    def __init__(self, hosts: list[str]) -> None:
        self._hosts = hosts
        self._stopped = threading.Event()
        self.answers: list[tuple[float, Any]] = []
        self.moved = 0
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        row, at = float(number), number
        while not self._stopped.is_set():
            row += CLIENTS
            for _ in self._hosts:
                try:
                    self.answers.append(
                        (row + 1, call(self._hosts[at % len(self._hosts)], "sums/predict", input=[row, 1]))
                    )
                    break
                except httpx.TransportError:
                    at += 1
                    self.moved += 1
            else:
                self.answers.append((row + 1, {"output": None, "nobody": "answers"}))

    def leave(self, host: str) -> None:
        """Send nothing more there."""
        self._hosts = [one for one in self._hosts if one != host]

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wrong(self) -> list[Any]:
        return [(expected, answer) for expected, answer in self.answers if answer.get("output") != expected]


def test_each_node_answers_and_one_that_is_lost_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as nodes:
        began = time.monotonic()
        nodes.until_ready(*nodes.hosts)
        print(f"workers of {len(nodes.hosts)} nodes are ready after {time.monotonic() - began:.1f} s")
        server = nodes.server
        assert server.place.query_url == f"http://{nodes.cluster.host}:{QUERY_PORT}"
        deploy(server, tmp_path, monkeypatch, SLOW_SUM, replicas=2)
        # At once: the deployment has reached all.
        for number, host in enumerate(nodes.hosts):
            assert call(host, "sums/predict", input=[number, 1])["output"] == number + 1
            ready = httpx.get(f"http://{host}:{QUERY_PORT}/health/ready", timeout=TIMEOUT_S)
            assert ready.status_code == 200
        # Logs come from where they are written.
        with Clipper.connect(home=server.home) as client:
            logs = client.server_logs()
            for index, host in ((one["index"], one["node"]) for one in server.call("GET", "/status")["workers"]):
                assert any(f"answers on {host}:{QUERY_PORT}" in line for line in logs.lines[f"worker-{index}"]), logs
            assert client.server_logs("worker-1").lines.keys() == {"worker-1"}
            assert client.server_logs("worker-1", after=logs).lines == {"worker-1": ()}
        # Nodes cannot reach a replica that runs on the server's machine.
        local = {"artifact": server.upload(SUM), "loader": "import", "target": "my_model:predict", "manager": "local"}
        refused = server.ask("POST", "/models/other/versions", msgspec.json.encode(local))
        assert refused.status_code == 400 and "--workers-per-node" in refused.text, refused.text

        load = Load(nodes.hosts)
        try:
            until(lambda: len(load.answers) > 4 * CLIENTS)
            lost = nodes.cluster.node_at(THIRD)
            worker = nodes.pids()[THIRD]
            nodes.cluster.kill(lost)
            so_far, killed_at = len(load.answers), time.monotonic()
            nodes.until_ready(*nodes.hosts[:2])
            print(f"the lost node's worker is given up after {time.monotonic() - killed_at:.1f} s")
            until(lambda: start_time(worker) is None)
            until(lambda: len(load.answers) > so_far + 4 * CLIENTS)
            nodes.cluster.add(1, node_ip_address=THIRD)
            joined_at = time.monotonic()
            nodes.until_ready(*nodes.hosts)
            print(f"the worker of a node that has joined is ready after {time.monotonic() - joined_at:.1f} s")
            assert call(THIRD, "sums/predict", input=[5, 1])["output"] == 6.0
        finally:
            load.stop()
        print(
            f"{len(load.answers)} queries, {load.moved} times a client went to another node, wrong: {load.wrong()[:5]}"
        )
        assert load.wrong() == []
        assert load.moved > 0


def test_feedback_and_own_policies_reach_every_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as nodes:
        nodes.until_ready(*nodes.hosts)
        deploy(nodes.server, tmp_path, monkeypatch)
        (tmp_path / "mine.py").write_text(OWN_POLICY)
        with Clipper.connect(home=nodes.server.home) as client:
            client.create_application("learns", model="sum", slo_ms=20_000, policy="thompson")
            client.create_application("own", model="sum", slo_ms=20_000, policy="mine:Mine")
        # Each worker tries it in a process first, which takes a while on a busy machine.
        for host in nodes.hosts:
            until(lambda: call(host, "own/predict", input=[1, 2]).get("output") == 3.0)  # noqa: B023
        # Feedback on a query that another node has answered.
        for number, host in enumerate(nodes.hosts):
            answer = call(host, "learns/predict", input=[number, 2])
            other = nodes.hosts[(number + 1) % 3]
            learned = call(other, "learns/observe", query_id=answer["query_id"], label=number + 2)
            assert learned["status"] == 200, learned


def test_the_server_is_killed_and_the_next_goes_on_with_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as nodes:
        nodes.until_ready(*nodes.hosts)
        server = nodes.server
        deploy(server, tmp_path, monkeypatch)
        before = nodes.pids()
        server.kill()
        for host in nodes.hosts:
            assert call(host, "sums/predict", input=[1, 2])["output"] == 3.0
        server.start()
        nodes.until_ready(*nodes.hosts)
        assert nodes.pids() == before
        # Without nodes, all workers are on the server's machine, and none is left elsewhere.
        server.kill()
        of_ray = ("--ray-address", nodes.cluster.address, "--ray-python", str(nodes.cluster.python))
        server.start(*of_ray, "--store", f"sqlite:{tmp_path / 's'}")
        until(lambda: [pid for pid in before.values() if start_time(pid) is not None] == [])
        assert [one["node"] for one in server.call("GET", "/status")["workers"]] == [""]


def test_a_node_that_ray_empties_is_left_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path, "--drain-delay", "3") as nodes:
        nodes.until_ready(*nodes.hosts)
        deploy(nodes.server, tmp_path, monkeypatch, SLOW_SUM, replicas=3, cpus=0.3)
        assert any(node.startswith(f"{THIRD} ") for node in nodes.server.call("GET", "/status")["nodes"])
        load = Load(nodes.hosts)
        try:
            until(lambda: len(load.answers) > 4 * CLIENTS)
            nodes.cluster.drain(nodes.cluster.node_at(THIRD))
            began = time.monotonic()
            until(lambda: httpx.get(f"http://{THIRD}:{QUERY_PORT}/health/ready", timeout=TIMEOUT_S).status_code == 503)
            # A balancer leaves it, and who is there is answered.
            assert call(THIRD, "sums/predict", input=[5, 1])["output"] == 6.0
            load.leave(THIRD)
            nodes.until_ready(*nodes.hosts[:2])
            print(f"the workers of a node that is emptied are gone after {time.monotonic() - began:.1f} s")
            until(
                lambda: not any(node.startswith(f"{THIRD} ") for node in nodes.server.call("GET", "/status")["nodes"])
            )
            print(f"its replicas are elsewhere after {time.monotonic() - began:.1f} s")
            so_far = len(load.answers)
            until(lambda: len(load.answers) > so_far + 4 * CLIENTS)
        finally:
            load.stop()
        print(f"{len(load.answers)} queries, wrong: {load.wrong()[:5]}")
        assert load.wrong() == [] and load.moved == 0


def test_the_head_is_lost_and_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray's own minute, in which nodes wait for their head.
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    with running(tmp_path) as nodes:
        nodes.until_ready(*nodes.hosts)
        deploy(nodes.server, tmp_path, monkeypatch)
        before = nodes.pids()
        nodes.cluster.kill_head()
        # Without their head, the nodes end with all that runs there.
        until(lambda: [pid for pid in before.values() if start_time(pid) is not None] == [])
        nodes.cluster.start_head()
        for host in (SECOND, THIRD):
            nodes.cluster.add(1, node_ip_address=host)
        # Nobody tells the server.
        nodes.until_ready(*nodes.hosts)
        for host in nodes.hosts:
            until(lambda: call(host, "sums/predict", input=[1, 4]).get("output") == 5.0)  # noqa: B023


def test_what_dies_while_nobody_leads_is_started_again_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as nodes:
        nodes.until_ready(*nodes.hosts)
        server = nodes.server
        deploy(server, tmp_path, monkeypatch)
        (replica,) = server.call("GET", "/replicas")
        before = nodes.pids()
        server.kill()
        for pid in (before[SECOND], replica["pid"]):
            os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        # Its clients are refused, and connect again; the others ask the same replica at the same address.
        until(lambda: answers(SECOND, 3.0))
        until(lambda: answers(THIRD, 3.0))
        print(f"a worker and a replica that died without a server answer after {time.monotonic() - killed_at:.1f} s")
        server.start()
        nodes.until_ready(*nodes.hosts)
        after = nodes.pids()
        assert {host: pid for host, pid in after.items() if host != SECOND} == {
            host: pid for host, pid in before.items() if host != SECOND
        }
        (again,) = server.call("GET", "/replicas")
        assert (again["id"], again["state"]) == (replica["id"], "ready") and again["pid"] != replica["pid"]
        # The workers learn of a new application, and are still started again if they die.
        with Clipper.connect(home=server.home) as client:
            client.create_application("more", model="sum", slo_ms=20_000)
        for host in nodes.hosts:
            assert call(host, "more/predict", input=[1, 3])["output"] == 4.0
        os.kill(after[SECOND], signal.SIGKILL)
        until(lambda: nodes.pids().get(SECOND) not in (None, after[SECOND]))
        nodes.until_ready(*nodes.hosts)


def answers(host: str, expected: float) -> bool:
    try:
        return bool(call(host, "sums/predict", input=[1, expected - 1]).get("output") == expected)
    except httpx.TransportError:
        return False


def test_while_redis_is_down_what_dies_is_started_again_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, is_shared=True) as nodes:
        nodes.until_ready(*nodes.hosts)
        server = nodes.server
        deploy(server, tmp_path, monkeypatch)
        (replica,) = server.call("GET", "/replicas")
        before = nodes.pids()
        nodes.redis.kill()
        # From when the lease may have ended, this server leaves alone what runs on Ray.
        until(lambda: "changes are refused" in " ".join(server.call("GET", "/status")["problems"]))
        away_at = time.monotonic()
        until(lambda: time.monotonic() > away_at + DURATION_S)
        for pid in (before[SECOND], replica["pid"]):
            os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        for host in (SECOND, THIRD):
            until(lambda: answers(host, 3.0))  # noqa: B023
        print(f"a worker and a replica that died without Redis answer after {time.monotonic() - killed_at:.1f} s")
        until(lambda: [one["state"] for one in server.call("GET", "/replicas")] == ["ready"])
        nodes.until_ready(*nodes.hosts)
        found = nodes.pids()
        assert found[SECOND] != before[SECOND] and found[THIRD] == before[THIRD]
        nodes.redis.start()
        until(lambda: server.call("GET", "/status")["problems"] == [])
        with Clipper.connect(home=server.home) as client:
            client.create_application("more", model="sum", slo_ms=20_000)
        for host in nodes.hosts:
            assert call(host, "more/predict", input=[1, 3])["output"] == 4.0
        assert nodes.pids() == found


def test_a_redis_that_was_restored_from_an_older_copy_costs_one_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, is_shared=True) as nodes:
        server = nodes.server
        for _ in range(4):  # each start is an epoch
            nodes.until_ready(*nodes.hosts)
            server.kill()
            server.start()
        nodes.until_ready(*nodes.hosts)
        deploy(server, tmp_path, monkeypatch)
        before = nodes.pids()
        assert server.call("GET", "/status")["lease"]["epoch"] == 5
        server.kill()
        with redis.Redis(port=nodes.redis.port) as client:
            client.hset(PREFIX + "counters", "supervisor", 1)
            client.hset(PREFIX + "lease", "epoch", 1)
        server.start()
        until(lambda: epoch_of(server) == 6)
        nodes.until_ready(*nodes.hosts)
        with Clipper.connect(home=server.home) as client:
            client.create_application("more", model="sum", slo_ms=20_000)
        for host in nodes.hosts:
            assert call(host, "more/predict", input=[1, 3])["output"] == 4.0
        assert nodes.pids() == before


def test_what_a_server_has_left_is_listed_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as nodes:
        nodes.until_ready(*nodes.hosts)
        server = nodes.server
        deploy(server, tmp_path, monkeypatch)
        (replica,) = server.call("GET", "/replicas")
        left = [replica["pid"], *nodes.pids().values()]
        server.kill()
        monkeypatch.setenv("PYTHONPATH", str(Path(clipper.__file__).parents[1]))
        cluster, python = nodes.cluster.address, nodes.cluster.python
        capsys.readouterr()
        list_all(cluster, python, as_json=True)
        (owner,) = json.loads(capsys.readouterr().out)
        assert owner == {"owner": owner["owner"], "replicas": 1, "workers": 3, "models": ["sum"]}
        # As the server's log says.
        assert f"as the owner {owner['owner']}" in server.log
        clean(owner["owner"], True, cluster, python)
        until(lambda: [pid for pid in left if start_time(pid) is not None] == [])
        capsys.readouterr()
        list_all(cluster, python, as_json=True)
        assert json.loads(capsys.readouterr().out) == []
        server.start()
        nodes.until_ready(*nodes.hosts)


@pytest.mark.skipif(not has_own_networks(), reason="making a network takes root, ip and iptables")
def test_the_network_between_the_server_and_a_worker_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with own_network(), running(tmp_path) as nodes:
        nodes.until_ready(*nodes.hosts)
        server = nodes.server
        deploy(server, tmp_path, monkeypatch)
        before = nodes.pids()
        # Neither the worker nor its actor can be reached, as where the machine is cut off. Nothing is reset.
        cut(*listening_on(before[SECOND]) - {QUERY_PORT}, *listening_on(actor_of(before[SECOND])))
        cut_at = time.monotonic()
        with Clipper.connect(home=server.home) as client:
            client.create_application("more", model="sum", slo_ms=20_000)
        print(f"an application is created {time.monotonic() - cut_at:.1f} s after the cut")
        # Documented: it counts as lost after 10 s without an answer.
        until(lambda: nodes.workers[SECOND] == "lost")
        print(f"the worker is given up {time.monotonic() - cut_at:.1f} s after the cut")
        for host in (nodes.hosts[0], THIRD):
            assert call(host, "more/predict", input=[1, 3])["output"] == 4.0
        # It goes on by what it knew.
        assert call(SECOND, "sums/predict", input=[1, 4])["output"] == 5.0
        assert call(SECOND, "more/predict", input=[1, 3])["status"] == 404
        with Clipper.connect(home=server.home) as client:
            began = time.monotonic()
            client.create_application("further", model="sum", slo_ms=20_000)
            print(f"with a lost worker an application takes {time.monotonic() - began:.2f} s")
        heal()
        healed_at = time.monotonic()
        nodes.until_ready(*nodes.hosts)
        for name in ("more", "further"):
            until(lambda: call(SECOND, f"{name}/predict", input=[1, 3]).get("output") == 4.0)  # noqa: B023
        print(
            f"the worker is found again, and knows all, {time.monotonic() - healed_at:.1f} s after the network is back"
        )
        # Nobody took its place meanwhile.
        assert nodes.pids() == before


def epoch_of(server: Server) -> int | None:
    """Of its lease; None while it starts again in its own process."""
    try:
        lease = server.call("GET", "/status")["lease"]
    except (httpx.TransportError, ClipperError, OSError):
        return None
    return int(lease["epoch"]) if lease["role"] == "leader" else None


def listening_on(pid: int) -> set[int]:
    """The ports that a process listens on."""
    inodes = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            inodes.add(path.readlink().name)
    found = set()
    for family in ("tcp", "tcp6"):
        sockets = [line.split() for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]]
        found |= {
            int(one[1].rpartition(":")[2], 16) for one in sockets if one[3] == "0A" and f"socket:[{one[9]}]" in inodes
        }
    return found
