"""Games in which means of all losses would call the wrong model worse."""

import pytest

from benchmarks.learning.verdicts import EQUAL, SIMPSON, Game, evenly, play, turning


@pytest.mark.parametrize("policy", ["exp3", "thompson"])
def test_a_model_that_is_asked_where_queries_are_hard_is_not_called_worse(policy: str) -> None:
    """It is the better one over all queries. The means of all losses say, with certainty, that the other one is."""
    found = [play(Game("", policy, SIMPSON, evenly, 800), seed) for seed in range(6)]
    assert not any(each.is_wrong for each in found)
    assert all(each.by_means is not None and each.by_means.is_wrong for each in found)


def test_equal_models_stay_so_while_the_mix_of_contexts_turns() -> None:
    found = [play(Game("", "exp3", EQUAL, turning, 400), seed) for seed in range(6)]
    assert not any(each.is_wrong for each in found)
