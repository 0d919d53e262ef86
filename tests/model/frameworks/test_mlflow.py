"""MLflow's model folders through Clipper's runtime, against their own Python functions."""

import pytest

from tests.model.frameworks.framework_cases import Told, told_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def told() -> Told:
    return told_of("mlflow")


def test_answers_are_the_functions_own(told: Told) -> None:
    assert len(told.served) == 8
    assert told.wrong() == {} and told.broken() == {}


@pytest.mark.parametrize(
    ("case", "takes"),
    [
        ("tensor", "float64[64]"),
        ("unsigned", "float64[*]"),
        ("columns", "float64[4]"),
        ("texts", "string"),
        ("mixed", "string"),
        ("tensors by name", "string"),
    ],
)
def test_a_signature_says_what_a_model_takes(told: Told, case: str, takes: str) -> None:
    assert told.answers[case].takes == takes
    assert ", mlflow 3.17.2 (mlflow." in told.answers[case].runtime


def test_rows_that_are_not_of_the_signature_fail_alone(told: Told) -> None:
    lacking, no_json = told.answers["not all columns"].failures
    assert "the model takes the text of a JSON object with area, city, note: got city" in lacking
    assert "Expecting value" in no_json


def test_an_output_that_the_signature_does_not_name(told: Told) -> None:
    assert told.refusals == {
        "no such output": "tensor has no output probabilities: it has values; "
        "deploy it with --output and one or more of these, or without --output",
        "unknown column": "texts has no output lower: it has length, upper; "
        "deploy it with --output and one or more of these, or without --output",
    }
