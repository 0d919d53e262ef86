"""``clipper score`` and the blocks of rows that it sends, on a real server."""

import csv
import io
import os
import signal
import socket
import struct
import subprocess
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from clipper.cli.score.answers import read_answers
from clipper.model.protocol.columns import encode_predict_columns
from clipper.model.protocol.cutting import encode_predict_payload
from clipper.model.protocol.frames import Kind, header
from clipper.model.protocol.messages import encode_predict
from clipper.values.columns import Column
from clipper.values.types import DType, InputType
from tests.cli.commands import CLIPPER, Command, commands
from tests.serving import TELLS_APART
from tests.supervisor.live_server import APP, NO_TLS, Own, Server
from tests.waiting import TIMEOUT_S, until

# Answers the first number, fails for a negative one, and ends its process for 13 once for each file that is there.
MODEL = """
import os, time
def predict(inputs):
    if (inputs[:, 0] == {deadly}).any():
        os._exit(1)
    if (inputs[:, 0] < 0).any():
        raise ValueError("a negative number")
    time.sleep({sleep_s})
    return inputs[:, 0].tolist()
"""


# A busy machine may not tell the rows of a batch apart in the time for it.
NO_TIME = "there was no time to try this input without the others"


@pytest.fixture
def run(shared: Server, tmp_path: Path) -> Command:
    return commands(shared.home, tmp_path)


def model(own: Own, deadly: float = -1e9, sleep_s: float = 0.0, **fields: Any) -> None:
    code = TELLS_APART + MODEL.format(deadly=deadly, sleep_s=sleep_s)
    assert own.deploy(code, output_type="float64[]", **fields)["state"] == "ready"


def write_rows(path: Path, numbers: Sequence[float]) -> None:
    path.write_text("a,b\n" + "".join(f"{number},0.50\n" for number in numbers))


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_each_row_comes_back_in_its_place_with_its_output_or_error(own: Own, run: Command, tmp_path: Path) -> None:
    model(own)
    numbers: list[float] = [float(number) for number in range(20_000)]
    numbers[7] = numbers[5000] = -1.0
    write_rows(tmp_path / "in.csv", numbers)
    with (tmp_path / "in.csv").open("a") as file:
        file.write("x,1\n3\n9,0.5")
    done = run("score", own.name, "in.csv", "-o", "out.csv", "--json")
    assert done.returncode == 0, done.stderr
    assert '"rows": 20003' in done.stdout or "20003" in done.stdout
    rows = read_rows(tmp_path / "out.csv")
    assert [row["a"] for row in rows[:20_000]] == [str(number) for number in numbers]
    assert rows[0] == {"a": "0.0", "b": "0.50", "output": "0.0", "model": own.name, "version": "2", "error": ""}
    untried = {number for number, row in enumerate(rows) if NO_TIME in row["error"]}
    failed = {number for number, row in enumerate(rows) if row["error"]} - untried
    assert failed == {7, 5000, 20_000, 20_001} - untried and len(untried) < 10_000
    assert all("negative number" in rows[row]["error"] for row in {7, 5000} - untried)
    answered = set(range(20_000)) - failed - untried
    assert all(float(rows[number]["output"]) == numbers[number] for number in answered)
    assert rows[20_002]["output"] == "9.0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]
    again = run("score", own.name, "in.csv", "-o", "out.csv")
    assert again.returncode == 1 and "exists" in again.stderr


