"""hmmlearn's hidden Markov models through Clipper's runtime, against hmmlearn itself."""

import pytest

from tests.model.frameworks.framework_cases import FIRST_RUN, Told, told_of

pytestmark = [FIRST_RUN, pytest.mark.long]


@pytest.fixture(scope="module")
def told() -> Told:
    return told_of("hmmlearn")


def test_answers_are_the_librarys_own(told: Told) -> None:
    assert len(told.served) == 6
    assert told.wrong() == {}


def test_a_model_takes_sequences_of_any_length(told: Told) -> None:
    assert {len(sequence) for sequence in told.cases["labels"]["inputs"]} == {6, 7, 8}
    assert told.answers["labels"].takes == told.answers["mixture"].takes == "float64[*,8]"
    assert told.answers["symbols"].takes == "int64[*]"


def test_the_library_is_told(told: Told) -> None:
    assert "hmmlearn 0.3.3" in told.answers["states"].runtime


def test_another_output_is_refused(told: Told) -> None:
    assert told.refusals == {
        "other output": "digits.pkl has no output scores: it has label, probabilities, labels; "
        "deploy it with --output and one or more of these, or without --output"
    }
