"""Clients of gRPC that others wrote, each in a process of its own, in an environment that holds no Clipper."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rpc_system import RpcSystem, models_behind_rpc

from benchmarks.real_models import environment

CLIENTS = Path(__file__).parent / "clients"
EIGHT_SUMS = [6.0, 22.0, 38.0, 54.0, 70.0, 86.0, 102.0, 118.0]
WITHIN_S = 120

# The first run on a machine builds the environment.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def system() -> Iterator[RpcSystem]:
    with models_behind_rpc() as started:
        yield started


def told_by(client: str, system: RpcSystem) -> dict[str, Any]:
    """What a program of ``clients/`` found."""
    program = [environment("open_inference"), CLIENTS / f"{client}.py", system.address]
    done = subprocess.run(program, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_tritonclient(system: RpcSystem) -> None:
    found = told_by("triton_grpc", system)
    errors = found.pop("errors")
    assert [found[name] for name in ("live", "ready", "model_ready", "version_ready")] == [True] * 4
    assert found["server"]["name"] == "clipper"
    assert {"model_configuration", "statistics"} <= set(found["server"]["extensions"])
    assert found["model"]["inputs"] == [{"name": "input", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert found["config"]["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": ["4"]}]
    assert [(each["name"], each["version"]) for each in found["index"]][:2] == [("app", "1"), ("app", "2")]
    assert found["statistics"]["inference_count"] > "0"
    assert found["raw"] == [[10.0]] * 3
    alike = ("widened", "half", "deflate")
    assert {name: found[name] for name in alike} == {name: [10.0] for name in alike}
    assert found["batch"] == found["gzip"] == EIGHT_SUMS
    assert (found["version"], found["id"], found["columns"]) == ([110.0], "mine", 8)
    assert found["parameters"]["query_id"] > 0 and found["parameters"]["confidence"] == 1.0
    assert found["texts"] == ["GRÜN", "A" * 300]
    assert found["typed"] == [[6.0, 22.0], 0]
    assert [found["stream"][0], found["stream"][2]] == [[10.0]] * 2
    assert "clipper app list" in found["stream"][1]
    expected = {
        "unknown model": ("NOT_FOUND", "clipper app list"),
        "unknown ready": ("NOT_FOUND", "clipper app list"),
        "unknown version": ("NOT_FOUND", "no running version '9'"),
        "datatype": ("INVALID_ARGUMENT", "datatype FP64"),
        "shape": ("INVALID_ARGUMENT", "shape [1,5]: expected [-1,4]"),
        "short": ("INVALID_ARGUMENT", "15 bytes: expected 16"),
        "surplus": ("INVALID_ARGUMENT", "17 bytes: expected 16"),
        "two inputs": ("INVALID_ARGUMENT", "twice"),
        "contents and raw": ("INVALID_ARGUMENT", "both contents and raw_input_contents"),
        "two raw": ("INVALID_ARGUMENT", "2 raw_input_contents: expected 1"),
        "output": ("INVALID_ARGUMENT", "asks for output 'nothing'"),
        "classification": ("INVALID_ARGUMENT", "classification"),
        "sequence": ("INVALID_ARGUMENT", "sequence"),
        "deadline": ("DEADLINE_EXCEEDED", ""),
        "timeout": ("DEADLINE_EXCEEDED", "did not answer"),
        "load": ("UNIMPLEMENTED", "clipper deploy"),
        "shared memory": ("UNIMPLEMENTED", "shared memory"),
        "trace": ("UNIMPLEMENTED", "trace"),
        "log": ("UNIMPLEMENTED", "log"),
    }
    assert {name: status for name, (status, _) in errors.items()} == {name: told[0] for name, told in expected.items()}
    assert [name for name, (_, message) in errors.items() if expected[name][1] not in message] == []


def test_tritonclient_with_asyncio(system: RpcSystem) -> None:
    found = told_by("triton_grpc_aio", system)
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert found["batches"] == [EIGHT_SUMS] * 20
    assert found["unknown"][0] == "StatusCode.NOT_FOUND" and "clipper app list" in found["unknown"][1]


def test_kserves_client(system: RpcSystem) -> None:
    found = told_by("kserve_grpc", system)
    refused = found.pop("refused")
    assert found == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "raw": EIGHT_SUMS[:2],
        "typed": EIGHT_SUMS[:2],
        "listed": EIGHT_SUMS[:2],
    }
    assert "shape [1,5]: expected [-1,4]" in refused


def test_the_protocols_generated_client(system: RpcSystem) -> None:
    found = told_by("open_inference_grpc", system)
    assert (found["ready"], found["model_ready"], found["server"]) == (True, True, "clipper")
    assert found["model"]["versions"] == ["1", "2"]
    assert (found["sums"], found["id"]) == (EIGHT_SUMS[:2], "mine")


def test_reflection_health_and_feedback(system: RpcSystem) -> None:
    found = told_by("standard_services", system)
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


@pytest.mark.parametrize(
    "options",
    [
        "-m app -b 1",
        "-m app -b 8",
        "-m text -b 8 --string-length 5",
        "-m app -x 2 -b 8",
        "-m app -b 1 --streaming",
    ],
)
def test_perf_analyzer(system: RpcSystem, options: str) -> None:
    program = environment("open_inference").with_name("perf_analyzer")
    fixed = ["-i", "grpc", "-u", system.address, "--request-count", "100"]
    done = subprocess.run(
        [program, *fixed, *options.split()], capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Request count: 100" in done.stdout and "Inference count" in done.stdout, done.stdout
