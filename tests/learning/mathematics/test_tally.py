"""The counts that every policy gets."""

from clipper.learning.mathematics.totals import PLAIN_LOSS, PLAIN_SCORED, tally


def test_pulls_are_of_the_selected_and_scores_of_all_that_are_known() -> None:
    assert tally(("a", "b"), {"a": 0.25, "shadow": 1.0}) == {
        ("a", "scored"): 1.0,
        ("a", "loss"): 0.25,
        ("a", "scored~never"): 1.0,
        ("a", "loss~never"): 0.25,
        ("a", "spread~never"): 0.1875,
        ("a", "pulls"): 1.0,
        ("shadow", "scored"): 1.0,
        ("shadow", "loss"): 1.0,
        ("shadow", "scored~never"): 1.0,
        ("shadow", "loss~never"): 1.0,
    }


def test_a_selected_model_that_missed_counts_as_that_and_another_does_not() -> None:
    counts = tally(("a", "b"), {"a": 1.0, "shadow": 1.0}, {"a": 0.5, "shadow": 1.0})
    assert counts["a", "missed"] == 0.5
    assert ("shadow", "missed") not in counts
    assert ("shadow", "pulls") not in counts


def test_losses_with_costs_are_learned_and_those_without_are_compared() -> None:
    counts = tally(("a",), {"a": 0.75}, plain={"a": 0.5, "b": 0.125})
    assert counts == {
        ("a", "scored"): 1.0,
        ("a", "loss"): 0.75,
        ("a", "scored~never"): 1.0,
        ("a", "loss~never"): 0.5,
        ("a", "spread~never"): 0.25,
        ("a", "pulls"): 1.0,
        ("a", PLAIN_SCORED): 1.0,
        ("a", PLAIN_LOSS): 0.5,
        ("b", PLAIN_SCORED): 1.0,
        ("b", PLAIN_LOSS): 0.125,
    }
