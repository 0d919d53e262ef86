"""Request ids and traces of calls by gRPC: taken from metadata, answered, logged and sent."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from tests.otlp_receiver import attributes, otlp_receiver
from tests.serving import SUM, application, model, version
from tests.waiting import TIMEOUT_S, until
from tests.worker.frontend.rpc.rpc_messages import INFER, raw_request
from tests.worker.frontend.rpc.rpc_system import RpcSystem, rpc_serving

OWN = "float64[2]"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = raw_request(np.array([1, 2], "<f8").tobytes(), [1, 2], "FP64").SerializeToString()
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


@contextmanager
def observed(**telemetry: Any) -> Iterator[tuple[RpcSystem, grpc.Channel]]:
    with rpc_serving() as system:
        started = system.serving
        started.start_worker(grpc_port=system.port, telemetry=telemetry, logs=str(started.folder))
        container = started.start_container(SUM, input_type=OWN)
        started.apply([application("app", input_type=OWN)], [model(version(container, input_type=OWN))])
        with grpc.insecure_channel(system.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield system, channel


def ask(channel: grpc.Channel, message: bytes = GOOD, **metadata: str) -> str | None:
    """The answer's request id."""
    pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    call = channel.unary_unary(INFER)
    try:
        _, done = call.with_call(message, metadata=pairs, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        done = error
    found = [*done.initial_metadata(), *done.trailing_metadata()]
    return dict(found).get("x-request-id")


def test_ids_are_answered_also_with_errors_and_on_streams() -> None:
    with observed() as (_, channel):
        assert ask(channel, x_request_id="mine") == "mine"
        assert ask(channel) is None
        assert ask(channel, x_request_id="not an id") is None
        assert ask(channel, b"nonsense", x_request_id="mine") == "mine"
        stream = channel.stream_stream(STREAM)(iter([GOOD, GOOD]), metadata=[("x-request-id", "s")], timeout=TIMEOUT_S)
        assert len(list(stream)) == 2
        assert dict(stream.initial_metadata())["x-request-id"] == "s"


def test_calls_are_logged() -> None:
    with observed(access_log=1.0, log_format="json") as (system, channel):
        made = ask(channel)
        assert made is not None and len(made) == 16
        ask(channel, raw_request(b"", [0], "FP64", "absent").SerializeToString(), x_request_id="mine")
        path = system.serving.folder / "access-0.log"
        until(lambda: path.exists() and len(path.read_text().splitlines()) == 2)
        good, bad = map(json.loads, path.read_text().splitlines())
        assert (good["request_id"], good["status"], good["path"], good["application"]) == (made, "OK", INFER, "app")
        assert good["query_id"] > 0
        assert good["client"] == bad["client"] == "127.0.0.1"
        assert (bad["request_id"], bad["status"]) == ("mine", "NOT_FOUND")


def test_calls_are_traced_by_their_parent() -> None:
    with otlp_receiver() as receiver, observed(otlp_endpoint=receiver.url, trace_share=0.0) as (_, channel):
        ask(channel, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01", x_request_id="mine")
        ask(channel, traceparent=f"00-{TRACE}-00f067aa0ba902b7-00")
        ask(channel)
        until(lambda: {span.name for span in receiver.spans} >= {f"POST {INFER}", "query app", "queue m", "batch m"})
        (request,), (query,) = receiver.named(f"POST {INFER}"), receiver.named("query app")
        assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, "00f067aa0ba902b7")
        assert query.parent_span_id == request.span_id
        found = attributes(request)
        assert (found["rpc.system"], found["rpc.response.status_code"]) == ("grpc", "OK")
