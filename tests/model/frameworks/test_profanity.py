"""A real classifier of texts through Clipper's runtime, against scikit-learn itself."""

import pytest

from tests.model.frameworks.framework_cases import Told, told_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def told() -> Told:
    return told_of("profanity")


def test_answers_are_the_librarys_own(told: Told) -> None:
    assert told.served == {"labels", "probabilities"}
    assert told.wrong() == {}


def test_it_takes_texts_and_tells_them_apart(told: Told) -> None:
    answer = told.answers["labels"]
    assert answer.takes == "string"
    assert "scikit-learn 1.9.1" in answer.runtime
    assert answer.outputs[:2] == [0, 1]
