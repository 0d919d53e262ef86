"""The totals that a policy reads: numbers by model, and the application's as a prior for its contexts."""

import numpy as np
import pytest

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.confidence_sequences import Evidence
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import CALIBRATION, Arrays, Totals, tally


def everyone(observations: int, mean_loss: float, half_life: int | None = None) -> Totals:
    ledger = Ledger(half_life)
    for _ in range(observations):
        ledger.add(ledger.entries({("a", "loss"): mean_loss, ("a", "scored"): 1.0}))
    return ledger.totals()


def test_a_number_that_was_never_added_is_zero() -> None:
    assert Totals().number("a", "loss") == 0.0
    assert Totals().mean_loss == 0.0
    assert Totals().observations == 0.0


def test_numbers_without_a_prior_say_so() -> None:
    totals = Totals({("a", "loss"): 1.0})
    assert (totals.own, totals.application, totals.prior_weight, totals.prior_most) == (None, None, 0.0, 0.0)


def test_mean_loss_is_over_all_models() -> None:
    totals = Totals({("a", "loss"): 1.0, ("a", "scored"): 2.0, ("b", "loss"): 3.0, ("b", "scored"): 6.0})
    assert totals.mean_loss == 0.5


def test_a_context_without_feedback_has_the_applications_numbers() -> None:
    crowd = everyone(500, 0.25)
    assert Totals().with_prior(crowd, 20) is crowd


def test_a_crowd_smaller_than_the_weight_counts_as_it_is() -> None:
    assert everyone(1, 1.0).with_prior(everyone(5, 0.25), 20).number("a", "scored") == pytest.approx(6)


@pytest.mark.parametrize(("own", "prior"), [(1, 180), (8, 40), (80, 22), (8000, 20.02)])
def test_the_prior_counts_less_the_more_there_is_of_its_own(own: int, prior: float) -> None:
    for half_life in (None, 1000):
        mixed = everyone(own, 1.0).with_prior(everyone(5000, 0.0, half_life), 20)
        assert mixed.number("a", "scored") - own == pytest.approx(prior)


def test_what_is_known_of_a_model_that_is_hardly_asked_is_kept() -> None:
    crowd = Totals({("", "observations"): 1000, ("a", "scored"): 990, ("b", "scored"): 10, ("b", "loss"): 9})
    mixed = everyone(8, 0.0).with_prior(crowd, 10)
    assert (mixed.number("b", "scored"), mixed.number("b", "loss")) == (10, 9)


def test_numbers_of_a_half_life_of_their_own_count_by_their_own_scores() -> None:
    numbers = {("a", "scored"): 1000, ("a", "scored~30"): 40, ("a", "loss~30"): 20, ("a", "scored~9000"): 1e4}
    crowd = Totals({**numbers, ("a", "loss~9000"): 1e3, ("a", "excess_loss"): 50, ("", "observations"): 1000})
    mixed = everyone(8, 0.0).with_prior(crowd, 10)
    assert (mixed.number("a", "scored~30"), mixed.number("a", "loss~30")) == pytest.approx((20, 10))
    assert (mixed.number("a", "scored~9000"), mixed.number("a", "loss~9000")) == pytest.approx((20, 2))
    assert mixed.number("a", "excess_loss") == pytest.approx(1)


def test_a_context_knows_what_is_its_own_and_what_is_not() -> None:
    own, crowd = everyone(8, 0.0), everyone(500, 0.5)
    mixed = own.with_prior(crowd, 10)
    assert (mixed.own, mixed.application, mixed.prior_weight, mixed.prior_most) == (own, crowd, 10, 20)
    assert (own.own, own.application) == (None, None)


def test_own_feedback_outweighs_the_crowd_as_it_comes() -> None:
    crowd = everyone(500, 0.0)
    means = [everyone(count, 1.0).with_prior(crowd, 10).mean_loss for count in (8, 40, 200)]
    assert means == pytest.approx([8 / 28, 40 / 52, 200 / 210.4])


def test_a_weight_of_zero_is_no_prior() -> None:
    own = everyone(3, 1.0)
    assert own.with_prior(everyone(500, 0.0), 0).mean_loss == 1.0
    assert own.with_prior(Totals(), 20).numbers == own.numbers


def test_the_weight_is_checked() -> None:
    with pytest.raises(InvalidArgument, match=r"prior_weight is -1\.0: expected a number at least 0"):
        Totals().with_prior(Totals(), -1.0)


def test_evidence_is_of_all_losses_and_never_mixed() -> None:
    prior = Totals({**tally(("m",), {"m": 0.5}), ("", "observations"): 1.0})
    own = Totals({**tally(("m",), {"m": 1.0}), ("", "observations"): 1.0})
    mixed = own.with_prior(prior, 10)
    assert (prior.evidence("m"), own.evidence("m")) == (Evidence(1.0, 0.5, 0.25), Evidence(1.0, 1.0, 0.0))
    assert mixed.evidence("m") == own.evidence("m")
    assert mixed.number("m", "scored") == 2.0


def test_a_model_is_in_time_as_often_as_it_answered_plus_one_success() -> None:
    totals = Totals({("a", "pulls"): 3.0, ("a", "missed"): 1.0, ("b", "pulls"): 1.0, ("b", "missed"): 1.5})
    assert (totals.in_time("a"), totals.in_time("b"), totals.in_time("c")) == (0.75, 0.5, 1.0)


def test_an_array_is_the_sum_of_its_parts_by_what_counts_of_each() -> None:
    parts = [(np.array([1.0, 2.0]), 0.5), (np.array([4.0, 0.0]), 1.0)]
    totals = Totals(arrays=Arrays({("a", "weights", 2): parts}))
    assert totals.array("a", "weights", 2).tolist() == [4.5, 1.0]
    assert totals.array("a", "weights", 3).tolist() == totals.array("b", "weights", 3).tolist() == [0.0, 0.0, 0.0]
    assert totals.array_parts("a", "weights", 3) == ()
    totals.array("a", "weights", 2)[0] = 7.0
    assert totals.array("a", "weights", 2).tolist() == [4.5, 1.0]


def test_a_context_has_the_applications_arrays_also_without_its_numbers() -> None:
    arrays = Arrays({("a", "weights", 1): [(np.array([2.0]), 1.0)]})
    crowd = Totals({("a", "scored"): 9.0, ("", "observations"): 9.0}, arrays=arrays)
    own = Totals({("a", "scored"): 1.0, ("", "observations"): 1.0})
    for weight, scored in ((0.0, 1.0), (20.0, 10.0)):
        mixed = own.with_prior(crowd, weight)
        assert mixed.arrays is arrays
        assert mixed.number("a", "scored") == scored
    assert own.with_prior(Totals(), 20.0) is own


def test_numbers_of_calibration_are_the_applications_alone() -> None:
    crowd = Totals({("a", CALIBRATION + "right"): 9.0, ("a", "scored"): 9.0, ("", "observations"): 9.0})
    mixed = everyone(1, 1.0).with_prior(crowd, 10)
    assert (mixed.number("a", CALIBRATION + "right"), mixed.number("a", "scored")) == (0.0, 10.0)
