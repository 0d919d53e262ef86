"""Calls to a query worker's port for gRPC, beside the same by REST."""

import base64
import contextlib
import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from clipper.control.snapshot import KeySnapshot, Snapshot
from clipper.settings.version import Batching
from clipper.worker.frontend.inference.tensors import DATATYPES
from clipper.worker.frontend.rpc.contents import FIELD_OF
from tests.serving import application, model, version
from tests.waiting import TIMEOUT_S, until
from tests.worker.frontend.rpc.rpc_messages import (
    INFER,
    OBSERVE,
    InferRequest,
    InferResponse,
    message_class,
    raw_request,
)
from tests.worker.frontend.rpc.rpc_system import OWN, SLOW, RpcSystem, models_behind_rpc, rpc_serving

ROW = np.array([1, 2, 3, 4], "<f4").tobytes()
WATCH, CHECK = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
def system() -> Iterator[RpcSystem]:
    with models_behind_rpc() as started:
        yield started


@contextlib.contextmanager
def channel(system: RpcSystem) -> Iterator[grpc.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(system.address, options) as opened:
        yield opened


def infer(opened: grpc.Channel, request: Any, **settings: Any) -> Any:
    settings.setdefault("timeout", TIMEOUT_S)
    return InferResponse.FromString(opened.unary_unary(INFER)(request.SerializeToString(), **settings))


def refusal(opened: grpc.Channel, request: Any, **settings: Any) -> Any:
    with pytest.raises(grpc.RpcError) as raised:
        infer(opened, request, **settings)
    return raised.value


def output(response: Any) -> Any:
    (tensor,) = response.outputs
    numpy = DATATYPES[tensor.datatype].numpy
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], numpy).tolist() if numpy else response.raw_output_contents
    return list(getattr(tensor.contents, FIELD_OF[tensor.datatype]))


# -- all kinds of inputs ---------------------------------------------------------------------------------------

KINDS: list[tuple[str, str, list[Any]]] = [
    ("int32[2]", "INT32", [[1, -2], [3, 4]]),
    ("int64[2]", "INT64", [[1, -(2**40)], [3, 4]]),
    ("float32[2]", "FP32", [[1.5, -2], [3, 4]]),
    ("float64[2]", "FP64", [[1.5, -2], [3, 4]]),
    ("uint8[2]", "UINT8", [[1, 255], [3, 4]]),
    ("bool[2]", "BOOL", [[True, False], [True, True]]),
    ("string", "BYTES", ["grün", ""]),
    ("bytes", "BYTES", [b"\xff\0", b"a"]),
]
KIND = "import numpy\ndef predict(inputs):\n    return [repr(numpy.asarray(row).tolist()) for row in inputs]\n"


def test_each_kind_of_inputs_is_answered_as_by_rest() -> None:
    with rpc_serving() as system:
        started = system.serving
        started.start_worker(grpc_port=system.port)
        containers = {
            kind: started.start_container(KIND, f"m{index}", "1", kind) for index, (kind, _, _) in enumerate(KINDS)
        }
        started.apply(
            [application(f"a{index}", f"m{index}", input_type=kind) for index, (kind, _, _) in enumerate(KINDS)],
            [
                model(version(containers[kind], input_type=kind), name=f"m{index}")
                for index, (kind, _, _) in enumerate(KINDS)
            ],
        )
        with channel(system) as opened, started.worker.connect() as rest:
            for index, (_, datatype, rows) in enumerate(KINDS):
                name, numpy = f"a{index}", DATATYPES[datatype].numpy
                flat = [item for row in rows for item in row] if numpy is not None else rows
                plain = [base64.b64encode(row).decode() if isinstance(row, bytes) else row for row in rows]
                told = rest.ask(f"/{name}/predict", {"input_batch": plain}).json["batch_predictions"]
                expected = [each["output"] for each in told]
                shape = [2, 2] if numpy is not None else [2, 1]
                typed = InferRequest(model_name=name)
                tensor = typed.inputs.add(name="x", datatype=datatype, shape=shape)
                elements = [item.encode() if isinstance(item, str) else item for item in flat]
                getattr(tensor.contents, FIELD_OF[datatype]).extend(elements)
                assert [text.decode() for text in output(infer(opened, typed))] == expected, name
                if numpy is not None:
                    raw = np.array(flat, numpy).tobytes()
                else:
                    raw = b"".join(len(item).to_bytes(4, "little") + item for item in elements)
                answer = infer(opened, raw_request(raw, shape, datatype, name))
                texts = [text.encode() for text in expected]
                joined = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
                assert list(answer.raw_output_contents) == [joined], name


