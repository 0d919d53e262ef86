"""The adaptive policy: how long it remembers, whom it asks, and that it suits what changes and what does not."""

import math
from random import Random

import pytest

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals, tally
from clipper.learning.policies.adaptive import (
    FORETOLD_BY,
    HALF_LIVES,
    LOSS_BY,
    SCORED_BY,
    Adaptive,
    best_half_life,
    lower_bound,
)
from clipper.learning.policies.policy import Choice, JudgedQuery, QueryView
from tests.learning.policies.bandits import MODELS, bernoulli, play, pseudo_regret

MEANS = (0.1, 0.4, 0.4, 0.5, 0.5)


def learned(losses: list[float], model: str = "a", half_life: int | None = 1000) -> Ledger:
    ledger, policy = Ledger(half_life), Adaptive()
    for loss in losses:
        choice, by_model = Choice((model,), (1.0,)), {model: loss}
        observed = policy.observe(choice, by_model, ledger.totals(), JudgedQuery())
        ledger.add(ledger.entries({**tally(choice.models, by_model), **observed}))
        ledger.drop_stale()
    return ledger


def test_it_counts_under_every_half_life_at_once() -> None:
    totals = learned([1.0] * 200).totals()
    for half_life in HALF_LIVES:
        kept = 1.0 if half_life is None else 2 ** (-1 / half_life)
        expected = sum(kept**age for age in range(1, 201))
        assert totals.number("a", SCORED_BY[half_life]) == pytest.approx(expected)
        assert totals.number("a", LOSS_BY[half_life]) == pytest.approx(expected)


def test_a_long_memory_decides_while_steady_a_short_one_after_a_change() -> None:
    steady = [float(step % 10 == 0) for step in range(3000)]
    assert best_half_life(Totals()) is None
    assert best_half_life(learned(steady).totals()) in (None, 2000)
    assert best_half_life(learned([*steady, *[1.0] * 20]).totals()) in (30, 120)


def test_several_workers_teach_one_state() -> None:
    """Each adds what it saw to the same sums, whatever the other has added meanwhile."""
    one, other, policy = Ledger(1000), Ledger(1000), Adaptive()
    for step in range(300):
        for ledger, model, loss in ((one, "a", float(step % 5 == 0)), (other, "b", float(step % 2))):
            increments = policy.observe(Choice((model,), (1.0,)), {model: loss}, ledger.totals(), JudgedQuery())
            entries = ledger.entries(increments)
            one.add(entries)
            other.add(entries)
    assert one.sums() == other.sums()
    shares = policy.probabilities(("a", "b"), one.totals())
    assert shares[0] > 0.95


def test_the_bound_is_wilsons() -> None:
    # Of 1 in 10, at 1.96: the interval in the tables is 0.0179 to 0.4042.
    assert lower_bound(0.1, 10, 1.96) == pytest.approx(0.0179, abs=1e-4)
    assert lower_bound(0.1, 10, 0) == 0.1
    assert lower_bound(0.7, 0, 1) == 0.0
    assert lower_bound(0.5, 1e-5, 3) == pytest.approx(0.0, abs=1e-5)
    assert lower_bound(1.0, 1e12, 1) == pytest.approx(1.0)


def test_shares_are_the_probabilities_of_the_draw() -> None:
    policy, random = Adaptive(), Random(1)
    totals = learned([0.0, 1.0, 0.0, 0.0, 1.0] * 10).totals()
    shares = policy.probabilities(MODELS, totals)
    assert sum(shares) == pytest.approx(1)
    drawn = [policy.select(MODELS, totals, QueryView(), random) for _ in range(4000)]
    for model, share in zip(MODELS, shares):
        times = sum(choice.models == (model,) for choice in drawn)
        assert abs(times / 4000 - share) <= 4 * math.sqrt(share * (1 - share) / 4000)
        assert all(choice.shares == (pytest.approx(share),) for choice in drawn if choice.models == (model,))


def test_without_feedback_the_first_link_is_asked() -> None:
    assert Adaptive().probabilities(MODELS, Totals()) == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_models_that_nothing_is_known_of_are_asked_alike() -> None:
    shares = Adaptive().probabilities(MODELS, learned([1.0, 0.0] * 30).totals())
    assert shares[1:] == pytest.approx([shares[1]] * 4) and shares[1] > 0.15


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1.0, 1e12])
def test_counts_of_any_size_give_probabilities(scale: float) -> None:
    numbers = {("a", SCORED_BY[None]): scale, ("a", LOSS_BY[None]): scale * 1.0000001, ("", FORETOLD_BY[30]): -scale}
    shares = Adaptive().probabilities(("a", "b"), Totals(numbers))
    assert sum(shares) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in shares)


@pytest.mark.long
def test_it_leaves_the_best_model_when_it_fails_and_returns_to_it() -> None:
    mean_losses = [bernoulli(MEANS, seed=3), bernoulli((0.9, *MEANS[1:]), seed=4)]
    game = play(Adaptive(), lambda step: mean_losses[4000 <= step < 8000](step), 12000, seed=5, half_life=1000)
    left = game.steps_until(4000, lambda share: share < 0.2)
    assert left is not None
    assert left <= 150
    returned = game.steps_until(8000, lambda share: share > 0.8)
    assert returned is not None
    assert returned <= 1500
    # The cost where nothing changes: at most two queries in a hundred do not go to the best model.
    assert game.leaders[2000:4000].count("a") > 0.98 * 2000


@pytest.mark.long
def test_the_regret_hardly_grows_where_nothing_changes() -> None:
    games = [play(Adaptive(), bernoulli(MEANS, seed), 8000, seed=seed, half_life=1000) for seed in range(3)]
    late = sum(pseudo_regret(MEANS, game.leaders[4000:]) for game in games) / 3
    assert late <= 0.01 * 4000 * 0.3


def test_losses_between_count_in_part() -> None:
    game = play(Adaptive(), lambda _step: [0.2, 0.8], 500)
    assert game.leaders.count("a") > 480


@pytest.mark.parametrize("exploration", [0, -1, 11, math.nan, "wide", True])
def test_the_parameter_is_checked(exploration: object) -> None:
    with pytest.raises(InvalidArgument, match="exploration is"):
        Adaptive(exploration)  # type: ignore[arg-type]
