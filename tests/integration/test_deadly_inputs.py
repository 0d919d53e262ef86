"""Inputs that end a model's process: they cost no other query, and they are not sent again and again."""

from contextlib import ExitStack

import pytest

from tests.serving import application, model, post, serving, version
from tests.waiting import until

# Ends its process over negative inputs.
MODEL = """
import ctypes
import os
import signal
import time


def predict(inputs):
    time.sleep(0.002)
    if min(float(row.min()) for row in inputs) < 0:
        {death}
    return [float(row[0]) for row in inputs]
"""
DEATHS = {
    "a segmentation fault": "ctypes.string_at(0)",
    "an exit": "os._exit(3)",
    "as the kernel does when memory runs out": "os.kill(os.getpid(), signal.SIGKILL)",
}
GOOD = 40


@pytest.mark.parametrize("neighbour", ["x", pytest.param("y", marks=pytest.mark.long)])
@pytest.mark.parametrize("death", DEATHS)
def test_a_deadly_input_costs_no_other_query(death: str, neighbour: str) -> None:
    """Three replicas, of which the input ends two: it is asked for among others, of its application or another one."""
    with serving() as system, ExitStack() as stack:
        system.start_worker()
        replicas = [system.start_container(MODEL.format(death=DEATHS[death])) for _ in range(3)]
        apps = [application(name, input_type="float64[*]") for name in ("x", "y")]
        system.apply(apps, [model(version(*replicas))])
        deadly, other = (stack.enter_context(system.worker.connect()) for _ in range(2))
        other.send(b"".join(post(f"/{neighbour}/predict", {"input": [float(value)]}) for value in range(GOOD)))
        deadly.send(post("/x/predict", {"input": [-1.0]}))
        other.send(b"".join(post(f"/{neighbour}/predict", {"input": [float(value)]}) for value in range(GOOD)))
        answers = [other.read() for _ in range(2 * GOOD)]
        assert [(each.status, each.json.get("output")) for each in answers] == [
            (200, float(value)) for value in range(GOOD)
        ] * 2
        answer = deadly.read()
        until(lambda: sum(replica.is_running for replica in replicas) == 1)
        for _ in range(3):  # from then on it is not sent for a while
            assert answer.status == 502
            assert "containers of m:1 died while evaluating this input" in answer.body.decode()
            answer = deadly.ask("/x/predict", {"input": [-1.0]})
