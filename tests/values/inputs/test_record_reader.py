import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import InvalidArgument, MalformedRequest, RequestError, TooLarge, WrongInput
from clipper.values.inputs import record_rows
from clipper.values.inputs.record_reader import RecordReader
from clipper.values.records import Field, RecordType
from clipper.values.types import DType, InputType
from tests.worker.frontend.steps import finish

PERSON = RecordType.parse(
    'age: float64, job: string?, visits: int32 = 1, colour: string{"red","green"}, member: bool, photo: uint8[2,2]?, '
    "key: bytes?, scores: float32[*]"
)
ANNA: dict[str, Any] = {"age": 31, "colour": "red", "member": True, "scores": [1, 2.5]}


def read(reader: RecordReader, record: Any) -> list[Any]:
    return reader.rows.values(reader.read(json.dumps(record).encode()))


def test_a_record_is_read_by_name_with_defaults_and_missing_values() -> None:
    reader = RecordReader(PERSON)
    scores = np.array([1, 2.5], "<f4").tobytes()
    assert read(reader, ANNA) == [31.0, None, 1, b"red", True, None, None, scores]
    full = ANNA | {"job": "smith", "visits": 7, "photo": [[1, 2], [3, 4]], "key": "YWI="}
    assert read(reader, full) == [31.0, b"smith", 7, b"red", True, bytes([1, 2, 3, 4]), b"ab", scores]
    assert reader.read(json.dumps(full).encode()) == reader.read(json.dumps(dict(reversed(full.items()))).encode())
    assert read(reader, ANNA | {"photo": "AQIDBA==", "member": 0, "visits": 2.0, "job": None})[1:6] == [
        None,
        2,
        b"red",
        False,
        bytes([1, 2, 3, 4]),
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"age": "old"}, "field 'age' is \"old\": expected float64"),
        ({"age": None}, "field 'age' is null: expected float64"),
        ({"age": True}, "field 'age' is true: expected float64"),
        ({"job": 5}, "field 'job' is 5: expected string, or null"),
        ({"visits": 1.5}, "field 'visits' is 1.5: expected int32"),
        ({"visits": 2**31}, "field 'visits' is 2147483648: expected int32"),
        ({"visits": 10**30}, "field 'visits' is 1000000000000000000"),
        ({"visits": None}, "field 'visits' is null: expected int32"),
        ({"colour": "blue"}, 'field \'colour\' is "blue": expected one of "red", "green"'),
        ({"colour": ["red"]}, "field 'colour' is a list of 1: expected one of"),
        ({"member": "yes"}, "field 'member' is \"yes\": expected bool"),
        ({"photo": [1, 2]}, "field 'photo' is a list of 2 (input has shape [2]: expected uint8[2,2])"),
        ({"photo": "AQI="}, "field 'photo' is \"AQI=\" (it is base64 of 2 bytes): expected uint8[2,2], or null"),
        ({"key": "a"}, "field 'key' is \"a\""),
        ({"scores": [None]}, "field 'scores' is a list of 1"),
        ({"job ": "smith"}, "input has the field 'job ', which is not known: expected 'age', 'job'"),
    ],
)
def test_an_error_names_the_field_what_was_expected_and_what_came(change: dict[str, Any], says: str) -> None:
    with pytest.raises(WrongInput) as caught:
        RecordReader(PERSON).read(json.dumps(ANNA | change).encode())
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (b"{}", WrongInput, "input lacks age: float64, colour: string"),
        (b'{"job":"a","age":1e400}', WrongInput, "field 'age' is 1e400, which is out of range"),
        (b"[1]", WrongInput, "input is a list of 1: expected an object with the fields 'age', 'job'"),
        (b"5", WrongInput, "input is 5"),
        (b'{"age":', MalformedRequest, "input is not JSON"),
        (b'{"age":\xff}', MalformedRequest, "input is not JSON"),
        (b'{"job":"\xff"}', MalformedRequest, "input is not JSON"),
        (b"[" * 10_000, MalformedRequest, "input is not JSON"),
    ],
)
def test_what_is_no_record_is_refused(text: bytes, error: type[RequestError], says: str) -> None:
    with pytest.raises(error) as caught:
        RecordReader(PERSON).read(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"9" * 1000, "expected int32"),
        (b"1e999", "out of range"),
        (b"null", "is null: expected int32"),
        (b'"\xff"', "not JSON"),
        (b'"\\ud800"', "not JSON"),
        (b"[" * 10_000, "not JSON"),
    ],
)
def test_a_hostile_value_is_refused_in_every_form(value: bytes, says: str) -> None:
    reader = RecordReader(RecordType.parse("a: int32"))
    whole, columns, lists = b'{"a":%b}' % value, b'{"a":[1,%b]}' % value, b"[[1],[%b]]" % value
    order = reader.order_of(b'["a"]')
    assert finish(reader.read_short_lists(lists, order, 10)) is None
    for steps in (
        reader.read_long(bytearray(whole), 0, len(whole)),
        reader.read_columns(bytearray(columns), 0, len(columns), 10),
        reader.read_list(bytearray(b"[%b]" % value), 0, len(value) + 2, order),
    ):
        with pytest.raises(RequestError, match=says):
            finish(steps)
    with pytest.raises(RequestError, match=says):
        reader.read(whole)