def test_requests_that_differ_in_their_row_alone(system: RpcSystem) -> None:
    with channel(system) as opened:
        for number in range(5):
            row = np.full(4, number, "<f4").tobytes()
            assert output(infer(opened, raw_request(row, [1, 4]))) == [4.0 * number]
            # Of the same length, and of another version.
            assert output(infer(opened, raw_request(row, [1, 4], model_version="2"))) == [4.0 * number + 100]
            assert output(infer(opened, raw_request(row, [1, 4], model_version="1"))) == [4.0 * number]


def test_a_row_that_does_not_stand_last_is_read_where_it_stands(system: RpcSystem) -> None:
    # protobuf takes fields in any order; here the id, which ends as the row, stands behind it.
    rest = raw_request(b"", [1, 4])
    rest.ClearField("raw_input_contents")
    row = b"abcd" * 4
    message = b"\x3a\x10" + row + rest.SerializeToString() + b"\xa2\x06\x10"
    with channel(system) as opened:
        call = opened.unary_unary(INFER)
        first = InferResponse.FromString(call(message + row))
        second = InferResponse.FromString(call(message + b"efgh" * 4))
    assert output(first) == output(second) == [pytest.approx(4 * np.frombuffer(b"abcd", "<f4")[0])]


# -- what calls say beside their inputs -------------------------------------------------------------------------


def test_a_deadline_of_the_client_is_the_querys(system: RpcSystem) -> None:
    with channel(system) as opened:
        error = refusal(opened, raw_request(ROW, [1, 4], model="slow"), timeout=0.3)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: system.serving.worker.statistics().grpc_calls_in_flight == 0)
        # The next query is answered.
        assert output(infer(opened, raw_request(ROW, [1, 4]))) == [10.0]


@pytest.mark.parametrize("timeout_s", [0, 0.0005])
def test_a_deadline_that_is_over(system: RpcSystem, timeout_s: float) -> None:
    with channel(system) as opened:
        infer(opened, raw_request(ROW, [1, 4]))
        error = refusal(opened, raw_request(ROW, [1, 4], model="slow"), timeout=timeout_s)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_call_that_is_cancelled_is_over(system: RpcSystem) -> None:
    with channel(system) as opened:
        call = opened.unary_unary(INFER).future(raw_request(ROW, [1, 4], model="slow").SerializeToString())
        until(lambda: system.serving.worker.statistics().grpc_calls_in_flight == 1)
        call.cancel()
        until(lambda: system.serving.worker.statistics().grpc_calls_in_flight == 0)


# -- streams ------------------------------------------------------------------------------------------------------


def stream(opened: grpc.Channel, requests: list[Any]) -> list[Any]:
    """The answers to a stream's requests, which are all sent before one is awaited."""
    sent = iter([request.SerializeToString() for request in requests])
    answers = opened.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(sent, timeout=TIMEOUT_S)
    return [message_class("inference.ModelStreamInferResponse").FromString(each) for each in answers]


def test_requests_of_a_stream_are_evaluated_together() -> None:
    sizes = "def predict(inputs):\n    return [len(inputs)] * len(inputs)\n"
    # A batch leaves before the SLO only once it is full.
    batching = Batching("fixed", max_batch=4, delay_ms=10_000)
    with rpc_serving() as system:
        started = system.serving
        started.start_worker(grpc_port=system.port)
        container = started.start_container(sizes, input_type=OWN)
        started.apply(
            [application("app", input_type=OWN, slo_ms=60_000)],
            [model(version(container, input_type=OWN, batching=batching))],
        )
        with channel(system) as opened:
            asked = [raw_request(np.full(4, index, "<f4").tobytes(), [1, 4], id=str(index)) for index in range(8)]
            answers = stream(opened, asked)
            assert {each.infer_response.id for each in answers} == {str(index) for index in range(8)}
            assert [output(each.infer_response) for each in answers] == [[4]] * 8
            assert all(each.infer_response.parameters["triton_final_response"].bool_param for each in answers)


