import json
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ProtocolViolation
from clipper.model.protocol import messages
from clipper.model.protocol.frames import HEADER_BYTES, PROTOCOL_VERSION, Splitter
from clipper.model.protocol.messages import (
    LARGE_ROW_BYTES,
    MAX_ERROR_BYTES,
    MAX_ROWS,
    MAX_TRACE_BYTES,
    Welcome,
)
from clipper.values.types import MAX_DIMENSIONS, DType, InputType

ids = st.integers(0, 2**64 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
input_types = st.builds(
    InputType, st.sampled_from(list(DType)), st.lists(st.none() | st.integers(1, 1000), max_size=8).map(tuple)
)
DECODERS: list[Callable[[bytes], object]] = [
    messages.decode_hello,
    messages.decode_welcome,
    messages.decode_predict,
    messages.decode_results,
    messages.decode_error,
    messages.decode_pong,
]


def body(frame: bytes) -> memoryview:
    [(_, _, data)] = Splitter().feed(frame)
    return data


@given(texts)
def test_hello_round_trip(token: str) -> None:
    for version in (1, 2, 3):
        assert messages.decode_hello(body(messages.encode_hello(token, version))) == (token, version)


@given(st.builds(Welcome, texts, texts, input_types, st.none() | st.integers(1, 10**6), texts))
def test_welcome_round_trip(welcome: Welcome) -> None:
    assert messages.decode_welcome(body(messages.encode_welcome(welcome))) == welcome


# Some long enough not to be joined.
sizes = st.sampled_from([1, LARGE_ROW_BYTES // 8])
rows_of_many_sizes = st.lists(st.builds(bytes.__mul__, st.binary(max_size=12), sizes), min_size=1, max_size=20)


@given(ids, st.sampled_from(list(DType)), st.integers(0, 8), rows_of_many_sizes)
def test_predict_round_trip(batch_id: int, dtype: DType, dimensions: int, rows: list[bytes]) -> None:
    frame = b"".join(messages.encode_predict(batch_id, dtype, dimensions, rows))
    batch = messages.decode_predict(body(frame))
    assert (batch.dtype, batch.dimensions, batch.rows) == (dtype, dimensions, len(rows))
    assert bytes(batch.payload) == b"".join(rows)
    lengths = tuple(map(len, rows))
    assert (batch.lengths or (batch.row_bytes,) * len(rows)) == lengths
    assert (batch.lengths is None) == (len(set(lengths)) == 1 and lengths[0] > 0)
    # Row data begins at a multiple of 8, so that an aligned frame has aligned rows.
    assert (len(frame) - len(batch.payload)) % 8 == 0


outputs_or_failure = st.lists(
    st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts).map(json.dumps)
    | texts.map(lambda text: (text,)),
    min_size=1,
    max_size=20,
)


@given(ids, st.integers(0, 2**64 - 1), outputs_or_failure)
def test_results_round_trip(batch_id: int, evaluation_us: int, rows: list[str | tuple[str]]) -> None:
    failures = {index: row[0] for index, row in enumerate(rows) if isinstance(row, tuple)}
    outputs = [b"" if isinstance(row, tuple) else row.encode() for row in rows]
    frame = messages.encode_results(batch_id, len(rows), b"\n".join(outputs), evaluation_us, failures)
    results = messages.decode_results(body(frame))
    assert (results.outputs, results.evaluation_us, results.failures) == (outputs, evaluation_us, failures)


@given(ids, st.integers(0, 2**64 - 1))
def test_pong_round_trip(ping_id: int, busy_us: int) -> None:
    assert messages.decode_pong(body(messages.encode_pong(ping_id, busy_us))) == busy_us


@pytest.mark.parametrize("character", ["x", "é", "\U0001f600", "\ud800"])
def test_long_message_is_cut_between_characters(character: str) -> None:
    text = messages.encode_error(1, "a" + character * MAX_ERROR_BYTES)[HEADER_BYTES:]
    assert MAX_ERROR_BYTES - 4 <= len(text) <= MAX_ERROR_BYTES
    assert text.decode() == messages.decode_error(text)


@pytest.mark.parametrize("decode", DECODERS)
@given(st.binary(max_size=100))
def test_garbage_only_ever_raises_protocol_violation(decode: Callable[[bytes], object], data: bytes) -> None:
    try:
        decode(data)
    except ProtocolViolation as violation:
        assert str(violation)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_json_is_a_welcome_or_a_violation(value: object) -> None:
    fields = {"protocol": 1, "model": "m", "version": "1", "input_type": "string"}
    for document in (value, *(fields | {name: value} for name in (*fields, "max_batch", "runtime"))):
        try:
            messages.decode_welcome(json.dumps(document).encode())
        except ProtocolViolation as violation:
            assert str(violation)


@pytest.mark.parametrize("field, kept", [("runtime", 512), ("device", 512), ("warning", 4096)])
def test_descriptions_are_cut_and_can_be_written(field: str, kept: int) -> None:
    fields = {"protocol": 3, "model": "m", "version": "1", "input_type": "string", "runtime": ""}
    text = json.dumps(fields | {field: "a\ud800" + "G" * 1_000_000}).encode()
    found = getattr(messages.decode_welcome(text, 3), field)
    assert found.startswith("a?G") and len(found.encode()) == kept


@pytest.mark.parametrize("value", ["a\ud800", "\udfff" * 1_000_000, 10**4000], ids=["half", "halves", "number"])
def test_a_welcome_is_refused_in_few_words(value: object) -> None:
    fields = {"protocol": 3, "model": "m", "version": "1", "input_type": value}
    with pytest.raises(ProtocolViolation, match="WELCOME is not valid") as told:
        messages.decode_welcome(json.dumps(fields).encode(), 3)
    assert len(str(told.value).encode()) < 2000


def test_deep_welcome_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation):
        messages.decode_welcome(b"[" * 1_000_000)


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=6), st.data())
def test_damaged_bodies_only_ever_raise_protocol_violation(rows: list[bytes], data: st.DataObject) -> None:
    predict = b"".join(messages.encode_predict(1, DType.BYTES, 0, rows))[HEADER_BYTES:]
    results = messages.encode_results(1, 3, b"1\n\n3", 5, {1: "no"})[HEADER_BYTES:]
    for whole, decode in ((predict, messages.decode_predict), (results, messages.decode_results)):
        damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
        for index in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=3)):
            damaged[index : index + 1] = data.draw(st.binary(min_size=1, max_size=1))
        try:
            decode(bytes(damaged))
        except ProtocolViolation as violation:
            assert str(violation)