def test_ten_thousand_fields_are_unknown_or_too_many() -> None:
    reader = RecordReader(RecordType.parse("a: int32"))
    text = b'{"a":1,%b}' % b",".join(b'"x%d":1' % number for number in range(10_000))
    with pytest.raises(WrongInput, match="'x0', which is not known"):
        reader.read(text)
    with pytest.raises(MalformedRequest, match="over 1000 keys"):
        finish(reader.read_long(bytearray(text), 0, len(text)))
    names = [f"x{number}" for number in range(10_000)]
    ignoring = RecordReader(RecordType.parse("a: int32"), ignores_unknown=True)
    order = ignoring.order_of(json.dumps([*names, "a"]).encode())
    assert finish(ignoring.read_short_lists(b"[[%b1]]" % (b"1," * 10_000), order, 10)) is None


def test_options_let_unknown_fields_pass_and_take_null_in_tensors_as_nan() -> None:
    reader = RecordReader(PERSON, null_is_nan=True, ignores_unknown=True)
    values = read(reader, ANNA | {"shoe size": {"eu": 42}, "scores": [None, 1]})
    assert np.isnan(np.frombuffer(values[-1], "<f4")).tolist() == [True, False]


def test_a_default_that_is_not_of_its_field_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="default of field 'age' is not valid: field 'age' is \"x\""):
        RecordReader(RecordType.parse('age: float64 = "x"'))


NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name.isprintable() or name in '"\\\n\x00')
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float64[]": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
    "int64[]": st.integers(-(2**63), 2**63 - 1),
    "uint8[]": st.integers(0, 255),
    "bool[]": st.booleans(),
    "int32[2]": st.lists(st.integers(-5, 5), min_size=2, max_size=2),
    "float64[*,2]": st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=1, max_size=3),
    "string": st.text(max_size=9),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[RecordType, list[dict[str, Any]]]:
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    texts = [draw(st.sampled_from(sorted(VALUES))) for _ in names]
    record = RecordType(
        tuple(Field(name, InputType.parse(text), draw(st.booleans())) for name, text in zip(names, texts))
    )
    values = [
        VALUES[text] | st.none() if field.is_nullable else VALUES[text] for text, field in zip(texts, record.fields)
    ]
    rows = draw(st.lists(st.tuples(*values), min_size=1, max_size=12))
    return record, [dict(zip(names, row)) for row in rows]


@given(tables(), st.randoms(use_true_random=False))
def test_objects_columns_and_long_texts_make_the_same_rows(
    table: tuple[RecordType, list[dict[str, Any]]], random: Any
) -> None:
    record, records = table
    reader = RecordReader(record)
    expected = [reader.row_of(each) for each in records]
    shuffled = []
    for each in records:
        items = [item for item in each.items() if item[1] is not None or random.random() < 0.5]
        random.shuffle(items)
        shuffled.append(json.dumps(dict(items), ensure_ascii=random.random() < 0.5).encode())
    assert [reader.read(text) for text in shuffled] == expected
    assert [finish(reader.read_long(bytearray(text), 0, len(text))) for text in shuffled] == expected
    columns = json.dumps({name: [each[name] for each in records] for name in record.names}).encode()
    assert finish(reader.read_columns(bytearray(columns), 0, len(columns), 12)) == expected
    names = [*record.names, "not a field"]
    random.shuffle(names)
    order = RecordReader(record, ignores_unknown=True).order_of(json.dumps(names).encode())
    lists = [json.dumps([each.get(name, {}) for name in names]).encode() for each in records]
    short = finish(reader.read_short_lists(b"[%b]" % b",".join(lists), order, 12))
    one_by_one = [finish(reader.read_list(bytearray(text), 0, len(text), order)) for text in lists]
    # None where a whole number is written as a float, or is too large for msgspec.
    assert short in (expected, None) and one_by_one == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(PERSON.names), inner),
)


