"""Our reading and writing of protobuf's wire format, against protobuf."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import MalformedRequest
from clipper.worker.frontend.rpc.protocols import OPEN_INFERENCE, REFLECTION
from clipper.worker.frontend.rpc.wire import MAX_VALUES, decode, delimited, encode, split, varint
from tests.worker.frontend.rpc.rpc_messages import InferRequest, message_class

REQUEST = OPEN_INFERENCE.message("ModelInferRequest")
CONTENTS = OPEN_INFERENCE.message("InferTensorContents")

int64s, uint64s = st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
parameter = st.one_of(
    st.fixed_dictionaries({"bool_param": st.booleans()}),
    st.fixed_dictionaries({"int64_param": int64s}),
    st.fixed_dictionaries({"string_param": texts}),
    st.fixed_dictionaries({"double_param": st.floats(allow_nan=False)}),
    st.fixed_dictionaries({"uint64_param": uint64s}),
)
contents = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans(), min_size=1, max_size=4),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=4),
        "int64_contents": st.lists(int64s, min_size=1, max_size=4),
        "uint_contents": st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4),
        "uint64_contents": st.lists(uint64s, min_size=1, max_size=4),
        "fp32_contents": st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
        "fp64_contents": st.lists(st.floats(allow_nan=False), min_size=1, max_size=4),
        "bytes_contents": st.lists(st.binary(max_size=4), min_size=1, max_size=4),
    },
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": texts.filter(bool),
        "shape": st.lists(int64s, min_size=1, max_size=4),
        "parameters": st.dictionaries(texts, parameter, min_size=1, max_size=3),
        "contents": contents,
    },
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "model_name": texts.filter(bool),
        "id": texts.filter(bool),
        "parameters": st.dictionaries(texts, parameter, min_size=1, max_size=3),
        "inputs": st.lists(tensors, min_size=1, max_size=3),
        "raw_input_contents": st.lists(st.binary(max_size=8), min_size=1, max_size=3),
    },
)


def plain(value: Any) -> Any:
    """The result of a reading, with bytes in place of views of the message."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


@given(requests)
def test_protobuf_reads_what_we_write_and_we_what_it_writes(values: dict[str, Any]) -> None:
    theirs = InferRequest.FromString(encode(REQUEST, values))
    assert plain(decode(REQUEST, memoryview(theirs.SerializeToString()))) == values


@given(requests, st.data())
def test_no_part_of_a_message_is_more_than_malformed(values: dict[str, Any], data: st.DataObject) -> None:
    whole = encode(REQUEST, values)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    wrong = bytearray(cut)
    for at in data.draw(st.lists(st.integers(0, len(cut) - 1), max_size=3)) if cut else ():
        wrong[at] = data.draw(st.integers(0, 255))
    for text in (cut, bytes(wrong)):
        try:
            decode(REQUEST, memoryview(text))
        except MalformedRequest:
            continue


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_malformed(text: bytes) -> None:
    try:
        decode(REQUEST, memoryview(text))
    except MalformedRequest:
        return
    InferRequest.FromString(text)  # what we take protobuf takes


def test_numbers_may_come_one_by_one() -> None:
    # As encoders of proto2 write them.
    one_by_one = b"".join(varint(2 << 3) + varint(number) for number in (1, -1, 300))
    fixed = b"".join(varint(6 << 3 | 5) + number for number in (b"\0\0\x80\x3f", b"\0\0\0\x40"))
    found = decode(CONTENTS, memoryview(one_by_one + fixed))
    assert found == {"int_contents": [1, -1, 300], "fp32_contents": [1.0, 2.0]}


def test_fields_that_are_not_known_or_of_another_type_are_left_out() -> None:
    unknown = delimited(100, b"abc") + varint(101 << 3) + b"\x05" + varint(102 << 3 | 1) + bytes(8)
    mistaken = varint(1 << 3) + b"\x07"  # model_name as a number
    assert decode(REQUEST, memoryview(unknown + mistaken + delimited(3, b"id"))) == {"id": "id"}


def test_the_last_of_several_counts() -> None:
    assert split(REQUEST, memoryview(delimited(1, b"a") + delimited(1, b"b"))) == {"model_name": "b"}


@pytest.mark.parametrize(
    "text",
    [
        b"\x2a\x00" * (MAX_VALUES + 1),
        delimited(5, delimited(3, b"\x01" * (MAX_VALUES + 1))),
        delimited(5, delimited(5, delimited(7, bytes(8 * (MAX_VALUES + 1))))),
        b"\x22\x00" * (MAX_VALUES + 1),
        b"\xfa\x3f\x00" * (2 * MAX_VALUES + 1),
        b"\xff" * 11,
        b"\x0b\x0c",
        b"\x00\x00",
        delimited(1, b"\xff"),
        delimited(5, delimited(5, delimited(7, bytes(7)))),
    ],
    ids=["inputs", "shape", "numbers", "parameters", "unknown", "long", "group", "field 0", "not text", "part"],
)
def test_malformed(text: bytes) -> None:
    with pytest.raises(MalformedRequest):
        decode(REQUEST, memoryview(text))


def test_a_field_of_a_oneof_is_written_also_where_it_is_nothing() -> None:
    request = message_class("grpc.reflection.v1.ServerReflectionRequest")
    written = encode(REFLECTION.message("ServerReflectionRequest"), {"list_services": "", "host": ""})
    assert request.FromString(written).WhichOneof("message_request") == "list_services"
    assert decode(REFLECTION.message("ServerReflectionRequest"), memoryview(written)) == {"list_services": ""}
