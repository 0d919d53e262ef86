"""Queries by gRPC, in open loop: some are cancelled on their way, and connections are replaced by others."""

import asyncio
import random
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator

import grpc
from grpc import aio

from benchmarks.soak.streams import SLO_MS, WIDTH, Tally
from clipper.cli.load.arrivals import due_times_s
from clipper.cli.load.runner import PATIENCE_S
from clipper.worker.frontend.rpc.protocols import OPEN_INFERENCE
from clipper.worker.frontend.rpc.wire import encode

NAME = "by gRPC"
SHARE = 0.08
_INFER = "/inference.GRPCInferenceService/ModelInfer"
# The parameter of an answer that is the application's default, in protobuf.
_DEFAULT = b"\x07default\x12\x02\x08\x01"
CHANNELS = 4
# So many calls on one connection; then the next may be to another worker.
CALLS_A_CONNECTION = 500
# Every so many calls one is cancelled as soon as it has been sent.
CANCELLED_EVERY = 50
# More would only take memory of the soak itself: the server is far behind then.
MAX_IN_FLIGHT = 500
# Soon after a worker was killed, the channel tries again: the other one listens, too.
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
    # For how long one try to connect may take, whatever its name says: a worker may have to wait for a processor.
    ("grpc.min_reconnect_backoff_ms", 5_000),
)


class RpcSender:
    """One load of an application of inputs of ``WIDTH`` float64, all different. Call ``run`` once.

    Args:
        address: HOST:PORT.
        rate_per_s: of all queries of the soak, of which these are ``SHARE``.
    """

    def __init__(self, address: str, application: str, rate_per_s: float, duration_s: float) -> None:
        self.tally = Tally()
        self._address = address
        self._due_times_s: Iterator[float] = due_times_s("poisson", rate_per_s * SHARE, duration_s, random.Random())
        tensor = {"name": "input", "datatype": "FP64", "shape": [1, WIDTH]}
        empty = {"model_name": application, "inputs": [tensor], "raw_input_contents": [bytes(8 * WIDTH)]}
        self._head = encode(OPEN_INFERENCE.message("ModelInferRequest"), empty)[: -8 * WIDTH]
        self._rest = bytes(8 * (WIDTH - 2))
        self._channels: deque[aio.Channel] = deque()
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self, began_s: float) -> None:
        """Send the queries, and wait until all have ended."""
        self._channels.extend(self._open() for _ in range(CHANNELS))
        calls: set[asyncio.Task[None]] = set()
        for number, offset_s in enumerate(self._due_times_s):
            due_s = began_s + offset_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            self.tally.due(number, due_s, time.monotonic())
            if len(calls) >= MAX_IN_FLIGHT:
                self.tally.not_sent(number, due_s)
                continue
            if number % CALLS_A_CONNECTION == CALLS_A_CONNECTION - 1:
                self._replace()
            self._channels.rotate()
            call = asyncio.create_task(self._ask(self._channels[0], number, due_s))
            calls.add(call)
            call.add_done_callback(calls.discard)
        await asyncio.gather(*calls, *self._closing)
        for channel in self._channels:
            await channel.close()

    def _open(self) -> aio.Channel:
        return aio.insecure_channel(self._address, _OPTIONS)

    def _replace(self) -> None:
        closing = asyncio.create_task(self._channels.popleft().close(grace=SLO_MS / 1e3 + PATIENCE_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._channels.append(self._open())

    async def _ask(self, channel: aio.Channel, number: int, due_s: float) -> None:
        row = struct.pack("<2d", number, due_s) + self._rest
        infer: Callable[..., aio.UnaryUnaryCall] = channel.unary_unary(_INFER)
        call = infer(self._head + row, timeout=SLO_MS / 1e3 + PATIENCE_S)
        if number % CANCELLED_EVERY == CANCELLED_EVERY - 1:
            await asyncio.sleep(0)
            call.cancel()
        try:
            answer = await call
        except aio.AioRpcError as error:
            self.tally.failed(number, due_s, why(error.code()))
        except asyncio.CancelledError:
            self.tally.ends["cancelled"] += 1
        else:
            self.tally.ended("default" if _DEFAULT in answer else "answered", time.monotonic() - due_s)


def why(code: grpc.StatusCode) -> str:
    """Why a call failed, in the words of a query by REST: a connection that broke is what gRPC calls unavailable."""
    return "connection lost" if code is grpc.StatusCode.UNAVAILABLE else f"gRPC {code.name}"
