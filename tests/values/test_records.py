import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import InvalidArgument
from clipper.values.records import MAX_FIELDS, Field, RecordType, parse_type
from clipper.values.types import DType, InputType

TYPES = st.sampled_from(["float64[]", "int64[]", "string", "bytes", "bool[]", "uint8[28,28]", "float32[*,4]"])


@st.composite
def fields(draw: st.DrawFn, name: str) -> Field:
    of_type = InputType.parse(draw(TYPES))
    default = draw(st.none() | st.sampled_from(["1", '"a, b: c"', "[1,2]", "null", '"\\""']))
    categories: tuple[object, ...] = ()
    if of_type.dtype is DType.STRING:
        categories = tuple(draw(st.lists(st.text(), max_size=3, unique=True)))
    if of_type == InputType(DType.INT64, ()):
        categories = tuple(draw(st.lists(st.integers(), max_size=3, unique=True)))
    return Field(name, of_type, draw(st.booleans()), default, categories)


@given(st.data(), st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=6, unique=True))
def test_every_record_reads_as_it_is_written(data: st.DataObject, names: list[str]) -> None:
    names = [name for name in names if name.isprintable()] or ["age"]
    record = RecordType(tuple(data.draw(fields(name)) for name in names))
    assert parse_type(str(record)) == record


def test_people_write_a_record_in_one_line() -> None:
    record = parse_type('age: float64, job: string?, "petal length": float32 = 0.5, c: string{"a","b"}, x: uint8[2,2]')
    assert isinstance(record, RecordType)
    age, job, petal, colour, pixels = record.fields
    assert (age.type, age.is_required) == (InputType(DType.FLOAT64, ()), True)
    assert (job.type, job.is_nullable, job.is_required) == (InputType(DType.STRING), True, False)
    assert (petal.name, petal.default, petal.is_required) == ("petal length", "0.5", False)
    assert colour.categories == ("a", "b")
    assert pixels.type == InputType(DType.UINT8, (2, 2))
    assert parse_type("float64[4]") == InputType(DType.FLOAT64, (4,))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("age:", "field 'age' has no type"),
        ("age: double, age: int", "field 'age' twice"),
        ("age: complex128", "input type 'complex128' is not known"),
        ("age: float64 ! 3", "has '! 3' after its type"),
        ("age: float64 = x", "value that is not JSON: x"),
        ("age: float64{}", "categories that are not valid"),
        ('age: float64{"a"}', "categories that are not valid"),
        (": float64", "is malformed: expected fields such as"),
        ('"a: float64', "is malformed"),
        (f'"{"a" * 256}": float64', "expected 1 to 255 bytes"),
        (", ".join(f"f{index}: bool" for index in range(MAX_FIELDS + 1)), "has 1001 fields: expected 1 to 1000"),
        ("a: float64 = " + "[" * 100_000, "not JSON"),
        ("a: bool," * 100_000, "is too long"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(text: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse_type(text)
    assert says in str(raised.value) and len(str(raised.value)) < 400


def test_rows_suit_a_model_of_the_same_layout() -> None:
    record = parse_type("age: float64, job: string")
    assert isinstance(record, RecordType)
    assert record.suits(parse_type('age: float64 = 3, job: string{"a"}'))
    for other in ("job: string, age: float64", "age: float64?, job: string", "age: float32, job: string", "float64"):
        assert not record.suits(parse_type(other))


@given(st.text(max_size=60))
def test_any_text_is_a_type_or_refused(text: str) -> None:
    try:
        found = parse_type(text)
    except InvalidArgument:
        return
    assert parse_type(str(found)) == found
