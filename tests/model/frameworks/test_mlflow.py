"""MLflow's model folders through Clipper's runtime, against their own Python functions."""

import pytest

from tests.model.frameworks.framework_cases import Told, told_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def told() -> Told:
    return told_of("mlflow")


def test_answers_are_the_functions_own(told: Told) -> None:
    assert len(told.served) == 14
    assert told.wrong() == {} and told.broken() == {}


@pytest.mark.parametrize(
    ("case", "takes"),
    [
        ("tensor", "float64[64]"),
        ("unsigned", "float64[*]"),
        (
            "columns",
            '"sepal length (cm)": float64?, "sepal width (cm)": float64?, "petal length (cm)": float64?, '
            '"petal width (cm)": float32?',
        ),
        ("columns as a list", "float64[4]"),
        ("texts", "text: string"),
        ("mixed", "city: string, area: float64?, note: string?"),
        (
            "every type",
            "b: bool, i: int32, l: int64, f: float32?, d: float64?, s: string, raw: bytes, at: string, maybe: int64?, "
            "note: string?, list: float64[*], object: string, alpha: float64 = 0.5, names: int64[*] = [1,2], "
            'since: string = "2024-02-29T12:00:00"',
        ),
        ("tensors by name", "a: float32[2], b: float32[2]"),
    ],
)
def test_a_signature_says_what_a_model_takes(told: Told, case: str, takes: str) -> None:
    assert told.answers[case].takes == takes
    assert ", mlflow 3.17.2 (mlflow." in told.answers[case].runtime


def test_rows_that_are_not_of_the_signature_fail_alone(told: Told) -> None:
    lacking, no_json = told.answers["not all columns"].failures
    assert "the model takes the text of a JSON object with area, city, note: got area" in lacking
    assert "Expecting value" in no_json


def test_an_output_that_the_signature_does_not_name(told: Told) -> None:
    assert told.refusals == {
        "no such output": "tensor has no output probabilities: it has values; "
        "deploy it with --output and one or more of these, or without --output",
        "unknown column": "texts has no output lower: it has length, upper; "
        "deploy it with --output and one or more of these, or without --output",
    }
