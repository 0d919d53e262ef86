"""What a policy reads: numbers by model, and the application's as a prior for its contexts."""

import pytest

from clipper.errors import InvalidArgument
from clipper.selection.learning.ledger import Ledger
from clipper.selection.learning.totals import Totals


def everyone(observations: int, mean_loss: float, half_life: int | None = None) -> Totals:
    ledger = Ledger(half_life)
    for _ in range(observations):
        ledger.add(ledger.entries({("a", "loss"): mean_loss, ("a", "scored"): 1.0}))
    return ledger.totals()


def test_a_number_that_was_never_added_is_zero() -> None:
    assert Totals().number("a", "loss") == 0.0
    assert Totals().mean_loss == 0.0
    assert Totals().observations == 0.0


def test_mean_loss_is_over_all_models() -> None:
    totals = Totals({("a", "loss"): 1.0, ("a", "scored"): 2.0, ("b", "loss"): 3.0, ("b", "scored"): 6.0})
    assert totals.mean_loss == 0.5


def test_a_context_without_feedback_has_the_crowds_means_at_the_priors_weight() -> None:
    mixed = Totals().with_prior(everyone(500, 0.25), 20)
    assert mixed.number("a", "scored") == pytest.approx(20)
    assert mixed.mean_loss == pytest.approx(0.25)
    assert mixed.observations == pytest.approx(20)


def test_a_crowd_smaller_than_the_weight_counts_as_it_is() -> None:
    assert Totals().with_prior(everyone(5, 0.25), 20).number("a", "scored") == pytest.approx(5)


def test_the_prior_keeps_its_weight_however_long_the_crowd_has_been_learning() -> None:
    assert Totals().with_prior(everyone(5000, 0.25, half_life=100), 20).number("a", "scored") == pytest.approx(20)


def test_own_feedback_outweighs_the_crowd_as_it_comes() -> None:
    crowd = everyone(500, 0.0)
    means = [
        everyone(count, 1.0).with_prior(crowd, 20).mean_loss if count else Totals().with_prior(crowd, 20).mean_loss
        for count in (0, 20, 200)
    ]
    assert means == pytest.approx([0.0, 0.5, 200 / 220])


def test_a_weight_of_zero_is_no_prior() -> None:
    own = everyone(3, 1.0)
    assert own.with_prior(everyone(500, 0.0), 0).mean_loss == 1.0
    assert own.with_prior(Totals(), 20).numbers == own.numbers


def test_the_weight_is_checked() -> None:
    with pytest.raises(InvalidArgument, match="prior_weight is -1: expected a number at least 0"):
        Totals().with_prior(Totals(), -1)
