"""Clients of gRPC that do what they should not: all others are still served, and nothing of them is left."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from clipper.worker.frontend.rpc.wire import delimited
from tests.serving import application, memory_bytes, model, version
from tests.waiting import TIMEOUT_S, until
from tests.worker.frontend.rpc.http2 import (
    ACK,
    END_HEADERS,
    HEADERS,
    INITIAL_WINDOW,
    PING,
    RESET,
    Http2Client,
    frame,
    headers_of,
)
from tests.worker.frontend.rpc.rpc_messages import INFER, InferRequest, InferResponse, raw_request
from tests.worker.frontend.rpc.rpc_system import OWN, RpcSystem, models_behind_rpc, rpc_serving

pytestmark = pytest.mark.long

ROW = np.array([1, 2, 3, 4], "<f4").tobytes()
GOOD = raw_request(ROW, [1, 4]).SerializeToString()
# More than a client of any sense sends of one kind, in messages that are short.
MANY = 200_000
NAMED = delimited(1, b"app")
TENSOR = delimited(1, b"x") + delimited(2, b"FP32") + delimited(3, b"\x01\x04")
# Above what a worker may come to hold by one message, beside what it held.
MOST_GROWN_BYTES = 64 << 20


@pytest.fixture(scope="module")
def system() -> Iterator[RpcSystem]:
    with models_behind_rpc() as started:
        yield started


@contextlib.contextmanager
def others_served(system: RpcSystem) -> Iterator[grpc.Channel]:
    """A channel; another client's call is answered before and after, and no call is left."""
    with grpc.insecure_channel(system.address, [("grpc.use_local_subchannel_pool", 1)]) as opened:
        assert_served(opened)
        with grpc.insecure_channel(system.address, [("grpc.use_local_subchannel_pool", 1)]) as own:
            yield own
        assert_served(opened)
    until(lambda: system.serving.worker.statistics().grpc_calls_in_flight == 0)


def assert_served(opened: grpc.Channel) -> None:
    answer = InferResponse.FromString(opened.unary_unary(INFER)(GOOD, timeout=TIMEOUT_S))
    assert answer.raw_output_contents[0] == np.float64(10).tobytes()


def code_of(opened: grpc.Channel, message: bytes) -> str:
    try:
        opened.unary_unary(INFER)(message, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def contents(shape: list[int]) -> bytes:
    request = InferRequest(model_name="app")
    request.inputs.add(name="x", datatype="FP32", shape=shape).contents.fp32_contents.extend([1, 2, 3, 4])
    return bytes(request.SerializeToString())


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", "INVALID_ARGUMENT"),
        (b"\xff" * 100, "INVALID_ARGUMENT"),
        (GOOD[:-1], "INVALID_ARGUMENT"),
        (GOOD + b"\0", "INVALID_ARGUMENT"),
        (GOOD + b"\xfa\x3f\x03abc", "OK"),
        (raw_request(ROW, [2**40, 2**40]).SerializeToString(), "INVALID_ARGUMENT"),
        (raw_request(ROW, [1, 2**62]).SerializeToString(), "INVALID_ARGUMENT"),
        (raw_request(ROW, [-1, 4]).SerializeToString(), "INVALID_ARGUMENT"),
        (raw_request(ROW, [1] * 100).SerializeToString(), "INVALID_ARGUMENT"),
        (raw_request(ROW, []).SerializeToString(), "INVALID_ARGUMENT"),
        (contents([2**62, 4]), "RESOURCE_EXHAUSTED"),
        (contents([2**62, 0]), "INVALID_ARGUMENT"),
        (contents([-1, -4]), "INVALID_ARGUMENT"),
        (NAMED + b"\x2a\x00" * MANY, "INVALID_ARGUMENT"),
        (NAMED + b"\x22\x00" * MANY, "INVALID_ARGUMENT"),
        (NAMED + b"\x3a\x00" * MANY, "INVALID_ARGUMENT"),
        (NAMED + delimited(5, TENSOR + b"\x22\x00" * MANY), "INVALID_ARGUMENT"),
        (NAMED + delimited(5, TENSOR + b"\x1a\x00" * MANY), "INVALID_ARGUMENT"),
        (NAMED + delimited(5, TENSOR + delimited(5, b"\x35\0\0\0\0" * MANY)), "INVALID_ARGUMENT"),
        (NAMED + delimited(5, TENSOR + delimited(5, b"\xfa\x3f\x00" * MANY)), "INVALID_ARGUMENT"),
        (NAMED + delimited(5, TENSOR) * 17, "INVALID_ARGUMENT"),
        (delimited(1, b"a" * 100_000), "NOT_FOUND"),
        (delimited(1, b"\xff"), "INVALID_ARGUMENT"),
        (NAMED + delimited(2, b"9" * 1000), "NOT_FOUND"),
    ],
)
def test_message(system: RpcSystem, message: bytes, expected: str) -> None:
    before_bytes = memory_bytes(system.serving.worker.pid)
    with others_served(system) as opened:
        assert code_of(opened, message) == expected
    assert memory_bytes(system.serving.worker.pid) - before_bytes < MOST_GROWN_BYTES