@pytest.mark.long
def test_a_killed_job_goes_on_and_neither_loses_nor_repeats_a_row(
    own: Own, run: Command, shared: Server, tmp_path: Path
) -> None:
    model(own, sleep_s=0.02)
    numbers = [float(number) for number in range(60_000)]
    write_rows(tmp_path / "in.csv", numbers)
    arguments = ["score", own.name, "in.csv", "-o", "out.csv"]
    partial = tmp_path / "out.csv.partial"
    for least_bytes in (1000, 400_000):
        environment = {**os.environ, "CLIPPER_HOME": str(shared.home)}
        process = subprocess.Popen([*CLIPPER, *arguments], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        until(
            lambda least=least_bytes: partial.exists() and partial.stat().st_size > least,  # type: ignore[misc]
            failed=lambda running=process: running.poll() is not None and running.communicate(),  # type: ignore[misc]
        )
        process.send_signal(signal.SIGKILL)
        process.communicate()
    # Another version is current by now: the job stays with its own.
    assert own.deploy(MODEL.format(deadly=-1e9, sleep_s=0), output_type="float64[]")["state"] == "ready"
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "out.csv")
    assert [float(row["output"]) for row in rows] == numbers
    assert {row["version"] for row in rows} == {"2"}
    assert not partial.exists()


@pytest.mark.long
def test_a_row_that_ends_its_container_is_found(own: Own, run: Command, tmp_path: Path) -> None:
    model(own, deadly=13.0)
    numbers = [float(number) for number in range(100)]
    write_rows(tmp_path / "in.csv", numbers)
    done = run("score", own.name, "in.csv", "-o", "out.csv")
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "out.csv")
    assert [number for number, row in enumerate(rows) if row["error"]] == [13]
    assert "ended while it evaluated this input" in rows[13]["error"]


