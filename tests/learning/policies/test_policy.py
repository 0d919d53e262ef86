"""Rules of every policy: shares, seeds, parameters, and a state that survives being stored."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals, tally
from clipper.learning.policies.by_name import POLICIES, make_policy
from clipper.learning.policies.policy import JudgedQuery, QueryView
from clipper.policies import Choice, Combined
from tests.learning.policies.bandits import MODELS, bernoulli, learned, play

ASKS_ONE = (
    "adaptive",
    "single",
    "weighted",
    "epsilon_greedy",
    "ucb1",
    "thompson",
    "exp3",
    "best_arm",
    "cascade",
    "linucb",
    "linear_thompson",
)
ASKS_ALL = ("exp4", "ensemble", "stacking")
# The choice is drawn without working out how likely it was.
WITHOUT_PROBABILITY = ("thompson",)

losses = st.dictionaries(st.sampled_from(MODELS), st.floats(0, 1), max_size=5)
every_policy = pytest.mark.parametrize("name", POLICIES)


def state_after(name: str, taught: list[dict[str, float]], half_life: int | None = 3) -> Ledger:
    policy, ledger = make_policy(name), Ledger(half_life)
    for seed, scored in enumerate(taught):
        choice = policy.select(MODELS, ledger.totals(), QueryView(), Random(seed))
        increments = {**tally(choice.models, scored), **policy.observe(choice, scored, ledger.totals(), JudgedQuery())}
        ledger.add(ledger.entries(increments))
    return ledger


def test_every_policy_is_tested() -> None:
    assert sorted(POLICIES) == sorted(ASKS_ONE + ASKS_ALL)


@every_policy
@given(taught=st.lists(losses, max_size=20), seed=st.integers(0, 100))
def test_a_choice_is_of_the_models_with_shares_in_range(name: str, taught, seed: int) -> None:
    choice = make_policy(name).select(MODELS, state_after(name, taught).totals(), QueryView("user-7"), Random(seed))
    assert choice.models == tuple(model for model in MODELS if model in choice.models)
    assert len(choice.models) == (1 if name in ASKS_ONE else 5)
    assert len(choice.shares) == len(choice.models)
    assert all(0.0 <= share <= 1.0 for share in choice.shares)
    if name in ASKS_ALL:
        assert math.fsum(choice.shares) == pytest.approx(1.0)


@pytest.mark.parametrize("name", [name for name in ASKS_ONE if name not in WITHOUT_PROBABILITY])
def test_a_share_is_the_probability_of_the_choice(name: str) -> None:
    policy, random = make_policy(name), Random(1)
    totals = learned({"a": (9, 3), "b": (9, 2), "c": (9, 3), "d": (9, 4), "e": (9, 4)})
    drawn = [policy.select(MODELS, totals, QueryView(), random) for _ in range(4000)]
    shares = {choice.models[0]: choice.shares[0] for choice in drawn}
    for model, share in shares.items():
        count = sum(choice.models == (model,) for choice in drawn)
        assert abs(count - 4000 * share) <= 5 * math.sqrt(4000 * share * (1 - share)) + 1e-6
    assert sum(shares.values()) == pytest.approx(1.0)


@every_policy
def test_same_seed_same_choices(name: str) -> None:
    policy, means = make_policy(name), (0.1, 0.3, 0.3, 0.5, 0.5)
    games = [play(policy, bernoulli(means), 200, seed=5) for _ in range(2)]
    assert games[0].leaders == games[1].leaders
    assert games[0].losses == games[1].losses


@every_policy
@given(taught=st.lists(losses, max_size=8))
def test_a_state_that_was_stored_decides_alike(name: str, taught) -> None:
    ledger, policy = state_after(name, taught), make_policy(name)
    restored = Ledger(ledger.half_life, ledger.sums())
    for seed in range(5):
        choice = policy.select(MODELS, ledger.totals(), QueryView("u"), Random(seed))
        assert policy.select(MODELS, restored.totals(), QueryView("u"), Random(seed)) == choice


@every_policy
def test_one_model_is_asked_and_answers(name: str) -> None:
    policy, totals = make_policy(name), Totals()
    choice = policy.select(("only",), totals, QueryView(), Random(0))
    assert choice.models == ("only",)
    assert policy.combine(choice, {"only": b"3"}, totals, QueryView()) == Combined(b"3", 1.0)


@every_policy
def test_feedback_without_any_known_output_teaches_nothing(name: str) -> None:
    policy, totals = make_policy(name), Totals()
    choice = policy.select(MODELS, totals, QueryView(), Random(0))
    assert policy.observe(choice, {}, totals, JudgedQuery()) == {}


@every_policy
def test_a_state_of_other_models_is_no_obstacle(name: str) -> None:
    totals = learned({"removed": (100, 30), "a": (50, 50)})
    assert set(make_policy(name).select(("a", "new"), totals, QueryView(), Random(0)).models) <= {"a", "new"}


@every_policy
def test_what_forgetting_leaves_of_a_state_is_no_obstacle(name: str) -> None:
    """Counts shrink towards the smallest numbers there are, and a loss may by rounding exceed its count."""
    tiny = 5e-324
    totals = learned({"a": (tiny, tiny), "b": (1e-300, 1.0000001e-300), "c": (0.3, 0.30000001)})
    choice = make_policy(name).select(MODELS, totals, QueryView(), Random(0))
    assert all(0.0 <= share <= 1.0 for share in choice.shares)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("epsilon_greedy", {"epsilon": 1.1}, "epsilon is 1.1: expected a number at least 0 and at most 1"),
        ("epsilon_greedy", {"epsilon": "0.1"}, "epsilon is '0.1': expected a number"),
        ("ucb1", {"exploration": 0}, "exploration is 0: expected a number above 0 and at most 10"),
        ("thompson", {"prior": 0}, "prior is 0: expected a number above 0 and at most 1000"),
        ("exp3", {"eta": 0}, "eta is 0: expected a number above 0 and at most 1"),
        ("exp3", {"gamma": 2}, "gamma is 2: expected a number above 0 and at most 1"),
        ("exp4", {"eta": math.nan}, "eta is nan: expected a number above 0 and at most 1"),
        ("exp4", {"answer": "best"}, "answer is 'best': expected one of vote, mean, median"),
        ("ensemble", {"weighting": "none"}, "weighting is 'none': expected one of accuracy, equal"),
        ("ensemble", {"classes": 1}, "classes is 1: expected a number at least 2"),
        ("ensemble", {"tolerance": -1}, "tolerance is -1: expected a number at least 0"),
        ("weighted", {"weights": {"a": -1}}, "weight of a is -1: expected a number at least 0"),
        ("weighted", {"weights": {"a": 0, "b": 0}}, "weights are all 0: expected at least one above 0"),
        ("weighted", {"weights": {}}, "weights are all 0: expected at least one above 0"),
        ("weighted", {"weights": [95, 5]}, r"weights is \[95, 5\]: expected a weight by model"),
    ],
)
def test_parameters_are_checked(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{name}: {message}"):
        make_policy(name, parameters)


def test_single_asks_the_first_model() -> None:
    assert make_policy("single").select(MODELS, Totals(), QueryView("u"), Random(0)) == Choice(("a",), (1.0,))


# -- what is expected of a model -------------------------------------------------------------------------


def expected(name: str, totals: Totals) -> tuple[list[float], list[float]]:
    """Return each model's expected loss, and its error."""
    policy = make_policy(name)
    return list(policy.expected_losses(MODELS, totals, QueryView())), list(
        policy.loss_errors(MODELS, totals, QueryView())
    )