def test_line_feeds_do_not_become_objects() -> None:
    frame = messages.encode_results(1, 2, b"\n" * 1_000_000)
    data = body(frame)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolViolation, match="too many lines"):
            messages.decode_results(data)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_newer_protocol_is_named_before_anything_else() -> None:
    with pytest.raises(ProtocolViolation, match="protocol 3: expected 1 to 2"):
        messages.decode_welcome(b'{"protocol": 3, "anything": []}', 2)
    with pytest.raises(ProtocolViolation, match="protocol 0: this container speaks 1 to 7"):
        messages.decode_hello(b"CLPR\x00\x00\xff\xff")


def test_a_caller_of_a_newer_version_is_answered_in_the_newest_known_one() -> None:
    for version in (PROTOCOL_VERSION, PROTOCOL_VERSION + 1, 0xFFFF):
        assert messages.decode_hello(body(messages.encode_hello("t", version))) == ("t", PROTOCOL_VERSION)


def test_runtime_and_max_batch_are_optional_in_welcome() -> None:
    full = Welcome("m", "1", InputType(DType.STRING), None, "")
    text = b'{"protocol": 1, "model": "m", "version": "1", "input_type": "string"}'
    assert messages.decode_welcome(text) == full
    assert messages.decode_welcome(text[:-1] + b', "max_batch": 8}') == replace(full, max_batch=8)


def test_a_container_may_say_where_it_computes_and_warn() -> None:
    known = Welcome("m", "1", InputType(DType.STRING), device="cuda (NVIDIA L4)", warning="types are guessed")
    assert messages.decode_welcome(body(messages.encode_welcome(known))) == known
    text = b'{"protocol": 1, "model": "m", "version": "1", "input_type": "string", "device": 5}'
    with pytest.raises(ProtocolViolation, match="is not valid"):
        messages.decode_welcome(text)