@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    reader, text = RecordReader(PERSON), json.dumps(value).encode()
    for pieces in (False, True):
        with contextlib.suppress(RequestError):
            row = finish(reader.read_long(bytearray(text), 0, len(text))) if pieces else reader.read(text)
            assert isinstance(row, bytes)


def test_long_fields_are_read_in_pieces() -> None:
    reader = RecordReader(PERSON)
    job = "é" * 100_000
    record = ANNA | {"job": job, "scores": list(range(30_000))}
    text = json.dumps(record, ensure_ascii=False).encode()
    values = reader.rows.values(finish(reader.read_long(bytearray(text), 0, len(text))))
    assert values[1] == job.encode() and len(values[-1]) == 4 * 30_000
    text = json.dumps(ANNA).encode().replace(b"31", b"9" * 40_000)
    with pytest.raises(WrongInput, match="field 'age' takes 4000"):
        finish(reader.read_long(bytearray(text), 0, len(text)))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"a": [1, 2], "b": ["x"]}, "input_columns has 2 of 'a', 1 of 'b': expected as many values of each field"),
        ({"a": [], "b": []}, "input_columns has 0 values of each field: expected 1 to 10"),
        ({"a": [1] * 11, "b": ["x"] * 11}, "has 11 values of each field: expected 1 to 10"),
        ({"a": [1]}, "input lacks b: string"),
        ({"a": 1, "b": ["x"]}, "field 'a' is 1: expected a list of values"),
        ({"a": [1, "x"], "b": ["x"]}, "field 'a' is \"x\": expected float64"),
        ({"a": [1] * 10, "b": ["x"] * 10, "c": [1] * 9 + [2**31]}, "field 'c' is 2147483648: expected int32"),
        ([1], "input_columns is no object: expected one with the fields 'a', 'b', 'c'"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns: Any, says: str) -> None:
    reader = RecordReader(RecordType.parse("a: float64, b: string, c: int32 = 0"))
    text = json.dumps(columns).encode()
    with pytest.raises(RequestError) as caught:
        finish(reader.read_columns(bytearray(text), 0, len(text), 10))
    assert says in str(caught.value)


def test_missing_tensors_and_defaults_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_rows, "MAX_ROWS_BYTES", 100_000)
    reader = RecordReader(RecordType.parse("photo: uint8[100,100]?, a: float64"))
    text = b'{"a":[%b1]}' % (b"1," * 20)
    with pytest.raises(TooLarge, match="over 100000 bytes"):
        finish(reader.read_columns(bytearray(text), 0, len(text), 100))


def test_large_missing_tensors_are_not_made_before_they_are_counted() -> None:
    reader = RecordReader(RecordType.parse("photo: uint8[2000,1000]?"))
    text = b'{"photo":[%bnull]}' % (b"null," * 2_000)  # 4 GB of zeros
    made = 0
    with pytest.MonkeyPatch.context() as patch:
        rows = reader.rows.rows

        def counted(columns: Any, count: int) -> list[bytes]:
            nonlocal made
            made += count
            return rows(columns, count)

        patch.setattr(reader.rows, "rows", counted)
        with pytest.raises(TooLarge):
            finish(reader.read_columns(bytearray(text), 0, len(text), 10_000))
    assert made == record_rows.MAX_ROWS_BYTES // 2_000_000 + 1


def test_readers_take_every_dtype_as_a_scalar() -> None:
    for dtype in DType:
        value = {DType.STRING: "x", DType.BYTES: "YQ==", DType.BOOL: True}.get(dtype, 1)
        reader = RecordReader(RecordType((Field("f", InputType(dtype, ())),)))
        assert len(read(reader, {"f": value})) == 1
