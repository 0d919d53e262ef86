"""The common behaviour of every SDK's containers, seen by a caller: real programs on real sockets."""

import json
import os
import re
import signal
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipper.model.protocol import messages
from clipper.model.protocol.columns import ColumnResults, decode_column_results, encode_predict_columns
from clipper.model.protocol.frames import MAX_BODY_BYTES, MIXED_VERSION, Kind, header
from clipper.supervisor.workers.ports import port_of
from clipper.values.columns import Column
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.outputs.output import TypedOutput
from clipper.values.outputs.record_columns import RecordColumns
from clipper.values.records import RecordType, parse_type
from clipper.values.types import DType, InputType
from tests.model.runtime.caller import Caller, Refused, aligned_with_other_bytes
from tests.ports import keep_port
from tests.sdk.fuzzing import fuzz
from tests.sdk.programs import Programs, running, started
from tests.waiting import until

pytestmark = pytest.mark.long

ROWS = [[20.0, 2.0], [30.0, 4.0], [50.0, 6.0]]

# The first number of an input tells ``acting`` to do this.
THROW, NAN, INFINITY, TEXT, WAIT, NUMBERS, LARGE, NOTHING, FAIL, JSON, THROW_OTHER = range(1, 12)
FLOATS, RAGGED, BOOLS, SHORTS, TEXTS, EMPTY, LONGS, SAY_TRACE = range(12, 20)
NAMED, NAMED_TOO, NAMED_OTHER, NAMED_NUMBERS, BYTES = range(60, 65)


