"""A real server with a model that cannot answer: its queries get the next model's answer, and no default."""

import itertools
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.live_server import APP, Server, answering
from tests.waiting import TIMEOUT_S, until

# While the file "blocked" exists, neither an evaluation nor a start ends. An evaluation that waits says so.
BLOCKED = """
import pathlib, time

FOLDER = pathlib.Path({folder!r})

def wait():
    while (FOLDER / "blocked").exists():
        time.sleep(0.01)

wait()

def predict(inputs):
    (FOLDER / "begun").touch()
    wait()
    return ["best" for _ in inputs]
"""
QUERIES = 8


@pytest.mark.long
@pytest.mark.parametrize("policy", ["single", "adaptive"])
def test_queries_of_a_model_that_hangs_and_dies_go_to_the_next(shared: Server, tmp_path: Path, policy: str) -> None:
    best, next_best = f"best-{policy}", f"next-{policy}"
    assert shared.deploy(best, BLOCKED.format(folder=str(tmp_path)), input_type="float64[2]")["state"] == "ready"
    assert shared.deploy(next_best, answering("next"), input_type="float64[2]")["state"] == "ready"
    links = [{"model": best}, {"model": next_best}]
    # No deadline passes in this test: what answers is decided by what happens to the replica.
    fields = {"policy": {"name": policy}, "slo_ms": 2000 * TIMEOUT_S, "default_output": "default"}
    shared.call("POST", "/applications", {**APP, "name": policy, "links": links, **fields})

    inputs = itertools.count()

    def output() -> Any:
        # An input of its own, which the cache does not know.
        return shared.predict(policy, [float(next(inputs)), 0.0])["output"]

    assert {output() for _ in range(QUERIES)} == {"best"}, "nobody has said that another model is better"
    (tmp_path / "begun").unlink()
    (tmp_path / "blocked").touch()
    waiting: list[Any] = []
    askers = [threading.Thread(target=lambda: waiting.append(output())) for _ in range(QUERIES)]
    for asker in askers:
        asker.start()
    until((tmp_path / "begun").exists)
    # The replica dies with queries in its batch and behind it, and cannot start again.
    for pid in shared.ready_pids(best):
        os.kill(pid, signal.SIGKILL)
    for asker in askers:
        asker.join(TIMEOUT_S)
    assert waiting == ["next"] * QUERIES
    assert {output() for _ in range(QUERIES)} == {"next"}
    (tmp_path / "blocked").unlink()
    until(lambda: output() == "best")
    shared.call("DELETE", f"/applications/{policy}")
    for name in (best, next_best):
        shared.call("DELETE", f"/models/{name}")
