"""Clients of gRPC that others wrote, each in a process of its own, in an environment that holds no Clipper."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.frontend.others_clients import (
    EIGHT_SUMS,
    PERF_OPTIONS,
    assert_asyncio_found,
    assert_kserve_found,
    assert_perf_analyzer_runs,
    assert_tritonclient_found,
    told_by,
)
from tests.worker.frontend.rpc.rpc_system import RpcSystem, models_behind_rpc

CLIENTS = Path(__file__).parent / "clients"

# The first run on a machine builds the environment.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]


@pytest.fixture(scope="module")
def system() -> Iterator[RpcSystem]:
    with models_behind_rpc() as started:
        yield started


def test_tritonclient(system: RpcSystem) -> None:
    found = told_by(CLIENTS / "triton_grpc.py", system.address)
    extensions = {"model_configuration", "statistics"}
    assert_tritonclient_found(found, "rpc", extensions, alike=("widened", "half", "deflate"))
    assert found["statistics"]["inference_count"] > "0"
    assert found["raw"] == [[[10.0]]] * 3
    assert found["parameters"]["query_id"] > 0 and found["parameters"]["confidence"] == 1.0
    assert found["typed"] == [[6.0, 22.0], 0]
    assert found["unknown_ready"] is False
    # By id, since they need not be in the order of their requests.
    assert sorted(map(str, found["stream"]))[:2] == ["[[10.0]]"] * 2
    assert [each for each in found["stream"] if "clipper app list" in str(each)]
    assert found["streamed"] == [True] * 64


def test_tritonclient_with_asyncio(system: RpcSystem) -> None:
    assert_asyncio_found(told_by(CLIENTS / "triton_grpc_aio.py", system.address), "StatusCode.NOT_FOUND")


def test_kserves_client(system: RpcSystem) -> None:
    found = told_by(CLIENTS / "kserve_grpc.py", system.address)
    assert found.pop("parameters")["confidence"] == "1.0"
    assert_kserve_found(found, ("raw", "typed", "listed"))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_tritony(system: RpcSystem, protocol: str) -> None:
    address = system.address if protocol == "grpc" else f"127.0.0.1:{system.serving.worker.port}"
    sums = EIGHT_SUMS[:2]
    assert told_by(CLIENTS / "tritony_client.py", address, protocol) == {"sums": sums, "named": sums}


def test_the_protocols_generated_client(system: RpcSystem) -> None:
    found = told_by(CLIENTS / "open_inference_grpc.py", system.address)
    assert (found["ready"], found["model_ready"], found["server"]) == (True, True, "clipper")
    assert found["model"]["versions"] == ["1", "2"]
    assert (found["sums"], found["id"]) == ([6.0, 22.0], "mine")


def test_reflection_health_and_feedback(system: RpcSystem) -> None:
    found = told_by(CLIENTS / "standard_services.py", system.address)
    assert found["services"] == [
        "clipper.Feedback",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    assert {"ModelInfer", "ModelStreamInfer", "RepositoryIndex"} <= set(found["methods"])
    assert found["observed"][:2] == [[False, ""], [True, ""]]
    assert [error for _, error in found["observed"][2:]] == ["not_found", "malformed_request"]
    assert found["health"] == {"": 1, "inference.GRPCInferenceService": 1}
    assert (found["watched"], found["unknown"]) == (1, "NOT_FOUND")


@pytest.mark.parametrize("options", [*PERF_OPTIONS, "-m app -b 1 --streaming"])
def test_perf_analyzer(system: RpcSystem, options: str) -> None:
    assert_perf_analyzer_runs("grpc", system.address, options)
