"""The commands of docs/high-availability.md, "When any machine may be lost": each is lost in turn."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from scripts.real_models import environment
from tests.machines import OUTSIDE, Machine, connect_machines
from tests.own_network import has_own_networks, own_network
from tests.redis_server import RedisServer
from tests.waiting import TIMEOUT_S, until
from tests.wheels import ROOT

pytestmark = [
    pytest.mark.scale,
    pytest.mark.machine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not has_own_networks(), reason="making networks takes root, ip and iptables"),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed: make test-scale does it"),
]

CLIPPER = Path(sys.executable).with_name("clipper")
SUM = "def predict(inputs):\n    return [float(row.sum()) for row in inputs]\n"
SLO_MS = 1000
CLIENTS = 4
PAUSE_S = 0.02
# Ray's own time without its head, after which nodes end, is shorter than a machine is away that is repaired.
AWAY_S = 75.0
# So long without a default or a late answer, and it is over.
CALM_S = 5.0
# A busy machine exceeds the 30 s that Ray gives a node to start.
OF_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "150"}


class Asked(NamedTuple):
    """A query's answer: right, default, late, or what else it was; and the time."""

    outcome: str
    at_s: float


class Load:
    """Clients of the balancer that ask one query after another."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self.asked: list[Asked] = []
        self._threads = [threading.Thread(target=self._ask, args=(float(number),)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, row: float) -> None:
        with httpx.Client(base_url=f"http://{OUTSIDE}:1337", timeout=TIMEOUT_S) as client:
            while not self._stopped.wait(PAUSE_S):
                row += CLIENTS
                began_s = time.monotonic()
                try:
                    answer = client.post("/sums/predict", json={"input": [row, 1]})
                    outcome = _outcome(answer, row + 1)
                except httpx.TransportError as error:
                    outcome = repr(error)
                ended_s = time.monotonic()
                if outcome == "right" and ended_s - began_s > SLO_MS / 1000:
                    outcome = "late"
                self.asked.append(Asked(outcome, ended_s))

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def is_calm(self, since_s: float) -> bool:
        """Whether answers have been right for a while, in which some came."""
        now_s = time.monotonic()
        lately = [one for one in self.asked[-1000:] if one.at_s > max(since_s, now_s - CALM_S)]
        return now_s > since_s + CALM_S and {one.outcome for one in lately} == {"right"}

    def report(self, since_s: float) -> str:
        asked = [one for one in self.asked if one.at_s >= since_s]
        degraded = [one.at_s - since_s for one in asked if one.outcome != "right"]
        when = f", from {degraded[0]:.1f} to {degraded[-1]:.1f} s" if degraded else ""
        return f"{dict(Counter(one.outcome for one in asked))}{when}"


def _outcome(answer: httpx.Response, expected: float) -> str:
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.text}"
    body = answer.json()
    if body["default"]:
        return "default"
    return "right" if body["output"] == expected else f"wrong: {body}"


class Site:
    """Three machines, and beside them, outside, Redis and the balancer."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self._python = environment("ray-workers")
        self._redis = f"{OUTSIDE}:{redis.port}"
        cache = OF_RAY | {"CLIPPER_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT / "src")}
        folders = [folder / f"machine{number}" for number in (1, 2, 3)]
        self.machines = [
            Machine(number, own, cache | {"CLIPPER_HOME": str(own / "home")}) for number, own in enumerate(folders, 1)
        ]
        self.first, self.second, self.third = self.machines

    def boot(self, machine: Machine) -> None:
        """Switch a machine on, and start there what the page says."""
        machine.switch_on()
        is_head = machine is self.first
        of_head = ("--head", "--port", "6379", "--include-dashboard", "false")
        ray = (
            *("env", f"RAY_REDIS_ADDRESS={self._redis}"),
            *(str(self._python.with_name("ray")), "start", "--node-ip-address", machine.address),
            *("--num-cpus", "2", "--object-store-memory", "100000000"),
        )
        machine.do(*ray, *(of_head if is_head else ("--address", f"{self.first.address}:6379")))
        if machine is not self.third:
            of_ray = ("--manager", "ray", "--ray-python", str(self._python), "--workers-per-node", "1")
            address = () if is_head else ("--ray-address", f"{self.first.address}:6379")
            registry = ("--registry", f"redis://{self._redis}/0", "--grpc-port", "off")
            machine.do(str(CLIPPER), "start", *of_ray, *address, *registry)

    def status(self, machine: Machine) -> Any:
        return json.loads(machine.do(str(CLIPPER), "status", "--json"))

    def is_whole(self, leader: Machine, *on: Machine) -> bool:
        """Whether a machine leads, and all that is wanted runs, on these machines."""
        try:
            status = self.status(leader)
        except AssertionError:  # it is just starting
            return False
        workers = {one["node"]: one["state"] for one in status["workers"]}
        return (
            status["lease"]["role"] == "leader"
            and workers == dict.fromkeys((machine.address for machine in on), "ready")
            and status["replicas"] == {"ready": 3}
        )


@contextmanager
def running(folder: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        stack.enter_context(own_network())
        connect_machines()
        (folder / "redis").mkdir()
        redis = stack.enter_context(RedisServer(folder / "redis"))
        redis.start("--bind", "127.0.0.1", OUTSIDE, "--protected-mode", "no")
        site = Site(folder, redis)
        for machine in site.machines:
            stack.callback(machine.cut_power)
        config = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
        for number, machine in enumerate(site.machines, 1):
            config = config.replace(f"10.0.0.{number}:", f"{machine.address}:")
        (folder / "haproxy.cfg").write_text(config)
        log = stack.enter_context((folder / "haproxy.log").open("wb"))
        command = ["haproxy", "-f", str(folder / "haproxy.cfg"), "-db"]
        balancer = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        stack.callback(balancer.kill)
        for machine in site.machines:
            site.boot(machine)
        yield site


def test_each_machine_is_lost_in_turn(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        first, second, third = site.machines
        until(lambda: all(one["state"] == "ready" for one in site.status(first)["workers"]))
        (tmp_path / "machine1/sums.py").write_text(SUM)
        # Each machine has room for two, so there are some on two machines at least.
        model = ("sum", "sums:predict", "--input-type", "float64[2]", "--replicas", "3", "--no-cache")
        first.do("env", "-C", str(first.folder), str(CLIPPER), "deploy", *model)
        first.do(str(CLIPPER), "app", "create", "sums", "--model", "sum", "--slo-ms", str(SLO_MS), "--default", "-1")
        until(lambda: site.is_whole(first, *site.machines))
        load = Load()
        try:
            until(lambda: len(load.asked) > 10 * CLIENTS)
            # The head and leader comes last: from then on another leads.
            for lost, leader in ((third, first), (second, first), (first, second)):
                lost.cut_power()
                cut_s = time.monotonic()
                if lost is first:
                    time.sleep(AWAY_S)  # without the head, nothing can be started elsewhere
                else:
                    others = [machine for machine in site.machines if machine is not lost]
                    until(lambda: site.is_whole(leader, *others))  # noqa: B023
                    print(f"{lost.address} is lost: all is on the others after {time.monotonic() - cut_s:.1f} s")
                until(lambda: load.is_calm(cut_s))  # noqa: B023
                print(f"{lost.address} is lost: {load.report(cut_s)}")
                back_s = time.monotonic()
                site.boot(lost)
                until(lambda: site.is_whole(leader, *site.machines))  # noqa: B023
                print(f"{lost.address} is back: all is as before after {time.monotonic() - back_s:.1f} s")
                print(f"{lost.address} is back: {load.report(back_s)}")
        finally:
            load.stop()
        assert {one.outcome for one in load.asked} <= {"right", "default", "late"}
