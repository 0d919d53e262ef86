"""LightGBM's boosters through Clipper's runtime, against LightGBM itself."""

import pytest

from tests.model.frameworks.framework_cases import Told, told_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def told() -> Told:
    return told_of("lightgbm")


def test_answers_are_the_librarys_own(told: Told) -> None:
    assert len(told.served) == 12
    assert told.wrong() == {} and told.broken() == {}


def test_what_a_booster_takes_and_runs_on(told: Told) -> None:
    assert told.answers["binary"].takes == "float64[30]"
    assert told.answers["declared as float32"].takes == "float32[10]"
    assert told.answers["multiclass"].runtime.endswith(", lightgbm 4.7.0")


def test_what_a_classifier_gives_is_known_before_it_answers(told: Told) -> None:
    assert told.answers["both"].gives == "labels: int64{0, 1}, probabilities: float64[2]"
    assert told.answers["multiclassova probabilities"].gives == "float64[10]"


def test_what_does_not_suit_a_booster(told: Told) -> None:
    assert told.refusals == {
        "regressor's labels": "regression.txt has no output labels: it has values; "
        "deploy it with --output and one or more of these, or without --output",
        "another length": "input type float64[11] does not suit regression.txt, which takes float64[10]",
    }
