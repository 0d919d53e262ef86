"""What is counted for every policy."""

from clipper.selection.learning.tally import tally


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
