"""The findings that clients of other authors have to have, by REST and by gRPC. Each runs in a process of its own."""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from scripts.real_models import environment
from tests.waiting import TIMEOUT_S

EIGHT_SUMS = [[6.0], [22.0], [38.0], [54.0], [70.0], [86.0], [102.0], [118.0]]
# perf_analyzer's options for all protocols.
PERF_OPTIONS = ("-m app -b 1", "-m app -b 8", "-m text -b 8 --string-length 5", "-m app -x 2 -b 8")


class Refusal(NamedTuple):
    """How a wrong request is refused. A status is None if the request cannot be made by that protocol."""

    rest: str | None
    rpc: str | None
    told: str


REFUSALS = {
    "unknown model": Refusal("404", "NOT_FOUND", "clipper app list"),
    "unknown version": Refusal("404", "NOT_FOUND", "no running version '9'"),
    "datatype": Refusal("400", "INVALID_ARGUMENT", "datatype FP64"),
    "shape": Refusal("400", "INVALID_ARGUMENT", "shape [1,5]: expected [-1,4]"),
    "short": Refusal("400", "INVALID_ARGUMENT", "expected 16"),
    "surplus": Refusal("400", "INVALID_ARGUMENT", "expected 16"),
    "size": Refusal("400", None, "binary_data_size 20: expected 16"),
    "two inputs": Refusal(None, "INVALID_ARGUMENT", "twice"),
    "contents and raw": Refusal(None, "INVALID_ARGUMENT", "both contents and raw_input_contents"),
    "two raw": Refusal(None, "INVALID_ARGUMENT", "2 raw_input_contents: expected 1"),
    "output": Refusal("400", "INVALID_ARGUMENT", "asks for output 'nothing'"),
    "classification": Refusal("400", "INVALID_ARGUMENT", "classification"),
    "sequence": Refusal("400", "INVALID_ARGUMENT", "sequence"),
    "deadline": Refusal(None, "DEADLINE_EXCEEDED", ""),
    "timeout": Refusal(None, "DEADLINE_EXCEEDED", "did not answer"),
    "region": Refusal("400", "INVALID_ARGUMENT", "shared_memory_region, which is not supported"),
    "load": Refusal("501", "UNIMPLEMENTED", "clipper deploy"),
    "shared memory": Refusal("501", "UNIMPLEMENTED", "shared memory"),
    "trace": Refusal("501", "UNIMPLEMENTED", "trace"),
    "log": Refusal("501", "UNIMPLEMENTED", "log"),
}


def told_by(program: Path, *arguments: str) -> dict[str, Any]:
    """The findings of a client's program at an address, its first argument."""
    done = subprocess.run(
        [environment("open_inference"), program, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def assert_tritonclient_found(
    found: dict[str, Any], protocol: str, extensions: set[str], alike: tuple[str, ...]
) -> None:
    """
    Args:
        protocol: ``rest`` or ``rpc``.
        extensions: some of the server's.
        alike: the ways in which the same row was asked.
    """
    assert [found[name] for name in ("live", "ready", "model_ready", "version_ready")] == [True] * 4
    assert found["server"]["name"] == "clipper"
    assert extensions <= set(found["server"]["extensions"])
    # Messages of gRPC have texts for numbers of 64 bits, where they are shown as JSON.
    (taken,), (configured,) = found["model"]["inputs"], found["config"]["input"]
    assert (taken["name"], taken["datatype"], [int(size) for size in taken["shape"]]) == ("input", "FP32", [-1, 4])
    assert (configured["data_type"], [int(size) for size in configured["dims"]]) == ("TYPE_FP32", [4])
    assert [(each["name"], each["version"]) for each in found["index"]][:2] == [("app", "1"), ("app", "2")]
    assert {name: found[name] for name in alike} == {name: [[10.0]] for name in alike}
    assert found["batch"] == found["gzip"] == EIGHT_SUMS
    assert (found["version"], found["id"], found["columns"]) == ([[110.0]], "mine", 8)
    assert found["texts"] == ["GRÜN", "A" * 300]
    expected = {
        name: (status, refusal.told)
        for name, refusal in REFUSALS.items()
        if (status := getattr(refusal, protocol)) is not None
    }
    errors = found["errors"]
    assert {name: status for name, (status, _) in errors.items()} == {name: told[0] for name, told in expected.items()}
    assert [name for name, (_, message) in errors.items() if expected[name][1] not in message] == []


def assert_asyncio_found(found: dict[str, Any], status: str) -> None:
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert found["batches"] == [EIGHT_SUMS] * 20
    assert found["unknown"][0] == status and "clipper app list" in found["unknown"][1]


def assert_kserve_found(found: dict[str, Any], ways: tuple[str, ...]) -> None:
    """``ways``: how the two rows were sent."""
    assert "shape [1,5]: expected [-1,4]" in found.pop("refused")
    assert found == dict.fromkeys(("live", "ready", "model_ready"), True) | dict.fromkeys(ways, EIGHT_SUMS[:2])


def assert_perf_analyzer_runs(protocol: str, address: str, options: str) -> None:
    program = environment("open_inference").with_name("perf_analyzer")
    fixed = ["-i", protocol, "-u", address, "--request-count", "100"]
    done = subprocess.run(
        [program, *fixed, *options.split()], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Request count: 100" in done.stdout and "Inference count" in done.stdout, done.stdout