@pytest.mark.long
def test_a_slow_request_of_a_stream_keeps_up_only_those_of_its_id(system: RpcSystem) -> None:
    with channel(system) as opened:
        asked = [("slow", "slow"), ("app", "slow"), ("app", "quick"), ("nobody", "wrong")]
        requests = [raw_request(ROW, [1, 4], model=name, id=request_id) for name, request_id in asked]
        answers = stream(opened, requests)
        found = [(each.infer_response.id, each.infer_response.model_name) for each in answers]
        assert sorted(found[:2]) == [("quick", "app"), ("wrong", "")]
        assert found[2:] == [("slow", "slow"), ("slow", "app")]
        assert ["clipper app list" in each.error_message for each in answers].count(True) == 1


# -- what is told of models ---------------------------------------------------------------------------------------


def told(opened: grpc.Channel, method: str, **fields: Any) -> Any:
    asked = message_class(f"inference.{method}Request")(**fields).SerializeToString()
    answer = opened.unary_unary(f"/inference.GRPCInferenceService/{method}")(asked, timeout=TIMEOUT_S)
    return message_class(f"inference.{method}Response").FromString(answer)


def test_what_is_told_of_models(system: RpcSystem) -> None:
    with channel(system) as opened:
        assert told(opened, "ModelReady", name="app").ready
        assert not told(opened, "ModelReady", name="nobody").ready
        assert not told(opened, "ModelReady", name="app", version="9").ready
        config = told(opened, "ModelConfig", name="app").config
        assert config.HasField("model_transaction_policy") and not config.model_transaction_policy.decoupled
        assert config.HasField("dynamic_batching") and config.max_batch_size == 10_000
        infer(opened, raw_request(ROW, [1, 4], model_version="2"))
        (alone,) = told(opened, "ModelStatistics", name="app", version="2").model_stats
        counted = {each.version: each for each in told(opened, "ModelStatistics", name="app").model_stats}["2"]
        assert alone == counted
        assert counted.last_inference > 1_700_000_000_000
        assert {each.batch_size for each in counted.batch_stats} == {1}
        assert sum(each.compute_infer.count for each in counted.batch_stats) == counted.execution_count > 0
        assert counted.batch_stats[0].compute_infer.ns > 0


def test_shared_memory_is_refused_as_that(system: RpcSystem) -> None:
    request = InferRequest(model_name="app")
    tensor = request.inputs.add(name="input", datatype="FP32", shape=[1, 4])
    tensor.parameters["shared_memory_region"].string_param = "region"
    tensor.parameters["shared_memory_byte_size"].int64_param = 16
    with channel(system) as opened:
        error = refusal(opened, request)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "shared_memory_region, which is not supported" in error.details()


def test_a_call_without_a_message_is_malformed(system: RpcSystem) -> None:
    with channel(system) as opened, pytest.raises(grpc.RpcError) as raised:
        opened.stream_unary(INFER)(iter(()))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "no message" in raised.value.details()


def test_errors_have_their_code_and_when_to_try_again(system: RpcSystem) -> None:
    with channel(system) as opened:
        error = refusal(opened, raw_request(ROW, [1, 4], model="nobody"))
        assert dict(error.trailing_metadata())["clipper-error"] == "not_found"
        error = refusal(opened, raw_request(bytes(9 << 20), [1, 4]))
        assert (error.code(), dict(error.trailing_metadata()).get("clipper-error")) in (
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_large"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, None),  # over what grpc itself takes
        )