def test_formats(own: Own, run: Command, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    model(own)
    (tmp_path / "a.jsonl").write_text("[1, 2]\n\n[-1, 2]\n[3, 4]")
    assert run("score", own.name, "a.jsonl", "-o", "o.jsonl").returncode == 0
    lines = [eval(line, {"null": None}) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [line["input"] for line in lines] == [[1, 2], [-1, 2], [3, 4]]
    assert [line["output"] for line in lines] == [1.0, None, 3.0]
    for number in range(2):
        pq.write_table(pa.table({"a": [1.0 + number, 2.0], "b": [0.0, 0.0]}), tmp_path / f"part-{number}.parquet")
    assert run("score", f"{own.name}:2", "part-*.parquet", "-o", "o.parquet").returncode == 0
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.column_names == ["a", "b", "output", "model", "version", "error"]
    assert table.column("output").to_pylist() == [1.0, 2.0, 2.0, 2.0]
    assert table.schema.field("output").type == pa.float64()
    mixed = run("score", own.name, "a.jsonl", "-o", "o.csv")
    assert mixed.returncode == 1 and "one format" in mixed.stderr


def test_names_that_are_wrong_are_told(own: Own, run: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "in.csv", [1.0])
    (tmp_path / "taken.csv").write_text("a,b,output\n1,2,3\n")
    told = {
        ("absent", "in.csv"): "absent",
        (f"{own.name}:9", "in.csv"): "no version 9",
        (own.name, "none.csv"): "no file none.csv",
    }
    for (name, file), expected in told.items():
        found = run("score", name, file, "-o", "out.csv")
        assert found.returncode == 1 and expected in found.stderr, found.stderr
        assert not list(tmp_path.glob("out*"))


@pytest.mark.long
def test_files_that_cannot_be_read_or_written_are_told(own: Own, run: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "in.csv", [1.0])
    (tmp_path / "latin.csv").write_bytes("größe,b\n1,2\n".encode("latin-1"))
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "none.csv").write_bytes(b"")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 and no more")
    os.mkfifo(tmp_path / "pipe.csv")
    told = {
        ("latin.csv", "out.csv"): "cannot be read: it is not of the format",
        ("folder.csv", "out.csv"): "folder.csv is no file",
        ("none.csv", "out.csv"): "has no first line",
        ("no.parquet", "out.parquet"): "no.parquet cannot be read",
        ("pipe.csv", "out.csv"): "pipe.csv is no file",
        ("in.csv", "absent/out.csv"): "out.csv.journal cannot be written: No such file",
        ("in.csv", "/proc/out.csv"): "out.csv.journal cannot be written",
        ("in.csv", "folder.csv"): "folder.csv exists",
    }
    for (file, output), expected in told.items():
        found = run("score", own.name, file, "-o", output)
        assert found.returncode == 1 and expected in found.stderr and "Traceback" not in found.stderr, found.stderr
        assert not list(tmp_path.glob("out*"))


@pytest.mark.long
def test_a_file_that_grows_while_it_is_read_ends_the_job(
    own: Own, run: Command, shared: Server, tmp_path: Path
) -> None:
    model(own, sleep_s=0.02)
    write_rows(tmp_path / "in.csv", [float(number) for number in range(60_000)])
    environment = {**os.environ, "CLIPPER_HOME": str(shared.home)}
    arguments = [*CLIPPER, "score", own.name, "in.csv", "-o", "out.csv"]
    partial = tmp_path / "out.csv.partial"
    process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    until(
        lambda: partial.exists() and partial.stat().st_size > 1000,
        failed=lambda: process.poll() is not None and process.communicate(),
    )
    with (tmp_path / "in.csv").open("a") as file:
        file.write("7,0.50\n")
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1 and "in.csv has changed while it was read" in told, told
    assert not (tmp_path / "out.csv").exists()
    again = run(*arguments[len(CLIPPER) :])
    assert again.returncode == 1 and "has changed since" in again.stderr


def score(own: Own, body: bytes, path: str = "score", **headers: str) -> httpx.Response:
    url = f"{own.server.place.query_url}/v2/models/{own.name}/{path}"
    return httpx.post(url, content=body, headers=headers, timeout=TIMEOUT_S, verify=NO_TLS)


def claimed(kind: Kind, rest_bytes: int, head: bytes) -> bytes:
    """A frame whose batch claims more rows than it has."""
    return header(kind, len(head) + rest_bytes, 0) + head + bytes(rest_bytes)


def frame(rows: "np.ndarray[Any, Any]") -> bytes:
    size = rows.itemsize * rows.shape[1]
    parts = encode_predict_payload(0, DType.FLOAT64, 0, len(rows), size, (), rows.tobytes())
    return b"".join(map(bytes, parts))


def test_a_block_is_answered_in_frames_of_the_protocol(own: Own) -> None:
    model(own)
    rows = np.arange(2000.0).reshape(1000, 2)
    rows[4, 0] = -1
    answer = score(own, frame(rows), "versions/2/score")
    assert answer.status_code == 200, answer.text
    answers = read_answers(answer.content, 1000)
    assert (answers.model, answers.version) == (own.name, "2")
    untried = {row for row, error in answers.errors.items() if NO_TIME in error}
    assert {*answers.errors} == untried | {4} and (4 in untried or "negative" in answers.errors[4])
    outputs = [None if text is None else float(text) for text in answers.texts]
    assert outputs == [None if row == 4 or row in untried else float(2 * row) for row in range(1000)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        bytes(16),
        frame(np.zeros((3, 3))),
        frame(np.zeros((3, 2)))[:-1],
        frame(np.zeros((3, 2))) + b"x",
        b"".join(encode_predict(0, DType.STRING, 0, [b"a"])),
        b"".join(encode_predict(0, DType.FLOAT64, 0, [bytes(16), bytes(8)])),
        b"".join(encode_predict(0, DType.FLOAT64, 2, [bytes(16)])),
        # Two million rows, whose lengths would be read for nothing.
        claimed(Kind.PREDICT, 8_000_000, struct.pack("<IIBBHI", 2_000_000, 0, DType.STRING, 0, 0, 0)),
        claimed(Kind.PREDICT_COLUMNS, 64, struct.pack("<IHHII", 2**32 - 1, 2**16 - 1, 0, 0, 0)),
        b"".join(encode_predict_columns(0, [Column("", InputType(DType.FLOAT64, (2,)), 1, bytes(16))])),
        b"".join(encode_predict_columns(0, [Column("a", InputType(DType.STRING, ()), 9, b"", (0,) * 9)] * 2)),
    ],
)
def test_a_body_that_is_no_block_is_refused_and_reaches_no_container(own: Own, body: bytes) -> None:
    pids = own.ready_pids
    answer = score(own, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_input"), answer.text
    assert own.output() == "one" and own.ready_pids == pids


def test_clients_that_leave_or_lie_leave_nothing_behind(own: Own, shared: Server) -> None:
    """Blocks that are sent in part, longer or shorter than they say, or whose client goes before the answer."""
    model(own, sleep_s=0.02)
    block = frame(np.ones((2000, 2)))
    host, port = shared.place.query_url.removeprefix("http://").split(":")
    for number in range(60):
        connection = socket.create_connection((host, int(port)))
        length = len(block) + (0, 100, -100, 10**12)[number % 4]
        head = f"POST /v2/models/{own.name}/score HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n".encode()
        connection.sendall(head + block[: len(block) // (1 + number % 3)])
        connection.close()
    # Room for blocks is free again: more than fit at once are answered, one after the other, and so are queries.
    for _ in range(40):
        assert score(own, frame(np.ones((1, 2)))).status_code == 200
    assert shared.predict(own.name, [3.0, 1.0])["output"] == 3.0


def test_more_blocks_than_there_is_room_for_are_refused(own: Own, shared: Server) -> None:
    model(own, sleep_s=0.005)
    block = frame(np.ones((500, 2)))
    with ThreadPoolExecutor(64) as clients:
        asked = [clients.submit(score, own, block) for _ in range(64)]
        for _ in range(5):
            assert shared.predict(own.name, [3.0, 1.0])["output"] == 3.0
    statuses = Counter(one.result().status_code for one in asked)
    assert set(statuses) <= {200, 503} and statuses[200] >= 32, statuses
    refused = [one.result().json() for one in asked if one.result().status_code == 503]
    assert all(each["code"] == "overloaded" for each in refused)


def test_blocks_need_one_model_and_a_version_that_runs(own: Own, shared: Server) -> None:
    block = frame(np.zeros((1, 2)))
    assert score(own, block, "versions/9/score").status_code == 404
    name = f"{own.name}-both"
    links = [{"model": own.name}, {"model": "m"}]
    shared.call("POST", "/applications", {**APP, "name": name, "links": links})
    try:
        url = f"{shared.place.query_url}/v2/models/{name}"
        answer = httpx.post(f"{url}/score", content=block, timeout=TIMEOUT_S, verify=NO_TLS)
        assert (answer.status_code, answer.json()["code"]) == (501, "not_implemented")
    finally:
        shared.call("DELETE", f"/applications/{name}")


@pytest.mark.long
def test_queries_are_answered_beside_a_job(own: Own, run: Command, shared: Server, tmp_path: Path) -> None:
    model(own, sleep_s=0.005)
    write_rows(tmp_path / "in.csv", [float(number) for number in range(30_000)])
    environment = {**os.environ, "CLIPPER_HOME": str(shared.home)}
    arguments = [*CLIPPER, "score", own.name, "in.csv", "-o", "out.csv"]
    process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    asked = 0
    while process.poll() is None:
        answer = shared.predict(own.name, [float(asked), 1.0])
        assert answer["output"] == float(asked) and not answer["default"], answer
        asked += 1
    assert process.returncode == 0 and asked > 10
    assert len(read_rows(tmp_path / "out.csv")) == 30_000


@pytest.mark.long
def test_a_model_file_has_a_server_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.py").write_text("def first(inputs):\n    return inputs[:, 0].tolist()\n")
    (tmp_path / "work" / "in.csv").write_text("a,b\n1.0,2\n3.0,4\n")
    run = commands(tmp_path / "home", tmp_path / "work")
    done = run("score", "mine:first", "in.csv", "-o", "out.csv")
    assert done.returncode == 0, done.stderr
    assert [row["output"] for row in read_rows(tmp_path / "work" / "out.csv")] == ["1.0", "3.0"]
    assert not (tmp_path / "home").exists()
