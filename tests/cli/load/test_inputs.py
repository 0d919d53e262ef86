"""The bodies that are sent, read by the query port's own readers."""

import base64
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.cli.load import inputs
from clipper.cli.load.inputs import DEFAULT_TEXT_LENGTH, Head, Ring, Sample, read_requests
from clipper.errors import InvalidArgument
from clipper.values.inputs.reader import make_reader
from clipper.values.types import InputType
from clipper.worker.frontend.predict_body import BodyReader
from tests.example_counts import share_of
from tests.worker.frontend.steps import finish

HEAD = Head("localhost:1337", "/app/predict")
TYPES = (
    "float64[4]", "float64[*]", "float64[]", "float32[784]", "float32[2,3]", "float32[3,*,*]", "int32[3]", "int64[1]",
    "uint8[2,2]", "uint8[1]", "bool[5]", "bool[2,2]", "string", "bytes",
)  # fmt: skip


def body_of(request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /app/predict HTTP/1.1\r\nHost: localhost:1337\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    return body


def sample(input_type: str, width: int | None = None) -> Sample:
    return Sample(HEAD, InputType.parse(input_type), width, Random(7))


@pytest.mark.parametrize("input_type", TYPES)
def test_a_sample_is_what_the_application_takes(input_type: str) -> None:
    reader = BodyReader(make_reader(InputType.parse(input_type)))
    made = sample(input_type)
    for number in (*range(50), 10**12, 10**6 + 1):
        assert len(finish(reader.read(body_of(made.of(number)))).rows) == 1
    assert input_type in made.what


@pytest.mark.parametrize(
    ("input_type", "unique"),
    [("float64[4]", 10_000), ("float32[1]", 10_000), ("float64[]", 10_000), ("string", 10_000), ("bytes", 10_000),
     ("int32[3]", 10_000), ("uint8[4]", 10_000), ("bool[20]", 10_000), ("int64[2,1]", 900), ("uint8[1]", 156),
     ("bool[2]", 4), ("int64[]", 900)],
)  # fmt: skip
def test_a_sample_has_inputs_that_all_differ(input_type: str, unique: int) -> None:
    assert len(rows_of(input_type, unique)) == unique


def rows_of(input_type: str, count: int) -> set[bytes]:
    reader = BodyReader(make_reader(InputType.parse(input_type)))
    made = sample(input_type)
    return {finish(reader.read(body_of(made.of(number)))).rows[0] for number in range(count)}


def test_others_that_load_the_same_server_send_other_inputs() -> None:
    one, other = (Sample(HEAD, InputType.parse("float64[1]"), None, Random(seed)) for seed in (1, 2))
    mine = {one.of(number) for number in range(5000)}
    assert not mine & {other.of(number) for number in range(5000)}


@settings(max_examples=share_of(12))
@given(st.integers(1, 300), st.sampled_from(["string", "bytes", "float64[*]", "float32[2,*]", "uint8[*]"]))
def test_the_width_is_of_open_lengths(width: int, input_type: str) -> None:
    kind = InputType.parse(input_type)
    row = finish(BodyReader(make_reader(kind)).read(body_of(sample(input_type, width).of(3)))).rows[0]
    lengths = {"string": width, "bytes": width, "float64[*]": 8 * width, "uint8[*]": width}
    # One with several dimensions has them before its data.
    assert len(row) == lengths.get(input_type, 8 + 2 * 4 * width)


def test_the_default_length_of_a_text() -> None:
    assert len(json.loads(body_of(sample("string").of(0)))["input"]) == DEFAULT_TEXT_LENGTH


@pytest.mark.parametrize(("input_type", "width"), [("float32[3,*,*]", 10_000), ("string", 10**9), ("uint8[*]", 10**8)])
def test_a_sample_that_no_query_port_takes(input_type: str, width: int) -> None:
    with pytest.raises(InvalidArgument, match="smaller --width"):
        sample(input_type, width)


def test_a_large_sample_takes_bounded_memory() -> None:
    made = sample("uint8[3,224,224]")
    assert len({made.of(number) for number in range(300)}) == 300
    assert sum(len(before) for before, _ in made._parts) < 8 * 1024**2


def read(path: Path, input_type: str | None = None) -> Ring:
    return read_requests(path, HEAD, None if input_type is None else InputType.parse(input_type))


def test_lines_are_inputs_or_bodies(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('[1, 2]\n\n"text"\n{"input": [3], "context": "u"}\r\n4.5')
    ring = read(path)
    bodies = [json.loads(body_of(ring.of(number))) for number in range(5)]
    assert bodies == [
        {"input": [1, 2]}, {"input": "text"}, {"input": [3], "context": "u"}, {"input": 4.5}, {"input": [1, 2]},
    ]  # fmt: skip
    assert ring.what == "4 inputs of lines.jsonl"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no inputs"),
        ("\n \n", "has no inputs"),
        ("[1]\n[2\n", "line 2 of"),
        ('{"inputs": [1]}', 'line 1 of .* without "input"'),
        ("[" * 100_000, "line 1 of"),
    ],
)
def test_lines_that_are_no_inputs(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=says):
        read(path)


def test_rows_of_numpy(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    rows = np.arange(12.0).reshape(3, 2, 2)
    np.save(path, rows)
    ring = read(path)
    assert [json.loads(body_of(ring.of(number)))["input"] for number in range(3)] == rows.tolist()
    pictures = np.arange(8, dtype=np.uint8).reshape(2, 4)
    np.save(path, pictures)
    assert json.loads(body_of(read(path, "uint8[4]").of(1)))["input"] == base64.b64encode(bytes(range(4, 8))).decode()
    assert json.loads(body_of(read(path, "uint8[*]").of(1)))["input"] == [4, 5, 6, 7]


@pytest.mark.parametrize("rows", [np.array(3.0), np.array(["text"]), np.array([[float("nan")]]), np.zeros((0, 3))])
def test_arrays_that_are_no_inputs(tmp_path: Path, rows: np.ndarray) -> None:  # type: ignore[type-arg]
    path = tmp_path / "rows.npy"
    np.save(path, rows)
    with pytest.raises(InvalidArgument, match=r"rows\.npy"):
        read(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"no array")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    for name in ("absent.jsonl", "absent.npy", "bad.npy", "objects.npy", "."):
        with pytest.raises(InvalidArgument, match="cannot be read"):
            read(tmp_path / name)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_FILE_BYTES", 100)
    path = tmp_path / "lines.jsonl"
    path.write_text("[1.5]\n" * 50)
    with pytest.raises(InvalidArgument, match="give fewer"):
        read(path)


def test_a_line_without_an_end() -> None:
    with pytest.raises(InvalidArgument, match="line 1 of /dev/zero has over 64 MiB"):
        read(Path("/dev/zero"))
