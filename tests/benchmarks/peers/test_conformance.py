"""The calls by which servers of the Open Inference Protocol are compared, and their table."""

import json

import pytest

from benchmarks.peers.conformance.__main__ import BEGIN, COMPARED, END, PAGE, table, with_table
from benchmarks.peers.conformance.calls import PATH, Call, read_calls, shown
from benchmarks.peers.conformance.clients import (
    DIFFERENCES,
    FAILURES,
    FOLDER,
    PROGRAMS,
    Program,
    Reason,
    compared,
    failed_in_both,
    read_reasons,
)
from benchmarks.peers.conformance.servers import SERVERS
from benchmarks.peers.conformance.zoo.models import MODELS
from clipper.values.records import parse_type
from scripts.real_models import requirements

CALLS = read_calls()
PROGRAM = Program("p", "clients", "e", ())


def test_a_call_has_a_name_of_its_own_and_a_path_of_the_protocol() -> None:
    assert len({call.name for call in CALLS}) == len(CALLS) > 50
    assert all(call.path.startswith("/v2") for call in CALLS)
    assert COMPARED.keys() == SERVERS.keys()


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
    answers = dict(zip(COMPARED, [["200", "400"], ["200", "404"], ["200", "404"], ["200", "405"]]))
    text = table(calls, answers, dict.fromkeys(COMPARED, "1"))
    assert text.splitlines()[-2:] == ["| a | 200 | 200 | 200 | 200 |  |", "| b | 400 | 404 | 404 | 405 | why |"]
    page = with_table(f"x\n{BEGIN}\nold\n{END}\ny", text)
    assert with_table(page, text) == page
    assert page.startswith("x\n") and page.endswith("\ny") and "old" not in page


def test_the_page_has_the_table_of_these_calls() -> None:
    told = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].partition("| clients |")[0]
    rows = [line[2:-1].split(" | ") for line in told.splitlines() if line.startswith("| ")][1:]
    assert [(row[0], row[-1].strip()) for row in rows] == [(call.name, call.differs) for call in CALLS]
    assert all((len(set(answers)) > 1) == bool(differs.strip()) for _, *answers, differs in rows)


def test_the_page_has_all_clients_and_differences() -> None:
    told = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].partition("| clients |")[2]
    assert [program.name for program in PROGRAMS if f"| {program.what} (" not in told] == []
    reasons = [*read_reasons(DIFFERENCES), *read_reasons(FAILURES)]
    assert [each for each in reasons if f"| {each.program} | {each.check} (" not in told] == []


def test_a_program_has_its_file_and_its_environment() -> None:
    for program in PROGRAMS:
        assert (FOLDER / f"{program.name}.py").is_file() and requirements(program.environment).is_file()
        assert program.beside in {*SERVERS, ""}
    reasons = [*read_reasons(DIFFERENCES), *read_reasons(FAILURES)]
    assert {each.program for each in reasons} <= {program.name for program in PROGRAMS}


def test_a_difference_needs_a_reason_and_a_reason_a_difference() -> None:
    ours, theirs = {"a, x": "1", "a, y": "2", "b": "3"}, {"a, x": "1", "a, y": "5", "b": "3", "c": "4"}
    alike, rows, wrong = compared(PROGRAM, ours, theirs, [])
    assert (alike, rows, len(wrong)) == (2, [], 2) and "'c' differs without a reason" in wrong[1]
    known = [Reason("p", "a", "first"), Reason("p", "c", "second"), Reason("other", "b", "third")]
    alike, rows, wrong = compared(PROGRAM, ours, theirs, known)
    assert (alike, wrong) == (2, [])
    assert rows == ["| p | a (1) | `2` | `5` | first |", "| p | c (1) | `not asked` | `4` | second |"]
    assert compared(PROGRAM, ours, ours, known[:1])[2] == ["p: 'a' has a reason, and none differs"]


def test_a_check_that_fails_in_both_is_meant_to_fail() -> None:
    ours = {"a, x": "raises A", "a, y": "raises A", "b": "refused, 400", "c": "raises A", "d": "right"}
    theirs = {**ours, "c": "raises B"}
    count, rows, wrong = failed_in_both(PROGRAM, ours, theirs, [Reason("p", "a", "a wrong name"), Reason("p", "d", "")])
    assert (count, rows) == (3, ["| p | a (2) | `raises A` | a wrong name |"])
    assert wrong == ["p: 'd' has a reason, and none fails in both", "p: 'b' fails in both without a reason"]


def test_a_model_of_the_zoo_states_its_types() -> None:
    types = {
        name: (str(parse_type(model.input_type)), str(parse_type(model.output_type))) for name, model in MODELS.items()
    }
    assert types["classes"] == ("float32[4]", "label: int64, probabilities: float32[3]")
    assert types["people"] == ("age: float64?, job: string?, visits: int64", "string")
    assert (types["ragged"][1], types["m"][1]) == ("float32[*]", "float64[]")


def test_the_file_has_a_line_for_each_call() -> None:
    lines = PATH.read_text().splitlines()
    assert [json.loads(line.rstrip(","))["name"] for line in lines[1:-1]] == [call.name for call in CALLS]
