"""The loss of answers beyond that of the best policy of the same kind of knowledge."""

import pytest
from msgspec.structs import replace

from clipper.control.statistics import HistogramData, ModelSelectionStatistics, SelectionStatistics
from clipper.supervisor.metrics.totals import regret, total


def model(scored: int, loss: float, weight: float = 0.0, weighted_loss: float = 0.0) -> ModelSelectionStatistics:
    return ModelSelectionStatistics(0, 0, scored, loss, weight=weight, weighted_loss=weighted_loss)


def of(answer_loss: float, answers: int, *models: ModelSelectionStatistics) -> SelectionStatistics:
    named = {str(number): each for number, each in enumerate(models)}
    return SelectionStatistics(named, HistogramData((), 0.0), {}, answers, answer_loss, 0, 0, None)


def test_without_contexts_it_is_against_the_best_single_model() -> None:
    assert regret(of(8.0, 50, model(40, 10.0), model(10, 1.0))) == ("model", 3.0)


def test_a_model_of_which_little_is_known_is_not_the_best() -> None:
    """As a newcomer whose first answers were right, and which then has another name."""
    assert regret(of(420.0, 7000, model(6000, 360.0), model(9, 0.0))) == ("model", 0.0)
    assert regret(of(420.0, 7000, model(6000, 360.0), model(300, 15.0))) == ("model", 70.0)


def test_by_context_it_is_against_the_best_of_each() -> None:
    # On the 40 answers with a context the best models of their contexts lose 6; on 10 others the best model loses 1.
    learned = replace(of(9.0, 50, model(40, 10.0), model(10, 1.0)), context_loss=6.0, context_answers=40)
    assert regret(learned) == ("context", pytest.approx(2.0))


def test_without_feedback_there_is_none() -> None:
    assert regret(None) is None
    assert regret(of(0.0, 0, model(2, 1.0))) is None and regret(of(0.0, 5, model(0, 0.0))) is None


def test_a_mean_is_over_the_queries_that_losses_stand_for() -> None:
    assert regret(of(4.0, 10, model(4, 2.0, 20.0, 5.0))) == ("model", 1.5)
    assert regret(of(6.0, 10, model(4, 2.0))) == ("model", 1.0), "of a worker that does not weigh"


def test_over_steps_it_is_against_the_model_that_is_best_over_all_of_them() -> None:
    first = of(6.0, 10, model(10, 1.0))
    # The best loses 0.2 on average: 10 answers would have lost 2.
    assert regret(total([first, of(0.0, 0, model(10, 3.0), model(4, 1.0))])) == ("model", pytest.approx(4.0))
