from collections import Counter
from functools import cache
from random import Random

import pytest

from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import LOSS, SCORED, Totals
from clipper.learning.policies.by_name import make_policy
from clipper.learning.policies.policy import Choice, Policy, QueryView
from clipper.learning.policies.ramp import Ramp
from tests.learning.policies.ramps import NEW, play

ALONE = ["adaptive", "epsilon_greedy", "exp3", "thompson", "ucb1"]
JOINT = ["ensemble", "exp4", "stacking"]
DRAWS = 4000
# A state in which b is the better by far.
LEARNED = Totals({("a", SCORED): 100.0, ("a", LOSS): 60.0, ("b", SCORED): 100.0, ("b", LOSS): 10.0})


def choices(policy: Policy, ramp: Ramp, totals: Totals = LEARNED) -> list[Choice]:
    chance = Random(3)

    def select(models: tuple[str, ...]) -> Choice:
        return policy.select(models, totals, QueryView(), chance)

    is_joint = policy.feedback == "all"
    # One that asks all leaves nothing to chance: of the same models its choice is the same each time.
    chosen = cache(select) if is_joint else select
    return [ramp.select(("a", "b"), chosen, chance, is_joint=is_joint) for _ in range(DRAWS)]


@pytest.mark.parametrize("policy", [*ALONE, *JOINT])
def test_newcomers_get_their_share_and_no_more(policy: str) -> None:
    made = choices(make_policy(policy), Ramp({"new": None, "a:2": "a"}, 0.1))
    asked = Counter(name for choice in made for name in ("new", "a:2") if name in choice.models)
    assert asked["new"] == pytest.approx(0.05 * DRAWS, rel=0.25)
    assert asked["a:2"] == pytest.approx(0.05 * DRAWS, rel=0.25)


@pytest.mark.parametrize("policy", ALONE)
def test_each_share_is_the_probability_of_the_choice(policy: str) -> None:
    made = choices(make_policy(policy), Ramp({"new": None}, 0.1))
    counts = Counter(choice.models[0] for choice in made)
    for choice in made:
        share = choice.shares[0]
        if choice.beliefs is not None:
            assert share == 0.9 and len(choice.beliefs) == 2
            continue
        expected = share * DRAWS
        assert abs(counts[choice.models[0]] - expected) < 5 * (expected + 1) ** 0.5, choice
    assert {choice.shares for choice in made if choice.models == ("new",)} == {(0.1,)}


@pytest.mark.parametrize("policy", JOINT)
def test_several_that_answer_together_have_it_in_their_predecessors_place(policy: str) -> None:
    made = choices(make_policy(policy), Ramp({"a:2": "a"}, 0.1))
    assert {choice.models for choice in made} == {("a", "b"), ("a:2", "b")}
    assert all(sum(choice.shares) == pytest.approx(1.0) for choice in made)
    made = choices(make_policy(policy), Ramp({"new": None}, 0.1))
    assert {choice.models for choice in made} == {("a", "b"), ("a", "b", "new")}


def test_an_ensemble_of_one_has_it_alone() -> None:
    policy, chance, totals = make_policy("ensemble"), Random(1), Ledger().totals()
    ramp = Ramp({"a:2": "a"}, 0.1)

    def select(models: tuple[str, ...]) -> Choice:
        return policy.select(models, totals, QueryView(), chance)

    made = {ramp.select(("a",), select, chance, is_joint=True) for _ in range(200)}
    assert made == {Choice(("a",), (0.9,)), Choice(("a:2",), (0.1,))}


@pytest.mark.parametrize("policy", ALONE)
def test_one_that_is_always_wrong_costs_few_answers_and_is_stopped(policy: str) -> None:
    errors = {"m:1": 0.05, NEW: 1.0, "o:1": 0.2}
    for seed in range(2):
        game = play(policy, errors, 1000, seed)
        assert game.verdict == "stopped" and game.verdict_at is not None and game.verdict_at < 500
        assert game.feedback < 15 and game.asked(NEW, end=game.verdict_at) < 0.12
        assert sum(NEW in choice.models for choice in game.choices[game.verdict_at :]) == 0
        # Beside what its own exploring costs a policy.
        assert sum(game.losses) - 50 < 70


def test_one_that_spoils_answers_together_is_stopped() -> None:
    """Not in an ensemble, which soon leaves its vote without weight: there it does no harm."""
    game = play("exp4", {"m:1": 0.05, NEW: 1.0, "o:1": 0.2}, 1500, 0)
    assert game.verdict == "stopped" and game.asked(NEW, end=game.verdict_at) < 0.12


@pytest.mark.parametrize("seed", range(2))
def test_stacking_outvotes_one_that_is_always_wrong_before_it_spoils_much(seed: int) -> None:
    game = play("stacking", {"m:1": 0.05, NEW: 1.0, "o:1": 0.2}, 1500, seed)
    with_it = [loss for loss, choice in zip(game.losses, game.choices) if NEW in choice.models]
    # Without it, o alone would have made them.
    assert sum(with_it) < 0.2 * len(with_it) + 8


@pytest.mark.parametrize("policy", [*ALONE, *JOINT])
def test_a_good_one_gets_through_and_takes_over(policy: str) -> None:
    """The share is larger than the default, for the simulation to be short."""
    game = play(policy, {"m:1": 0.2, NEW: 0.02, "o:1": 0.3}, 1300, 1, share=0.25)
    assert game.verdict == "through" and game.verdict_at is not None and game.verdict_at < 1000
    assert game.asked(NEW, end=game.verdict_at) == pytest.approx(0.25, abs=0.06)
    # From then on the link's own name means the newcomer.
    assert game.asked("m", game.verdict_at) > 0.85
    assert sum(game.losses[game.verdict_at :]) < 0.1 * (1300 - game.verdict_at)
