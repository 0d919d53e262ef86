"""Types of records, and forms of batches, from the annotations of a model's code."""

import dataclasses
import enum
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
import pydantic
import pytest

from clipper.errors import ContainerFailed
from clipper.model.runtime.annotations import by_rows, row_class, wanted
from clipper.model.runtime.loading import ModelSource, load
from clipper.values.types import InputType


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@dataclasses.dataclass
class Passenger:
    age: float | None
    sex: Literal["male", "female"]
    colour: Colour
    pixels: Annotated[np.ndarray[Any, Any], "uint8[2,2]"]
    tags: list[int]
    small: np.float32
    cabin: str | None = None
    parch: int = 0
    scores: list[float] = dataclasses.field(default_factory=list)


class Typed(TypedDict):
    age: float
    job: typing.NotRequired[str]


class Modelled(pydantic.BaseModel):
    age: int = pydantic.Field(ge=0)
    job: str | None = None
    rate: float = 0.5
    tags: list[int] = pydantic.Field(default_factory=list)


@pytest.mark.parametrize(
    ("row", "record"),
    [
        (
            Passenger,
            'age: float64?, sex: string{"male", "female"}, colour: string{"red", "green"}, pixels: uint8[2,2], '
            "tags: int64[*], small: float32, cabin: string?, parch: int64 = 0, scores: float64[*] = []",
        ),
        (Typed, "age: float64, job: string?"),
        (Modelled, "age: int64, job: string?, rate: float64 = 0.5, tags: int64[*] = []"),
    ],
)
def test_class_of_a_row_says_its_record(row: Any, record: str) -> None:
    found = row_class(row)
    assert found is not None
    assert str(found.record) == record


def test_what_is_no_type_of_an_input_is_refused_with_what_is() -> None:
    wrong = dataclasses.make_dataclass("Wrong", [("when", complex)])
    with pytest.raises(ContainerFailed, match=r"field when of Wrong is annotated <class 'complex'>: expected float"):
        row_class(wrong)
    assert row_class(int) is row_class("Typed") is None


@pytest.mark.parametrize(
    ("fields", "why"),
    [([("x", "Missing")], "name 'Missing' is not defined"), ([], "a record has 0 fields"), ([("x", tuple[()])], "")],
)
def test_class_whose_annotations_make_no_record_is_refused(fields: list[Any], why: str) -> None:
    with pytest.raises(ContainerFailed, match=f"annotations of Wrong make no record: .*{why}"):
        row_class(dataclasses.make_dataclass("Wrong", fields))


def columns() -> Any:
    return {
        "age": np.array([31.0, np.nan]),
        "sex": ["male", "female"],
        "colour": ["red", "green"],
        "pixels": np.zeros((2, 2, 2), np.uint8),
        "tags": [np.array([1, 2]), np.array([3])],
        "small": np.array([1, 2], np.float32),
        "cabin": [None, "C1"],
        "parch": np.array([0, 1]),
        "scores": [np.array([0.5]), np.array([])],
    }


def test_model_gets_objects_of_its_class() -> None:
    def predict_batch(rows: list[Passenger]) -> list[Any]:
        return rows

    found = wanted(predict_batch)
    assert found is not None and found != "frame"
    answered: Any = by_rows(predict_batch, found)(columns())
    first, second = answered
    assert (first.age, second.age, first.colour, first.tags, second.cabin) == (31.0, None, Colour.RED, [1, 2], "C1")
    assert first.pixels.shape == (2, 2)
    assert type(first.parch) is int and (first.scores, second.scores) == ([0.5], [])


def test_functions_say_in_which_form_they_want_a_batch() -> None:
    def of_dicts(rows: list[Typed]) -> Any: ...
    def of_text(inputs: "pd.DataFrame") -> Any: ...  # type: ignore[name-defined]  # noqa: F821
    def of_nothing(inputs) -> Any: ...  # type: ignore[no-untyped-def]

    assert wanted(of_text) == "frame"
    assert wanted(of_nothing) is wanted(len) is None
    found = wanted(of_dicts)
    assert found is not None and found != "frame"
    answered = by_rows(lambda rows: rows, found)({"age": np.array([1.5]), "job": [None]})
    assert answered == [{"age": 1.5, "job": None}]


CODE = """
import dataclasses
import pandas as pd

@dataclasses.dataclass
class Row:
    age: float
    job: str | None = None

class Rows:
    def __init__(self, model_data): pass
    def predict_batch(self, rows: list[Row]):
        return [f"{row.age:g} {row.job}" for row in rows]

class Columns:
    input_type = Row
    def __init__(self, model_data): pass
    def predict_batch(self, inputs):
        return [type(inputs).__name__] * len(inputs["age"])

class Frames:
    input_type = "age: float64, job: string?"
    def __init__(self, model_data): pass
    def predict_batch(self, frame: pd.DataFrame):
        return frame["age"].astype(str) + frame["job"].fillna("?")

def frames(frame: pd.DataFrame):
    return frame["age"].tolist()
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotated")
    (folder / "code").mkdir()
    (folder / "code" / "annotated_model.py").write_text(CODE)
    return folder


@pytest.mark.parametrize(
    ("target", "outputs"),
    [("Rows", ["1 None", "2 x"]), ("Columns", ["dict", "dict"]), ("Frames", ["1.0?", "2.0x"])],
)
def test_code_says_its_type_and_gets_its_form(artifact: Path, target: str, outputs: list[str]) -> None:
    model = load(ModelSource(artifact, "import", f"annotated_model:{target}"))
    assert str(model.input_type) == "age: float64, job: string?"
    answered: Any = model.predict_batch({"age": np.array([1.0, 2.0]), "job": [None, "x"]})
    assert list(answered) == outputs


def test_frame_without_a_type_is_asked_for(artifact: Path) -> None:
    source = ModelSource(artifact, "import", "annotated_model:frames")
    with pytest.raises(ContainerFailed, match=r"takes a DataFrame, and does not say its columns: .* --sample"):
        load(source)
    # A list that is declared, or that a version has always taken, comes as it did.
    assert load(dataclasses.replace(source, input_type="float64[*]")).input_type == InputType.parse("float64[*]")
    for said in ({"input_type": "age: int32"}, {"sample_type": "age: int32"}):
        model = load(dataclasses.replace(source, **said))
        assert str(model.input_type) == "age: int32"
        assert model.predict_batch({"age": np.array([1], np.int32)}) == [1]
