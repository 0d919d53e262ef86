"""h2load, whose clients are libnghttp2's own, with many connections and many calls on each."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clipper.worker.frontend.rpc import bounds
from tests.waiting import TIMEOUT_S, until
from tests.worker.frontend.rpc.http2 import message_frame
from tests.worker.frontend.rpc.rpc_messages import INFER, raw_request
from tests.worker.frontend.rpc.rpc_system import RpcSystem, models_behind_rpc


@pytest.fixture(scope="module")
def system() -> Iterator[RpcSystem]:
    with models_behind_rpc() as started:
        yield started


@pytest.mark.parametrize(
    ("connections", "streams", "window_bits"), [(1, 1, 16), (64, 1, 16), (8, bounds.MAX_STREAMS, 16), (8, 32, 8)]
)
def test_all_calls_are_answered(
    system: RpcSystem, tmp_path: Path, connections: int, streams: int, window_bits: int
) -> None:
    calls = 2000
    before = system.serving.worker.statistics()
    message = raw_request(np.ones(4, "<f4").tobytes(), [1, 4]).SerializeToString()
    (tmp_path / "body").write_bytes(message_frame(message))
    argv = [
        "h2load",
        f"-n{calls}",
        f"-c{connections}",
        f"-m{streams}",
        f"-w{window_bits}",
        "-d",
        str(tmp_path / "body"),
    ]
    argv += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{system.address}{INFER}"]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", told)
    assert found is not None and found.groups() == (str(calls), "0", "0", "0"), told
    until(lambda: system.serving.worker.statistics().grpc_calls_in_flight == 0)
    after = system.serving.worker.statistics()
    assert after.grpc_calls - before.grpc_calls == calls
    assert after.requests_refused == before.requests_refused
