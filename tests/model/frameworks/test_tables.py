"""Pipelines over tables from their files alone, against their libraries in the process that trained them."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.model.frameworks.framework_cases import Told, told_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def told() -> Told:
    return told_of("tables")


def test_each_pipeline_answers_as_in_its_own_process(told: Told) -> None:
    assert told.refusals == {}
    assert len(told.served) == 27
    assert {name: answer.failures for name, answer in told.answers.items() if answer.failures} == {}
    for name, (outputs, expected) in told.wrong().items():
        # Sums in another order differ in the last bits.
        assert np.allclose(np.array(outputs, float), np.array(expected, float), rtol=1e-6, atol=1e-9), name


def test_rows_that_lack_values_are_among_them(told: Told) -> None:
    lacking = {name for name, case in told.cases.items() if case["rows_lacking"]}
    assert len(lacking) >= 20
    assert all(any(None in row.values() for row in told.cases[name]["inputs"]) for name in lacking)


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("titanic, mixed types", ["Age: float64?", "Sex: string?"]),
        ("titanic, names", ["Name: string", "Age: float64?"]),
        ("ames, native categories", ['Street: string{"Grvl", "Pave"}?', "Lot.Area: float64?"]),
        ("penguins, imputed", ['sex: string{"female", "male"}?', 'island: string{"Biscoe", "Dream", "Torgersen"}']),
        ("credits, calibrated", ["Home: string?", "Income: float64?"]),
        ("lightgbm, credits, file", ['Records: string{"no", "yes"}?', "Income: float64?"]),
        ("xgboost, penguins, file", ['sex: string{"female", "male"}?', "body_mass_g: float32?"]),
        ("mlflow, titanic", ["Name: string", "SexCode: int64"]),
    ],
)
def test_types_are_those_of_the_training(told: Told, case: str, fields: list[str]) -> None:
    taken = told.answers[case].takes
    assert [field for field in fields if field not in taken] == [], taken


def test_the_table_of_the_documentation_has_each(told: Told) -> None:
    """These tests try all that docs/frameworks.md says of them."""
    text = (Path(__file__).parents[3] / "docs" / "frameworks.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    for name, case in told.cases.items():
        assert f"| {case['columns']} |" in lines[name], json.dumps(name)
