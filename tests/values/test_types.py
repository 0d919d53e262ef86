import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import Conflict, InvalidArgument
from clipper.values.types import MAX_DIMENSIONS, DType, InputType, ModelId, check_name

SHAPES = st.lists(st.none() | st.integers(1, 10**9), max_size=MAX_DIMENSIONS).map(tuple)
INPUT_TYPES = st.builds(InputType, st.sampled_from(DType), SHAPES)


@given(INPUT_TYPES)
def test_parse_inverts_str(input_type: InputType) -> None:
    assert InputType.parse(str(input_type)) == input_type


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("float64[784]", InputType(DType.FLOAT64, (784,))),
        ("float32[3,*,*]", InputType(DType.FLOAT32, (3, None, None))),
        (" Float32 [ 3 , * ] ", InputType(DType.FLOAT32, (3, None))),
        ("int64[]", InputType(DType.INT64, ())),
        ("bool", InputType(DType.BOOL, (None,))),
        ("ints", InputType(DType.INT32)),
        ("integers", InputType(DType.INT32)),
        ("floats", InputType(DType.FLOAT32)),
        ("doubles[4]", InputType(DType.FLOAT64, (4,))),
        ("strings", InputType(DType.STRING, ())),
        ("str", InputType(DType.STRING, ())),
        ("bytes", InputType(DType.BYTES, ())),
    ],
)
def test_parse(text: str, expected: InputType) -> None:
    assert InputType.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "float16",
        "float64[",
        "float64]",
        "float64[3]x",
        "float64[-1]",
        "float64[0]",
        "float64[1 2]",
        "float64[**]",
        "float64[3,]",
        "float64[,]",
        "float64[3,,4]",
        "float64[1.5]",
        "float64[99999999999]",
        "float64[٣]",
        "float64[1,1,1,1,1,1,1,1,1]",
    ],
)
def test_parse_refuses_what_is_not_of_its_form(text: str) -> None:
    with pytest.raises(InvalidArgument):
        InputType.parse(text)


@given(st.text(alphabet="float64[]*, 0123456789", max_size=40))
def test_parse_raises_nothing_else(text: str) -> None:
    try:
        parsed = InputType.parse(text)
    except InvalidArgument:
        return
    assert InputType.parse(str(parsed)) == parsed


@given(INPUT_TYPES)
def test_every_type_accepts_and_suits_itself(input_type: InputType) -> None:
    assert input_type.accepts(input_type)
    assert input_type.suits(input_type)


@pytest.mark.parametrize(
    ("model", "application", "accepts", "suits"),
    [
        ("float64[784]", "float64[784]", True, True),
        ("float64[*]", "float64[784]", True, True),
        ("float64[784]", "float64[*]", False, False),
        ("float64[784]", "float32[784]", False, False),
        ("float64[784]", "float64[785]", False, False),
        ("float64[*,*]", "float64[*]", False, False),
        ("float32[3,*,*]", "float32[3,*,*]", True, True),
        ("float32[3,*,*]", "float32[3,8,*]", True, True),
        # The model expects each row to begin with its dimensions; a row of fixed shape has none.
        ("float32[3,*,*]", "float32[3,8,8]", True, False),
        ("int32[]", "int32[1]", False, False),
        ("string", "string", True, True),
        ("string", "bytes", False, False),
    ],
)
def test_accepts_and_suits(model: str, application: str, accepts: bool, suits: bool) -> None:
    takes, gives = InputType.parse(model), InputType.parse(application)
    assert takes.accepts(gives) is accepts
    assert gives.suits(takes) is suits


@pytest.mark.parametrize(
    ("text", "row_bytes", "leading_dimensions"),
    [
        ("float64[784]", 6272, 0),
        ("float32[3,8,8]", 768, 0),
        ("uint8[]", 1, 0),
        ("int32[*]", None, 0),
        ("int32[2,*]", None, 2),
        ("string", None, 0),
        ("bytes", None, 0),
    ],
)
def test_layout_of_a_row(text: str, row_bytes: int | None, leading_dimensions: int) -> None:
    input_type = InputType.parse(text)
    assert (input_type.row_bytes, input_type.leading_dimensions) == (row_bytes, leading_dimensions)


def test_strings_have_no_dimensions() -> None:
    assert InputType(DType.STRING, (3,)) == InputType(DType.STRING) == InputType.parse("string[3]")


@pytest.mark.parametrize("name", ["a", "0", "digits", "a.b-c_d", "x" * 63, "ResNet50", "V1.0-RC", "A"])
def test_names_that_are_taken(name: str) -> None:
    assert check_name("model", name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A-", "-A", "a b", "a/b", "x" * 64, "a\n", "é"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="model"):
        check_name("model", name)


def test_a_name_differs_from_all_others_in_more_than_case() -> None:
    assert check_name("model", "ResNet50", ["ResNet50", "resnet18"]) == "ResNet50"
    with pytest.raises(Conflict, match="model 'resnet50' differs from 'ResNet50' only in case"):
        check_name("model", "resnet50", ["ResNet50"])


def test_model_id_reads_as_name_and_version() -> None:
    assert str(ModelId("digits", "2")) == "digits:2"


@pytest.mark.parametrize(
    ("mine", "theirs", "both"),
    [
        ("float64[*]", "float64[784]", "float64[784]"),
        ("float64[784]", "float64[*]", "float64[784]"),
        ("float32[3,*,*]", "float32[*,8,*]", "float32[3,8,*]"),
        ("float64[784]", "float64[785]", None),
        ("float64[784]", "float32[784]", None),
        ("float64[*]", "float64[*,*]", None),
        ("string", "string", "string"),
    ],
)
def test_narrowed(mine: str, theirs: str, both: str | None) -> None:
    narrowed = InputType.parse(mine).narrowed(InputType.parse(theirs))
    assert narrowed == (None if both is None else InputType.parse(both))
