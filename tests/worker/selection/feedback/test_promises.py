"""Earlier outcomes change the chances that a queue gives."""

import pytest

from clipper.worker.selection.feedback.promises import QUERIES, Promises


def after(chance: float, *, was_in_time: bool) -> Promises:
    promises = Promises()
    for _ in range(QUERIES):
        promises.ended(chance, was_in_time=was_in_time)
    return promises


def test_the_outcomes_of_a_range_correct_its_chances() -> None:
    assert after(0.9, was_in_time=False).believed(0.9) == pytest.approx(0.09)
    assert after(0.15, was_in_time=True).believed(0.15) == pytest.approx(1.0)
    assert after(0.15, was_in_time=True).believed(0.5) == 0.5, "of other ranges they say nothing"


def test_no_chance_does_not_grow_by_queries_that_had_a_small_one() -> None:
    """Else a burst would begin with queries that wait in vain for a model that is full."""
    promises = after(0.15, was_in_time=True)
    assert promises.believed(0.0) == 0.0
    assert after(0.0, was_in_time=True).believed(0.0) == pytest.approx(1.0), "its own outcomes show it"
