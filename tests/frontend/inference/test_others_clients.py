"""Clients of the protocol that others wrote, each in a process of its own, in an environment that holds no Clipper."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.real_models import environment
from serving import Serving, application, model, serving, version

CLIENTS = Path(__file__).parent / "clients"
SUM = "def predict(inputs):\n    return [float(row.sum()) + {} for row in inputs]\n"
UPPER = "def predict(inputs):\n    return [text.upper() for text in inputs]\n"
EIGHT_SUMS = [6.0, 22.0, 38.0, 54.0, 70.0, 86.0, 102.0, 118.0]
WITHIN_S = 120

# The first run on a machine builds the environment.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as started:
        started.start_worker()
        own = "float32[4]"
        first = started.start_container(SUM.format(0), input_type=own)
        second = started.start_container(SUM.format(100), version="2", input_type=own)
        upper = started.start_container(UPPER, "t", "1", "string")
        started.apply(
            [application("app", input_type=own), application("text", "t", input_type="string")],
            [
                model(version(first, input_type=own), version(second, name="2", input_type=own)),
                model(version(upper, input_type="string"), name="t"),
            ],
        )
        yield started


def told_by(client: str, system: Serving) -> dict[str, Any]:
    """What a program of ``clients/`` found."""
    program = [environment("open_inference"), CLIENTS / f"{client}.py", f"127.0.0.1:{system.port}"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_tritonclient(system: Serving) -> None:
    found = told_by("triton_http", system)
    errors = found.pop("errors")
    assert {name: found[name] for name in ("live", "ready", "model_ready", "version_ready", "unknown_ready")} == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "version_ready": True,
        "unknown_ready": False,
    }
    assert found["server"]["name"] == "clipper"
    assert {"binary_tensor_data", "statistics"} <= set(found["server"]["extensions"])
    assert found["model"]["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert found["config"]["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [4]}]
    assert [each["version"] for each in found["index"]] == ["1", "2", "1"]
    assert found["statistics"] == "app"
    alike = ("binary", "json", "json_out", "deflate", "compressed_answer", "widened", "half", "async")
    assert {name: found[name] for name in alike} == {name: [10.0] for name in alike}
    assert found["batch"] == found["gzip"] == EIGHT_SUMS
    assert (found["version"], found["id"], found["columns"], found["parameters"]) == ([110.0], "mine", 8, False)
    assert found["texts"] == found["json_texts"] == ["GRÜN", "A" * 300]
    expected = {
        "unknown model": ("404", "clipper app list"),
        "unknown version": ("404", "no running version '9'"),
        "datatype": ("400", "datatype FP64"),
        "shape": ("400", "shape [1,5]: expected [-1,4]"),
        "short": ("400", "15 bytes after its JSON: expected 16"),
        "surplus": ("400", "17 bytes after its JSON: expected 16"),
        "size": ("400", "binary_data_size 20: expected 16"),
        "output": ("400", "asks for output 'nothing'"),
        "classification": ("400", "classification"),
        "sequence": ("400", "sequence"),
        "load": ("501", "clipper deploy"),
        "shared memory": ("501", "shared memory"),
        "trace": ("501", "trace"),
        "log": ("501", "log"),
    }
    assert {name: status for name, (status, _) in errors.items()} == {name: told[0] for name, told in expected.items()}
    assert [name for name, (_, message) in errors.items() if expected[name][1] not in message] == []


def test_tritonclient_with_asyncio(system: Serving) -> None:
    found = told_by("triton_aio", system)
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert found["batches"] == [EIGHT_SUMS] * 20
    assert found["unknown"][0] == "404" and "clipper app list" in found["unknown"][1]


def test_kserves_client(system: Serving) -> None:
    found = told_by("kserve_rest", system)
    refused = found.pop("refused")
    assert found == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "binary": EIGHT_SUMS[:2],
        "json": EIGHT_SUMS[:2],
        "listed": EIGHT_SUMS[:2],
    }
    assert "shape [1,5]: expected [-1,4]" in refused


def test_clients_made_from_the_description(system: Serving) -> None:
    found = told_by("openapi_client", system)
    assert (found["server"], found["versions"], found["sums"]) == ("clipper", ["1", "2"], [10.0, 26.0])
    assert found["answer"]["outputs"] == [{"name": "output", "shape": [1], "datatype": "FP64", "data": [10.0]}]


@pytest.mark.parametrize(
    "options",
    [
        "-m app -b 1",
        "-m app -b 8",
        "-m text -b 8 --string-length 5",
        "-m app -x 2 -b 8",
    ],
)
def test_perf_analyzer(system: Serving, options: str) -> None:
    program = environment("open_inference").with_name("perf_analyzer")
    fixed = ["-i", "http", "-u", f"127.0.0.1:{system.port}", "--request-count", "100"]
    done = subprocess.run(
        [program, *fixed, *options.split()], capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Request count: 100" in done.stdout and "Inference count" in done.stdout, done.stdout
