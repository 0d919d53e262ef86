"""What answers have lost more than the best policy of the same kind of knowledge."""

import pytest

from clipper.metrics.regret import mean_of, regret


def test_without_contexts_it_is_against_the_best_single_model() -> None:
    assert regret(8.0, 50, 0.0, 0, [0.25, 0.1]) == ("model", 3.0)


def test_by_context_it_is_against_the_best_of_each() -> None:
    # On the 40 answers with a context the best models of their contexts lose 6; on 10 others the best model loses 1.
    assert regret(9.0, 50, 6.0, 40, [0.25, 0.1]) == ("context", pytest.approx(2.0))


def test_without_feedback_there_is_none() -> None:
    assert regret(0.0, 0, 0.0, 0, [0.5]) is None and regret(0.0, 5, 0.0, 0, []) is None


def test_a_mean_is_over_the_queries_that_losses_stand_for() -> None:
    assert mean_of(4, 2.0, 20.0, 5.0) == 0.25
    assert mean_of(4, 2.0, 0.0, 0.0) == 0.5, "of a worker that does not weigh"