def test_a_model_without_replicas_is_unavailable() -> None:
    with rpc_serving() as system:
        system.serving.start_worker(grpc_port=system.port)
        system.serving.apply([application("app", input_type=OWN)], [])
        with channel(system) as opened:
            error = refusal(opened, raw_request(ROW, [1, 4]))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert dict(error.trailing_metadata())["clipper-error"] == "no_replica"
            check = message_class("grpc.health.v1.HealthCheckRequest")(service="inference.GRPCInferenceService")
            assert opened.unary_unary(CHECK)(check.SerializeToString()) == b"\x08\x02"


# -- keys and limits ---------------------------------------------------------------------------------------------


def test_keys_and_limits_are_those_of_rest() -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    with rpc_serving() as system:
        started = system.serving
        worker = started.start_worker(grpc_port=system.port)
        slow = started.start_container(SLOW, input_type=OWN)
        keys = (KeySnapshot("mine", digest, ("app",), max_in_flight=1),)
        applications = tuple(application(name, input_type=OWN, needs_key=True) for name in ("app", "other"))
        worker.apply(Snapshot(1, applications, (model(version(slow, input_type=OWN)),), keys=keys))
        own = [("authorization", "Bearer secret")]
        with channel(system) as opened:
            asked = raw_request(ROW, [1, 4])
            assert refusal(opened, asked).code() is grpc.StatusCode.UNAUTHENTICATED
            wrong = refusal(opened, asked, metadata=[("authorization", "Bearer wrong")])
            assert wrong.code() is grpc.StatusCode.UNAUTHENTICATED
            other = refusal(opened, raw_request(ROW, [1, 4], model="other"), metadata=own)
            assert other.code() is grpc.StatusCode.PERMISSION_DENIED
            ready = message_class("inference.ModelReadyRequest")(name="app").SerializeToString()
            with pytest.raises(grpc.RpcError) as raised:
                opened.unary_unary("/inference.GRPCInferenceService/ModelReady")(ready)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            first = opened.unary_unary(INFER).future(asked.SerializeToString(), metadata=own)
            until(lambda: started.worker.statistics().grpc_calls_in_flight == 1)
            until(lambda: any(limit.in_flight for limit in started.worker.statistics().limits))
            over = refusal(opened, asked, metadata=own)
            assert over.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert dict(over.trailing_metadata()) == {
                "clipper-error": "too_many_requests",
                "grpc-retry-pushback-ms": "1000",
            }
            first.cancel()
            until(lambda: not any(limit.in_flight for limit in started.worker.statistics().limits))


# -- feedback -------------------------------------------------------------------------------------------------------


