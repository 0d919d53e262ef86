"""A worker's memory in use after requests of each kind: as much as before them, however many there were."""

import math
import signal
import struct
from collections.abc import Callable, Iterator
from itertools import count

import grpc
import numpy as np
import pytest

from clipper.model.protocol.messages import encode_predict
from clipper.settings.application import Selection
from clipper.supervisor.workers.ports import hold, port_of
from clipper.values.types import DType
from tests.serving import SUM, Client, Serving, Worker, application, model, post, serving, version
from tests.waiting import TIMEOUT_S, until
from tests.worker.frontend.rpc.rpc_messages import INFER, raw_request

pytestmark = pytest.mark.long

# Stores with a bounded count are full after the first requests.
WARM_UP_REQUESTS, REQUESTS = 600, 1000
# A leak takes more than this for each request: an object, or some pieces of malloc's. Usage goes up and down by 200
# blocks and 120 KB.
BLOCKS, MALLOC_BYTES = 0.5, 250
WIDTH = 784
ECHO = "def predict(inputs):\n    return [row.tolist() for row in inputs]\n"


class CountedWorker(Worker):
    """A worker of ``tests.benchmarks.soak.counted_worker``."""

    module = "tests.benchmarks.soak.counted_worker"

    def in_use(self) -> tuple[int, int, int]:
        """Python's blocks, malloc's bytes, and the objects in cycles that only the collector has freed."""
        told = self.log.count("in use: ")
        self.send(signal.SIGUSR2)
        until(lambda: self.log.count("in use: ") > told and self.log.endswith("\n"))
        blocks, size, in_cycles = self.log.rpartition("in use: ")[2].split()
        return int(blocks), int(size), int(in_cycles)


@pytest.fixture(scope="module")
def system() -> Iterator[tuple[Serving, CountedWorker, str]]:
    with serving() as started, hold("127.0.0.1", 0, "", check_free=True) as holder:
        settings = {"grpc_port": port_of(holder), "feedback_queries": 200, "cache_bytes": 1 << 20}
        worker = CountedWorker(started.folder, 0, started.port, **settings)
        started.workers.append(worker)
        first, second = started.start_container(SUM), started.start_container(SUM, "n")
        echo = started.start_container(ECHO, "echo")
        started.apply(
            [
                application("one", default_output="0"),
                application("chosen", "m", "n", selection=Selection("exp3")),
                application("echo", "echo"),
            ],
            [
                model(version(first, cache=True)),
                model(version(second, cache=True), name="n"),
                model(version(echo), name="echo"),
            ],
        )
        yield started, worker, f"127.0.0.1:{port_of(holder)}"


NUMBERS = count()


def new_input() -> list[float]:
    return [float(next(NUMBERS)), *[0.5] * (WIDTH - 1)]


def predict(client: Client, _: str) -> None:
    assert client.ask("/one/predict", {"input": new_input()}).status == 200


def in_contexts(client: Client, _: str) -> None:
    number = next(NUMBERS)
    assert client.ask("/chosen/predict", {"input": [number % 7], "context": f"user-{number % 50}"}).status == 200


def feedback(client: Client, _: str) -> None:
    answer = client.ask("/chosen/predict", {"input": [1.0]}).json
    assert client.ask("/chosen/observe", {"query_id": answer["query_id"], "label": 1}).status == 200


def open_inference(client: Client, _: str) -> None:
    tensor = {"name": "input", "datatype": "FP64", "shape": [1, WIDTH], "data": new_input()}
    assert client.ask("/v2/models/one/infer", {"inputs": [tensor]}).status == 200


def refused(client: Client, _: str) -> None:
    number = next(NUMBERS)
    for path, body in ((f"/none-{number}/predict", {}), ("/one/predict", f"{{{number}".encode()), ("/one/predict", {})):
        assert client.ask(path, body, x_request_id=f"{number}").status in (400, 404)


def left_half_way(client: Client, _: str) -> None:
    whole = post("/one/predict", {"input": new_input()})
    with Client(client.socket.getpeername()[1]) as leaving:
        leaving.send(whole[: len(whole) // 2])
        leaving.reset()


def unread(client: Client, _: str) -> None:
    with Client(client.socket.getpeername()[1]) as leaving:
        leaving.send(post("/echo/predict", {"input": [0.123456789] * 5_000}) * 3)
        leaving.reset()


def by_grpc(_: Client, address: str) -> None:
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        ask = channel.unary_unary(INFER)
        row = np.array(new_input()).tobytes()
        request = raw_request(row, [1, WIDTH], "FP64", "one").SerializeToString()
        left = ask.future(request, timeout=TIMEOUT_S)
        ask(request, timeout=TIMEOUT_S)
        left.cancel()


KINDS = [predict, in_contexts, feedback, open_inference, refused, left_half_way, unread, by_grpc]


@pytest.mark.parametrize("ask", KINDS)
def test_it_does_not_grow_with_requests(
    system: tuple[Serving, CountedWorker, str], ask: Callable[[Client, str], None]
) -> None:
    _, worker, address = system

    def ask_many(requests: int) -> None:
        with worker.connect() as client:
            for _ in range(requests):
                ask(client, address)
        until(lambda: worker.statistics().connections == 0)

    def grown() -> tuple[float, float]:
        now, malloc_now, _ = worker.in_use()
        return (now - blocks) / REQUESTS, (malloc_now - malloc_bytes) / REQUESTS

    ask_many(WARM_UP_REQUESTS)
    blocks, malloc_bytes, _ = worker.in_use()
    ask_many(REQUESTS)
    # A busy machine's model still works for clients that left, and the worker holds that; a leak stays.
    # SQLite keeps pages of the selection store: up to 8 MiB on each connection, so for some 50,000 pieces of feedback.
    most = BLOCKS, math.inf if ask is feedback else MALLOC_BYTES
    until(lambda: all(have < may for have, may in zip(grown(), most, strict=True)))


def test_nothing_that_has_left_stays_in_a_cycle() -> None:
    """A worker's collector does not look at what is old: see ``GC_THRESHOLDS``."""
    changes = 20
    with serving() as started:
        worker = CountedWorker(started.folder, 0, started.port)
        started.workers.append(worker)
        first, second = started.start_container(SUM), started.start_container(SUM, version="2")
        other = model(version(started.start_container(SUM, "n")), name="n")
        one, guest = application("one"), application("guest", "m", "n", selection=Selection("cascade"))

        def use(number: int) -> None:
            is_even = number % 2 == 0
            current = model(version(first)) if is_even else model(version(second, name="2"), current="2")
            started.apply([one, guest] if is_even else [one], [current, other])
            with worker.connect() as client:
                assert client.ask("/one/predict", {"input": [number]}).status == 200
                tensor = {"name": "input", "datatype": "FP64", "shape": [1, 1], "data": [number]}
                assert client.ask("/v2/models/one/infer", {"inputs": [tensor]}).status == 200
                block = b"".join(encode_predict(0, DType.FLOAT64, 0, [struct.pack("d", number)]))
                assert client.ask("/v2/models/one/score", block).status == 200
                for context in ("a", "b") if is_even else ():
                    answer = client.ask("/guest/predict", {"input": [number], "context": context}).json
                    told = client.ask("/guest/observe", {"query_id": answer["query_id"], "label": 1})
                    assert told.status == 200

        for number in range(4):
            use(number)
        worker.in_use()
        for number in range(changes):
            use(number)
        *_, in_cycles = worker.in_use()
        assert in_cycles < changes