def test_a_container_may_say_what_its_outputs_are() -> None:
    known = Welcome("m", "1", InputType(DType.STRING), None, "", InputType(DType.FLOAT64, (10,)))
    assert messages.decode_welcome(body(messages.encode_welcome(known))) == known
    text = b'{"protocol": 1, "model": "m", "version": "1", "input_type": "string", "output_type": %b}'
    assert messages.decode_welcome(text % b"null").output_type is None
    for wrong in (b"5", b'"float128"', b"[]"):
        with pytest.raises(ProtocolViolation, match="is not valid"):
            messages.decode_welcome(text % wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("model", 5), ("model", None), ("version", 1), ("input_type", 5), ("input_type", "float128"), ("runtime", 5)),
        *(("max_batch", 0), ("max_batch", -1), ("max_batch", True), ("max_batch", "8"), ("max_batch", 1.5)),
    ],
)
def test_a_welcome_with_a_field_of_another_type_is_refused(field: str, value: object) -> None:
    fields = {"protocol": 1, "model": "m", "version": "1", "input_type": "string", "max_batch": 1, "runtime": ""}
    assert messages.decode_welcome(json.dumps(fields).encode()).max_batch == 1
    with pytest.raises(ProtocolViolation, match="WELCOME is not valid"):
        messages.decode_welcome(json.dumps(fields | {field: value}).encode())


def predict_body(
    rows: int, payload: bytes, row_bytes: int = 1, code: int = 8, dimensions: int = 0, reserved: int = 0
) -> bytes:
    return struct.pack("<IIBBHI", rows, row_bytes, code, dimensions, reserved, 0) + payload


def test_a_predict_at_the_bounds_is_read() -> None:
    batch = messages.decode_predict(predict_body(MAX_ROWS, bytes(MAX_ROWS), dimensions=MAX_DIMENSIONS))
    assert (batch.rows, batch.dimensions) == (MAX_ROWS, MAX_DIMENSIONS)
    assert messages.decode_predict(predict_body(1, b"x")).rows == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (predict_body(1, b"x")[:15], "15 bytes is too short"),
        (predict_body(0, b""), "has 0 rows"),
        (predict_body(MAX_ROWS + 1, bytes(MAX_ROWS + 1)), f"has {MAX_ROWS + 1} rows"),
        (predict_body(1, b"x", code=0), "type 0"),
        (predict_body(1, b"x", code=9), "type 9"),
        (predict_body(1, b"x", dimensions=MAX_DIMENSIONS + 1), f"{MAX_DIMENSIONS + 1} dimensions"),
        (predict_body(1, b"x", reserved=1), "a reserved field"),
        (predict_body(1, b"x")[:12] + b"\1\0\0\0x", "a reserved field"),
        (predict_body(2, b"x"), "1 bytes for 2 rows of 1"),
        (predict_body(1, b"xy"), "2 bytes for 1 rows of 1"),
        (predict_body(2, bytes(7), row_bytes=0), "ends inside its table of lengths"),
        (predict_body(1, b"\1\0\0\0" + bytes(4), row_bytes=0), "0 bytes for rows of 1 bytes"),
    ],
)
def test_a_predict_beyond_a_bound_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(ProtocolViolation, match=says):
        messages.decode_predict(body)


@pytest.mark.parametrize("rows", [[b"ab", b"cd"], [b"ab", b"", b"c"], [bytes(LARGE_ROW_BYTES)] * 2])
def test_a_trace_comes_after_the_rows_and_is_no_part_of_them(rows: list[bytes]) -> None:
    plain = messages.encode_predict(1, DType.BYTES, 0, rows)
    traced = messages.add_trace(plain, b"t" * MAX_TRACE_BYTES)
    batch = messages.decode_predict(body(b"".join(traced)), 3)
    assert batch.trace == b"t" * MAX_TRACE_BYTES and isinstance(batch.trace, bytes)
    assert batch._replace(trace=b"") == messages.decode_predict(body(b"".join(plain)))
    for version in (1, 2):
        with pytest.raises(ProtocolViolation, match="a reserved field"):
            messages.decode_predict(body(b"".join(traced)), version)


@pytest.mark.parametrize("trace_bytes", [10, MAX_TRACE_BYTES + 1, 2**32 - 1])
def test_a_trace_beyond_its_bounds_is_refused(trace_bytes: int) -> None:
    held = bytes(trace_bytes if trace_bytes == MAX_TRACE_BYTES + 1 else 9)
    with pytest.raises(ProtocolViolation, match=f"a trace of {trace_bytes}: expected at most"):
        messages.decode_predict(struct.pack("<IIBBHI", 1, 1, 8, 0, 0, trace_bytes) + held, 3)


