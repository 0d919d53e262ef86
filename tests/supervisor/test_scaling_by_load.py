"""A real server under a real load: replicas are added as it grows, and no change of them loses a query.

Whether they come before the objective breaks depends on how fast processes start, so simulated time tells that:
``managers/reconcile/test_autoscale.py``.

The model sleeps for each row, so that replicas and not processors decide what can be answered.
"""

import json
import threading
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from clipper.cli.load.arrivals import due_times_s
from tests.open_loop import send
from tests.serving import post
from tests.supervisor.live_server import Server
from tests.waiting import until

pytestmark = pytest.mark.long

ROW_S = 0.02
CODE = """
import time
def predict(inputs):
    time.sleep({row_s} * len(inputs))
    return [{output!r} for _ in inputs]
"""
RANGE = {"min": 1, "max": 4}

RAMP_S = 20.0
FIRST_PER_S, LAST_PER_S = 10.0, 120.0


def deploy(server: Server, output: str, **fields: Any) -> Any:
    code = CODE.format(row_s=ROW_S, output=output)
    return server.deploy("m", code, input_type="float64[1]", cache=False, **fields)


def create(server: Server, name: str, slo_ms: float) -> None:
    body = {"name": name, "slo_ms": slo_ms, "default_output": "late", "links": [{"model": "m"}]}
    server.call("POST", "/applications", body)


def scale(server: Server, replicas: int) -> None:
    """Returns when those that are too many are gone, and those that lacked are ready."""
    server.call("POST", "/models/m/scale", {"replicas": replicas})

    def states() -> list[str]:
        return [replica["state"] for replica in server.call("GET", "/models/m/versions/2")["replicas"]]

    until(lambda: states() == ["ready"] * replicas)


def ask(server: Server, application: str, due_s: Iterable[float]) -> list[Any]:
    """The answers to inputs 0, 1 and so on, which are sent when they are due, in the order in which they came."""
    port = int(server.place.query_url.rpartition(":")[2])
    requests = [post(f"/{application}/predict", {"input": [number]}) for number in range(100)]
    return [json.loads(each.answer) for each in send(port, requests, iter(due_s))]


def ramp_s(random: Random) -> list[float]:
    """When queries are due whose rate rises from the first to the last: one that always was the last's, thinned."""
    candidates_s = due_times_s("poisson", LAST_PER_S, RAMP_S, random)
    rise_per_s = (LAST_PER_S - FIRST_PER_S) / RAMP_S
    return [each_s for each_s in candidates_s if random.random() * LAST_PER_S < FIRST_PER_S + rise_per_s * each_s]


class Steady(threading.Thread):
    """A load of so many queries a second until it is told that it was enough."""

    def __init__(self, server: Server, application: str, per_s: float) -> None:
        super().__init__()
        self._server, self._application, self._per_s = server, application, per_s
        self._random = Random(2)
        self._enough = threading.Event()
        self.answers: list[Any] = []

    def run(self) -> None:
        while not self._enough.is_set():
            due_s = due_times_s("poisson", self._per_s, 1.0, self._random)
            self.answers += ask(self._server, self._application, due_s)

    def finish(self) -> list[Any]:
        self._enough.set()
        self.join()
        return self.answers


def test_replicas_follow_a_ramp_roll_and_scale_without_losing_a_query(server: Server) -> None:
    server.start()
    assert deploy(server, "one", replicas=RANGE)["replicas_wanted"] == 1
    create(server, "prompt", slo_ms=3000)
    create(server, "patient", slo_ms=60_000)

    ask(server, "prompt", ramp_s(Random(1)))
    version = server.call("GET", "/models/m/versions/1")
    assert version["replicas_wanted"] >= 3 and version["scaling_reason"]
    until(lambda: len(server.ready_pids("m")) >= 3)

    # Three replicas answer 150 a second, and these are half of it.
    load = Steady(server, "patient", per_s=75)
    load.start()
    try:
        second = deploy(server, "two", replicas=RANGE)
        assert second["current"] and second["replicas_wanted"] >= 3
        scale(server, 2)
        scale(server, 3)
        server.call("POST", "/models/m/rollback", {})
    finally:
        answers = load.finish()
    assert [answer for answer in answers if answer.get("default", True)] == []
    assert {answer["output"] for answer in answers} == {"one", "two"}
