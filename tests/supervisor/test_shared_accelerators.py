"""Models on one accelerator, through a real server: a query waits for others' batches, and that is known before."""

import fcntl
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.live_server import APP, Server
from tests.waiting import TIMEOUT_S, until

# An accelerator computes one batch after another.
ON_DEVICE = """
import fcntl, pathlib

DEVICE = pathlib.Path({folder!r}) / "device"

def predict(inputs):
    with open(DEVICE, "w") as device:
        fcntl.flock(device, fcntl.LOCK_EX)
    return ["{name}" for _ in inputs]
"""


def deployed(server: Server, name: str, folder: Path, gpus: str) -> str:
    code = ON_DEVICE.format(folder=str(folder), name=name)
    assert server.deploy(name, code, input_type="float64[2]", gpus=gpus)["state"] == "ready"
    return name


@pytest.mark.long
def test_a_model_is_known_to_wait_for_others_on_its_accelerator(shared: Server, tmp_path: Path) -> None:
    good = deployed(shared, "good-on-gpu", tmp_path, "GPU-a,GPU-b")
    busy = deployed(shared, "busy-on-gpu", tmp_path, "GPU-a")
    (tmp_path / "elsewhere").mkdir()
    other = deployed(shared, "other-on-gpu", tmp_path / "elsewhere", "GPU-c")
    fields = {"slo_ms": 2000, "default_output": "default"}
    shared.call("POST", "/applications", {**APP, "name": "one", "links": [{"model": good}, {"model": other}], **fields})
    shared.call("POST", "/applications", {**APP, "name": "two", "links": [{"model": busy}], **fields})
    inputs = itertools.count()

    def answers(application: str, output: str) -> bool:
        return bool(shared.predict(application, [float(next(inputs)), 0.0])["output"] == output)

    def chance() -> Any:
        return shared.call("GET", "/applications/one/policy")["models"][0]["chance"]

    until(lambda: answers("one", good) and answers("two", busy))
    # Their speed is known so well that one batch that hangs does not make them slow.
    until(lambda: all(answers("one", good) and answers("two", busy) for _ in range(20)))
    until(lambda: chance() == 1.0)
    with (tmp_path / "device").open("w") as device:
        fcntl.flock(device, fcntl.LOCK_EX)
        asker = threading.Thread(target=answers, args=("two", busy))
        asker.start()
        # A batch that hangs holds up its own model alone. The good one is asked on, hangs for the same reason, and is
        # the less likely in time, the longer it does.
        until(lambda: answers("one", other))
        until(lambda: chance() == 0.0)
    asker.join(TIMEOUT_S)
    until(lambda: answers("one", good))
    for name in ("one", "two"):
        shared.call("DELETE", f"/applications/{name}")
    for name in (good, busy, other):
        shared.call("DELETE", f"/models/{name}")