def test_large_rows_are_not_copied_and_small_ones_are_joined() -> None:
    large = bytes(LARGE_ROW_BYTES)
    _, *rows = messages.encode_predict(1, DType.BYTES, 0, [large, large])
    assert all(row is large for row in rows)
    assert len(rows) == 2
    assert len(messages.encode_predict(1, DType.BYTES, 0, [large, large[1:]])) == 1


def results_body(rows: int, outputs: bytes, failures: Sequence[tuple[int, int, bytes]] = ()) -> bytes:
    texts = b"".join(struct.pack("<II", row, size) + text for row, size, text in failures)
    return struct.pack("<IIQ", rows, len(failures), 0) + texts + outputs


def test_failures_are_read_in_any_order_and_written_by_row() -> None:
    body = results_body(3, b"\n1\n", [(2, 1, b"b"), (0, 1, b"a")])
    assert messages.decode_results(body).failures == {0: "a", 2: "b"}
    assert messages.pack_failures({2: "b", 0: "a"}) == messages.pack_failures({0: "a", 2: "b"})


def test_results_at_the_bounds_are_read() -> None:
    longest = b"x" * MAX_ERROR_BYTES
    assert messages.decode_results(results_body(1, b"", [(0, len(longest), longest)])).failures == {0: longest.decode()}
    assert len(messages.decode_results(results_body(MAX_ROWS, b"\n" * (MAX_ROWS - 1))).outputs) == MAX_ROWS


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (results_body(1, b"")[:15], "15 bytes is too short"),
        (results_body(0, b""), "expected 1 to"),
        (results_body(MAX_ROWS + 1, b"\n" * MAX_ROWS), "expected 1 to"),
        (results_body(1, b"", [(0, 0, b""), (0, 0, b"")]), "2 failures in 1 rows"),
        (results_body(2, b"1"), "1 lines for 2 rows"),
        (results_body(1, b"1\n2"), "too many lines for 1 rows"),
        (results_body(2, b"\n", [(0, 0, b""), (0, 0, b"")]), "for row 0 of 2: expected one for each failed row"),
        (results_body(2, b"\n", [(2, 0, b"")]), "for row 2 of 2"),
        (results_body(1, b"", [(0, MAX_ERROR_BYTES + 1, bytes(MAX_ERROR_BYTES + 1))]), f"{MAX_ERROR_BYTES + 1} bytes"),
        (results_body(1, b"", [(0, 2, b"x")]), "a failure of 2 bytes"),
        (results_body(2, b"", [(0, 0, b""), (1, 0, b"")])[:31], "ends inside its failures"),
        (results_body(1, b"1", [(0, 0, b"")]), "both a failure and an output"),
    ],
)
def test_results_beyond_a_bound_are_refused(body: bytes, says: str) -> None:
    with pytest.raises(ProtocolViolation, match=says):
        messages.decode_results(body)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"CLPR\1\0\0", "7 bytes is too short"),
        (b"CLPX\1\0\0\0", "does not begin with CLPR"),
        (b"CLPR\1\0\1\0", "0 bytes for a token of 1"),
        (b"CLPR\1\0\0\0x", "1 bytes for a token of 0"),
    ],
)
def test_a_hello_whose_sizes_do_not_add_up_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(ProtocolViolation, match=says):
        messages.decode_hello(body)


@pytest.mark.parametrize("size", [7, 9])
def test_a_pong_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ProtocolViolation, match=f"{size} bytes: expected 8"):
        messages.decode_pong(bytes(size))


def test_a_long_error_is_cut_where_it_is_read() -> None:
    assert messages.decode_error(b"x" * (MAX_ERROR_BYTES + 1)) == "x" * MAX_ERROR_BYTES
    assert messages.decode_error(b"\xff") == "�"


def test_the_longest_token_is_as_long_as_an_unknown_caller_may_send() -> None:
    assert len(messages.encode_hello("x" * 0xFFFF)) - HEADER_BYTES == messages.MAX_HELLO_BYTES


def test_results_without_a_time_or_failures_have_none() -> None:
    results = messages.decode_results(body(messages.encode_results(1, 1, b"1")))
    assert (results.rows, results.evaluation_us, results.failures) == (1, 0, {})