def doubles(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def outputs(caller: Caller, *actions: int) -> list[object]:
    return [json.loads(output) for output in caller.predict([[action] for action in actions]).outputs]


def test_answers_batches_in_order_and_says_what_it_is(programs: Programs) -> None:
    with running(programs.acting) as container, container.caller(greet=False) as caller:
        welcome = caller.greet()
        assert (welcome.model, welcome.version, welcome.max_batch) == ("m", "1", 16)
        assert welcome.input_type == InputType(DType.FLOAT64, (None,))
        for batch_id in (5, 4, 2**64 - 1):
            caller.send(batch_id, DType.FLOAT64, [doubles(20.0), doubles(batch_id % 100 + 20.0)])
        for batch_id in (5, 4, 2**64 - 1):
            values = [float(output) for output in caller.results(batch_id).outputs]
            assert values == [20.0, batch_id % 100 + 20.0]


def test_the_example_sums_rows_of_any_length(programs: Programs) -> None:
    rows = [doubles(1.5, 2.5), doubles(), doubles(1e300), doubles(*range(1000))]
    with running(programs.sum) as container, container.caller() as caller:
        caller.send(1, DType.FLOAT64, rows)
        assert [float(output) for output in caller.results(1).outputs] == [4.0, 0.0, 1e300, 499500.0]
        caller.send(2, DType.FLOAT64, [doubles(1.5)] * 10_000)
        assert len(caller.results(2).outputs) == 10_000


def test_bytes_that_only_align_are_not_looked_at(programs: Programs) -> None:
    with running(programs.sum) as container, container.caller() as caller:
        caller.socket.sendall(aligned_with_other_bytes([doubles(1.5, 2.5), doubles(), doubles(3.0)]))
        assert [float(output) for output in caller.results(1).outputs] == [4.0, 0.0, 3.0]


def test_a_model_is_told_of_the_trace_of_each_batch(programs: Programs) -> None:
    traces = [b"00-1-2-01 a=1 b=2\n00-1-3-01\n00-4-5-01 ", b"", b"00-6-7-01", b"\n"]
    said = [["00-1-2-01|a=1 b=2", "00-1-3-01|", "00-4-5-01|"], [], ["00-6-7-01|"], ["|", "|"]]
    with running(programs.acting) as container, container.caller(greet=False) as caller:
        assert caller.greet(version=0xFFFF).protocol == MIXED_VERSION
        for batch_id, trace in enumerate(traces):
            predict = messages.encode_predict(batch_id, DType.FLOAT64, 0, [doubles(SAY_TRACE)] * 2)
            caller.socket.sendall(b"".join(messages.add_trace(predict, trace) if trace else predict))
        for batch_id, told in enumerate(said):
            assert [json.loads(output) for output in caller.results(batch_id).outputs] == [told] * 2


@pytest.mark.parametrize(("version", "trace_bytes"), [(2, 5), (3, 6), (3, 2**31), (3, 2**32 - 1)])
def test_a_trace_that_does_not_fit_ends_the_connection(programs: Programs, version: int, trace_bytes: int) -> None:
    body = struct.pack("<IIBBHI", 1, 8, DType.FLOAT64, 0, 0, trace_bytes) + doubles(20.0) + b"00-1-"[:trace_bytes]
    with running(programs.acting) as container, container.caller(greet=False) as caller:
        caller.greet(version=version)
        caller.socket.sendall(header(Kind.PREDICT, len(body), 1) + body)
        with pytest.raises(EOFError):
            caller.read()


def test_a_row_that_fails_fails_alone(programs: Programs) -> None:
    actions = [20, FAIL, 21, NAN, INFINITY, 22]
    values = [20.0, None, 21.0, None, [1.0, None], 22.0]
    with running(programs.acting) as container, container.caller() as caller:
        results = caller.predict([[action] for action in actions])
        assert [json.loads(output or b"null") for output in results.outputs] == values
        assert list(results.failures) == [1]
        assert "xxx" in results.failures[1] and "z" not in results.failures[1], "the message is cut to 4,096 bytes"
        assert results.evaluation_us > 0


@pytest.mark.parametrize("action", [THROW, THROW_OTHER])
def test_a_model_that_throws_fails_its_batch_and_nothing_else(programs: Programs, action: int) -> None:
    with running(programs.acting) as container, container.caller() as caller:
        # Also if some inputs have outputs already: a worker tries the batch again in parts.
        with pytest.raises(Refused) as refused:
            caller.predict([[20], *[[action]] * 1000])
        assert action == THROW_OTHER or "row says no, né?" in str(refused.value)
        assert outputs(caller, 20) == [20.0]


def test_too_few_outputs_fail_the_batch_and_the_connection_stays(programs: Programs) -> None:
    with running(programs.acting) as container, container.caller() as caller:
        with pytest.raises(Refused, match="outputs"):
            caller.predict([[20], [NOTHING], [20]])
        assert outputs(caller, 20) == [20.0]


def test_outputs_are_json_that_reads_as_what_the_model_gave(programs: Programs) -> None:
    with running(programs.acting) as container, container.caller() as caller:
        text, numbers, own = outputs(caller, TEXT, NUMBERS, JSON)
        assert text == 'a "quoted" \\ text\n\tof é and \x01'
        assert numbers == [0.1, 1e22, 5e-324, -1.7976931348623157e308, 1 / 3]
        assert own == {"a": [1, 2]}


ARRAYS = {
    NUMBERS: ("float64", np.array([0.1, 1e22, 5e-324, -1.7976931348623157e308, 1 / 3])),
    FLOATS: ("float32", np.array([[1.1, 2], [3, -1e-7]], np.float32)),
    BOOLS: ("bool", np.array([True, False])),
    SHORTS: ("int32", np.array([-1, 32_767], np.int32)),
    LONGS: ("int64", np.array([-1, 1 << 62])),
}


@pytest.mark.parametrize("action", ARRAYS)
def test_arrays_stay_numbers_for_callers_of_the_second_version(programs: Programs, action: int) -> None:
    dtype, array = ARRAYS[action]
    with (
        running(programs.acting) as container,
        container.caller(greet=False) as first,
        container.caller(greet=False) as second,
    ):
        assert first.greet().output_type is None
        # A caller of the first version gets texts: the shortest that read back as the same numbers.
        (told,) = outputs(first, action)
        assert np.array_equal(np.array(told, array.dtype), array)
        assert action != FLOATS or told[0][0] == 1.1
        welcome = second.greet(version=2)
        assert welcome.protocol == 2
        assert str(welcome.output_type) == f"{dtype}[{','.join(map(str, array.shape))}]"
        second.send(7, DType.FLOAT64, [doubles(action), doubles(FAIL), doubles(FAIL), doubles(action)])
        results = second.typed_results(7)
        assert (results.form.dtype.label, results.form.shape) == (dtype, array.shape)
        assert results.form.written_as is results.form.dtype
        zeros = bytes(array.nbytes)
        assert bytes(results.data) == array.tobytes() + zeros + zeros + array.tobytes()
        assert list(results.failures) == [1, 2], "by ascending rows"


@pytest.mark.parametrize(
    "others", [[RAGGED], [TEXTS], [EMPTY], [20], [FLOATS, NUMBERS], [FAIL, 20], [NAN, SHORTS], [SHORTS, BOOLS]]
)
def test_what_is_no_array_of_one_type_and_shape_is_text(programs: Programs, others: list[int]) -> None:
    with running(programs.acting) as container, container.caller(greet=False) as caller:
        caller.greet(version=2)
        caller.send(7, DType.FLOAT64, [doubles(action) for action in others])
        results = caller.results(7)
        told = [json.loads(output) for output in results.outputs if output]
        assert len(told) + len(results.failures) == len(others)
        caller.send(8, DType.FLOAT64, [doubles(FLOATS)])
        assert caller.typed_results(8).rows == 1


def test_nan_and_infinity_stay_numbers(programs: Programs) -> None:
    with running(programs.acting) as container, container.caller(greet=False) as caller:
        caller.greet(version=2)
        for actions, form, expected in (
            ([NAN, 20], "float64[]", [np.nan, 20]),
            ([INFINITY], "float64[2]", [1, -np.inf]),
        ):
            caller.send(7, DType.FLOAT64, [doubles(action) for action in actions])
            results = caller.typed_results(7)
            assert str(results.form) == form
            assert np.array_equal(np.frombuffer(results.data), expected, equal_nan=True)


RECORD = (
    "age: float64, job: string?, pixels: uint8[2,2], tokens: int32[*], boxes: float32[*,4], note: bytes?, "
    '"is, \\"a: b": bool = true, kind: string{"a", "b?"}'
)
RECORDS = [
    (
        31.0,
        "é".encode(),
        bytes(range(4)),
        struct.pack("<i", 7),
        struct.pack("<2I4f", 1, 4, 1, 2, 3, 4),
        b"",
        True,
        b"a",
    ),
    (-0.0, None, bytes(4), b"", struct.pack("<2I", 0, 4), None, False, b"b?"),
]
SAID = [
    f"age={struct.pack('<d', 31).hex()} job=c3a9 pixels[2,2]=00010203 tokens[1]=07000000 "
    f'boxes[1,4]={struct.pack("<4f", 1, 2, 3, 4).hex()} note= is, "a: b=01 kind=61',
    f"age={struct.pack('<d', -0.0).hex()} job=- pixels[2,2]=00000000 tokens[0]= "
    'boxes[0,4]= note=- is, "a: b=00 kind=623f',
]


def test_records_come_by_field(programs: Programs) -> None:
    with running(programs.acting, "--input-type", RECORD) as container, container.caller(greet=False) as caller:
        welcome = caller.greet(version=4)
        assert str(welcome.input_type) == RECORD
        for records, said in ((RECORDS, SAID), (RECORDS[1:], SAID[1:]), (RECORDS * 40, SAID * 40)):
            told = [json.loads(output) for output in caller.predict_columns(RECORD, *records).outputs]
            # In Java a text has a length.
            assert [re.sub(r"(job|note|kind)\[\d+\]", r"\1", each) for each in told] == said
        # Rows of another type than WELCOME's are refused, and the connection stays.
        for other, record in (("age: float32", (1.0,)), ("age: float64, job: string?", (1.0, None))):
            with pytest.raises(Refused):
                caller.predict_columns(other, record)
        caller.send(9, DType.FLOAT64, [doubles(1)])
        with pytest.raises((Refused, EOFError)):
            caller.results(9)


def test_records_need_callers_that_know_them(programs: Programs) -> None:
    with (
        running(programs.record) as container,
        container.caller(greet=False) as caller,
        pytest.raises(Refused, match="records need version 4"),
    ):
        caller.greet(version=3)
    with running(programs.acting) as container, container.caller(greet=False) as caller:
        caller.greet(version=3)
        frame = b"".join(encode_predict_columns(1, [Column("x", InputType(DType.FLOAT64, ()), 1, doubles(20))]))
        caller.socket.sendall(frame)
        with pytest.raises(EOFError):
            caller.read()


@pytest.mark.parametrize("declared", ["age: float64, job: string, visits: float32[3]", "job: string?, age: float64"])
def test_a_declared_record_has_to_suit(programs: Programs, declared: str) -> None:
    with started(programs.record, "--input-type", declared) as container:
        if declared.startswith("job"):
            assert container.wait() == 3 and "does not suit" in container.log
            return
        container.wait_until_listening()
        with container.caller(greet=False) as caller:
            assert str(caller.greet(version=4).input_type) == declared


def greeting(caller: Caller) -> dict[str, Any]:
    """Greet in the newest version; the container's WELCOME as it is."""
    caller.socket.sendall(messages.encode_hello(version=MIXED_VERSION))
    kind, _, body = caller.read()
    assert kind == Kind.WELCOME
    return dict(json.loads(bytes(body)))


def column_results(caller: Caller, *actions: float) -> ColumnResults:
    caller.send(7, DType.FLOAT64, [doubles(action) for action in actions])
    kind, batch_id, body = caller.read()
    assert (kind, batch_id) == (Kind.COLUMN_RESULTS, 7)
    return decode_column_results(body)


def test_outputs_with_names_are_columns(programs: Programs) -> None:
    with (
        running(programs.acting) as container,
        container.caller(greet=False) as older,
        container.caller(greet=False) as caller,
        container.caller(greet=False) as late,
    ):
        older.greet(version=3)
        caller.greet(version=4)
        first = {"label": 'é"', "scores": [0.5, None], "note": None, "raw": "AP8=", "n": 7}
        second = {"label": "", "scores": [1.5], "note": 2.5, "raw": "", "n": 8}
        assert outputs(older, NAMED, NAMED_TOO) == [first, second]

        results = column_results(caller, NAMED, FAIL, NAMED_TOO)
        label, scores, note, raw, n = results.columns
        assert list(results.failures) == [1]
        assert [str(column.type) for column in results.columns] == [
            "string",
            "float32[*]",
            "float64[]",
            "bytes",
            "int32[]",
        ]
        assert (bytes(label.payload), label.lengths) == ('é"'.encode(), (3, 0, 0))
        assert np.array_equal(np.frombuffer(scores.payload, "<f4"), [0.5, np.nan, 1.5], equal_nan=True)
        assert scores.lengths == (8, 0, 4) and scores.written_as is DType.FLOAT32
        assert note.present is not None and note.present[0] & 0b101 == 0b100
        assert np.frombuffer(note.payload)[2] == 2.5
        assert (bytes(raw.payload), raw.lengths) == (b"\0\xff", (2, 0, 0))
        assert np.frombuffer(n.payload, "<i4")[[0, 2]].tolist() == [7, 8]

        # Of what differs in names or types there is JSON, and of a field that no row has.
        for others in ([NAMED, NAMED_OTHER], [NAMED_TOO, NAMED_NUMBERS], [NAMED_TOO, 20], [NAMED, NAMED]):
            caller.send(8, DType.FLOAT64, [doubles(action) for action in others])
            assert json.loads(caller.results(8).outputs[1]) is not None
        learned = greeting(late)
        expected = "label: string, scores: float32[*], note: float64?, raw: bytes, n: int32"
        assert (str(parse_type(learned["output_type"])), learned["output_is_declared"]) == (expected, False)


def test_outputs_that_differ_are_columns_without_a_name(programs: Programs) -> None:
    with (
        running(programs.acting) as container,
        container.caller(greet=False) as older,
        container.caller(greet=False) as caller,
        container.caller(greet=False) as late,
        container.caller(greet=False) as last,
    ):
        older.greet(version=4)
        caller.greet(version=5)
        actions = (NAN, INFINITY, FLOATS, RAGGED, TEXT, FAIL, NAMED_OTHER, EMPTY)
        texts = outputs(older, *(action for action in actions if action != FAIL))
        others = [[[1], [2, 3]], 'a "quoted" \\ text\n\tof é and \x01', {"other": 1}, []]
        assert texts[:2] == [None, [1, None]] and texts[3:] == others
        results = column_results(caller, *actions)
        assert list(results.failures) == [5] and {column.name for column in results.columns} == {""}
        found, _ = RecordColumns(results.columns).outputs(results.failures)
        for row, dtype, expected in ((0, "<f8", [np.nan]), (1, "<f8", [1, -np.inf]), (2, "<f4", [1.1, 2, 3, -1e-7])):
            output = found[row]
            assert isinstance(output, TypedOutput)
            assert np.array_equal(np.frombuffer(output.data, dtype), np.array(expected, dtype), equal_nan=True)
        assert [json.loads(bytes(output)) for output in found if isinstance(output, bytes)] == others
        # Absent rows take no place in columns of arrays.
        sizes = {str(column.type): len(column.payload) for column in results.columns}
        assert (sizes["float64[*]"], sizes["float32[*,*]"]) == (16, 24)
        assert greeting(late)["output_type"] is None
        (column,) = column_results(caller, INFINITY, NUMBERS, FAIL).columns
        assert (str(column.type), column.lengths) == ("float64[*]", (16, 40, 0))
        assert greeting(last)["output_type"] == "float64[*]"


def test_the_example_of_a_table(programs: Programs) -> None:
    with running(programs.record) as container, container.caller(greet=False) as caller:
        welcome = greeting(caller)
        assert welcome["input_type"] == "age: float64, job: string?, visits: float32[*]"
        assert welcome["output_type"] == 'label: string{"often", "seldom"}, scores: float32[2]'
        assert welcome["output_is_declared"] is True
        rows = RecordRows(RecordType.parse(welcome["input_type"]))
        records = [rows.row(values) for values in ((3.0, b"cook", struct.pack("<2f", 1, 2)), (9.5, None, b""))]
        caller.socket.sendall(b"".join(encode_predict_columns(7, rows.columns(records))))
        kind, _, body = caller.read()
        assert kind == Kind.COLUMN_RESULTS
        label, scores = decode_column_results(body).columns
        assert bytes(label.payload) == b"oftenseldom"
        assert np.frombuffer(scores.payload, "<f4").tolist() == [3.0, 4.0, 9.5, 0.0]


def test_bytes_are_base64_in_json(programs: Programs) -> None:
    with running(programs.acting) as container, container.caller() as caller:
        assert outputs(caller, BYTES) == ["YWI="]


def test_strings_and_bytes(programs: Programs) -> None:
    texts = ["", "one", 'é\n"\\\0', "日本語" * 1000]
    with running(programs.acting, "--input-type", "string") as container, container.caller() as caller:
        caller.send(1, DType.STRING, [text.encode() for text in texts])
        assert [json.loads(output) for output in caller.results(1).outputs] == texts
    with running(programs.acting, "--input-type", "bytes") as container, container.caller() as caller:
        caller.send(1, DType.BYTES, [bytes(range(256)), b"", b"\xff"])
        assert [int(output) for output in caller.results(1).outputs] == [256, 0, 1]


def shaped(*shape: int) -> bytes:
    return struct.pack(f"<{len(shape)}I", *shape) + np.ones(shape, "<f4").tobytes()


def test_rows_have_their_shapes(programs: Programs) -> None:
    with running(programs.acting, "--input-type", "float32[2,*]") as container, container.caller() as caller:
        caller.socket.sendall(b"".join(messages.encode_predict(1, DType.FLOAT32, 2, [shaped(2, 3), shaped(2, 1)])))
        assert [json.loads(output) for output in caller.results(1).outputs] == [[2, 3, 6], [2, 1, 2]]
        for wrong in (shaped(3, 3), shaped(2, 3)[:-4], shaped(2, 3)[:6], struct.pack("<2I", 2, 2**31)):
            caller.socket.sendall(b"".join(messages.encode_predict(2, DType.FLOAT32, 2, [shaped(2, 3), wrong])))
            with pytest.raises(Refused):
                caller.results(2)
    with running(programs.acting, "--input-type", "float32[2,2]") as container, container.caller() as caller:
        caller.send(1, DType.FLOAT32, [shaped(2, 2)[8:]])
        assert json.loads(caller.results(1).outputs[0]) == [2, 2, 4]
    with running(programs.acting, "--input-type", "float32") as container, container.caller() as caller:
        caller.send(1, DType.FLOAT32, [struct.pack("<3f", 1, 2, 3), b""])
        assert [json.loads(output) for output in caller.results(1).outputs] == [[3, 6], [0, 0]]


def test_rows_of_another_type_are_refused(programs: Programs) -> None:
    with running(programs.sum, "--input-type", "float64[2]") as container, container.caller() as caller:
        for rows in ([bytes(8)], [bytes(12)]):
            caller.send(1, DType.FLOAT64, rows)
            with pytest.raises(Refused):
                caller.results(1)
        assert [float(output) for output in caller.predict(ROWS).outputs] == [22.0, 34.0, 56.0]
        # That is not what WELCOME says, so it may end the connection.
        caller.send(1, DType.FLOAT32, [bytes(16)])
        with pytest.raises((Refused, EOFError)):
            caller.results(1)


def test_a_declared_input_type_has_to_suit(programs: Programs) -> None:
    with running(programs.sum, "--input-type", "float64[784]") as container, container.caller(greet=False) as caller:
        assert caller.greet().input_type == InputType(DType.FLOAT64, (784,))
    for unsuitable in ("float32", "float64[2,2]", "numbers", "float64[x]"):
        with started(programs.sum, "--input-type", unsuitable) as container:
            assert container.wait() == 3, container.log
            assert "cannot be loaded" in container.log or "does not suit" in container.log


def test_ping_is_answered_while_a_batch_runs(programs: Programs, tmp_path: Path) -> None:
    with (
        running(programs.acting, "--data", str(tmp_path)) as container,
        container.caller() as watcher,
        container.caller() as caller,
    ):
        assert watcher.ping() == 0
        caller.send(1, DType.FLOAT64, [doubles(WAIT)])
        until(lambda: watcher.ping() > 0)
        first = watcher.ping()
        assert watcher.ping() > first
        with pytest.raises(Refused, match="watches"):
            watcher.predict(ROWS)
        (tmp_path / "release").touch()
        assert [float(output) for output in caller.results(1).outputs] == [5.0]
        assert watcher.ping() == 0
        assert caller.ping() == 0
        assert outputs(caller, 20) == [20.0]


def test_several_callers_take_turns(programs: Programs, tmp_path: Path) -> None:
    with (
        running(programs.acting, "--data", str(tmp_path)) as container,
        container.caller() as first,
        container.caller() as second,
        container.caller() as watcher,
    ):
        watcher.ping()
        for batch_id in (1, 2, 3):
            first.send(batch_id, DType.FLOAT64, [doubles(WAIT)])
        second.send(9, DType.FLOAT64, [doubles(20.0)])
        until(lambda: watcher.ping() > 0)
        (tmp_path / "release").touch()
        assert [float(output) for output in second.results(9).outputs] == [20.0]
        for batch_id in (1, 2, 3):
            assert [float(output) for output in first.results(batch_id).outputs] == [5.0]


def test_a_reader_that_does_not_read_blocks_nobody(programs: Programs) -> None:
    with running(programs.acting) as container, container.caller() as slow, container.caller() as other:
        for batch_id in (1, 2, 3):
            slow.send(batch_id, DType.FLOAT64, [doubles(LARGE)] * 4)
        assert outputs(other, 20) == [20.0]
        for batch_id in (1, 2, 3):
            assert [len(output) for output in slow.results(batch_id).outputs] == [4_000_002] * 4


def test_sigterm_finishes_the_batch_in_hand_and_starts_no_other(programs: Programs, tmp_path: Path) -> None:
    with (
        running(programs.acting, "--data", str(tmp_path)) as container,
        container.caller() as watcher,
        container.caller() as caller,
        container.caller() as waiting,
        container.caller() as late,
    ):
        watcher.ping()
        caller.send(1, DType.FLOAT64, [doubles(WAIT)])
        until(lambda: watcher.ping() > 0)
        waiting.send(2, DType.FLOAT64, [doubles(20.0)])
        container.process.terminate()
        assert watcher.ping() > 0
        late.send(3, DType.FLOAT64, [doubles(20.0)])
        caller.send(4, DType.FLOAT64, [doubles(20.0)])
        (tmp_path / "release").touch()
        assert [float(output) for output in caller.results(1).outputs] == [5.0]
        assert container.wait() == 0
        for unanswered in (waiting, late, caller):
            with pytest.raises(EOFError):
                unanswered.read()
        assert not Path(container.address.removeprefix("unix:")).exists()


def test_sigterm_waits_for_an_answer_to_be_taken(programs: Programs) -> None:
    with running(programs.acting) as container, container.caller() as caller:
        caller.send(1, DType.FLOAT64, [doubles(LARGE)] * 4)
        until(lambda: caller.socket.recv(1, socket.MSG_PEEK))
        container.process.terminate()
        assert len(caller.results(1).outputs) == 4
        assert container.wait() == 0


def test_sigterm_ends_an_idle_container(programs: Programs) -> None:
    with running(programs.sum) as container, container.caller() as caller:
        caller.ping()
        container.process.terminate()
        assert container.wait() == 0
        assert not Path(container.address.removeprefix("unix:")).exists()


def test_the_socket_is_for_its_owner_only(programs: Programs) -> None:
    with running(programs.sum) as container:
        assert stat.S_IMODE(Path(container.address.removeprefix("unix:")).stat().st_mode) == 0o600


def test_the_socket_of_a_dead_container_is_replaced_of_a_live_one_not(programs: Programs) -> None:
    with running(programs.sum) as first:
        with started(programs.sum, listen=first.address) as second:
            assert second.wait() == 4
            assert "cannot listen" in second.log.splitlines()[-1]
        with first.caller() as caller:
            assert caller.predict(ROWS).failures == {}
        first.process.kill()
        first.process.wait()
        with running(programs.sum, listen=first.address) as third, third.caller() as caller:
            assert caller.predict(ROWS).failures == {}


def test_what_is_no_socket_is_left_alone(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_text("mine")
    with started(programs.sum, listen="unix:f") as container:
        assert container.wait() == 4
    assert (tmp_path / "f").read_text() == "mine"


def test_tcp_asks_for_the_token(programs: Programs) -> None:
    with (
        keep_port() as held,
        running(programs.sum, listen=f"tcp:127.0.0.1:{port_of(held)}", token="s3cret") as container,
    ):
        for wrong in ("", "s3cre", "s3cret!", "S3cret"):
            caller = Caller(container.address)
            with caller.socket, pytest.raises(Refused, match="token"):
                caller.greet(wrong)
        with container.caller(token="s3cret") as caller:
            assert [float(output) for output in caller.predict(ROWS).outputs] == [22.0, 34.0, 56.0]
    with (
        keep_port("::1") as held,
        running(programs.sum, listen=f"tcp:[::1]:{port_of(held)}", token="t"),
        Caller(f"tcp:::1:{port_of(held)}").socket,
    ):
        pass


@pytest.mark.parametrize("token", [None, ""])
def test_tcp_without_a_token_is_wrong_usage(programs: Programs, token: str | None) -> None:
    with started(programs.sum, listen="tcp:127.0.0.1:0", token=token) as container:
        assert container.wait() == 2
        assert "CLIPPER_TOKEN" in container.log


@pytest.mark.parametrize("options", [["--loader", "file"], ["--data"]])
def test_an_option_that_is_unknown_or_without_a_value_is_wrong_usage(programs: Programs, options: list[str]) -> None:
    with started(programs.sum, *options) as container:
        assert container.wait() == 2
        assert "wrong usage" in container.log


@pytest.mark.parametrize("listen", ["-", "c.sock", "unix:", "tcp:7000", "tcp::7000", "http:localhost:80"])
def test_what_is_no_address_is_wrong_usage(programs: Programs, listen: str) -> None:
    with started(programs.sum, listen=listen, token="t") as container:
        assert container.wait() == 2
        assert "expected --listen unix:PATH|tcp:HOST:PORT" in container.log


def test_a_port_that_is_taken_is_an_exit_code_of_its_own(programs: Programs) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        started(programs.sum, listen=f"tcp:127.0.0.1:{taken.getsockname()[1]}", token="t") as container,
    ):
        assert container.wait() == 4
        assert "cannot listen" in container.log.splitlines()[-1]


def test_a_model_that_cannot_be_loaded_is_an_exit_code_of_its_own(programs: Programs) -> None:
    with started(programs.acting, "--data", "missing") as container:
        assert container.wait() == 3
        assert "cannot be loaded" in container.log.splitlines()[-1] and "no such data" in container.log.splitlines()[-1]


@pytest.mark.parametrize("before", ["nothing", "hello", "ping"])
def test_garbage_ends_its_connection_and_nothing_else(programs: Programs, before: str) -> None:
    garbage = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        header(Kind.HELLO, 4) + b"CLPR",
        header(Kind.PREDICT, MAX_BODY_BYTES + 1, 1),
        header(Kind.PREDICT, 4, 1) + bytes(4),
        header(Kind.WELCOME, 0),
        messages.encode_hello()[:-1] + b"\x01",
        bytes(100_000),
    ]
    with running(programs.acting) as container, container.caller() as other:
        for each in garbage:
            with container.caller(greet=before != "nothing") as caller:
                if before == "ping":
                    caller.ping()
                with suppress(ConnectionError):
                    caller.socket.sendall(each)
                    caller.socket.shutdown(socket.SHUT_WR)
                with pytest.raises(EOFError):
                    while caller.read()[0] == Kind.ERROR:
                        assert before != "hello"
            assert outputs(other, 20) == [20.0]


