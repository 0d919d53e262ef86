"""XGBoost's boosters through Clipper's runtime, against XGBoost itself."""

import pytest

from tests.model.frameworks.framework_cases import Told, told_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def told() -> Told:
    return told_of("xgboost")


def test_answers_are_the_librarys_own(told: Told) -> None:
    assert len(told.served) == 23
    assert told.wrong() == {} and told.broken() == {}


def test_what_a_booster_takes_and_runs_on(told: Told) -> None:
    assert {told.answers[name].takes for name in ("binary", "stopped early")} == {"float32[30]"}
    assert told.answers["gblinear"].runtime.endswith(", xgboost 3.2.0")


def test_what_a_classifier_gives_is_known_before_it_answers(told: Told) -> None:
    assert told.answers["binary"].gives == "int64[]"
    assert told.answers["binary both"].gives == "label: int64{0, 1}, probabilities: float32[2]"
    assert told.answers["multi:softprob probabilities"].gives == "float32[10]"
    assert told.answers["multi:softprob by class"].gives == ", ".join(f'"{each}": float32' for each in range(10))


def test_an_output_that_its_objective_does_not_have(told: Told) -> None:
    assert told.refusals == {
        "unknown output": "binary.json has no output logits: it has label, probabilities, class_probabilities, labels; "
        "deploy it with --output and one or more of these, or without --output",
        "regressor's probabilities": "gbtree.json has no output probabilities: it has values; "
        "deploy it with --output and one or more of these, or without --output",
    }
