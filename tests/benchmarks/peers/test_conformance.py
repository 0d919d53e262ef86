"""The calls by which servers of the Open Inference Protocol are compared, and their table."""

import json
import re

import pytest

from benchmarks.peers.calls import Call, read_calls, shown
from benchmarks.peers.conformance import BEGIN, COMPARED, END, PAGE, table, with_table
from benchmarks.peers.table import PEERS

CALLS = read_calls()


def test_a_call_has_a_name_of_its_own_and_a_path_of_the_protocol() -> None:
    assert len({call.name for call in CALLS}) == len(CALLS) > 50
    assert all(call.path.startswith("/v2") for call in CALLS)
    assert COMPARED.keys() <= PEERS.keys()


def test_what_is_sent() -> None:
    plain = Call("a", "POST", "/v2", json={"outputs": [{"name": "{output}"}]})
    assert plain.request("label") == ({"Content-Type": "application/json"}, b'{"outputs": [{"name": "label"}]}')
    headers, body = Call("a", "POST", "/v2", json=[], tensors=[1.0, "nan"]).request("")
    assert (headers["Inference-Header-Content-Length"], len(body)) == ("2", 2 + 16)
    raw = Call("a", "POST", "/v2", tensors=[1.0], headers={"Inference-Header-Content-Length": "0"})
    assert raw.request("")[1] == b"\0\0\0\0\0\0\xf0\x3f"
    zipped = Call("a", "POST", "/v2", json={}, headers={"Content-Encoding": "gzip"})
    assert zipped.request("")[1].startswith(b"\x1f\x8b")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "200"),
        (b"\xff", "200"),
        (b"[]", "200"),
        (b'{"outputs": []}', "200"),
        (b'{"inputs": [{"datatype": "FP32", "shape": [-1, 4]}], "outputs": []}', "200 FP32 [-1,4]"),
        (b'{"outputs": [{"datatype": "FP64", "shape": [1]}], "inputs": 5}', "200 FP64 [1]"),
    ],
)
def test_what_is_told_of_an_answer(body: bytes, expected: str) -> None:
    assert shown(200, {}, body) == expected
    assert shown(200, {"inference-header-content-length": str(len(body))}, body + b"\0\0") == expected


def test_the_table_is_put_between_its_marks() -> None:
    calls = [Call("a", "GET", "/v2"), Call("b", "GET", "/v2", differs="why")]
    answers = dict(zip(COMPARED, [["200", "400"], ["200", "404"], ["200", "405"]]))
    text = table(calls, answers, dict.fromkeys(COMPARED, "1"))
    assert text.splitlines()[-2:] == ["| a | 200 | 200 | 200 |  |", "| b | 400 | 404 | 405 | why |"]
    page = with_table(f"x\n{BEGIN}\nold\n{END}\ny", text)
    assert with_table(page, text) == page
    assert page.startswith("x\n") and page.endswith("\ny") and "old" not in page


def test_the_page_has_the_table_of_these_calls() -> None:
    told = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \| (.*?) \| (.*?) ?\|$", told, re.MULTILINE)[1:]
    assert [(name, differs) for name, _, _, _, differs in rows] == [(call.name, call.differs) for call in CALLS]
    assert all((len({one, two, three}) > 1) == bool(differs) for _, one, two, three, differs in rows)


def test_the_file_has_a_line_for_each_call() -> None:
    lines = (PAGE.parents[1] / "benchmarks" / "peers" / "calls.json").read_text().splitlines()
    assert [json.loads(line.rstrip(","))["name"] for line in lines[1:-1]] == [call.name for call in CALLS]
