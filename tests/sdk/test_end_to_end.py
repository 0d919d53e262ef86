"""Programs of both SDKs behind a real server: deployed as a user does, asked as an application does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from clipper.client import Clipper
from clipper.errors import ContainerFailed, InvalidArgument
from tests.sdk.programs import Programs
from tests.supervisor.live_server import Server, processes_of
from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.long


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home").start()
    yield server
    server.clean_up()


@pytest.fixture
def clipper(server: Server) -> Iterator[Clipper]:
    with Clipper.connect(home=server.home) as clipper:
        yield clipper


def test_from_the_command_line_to_an_answer(programs: Programs, server: Server, clipper: Clipper) -> None:
    deploy = ["deploy", "sum", str(programs.sum), "--language", "binary", "--home", str(server.home)]
    run = "import sys; from clipper.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", run]
    done = subprocess.run([*command, *deploy], check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "sum:1 is ready: 1 replica, takes float64[*], current" in done.stdout + done.stderr
    clipper.create_application("sums", model="sum", slo_ms=20_000)
    assert server.predict("sums", [1.5, 2, 3])["output"] == 6.5
    answer = clipper.predict("sums", [0.1, 0.2])
    assert answer.output == 0.1 + 0.2
    assert server.stop() == 0
    assert processes_of(server.home) == {}


def test_a_killed_replica_comes_back(programs: Programs, server: Server, clipper: Clipper) -> None:
    clipper.deploy("sum", programs.sum, language="binary", replicas=2)
    clipper.create_application("sums", model="sum", slo_ms=20_000)
    before = server.ready_pids("sum")
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    for number in range(50):
        assert server.predict("sums", [number, 1])["output"] == number + 1
    until(lambda: len(pids := server.ready_pids("sum")) == 2 and before[0] not in pids)
    assert server.predict("sums", [7, 1])["output"] == 8


def test_failures_come_through_by_input(programs: Programs, server: Server, clipper: Clipper) -> None:
    clipper.deploy("acting", programs.acting, language="binary", input_type="float64[1]")
    clipper.create_application("app", model="acting", slo_ms=20_000, default_output=-1)
    assert server.predict("app", [20])["output"] == 20
    failed = server.predict("app", [1])
    assert (failed["output"], failed["default"]) == (-1, True)
    assert "row says no, né?" in str(failed["default_explanation"])
    assert server.predict("app", [4])["output"] == 'a "quoted" \\ text\n\tof é and \x01'
    answer = server.predict("app", [2])
    assert (answer["output"], answer["default"]) == (None, False)


def test_outputs_with_names_are_objects(programs: Programs, server: Server, clipper: Clipper) -> None:
    clipper.deploy("acting", programs.acting, language="binary", input_type="float64[1]")
    clipper.create_application("app", model="acting", slo_ms=20_000)
    first = {"label": 'é"', "scores": [0.5, None], "note": None, "raw": "AP8=", "n": 7}
    second = {"label": "", "scores": [1.5], "note": 2.5, "raw": "", "n": 8}
    answers = server.predict_batch("app", [[60], [61], [20], [1]])
    assert [answer.get("output") for answer in answers] == [first, second, 20.0, None]


# Of each declared type: its default, the inputs of a request, and the tensors of the answer. 1 and 62 fail.
TYPED: dict[str, tuple[Any, list[int], dict[str, tuple[str, list[int], bytes]]]] = {
    "float64[*]": (
        [0.5],
        [20, 3, 17, 1, 6],
        {
            "output": (
                "FP64",
                [5, 5],
                np.array(
                    [
                        [20, *[np.nan] * 4],
                        [1, -np.inf, *[np.nan] * 3],
                        [np.nan] * 5,
                        [0.5, *[np.nan] * 4],
                        [0.1, 1e22, 5e-324, -1.7976931348623157e308, 1 / 3],
                    ]
                ).tobytes(),
            )
        },
    ),
    "float64[2]": ([0, 0], [3], {"output": ("FP64", [1, 2], np.array([1, -np.inf]).tobytes())}),
    "int64[2]": (
        [7, 8],
        [18, 1, 15],
        {"output": ("INT64", [3, 2], np.array([-1, 1 << 62, 7, 8, -1, 32767]).tobytes())},
    ),
    "float64[]": (-1, [20, 1, 2], {"output": ("FP64", [3, 1], np.array([20, -1, np.nan]).tobytes())}),
    "label: string, scores: float32[*], note: float64?, raw: bytes, n: int64": (
        {"label": "d", "scores": [], "note": None, "raw": "", "n": 0},
        [60, 62, 61],
        {
            "label": ("BYTES", [3, 1], b'\3\0\0\0\xc3\xa9"\1\0\0\0d\0\0\0\0'),
            "scores": ("FP32", [3, 2], np.array([0.5, *[np.nan] * 3, 1.5, np.nan], np.float32).tobytes()),
            "note": ("FP64", [3, 1], np.array([np.nan, np.nan, 2.5]).tobytes()),
            "raw": ("BYTES", [3, 1], b"\2\0\0\0\0\xff" + bytes(8)),
            "n": ("INT64", [3, 1], np.array([7, 0, 8]).tobytes()),
        },
    ),
}


def test_declared_types_are_kept_bit_for_bit(programs: Programs, server: Server, clipper: Clipper) -> None:
    """Whatever else is in the batch: other lengths, missing values, rows that fail and get the default."""
    for number, (of_type, (default, inputs, wanted)) in enumerate(TYPED.items()):
        name = f"typed-{number}"
        clipper.deploy(name, programs.acting, language="binary", input_type="float64[1]", output_type=of_type)
        clipper.create_application(name, model=name, slo_ms=20_000, default_output=default)
        tensor = {"name": "x", "shape": [len(inputs), 1], "datatype": "FP64", "data": inputs}
        body = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        answer = httpx.post(f"{server.place.query_url}/v2/models/{name}/infer", json=body, timeout=TIMEOUT_S)
        assert answer.status_code == 200, answer.text
        at = int(answer.headers["inference-header-content-length"])
        for each in json.loads(answer.content[:at])["outputs"]:
            datatype, shape, data = wanted[each["name"]]
            assert (each["datatype"], each["shape"]) == (datatype, shape)
            assert answer.content[at : at + len(data)] == data, each["name"]
            at += each["parameters"]["binary_data_size"]
        assert at == len(answer.content)


def test_texts_and_data(programs: Programs, server: Server, clipper: Clipper, tmp_path: Path) -> None:
    data = tmp_path / "weights"
    data.mkdir()
    (data / "release").touch()
    clipper.deploy("acting", programs.acting, language="binary", data=data)
    clipper.create_application("app", model="acting", slo_ms=20_000)
    assert server.predict("app", [5])["output"] == 5
    clipper.deploy("texts", programs.acting, language="binary", input_type="string")
    clipper.create_application("texts", model="texts", slo_ms=20_000)
    assert server.predict("texts", '日本語 " \n é')["output"] == '日本語 " \n é'


def test_one_that_cannot_load_says_why(programs: Programs, clipper: Clipper) -> None:
    with pytest.raises(ContainerFailed, match=r"exited with code 3 .*input type .*does not suit"):
        clipper.deploy("sum", programs.sum, language="binary", input_type="int32")


def test_memory_is_bounded(programs: Programs, server: Server, clipper: Clipper) -> None:
    memory_bytes = 3 * 1024**3
    clipper.deploy("sum", programs.sum, language="binary", memory_bytes=memory_bytes)
    [pid] = server.ready_pids("sum")
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
    if programs.sum.suffix == ".jar":
        assert f"-Xmx{memory_bytes * 3 // 4}" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    else:
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert f"Max data size             {memory_bytes * 2}" in limits


def test_a_program_brings_its_own_interpreter(programs: Programs, clipper: Clipper) -> None:
    with pytest.raises(InvalidArgument, match="a program has its own"):
        clipper.deploy("sum", programs.sum, language="binary", python=sys.executable)


def test_what_does_not_speak_the_protocol_says_so(server: Server, clipper: Clipper, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text('#!/bin/sh\necho "I got $*"\nexit 3\n')
    with pytest.raises(ContainerFailed, match="exited with code 3") as failure:
        clipper.deploy("script", script, language="binary")
    [line] = failure.value.log_tail
    assert line.startswith("I got --listen unix:") and line.endswith(".sock --model script --version 1")


def test_an_output_over_the_servers_bound_fails_its_query_alone(programs: Programs, tmp_path: Path) -> None:
    """The SDKs know no bound: the worker drops what is over it, and the container lives."""
    server = Server(tmp_path / "home", "--max-output-bytes", "500000").start()
    try:
        with Clipper.connect(home=server.home) as clipper:
            clipper.deploy("acting", programs.acting, language="binary", input_type="float64[1]")
            clipper.create_application("app", model="acting", slo_ms=20_000)
        before = server.ready_pids("acting")
        for _ in range(3):
            answers = server.predict_batch("app", [[20], [7], [21]])
            assert [answer.get("output") for answer in answers] == [20, None, 21], answers
            assert answers[1]["error"] == "output_too_large" and "--max-output-size" in answers[1]["cause"]
        assert server.ready_pids("acting") == before
        assert server.call("GET", "/replicas")[0]["restarts"] == 0
    finally:
        server.clean_up()


def test_a_row_of_a_table(programs: Programs, server: Server, clipper: Clipper) -> None:
    """The example: JSON objects in, two outputs with names out."""
    clipper.deploy("record", programs.record, language="binary")
    clipper.create_application("rows", model="record", slo_ms=20_000)
    rows = [{"age": 3, "job": "cook", "visits": [1, 2]}, {"age": 9.5, "job": None, "visits": []}]
    answers = server.predict_batch("rows", rows)
    expected = [{"label": "often", "scores": [3.0, 4.0]}, {"label": "seldom", "scores": [9.5, 0.0]}]
    assert [answer.get("output") for answer in answers] == expected
    assert clipper.model("record").versions[0].output_type == 'label: string{"often", "seldom"}, scores: float32[2]'