def test_compressed_message_that_is_a_thousand_times_as_large(system: RpcSystem) -> None:
    with others_served(system), grpc.insecure_channel(system.address, [("grpc.max_send_message_length", -1)]) as opened:
        with pytest.raises(grpc.RpcError) as raised:
            opened.unary_unary(INFER)(bytes(256 << 20), compression=grpc.Compression.Gzip, timeout=TIMEOUT_S)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_thousands_of_calls_on_a_connection_are_all_answered(system: RpcSystem) -> None:
    with others_served(system) as opened:
        call = opened.unary_unary(INFER)
        futures = [call.future(GOOD, timeout=TIMEOUT_S) for _ in range(3000)]
        found = Counter(str(each.code()) for each in futures)  # waits for each
    assert found == {"StatusCode.OK": 3000}


def test_calls_that_are_cancelled_leave_nothing(system: RpcSystem) -> None:
    slow = raw_request(ROW, [1, 4], model="slow").SerializeToString()
    with others_served(system) as opened:
        futures = [opened.unary_unary(INFER).future(slow) for _ in range(200)]
        # A busy machine answers a few before the last have come.
        until(lambda: system.serving.worker.statistics().grpc_calls_in_flight >= 150)
        for each in futures:
            each.cancel()


def test_streams_that_are_reset_at_once(system: RpcSystem) -> None:
    head = headers_of(INFER)
    before_bytes = memory_bytes(system.serving.worker.pid)
    with others_served(system), Http2Client(system.port) as client:
        answering = threading.Thread(target=answer_pings, args=(client,))
        answering.start()
        with contextlib.suppress(OSError):  # it may hang up
            for first in range(1, 200_000, 200):
                streams = range(first, first + 200, 2)
                client.send(
                    b"".join(
                        frame(HEADERS, END_HEADERS, each, head) + frame(RESET, 0, each, b"\0\0\0\x08")
                        for each in streams
                    )
                )
        with contextlib.suppress(OSError):
            client.end()
        answering.join(TIMEOUT_S)
    assert memory_bytes(system.serving.worker.pid) - before_bytes < MOST_GROWN_BYTES


def answer_pings(client: Http2Client) -> None:
    for kind, flags, _, payload in client.frames():
        if kind == PING and not flags & ACK:
            with contextlib.suppress(OSError):
                client.send(frame(PING, ACK, 0, payload))


def test_clients_that_never_read_their_answers_hold_no_memory_for_ever() -> None:
    echo = "def predict(inputs):\n    return ['x' * 4_000_000 for row in inputs]\n"
    with rpc_serving() as system, contextlib.ExitStack() as stack:
        started = system.serving
        worker = started.start_worker(grpc_port=system.port)
        container = started.start_container(echo, input_type=OWN)
        # On a busy machine so many answers take longer than 20 s, and come all the same.
        app = application("app", input_type=OWN, slo_ms=1e3 * TIMEOUT_S)
        started.apply([app], [model(version(container, input_type=OWN))])
        for _ in range(2):
            client = stack.enter_context(Http2Client(system.port, (INITIAL_WINDOW, 0), receive_buffer_bytes=4096))
            for stream in range(1, 90, 2):
                client.call(stream, INFER, GOOD)
        # 90 answers of 4 MB are over what all may hold: some are refused.
        until(lambda: worker.statistics().requests_refused.get("overloaded", 0) > 0)
        assert memory_bytes(worker.pid) < 700 << 20
        stack.close()
        until(lambda: worker.statistics().grpc_calls_in_flight == 0)

        def is_answered() -> bool:
            with grpc.insecure_channel(system.address, [("grpc.max_receive_message_length", -1)]) as opened:
                return code_of(opened, GOOD) == "OK"

        until(is_answered)


def test_connections_without_end(system: RpcSystem) -> None:
    with others_served(system) as opened, contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(Http2Client(system.port))
        began_s = time.monotonic()
        assert code_of(opened, GOOD) == "OK"
        assert time.monotonic() - began_s < TIMEOUT_S
