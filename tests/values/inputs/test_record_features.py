import numpy as np
import pytest

from clipper.errors import InvalidArgument
from clipper.values.inputs.record_features import RecordFeatures
from clipper.values.inputs.record_reader import RecordReader
from clipper.values.records import RecordType

PERSON = RecordType.parse(
    'age: float64?, job: string?, colour: string{"red","green"}?, kind: int64{1,2}, member: bool, "a, b": uint8[3], '
    "more: float32[*]"
)


def features(chosen: str, text: bytes) -> tuple[tuple[str, ...], list[float]]:
    maker = RecordFeatures(PERSON, chosen)
    row = RecordReader(PERSON).read(text)
    return maker.names, np.frombuffer(maker.of(row), "<f8").tolist()


def test_numbers_are_features_and_categories_are_one_hot() -> None:
    text = b'{"age": 31, "colour": "green", "kind": 1, "member": true, "a, b": [1, 2, 3], "more": [1]}'
    names, found = features('age, colour,kind , member, "a, b"', text)
    assert names == (
        "age",
        "colour=red",
        "colour=green",
        "kind=1",
        "kind=2",
        "member",
        *(f"a, b[{i}]" for i in range(3)),
    )
    assert found == [31, 0, 1, 1, 0, 1, 1, 2, 3]
    missing = b'{"kind": 2, "member": false, "a, b": [0, 0, 0], "more": [1]}'
    assert features("age,colour,kind", missing)[1] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ("age,income", "features name 'income', which is no field"),
        ("job", '--input-type, such as \'job: string{"a", "b"}?\''),
        ("more", "field 'more' is float32[*] and cannot be features"),
        ("age,,kind", "is no list of fields"),
        ("age,age", "is no list of fields"),
        ("input", "field 'job' is string and cannot be features"),
    ],
)
def test_what_cannot_be_features_is_told(chosen: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        RecordFeatures(PERSON, chosen)
    assert says in str(caught.value)


def test_the_number_of_features_is_bounded() -> None:
    wide = RecordType.parse("a: float64[60], b: float64[5]")
    with pytest.raises(InvalidArgument, match="make over 64 features"):
        RecordFeatures(wide, "input")