def test_predict_before_hello_is_refused_with_a_reason(programs: Programs) -> None:
    with (
        running(programs.sum) as container,
        container.caller(greet=False) as caller,
        pytest.raises(Refused, match="HELLO"),
    ):
        caller.predict(ROWS, batch_id=0)


def test_random_frames_harm_nobody_else(programs: Programs) -> None:
    fuzz(programs.sum, 150)


def test_callers_that_come_and_go_leave_nothing(programs: Programs) -> None:
    with running(programs.sum) as container, container.caller() as caller:
        descriptors = Path(f"/proc/{container.process.pid}/fd")
        threads = Path(f"/proc/{container.process.pid}/task")
        caller.predict(ROWS)
        before = len(list(descriptors.iterdir())), len(list(threads.iterdir()))
        for number in range(300):
            with container.caller() as other:
                if number % 2:
                    other.ping()
        until(lambda: len(list(descriptors.iterdir())) <= before[0] + 2)
        until(lambda: len(list(threads.iterdir())) <= before[1] + 2)
        assert caller.predict(ROWS).failures == {}


def until_closed(caller: Caller) -> None:
    """The container may say why it closes."""
    with pytest.raises(EOFError):
        while caller.read()[0] == Kind.ERROR:
            pass


def test_too_many_connections_are_closed_and_silent_ones_make_room(programs: Programs) -> None:
    with running(programs.sum) as container, container.caller() as known:
        silent = [Caller(container.address) for _ in range(256)]
        until_closed(silent[-1])
        # One HELLO a byte at a time, for as long as it is let.
        with suppress(ConnectionError):
            silent[0].socket.sendall(messages.encode_hello()[:10])
        until_closed(silent[0])
        assert known.predict(ROWS).failures == {}

        def is_let_in() -> bool:
            with container.caller(greet=False) as caller, suppress(EOFError, ConnectionError):
                caller.greet()
                return True
            return False

        until(is_let_in)
        for each in silent:
            each.socket.close()


def test_killed_container_ends_its_connections(programs: Programs) -> None:
    with running(programs.sum) as container, container.caller() as caller:
        os.kill(container.process.pid, signal.SIGKILL)
        with pytest.raises(EOFError):
            caller.read()
