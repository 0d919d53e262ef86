"""The benchmarks of budgets and of scarce models, on short runs."""

import pytest

from benchmarks.learning.budgets import BUDGET, MODELS, SPELLS, Spell, ours, stream, summary
from benchmarks.learning.scarce_models import CASES, Mixed, possible
from benchmarks.learning.simulated_load import Counted


def test_an_hour_is_summed_up_by_its_parts() -> None:
    spells = (Spell(50, (0.0, 0.0, 1.0), (1.0, 0.2, 0.1)), Spell(50, (0.0, 0.0, 1.0), (2.0, 0.4, 0.2)))
    found = summary(stream(1, spells), [MODELS.index("cheap")] * 100, spells)
    assert (found["part 1"], found["part 2"]) == (pytest.approx(0.1 / BUDGET), pytest.approx(0.2 / BUDGET))
    assert found["hour"] == pytest.approx(0.15 / BUDGET) and found["quality"] == pytest.approx(0.65)
    # The budget buys a mixture with the middling model, which loses 0.32, or a bit of the dear one.
    assert 0.96 < found["of the possible"] < 1.0


def test_the_budget_of_a_short_hour_is_nearly_held() -> None:
    spells = tuple(Spell(400, spell.shares, spell.costs) for spell in SPELLS)
    queries = stream(1, spells)
    assert summary(queries, ours("epsilon_greedy", queries), spells)["hour"] == pytest.approx(1.0, abs=0.1)


def test_prices_keep_a_full_model_for_the_queries_that_gain_most_by_it() -> None:
    models, qualities = CASES[0]
    best, shares = possible(models, qualities, 200.0), {}
    for has_prices in (False, True):
        application = Mixed(models, qualities, has_prices=has_prices, seed=3)
        shares[has_prices] = sum(application.run(lambda at_s: 200.0, 6.0)[1:], Counted()).share
    assert best == pytest.approx(0.95)
    assert shares[True] > 0.96 * best > shares[False] + 0.01
