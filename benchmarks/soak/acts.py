"""What is done to the server while it is asked: new versions, rollbacks, replicas, applications, and kills."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from threading import Event

import uvloop

from benchmarks.harness.servers import ClipperServer, CommandFailed
from benchmarks.harness.workbench import HERE
from benchmarks.soak.facts import Done
from benchmarks.soak.filling import fill
from benchmarks.soak.streams import SLO_MS
from clipper import Clipper
from clipper.errors import ClipperError

WORKERS = 2
# Less than what comes in the first minutes, so that all of them are full when it is judged.
OPTIONS = (
    *("--workers", f"{WORKERS}", "--cache-size", "4MiB", "--max-contexts", "1000", "--keep-versions", "3"),
    # Answers of 600 KB wait for feedback as well: 20 MB of all are there after seconds, whatever the rate.
    *("--feedback-queries", "20000"),
)
# Queries that wait for feedback go after a minute: of all applications, since one query that is kept for longer keeps
# those behind it.
FEEDBACK_TTL_S = 60.0
# A worker that was killed is back long before.
BACK_WITHIN_S = 30.0
BALLAST_BYTES = 200_000
MODELS = {"steady": 0.5 * 784, "low": 0.49 * 784, "high": 0.51 * 784, "changing": 2.0}

# Kills of what the whole server stands on, as shares of a run. Worker 0 and the second supervisor live for most of it,
# and the worker that is killed is judged for more than half of it after its own warm-up.
SUPERVISOR_KILLS = (0.05, 0.95)
WORKER_KILLS = (0.03, 0.1)


class Actor:
    """Carries out one act after the other, until told to stop.

    Attributes:
        worker_kills_s: when, of ``time.monotonic``.
    """

    def __init__(self, server: ClipperServer, folder: Path, ports: tuple[int, int, int]) -> None:
        self._server, self._folder = server, folder
        options = ("--query-port", "--management-port", "--grpc-port")
        self._ports = tuple(text for option, port in zip(options, ports) for text in (option, f"{port}"))
        self._deployed = 0
        self.done: list[Done] = []
        self.worker_kills_s: list[float] = []

    def prepare(self) -> None:
        """Start the server, with all that is asked."""
        self._start()
        for name, factor in MODELS.items():
            self._deploy(name, factor)
        self._server.run("deploy", "echo", "soaked:echo", "--input-type", "float64[*]", folder=HERE / "models")
        with Clipper.connect(home=self._server.home) as clipper:
            for name, policy, models in (
                ("steady", "single", ["steady"]),
                ("changing", "single", ["changing"]),
                ("large", "single", ["echo"]),
                ("chosen", "exp3", ["low", "high"]),
                ("voted", "ensemble", ["low", "steady", "high"]),
            ):
                clipper.create_application(
                    name, model=models, policy=policy, slo_ms=SLO_MS, default_output=-1, feedback_ttl_s=FEEDBACK_TTL_S
                )

    def run(self, stop: Event, began_s: float, duration_s: float, every_s: float) -> None:
        """Something small ``every_s``, and kills in their time."""
        due = sorted(
            [(began_s + share * duration_s, self.kill_supervisor) for share in SUPERVISOR_KILLS]
            + [(began_s + share * duration_s, self.kill_worker) for share in WORKER_KILLS],
            key=lambda each: each[0],
        )
        acts = self._acts()
        next_s = began_s + every_s
        while not stop.wait(max(0.0, min([next_s, *(each[0] for each in due[:1])]) - time.monotonic())):
            if due and due[0][0] <= time.monotonic():
                act = due.pop(0)[1]
            else:
                act = next(acts)
                next_s = max(next_s + every_s, time.monotonic())
            at_s, failed = time.monotonic() - began_s, ""
            try:
                act()
            except (ClipperError, CommandFailed, OSError, ExceptionGroup) as error:
                failed = str(error)
            self.done.append(Done(at_s, act.__name__, failed))

    def _acts(self) -> Iterator[Callable[[], None]]:
        return cycle(
            [
                self.deploy_version,
                self.scale_up,
                self.kill_container,
                self.roll_back,
                self.scale_down,
                self.add_application,
                self.deploy_version,
                self.remove_version,
                self.remove_application,
            ]
        )

    def _start(self) -> None:
        self._server.run("start", *OPTIONS, *self._ports)
        self._server.read_urls()

    def _deploy(self, name: str, factor: float) -> None:
        self._deployed += 1
        data = self._folder / "soaked.json"
        data.write_text(json.dumps({"factor": factor, "ballast": os.urandom(BALLAST_BYTES // 2).hex()}))
        self._server.run("deploy", name, "soaked:Soaked", "--data", str(data), folder=HERE / "models")

    def deploy_version(self) -> None:
        self._deploy("changing", 2.0 + self._deployed % 3 / 10)

    def scale_up(self) -> None:
        with Clipper.connect(home=self._server.home) as clipper:
            clipper.scale("changing", 2)

    def scale_down(self) -> None:
        with Clipper.connect(home=self._server.home) as clipper:
            clipper.scale("changing", 1)

    def roll_back(self) -> None:
        with Clipper.connect(home=self._server.home) as clipper:
            clipper.rollback("changing")

    def remove_version(self) -> None:
        """The oldest that is not asked."""
        with Clipper.connect(home=self._server.home) as clipper:
            versions = [each.version for each in clipper.model("changing").versions if not each.current]
            if versions:
                clipper.delete_model("changing", versions[0])

    def add_application(self) -> None:
        with Clipper.connect(home=self._server.home) as clipper:
            clipper.create_application(
                "guest",
                model=["low", "changing"],
                policy="thompson",
                slo_ms=SLO_MS,
                default_output=-1,
                feedback_ttl_s=FEEDBACK_TTL_S,
            )
            for number in range(20):
                answer = clipper.predict("guest", [float(number)], context=f"guest-{number}")
                clipper.observe("guest", query_id=answer.query_id, label=1)

    def remove_application(self) -> None:
        with Clipper.connect(home=self._server.home) as clipper:
            clipper.delete_application("guest")

    def kill_container(self) -> None:
        with Clipper.connect(home=self._server.home) as clipper:
            pids = [each.pid for each in clipper.replicas() if each.model == "changing" and each.pid]
        if pids:
            os.kill(pids[0], signal.SIGKILL)

    def kill_worker(self) -> None:
        """The last: the first is to live as long as the run. Its successor is filled once it is there."""
        with Clipper.connect(home=self._server.home) as clipper:
            pid = clipper.status().workers[-1].pid
            if not pid:
                return
            self.worker_kills_s.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            give_up_s = time.monotonic() + BACK_WITHIN_S
            while (worker := clipper.status().workers[-1]).pid in (pid, None) or worker.state != "ready":
                if time.monotonic() > give_up_s:
                    raise TimeoutError(f"the worker that was killed is not back after {BACK_WITHIN_S:.0f} s")
                time.sleep(0.1)
        uvloop.run(fill(*self._server.query_address(), WORKERS, f"after-{pid}"))

    def kill_supervisor(self) -> None:
        """And start another, which takes over what runs."""
        with Clipper.connect(home=self._server.home) as clipper:
            pid = clipper.status().pid
        os.kill(pid, signal.SIGKILL)
        self._start()