def test_feedback_is_taken_on_answers_of_either_form(system: RpcSystem) -> None:
    request, response = (message_class(f"clipper.Observe{kind}") for kind in ("Request", "Response"))
    with channel(system) as opened, system.serving.worker.connect() as rest:
        by_grpc = infer(opened, raw_request(ROW, [1, 4])).parameters["query_id"].int64_param
        by_rest = rest.ask("/app/predict", {"input": [1, 2, 3, 4]}).json["query_id"]
        observations = [
            {"query_id": by_grpc, "label_json": "10.0"},
            {"query_id": by_rest, "reward": 0.0},
            {"input_json": "[1, 2, 3, 4]", "label_json": "9.0", "id": "mine"},
            {"query_id": by_rest},
        ]
        asked = request(model_name="app", observations=observations)
        told = response.FromString(opened.unary_unary(OBSERVE)(asked.SerializeToString()))
        assert [(each.duplicate, each.error) for each in told.observed] == [
            (False, ""),
            (False, ""),
            (False, ""),
            (False, "malformed_request"),
        ]
        again = rest.ask("/app/observe", {"query_id": by_grpc, "label": 10.0}).json
        assert again == {"observed": True, "duplicate": True}
        many = request(model_name="app", observations=[{"query_id": by_grpc, "label_json": "1"}] * 3000)
        told = response.FromString(opened.unary_unary(OBSERVE)(many.SerializeToString()))
        assert [each.duplicate for each in told.observed] == [True] * 3000


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        ([], "0 observations"),
        ([{"query_id": 1, "label_json": "1},{"}], "JSON"),
        ([{"query_id": 1, "label_json": '1},{"query_id":2,"label":1'}], "one value"),
        ([{"query_id": 1, "label_json": "1"}] * 10_001, "over 10001 values"),
    ],
)
def test_feedback_that_is_malformed(system: RpcSystem, observations: list[Any], message: str) -> None:
    asked = message_class("clipper.ObserveRequest")(model_name="app", observations=observations)
    with channel(system) as opened, pytest.raises(grpc.RpcError) as raised:
        opened.unary_unary(OBSERVE)(asked.SerializeToString(), timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in raised.value.details()


# -- workers -----------------------------------------------------------------------------------------------------------


def test_workers_share_the_port() -> None:
    with rpc_serving() as system:
        started = system.serving
        for _ in range(2):
            started.start_worker(grpc_port=system.port)
        container = started.start_container(input_type=OWN)
        started.apply([application("app", input_type=OWN)], [model(version(container, input_type=OWN))])

        def ask_on_a_new_connection() -> bool:
            with channel(system) as opened:
                assert output(infer(opened, raw_request(ROW, [1, 4]))) == [10.0]
            return all(worker.statistics().grpc_calls for worker in started.workers)

        until(ask_on_a_new_connection)


def test_a_worker_that_stops_answers_what_it_has() -> None:
    with rpc_serving() as system:
        started = system.serving
        # A drain that goes on after the last answer outlasts the wait for the worker's end.
        worker = started.start_worker(grpc_port=system.port, drain_timeout_s=2 * TIMEOUT_S)
        slow = started.start_container(SLOW, input_type=OWN)
        started.apply([application("app", input_type=OWN)], [model(version(slow, input_type=OWN))])
        with channel(system) as opened, channel(system) as other:
            watching = other.unary_stream(WATCH)(b"")
            assert next(watching) == b"\x08\x01"
            call = opened.unary_unary(INFER).future(raw_request(ROW, [1, 4]).SerializeToString())
            until(lambda: worker.statistics().grpc_calls_in_flight == 1)
            worker.send(signal.SIGTERM)
            assert output(InferResponse.FromString(call.result(TIMEOUT_S))) == [1.0]
            with pytest.raises(grpc.RpcError) as raised:
                next(watching)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert worker.wait() == 0
        assert "0 requests were given up" in worker.log


def test_messages_may_be_as_long_as_the_applications_that_come_later_take() -> None:
    large = "float32[1048576]"  # 4 MiB, for which REST takes 32 MiB of JSON
    with rpc_serving() as system:
        started = system.serving
        started.start_worker(grpc_port=system.port, max_body_bytes=1 << 20)
        small = started.start_container(input_type=OWN)
        big = started.start_container(model="n", input_type=large)
        own = model(version(small, input_type=OWN))
        started.apply([application("app", input_type=OWN)], [own])
        row = np.ones(1 << 20, "<f4").tobytes()
        with channel(system) as opened:
            assert output(infer(opened, raw_request(ROW, [1, 4]))) == [10.0]
            started.apply(
                [application("app", input_type=OWN), application("large", "n", input_type=large)],
                [own, model(version(big, input_type=large), name="n")],
            )

            def is_taken() -> bool:
                try:
                    return bool(output(infer(opened, raw_request(row, [1, 1 << 20], model="large"))) == [1048576.0])
                except grpc.RpcError:
                    return False

            until(is_taken)
            error = refusal(opened, raw_request(row, [1, 1 << 20]))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "over 1048576 bytes" in error.details() and "--max-body-size" in error.details()


def test_nothing_of_grpc_is_imported_where_there_is_no_port_for_it() -> None:
    program = "import sys, clipper.worker.worker; sys.exit('ngh2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.long
def test_a_worker_without_ngh2_answers_by_h2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ngh2.py").write_text("raise ImportError('there is no wheel for this machine')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    long = np.ones((4096, 4), "<f4")
    with models_behind_rpc() as system, channel(system) as opened:
        assert output(infer(opened, raw_request(ROW, [1, 4]))) == [10.0]
        assert output(infer(opened, raw_request(long.tobytes(), [4096, 4]))) == [4.0] * 4096
        assert "expected" in refusal(opened, raw_request(ROW, [1, 3])).details()