def test_the_first_label_changes_little_and_keeps_the_order_of_the_links() -> None:
    before, _ = expected("adaptive", Totals())
    for loss in (0.0, 1.0):
        after, errors = expected("adaptive", learned({"a": (1, loss)}))
        assert after[1:] == sorted(after[1:]) and after[0] < after[2]
        assert all(abs(new - old) < 0.2 for new, old in zip(after[1:], before[1:])) and max(errors) < 0.1


def test_much_feedback_overrules_the_order_of_the_links() -> None:
    losses, errors = expected("adaptive", learned({name: (1000, 1000 - 150 * at) for at, name in enumerate(MODELS)}))
    assert losses == pytest.approx([1 - 0.15 * at for at in range(5)], abs=0.01) and max(errors) < 0.02


def test_a_model_without_a_label_is_expected_beside_those_with_many() -> None:
    # The links stand in their order here, and the third is still to be seen.
    losses, errors = expected("adaptive", learned({"a": (500, 50), "b": (500, 100), "d": (500, 200), "e": (500, 250)}))
    assert losses[1] < losses[2] < losses[3]
    # Where the last link is asked, as the best one known, it is tried.
    losses, errors = expected("adaptive", learned({"a": (50, 25), "b": (50, 20), "d": (50, 10), "e": (2000, 200)}))
    assert losses[2] - errors[2] < losses[4] - errors[4]


def test_weights_that_learn_nothing_hope_for_nothing() -> None:
    assert expected("weighted", learned({"a": (9, 3)}))[1] == [0.0] * 5
