"""Stacking: weights by how models err together, in simulations of models whose errors are correlated."""

import json
import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.losses import ZeroOne
from clipper.learning.mathematics.totals import MISSED, PULLS, Totals
from clipper.learning.policies.ensemble import Ensemble
from clipper.learning.policies.policy import Choice, Combined, JudgedQuery, Policy, QueryView
from clipper.learning.policies.stacking import MAX_PAIRED, Stacking, _least_square
from clipper.worker.selection.feedback.scoring import lesson
from tests.learning.policies.bandits import MODELS, bernoulli, failing, play

QUERY = QueryView()
texts = st.sampled_from(
    [
        b"0",
        b"1",
        b"1.5",
        b"-3",
        b"[0.2,0.8]",
        b"[1,2,3]",
        b'"cat"',
        b"null",
        b"true",
        b"[[1]]",
        b"1e308",
        b"-1e308",
        b"{}",
    ]
)


def teach(
    policy: Policy,
    ledger: Ledger,
    outputs: dict[str, bytes],
    label: bytes,
    models: Sequence[str],
    arms: Arms | None = None,
) -> None:
    totals = ledger.totals() if arms is None else arms.view(ledger.totals())
    choice = policy.select(tuple(models), totals, QUERY, Random(0))
    # Of a mean only errors count, and what an output that is no number loses is not told.
    losses = {model: ZeroOne()(output, label) for model, output in outputs.items()}
    increments = lesson(policy, choice, losses, totals, JudgedQuery(outputs=outputs, label=label))
    ledger.add(ledger.entries(increments if arms is None else arms.keyed(increments)))
    ledger.drop_stale()


def shares(policy: Policy, ledger: Ledger, models: Sequence[str] = MODELS) -> dict[str, float]:
    return dict(zip(models, policy.select(tuple(models), ledger.totals(), QUERY, Random(0)).shares))


def votes(policy: Policy, outputs: NDArray[np.int64], half_life: int | None = 1000) -> NDArray[np.bool_]:
    """Which answers are wrong, where the label is always 0; the label is told after each."""
    ledger, wrong = Ledger(half_life), []
    for row in outputs.tolist():
        by_model = {model: b"%d" % value for model, value in zip(MODELS, row)}
        choice = policy.select(MODELS[: len(row)], ledger.totals(), QUERY, Random(0))
        wrong.append(policy.combine(choice, by_model, ledger.totals(), QUERY).output != b"0")
        teach(policy, ledger, by_model, b"0", choice.models)
    return np.array(wrong)


def erring(means: Sequence[float], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Labels of models that err independently; 0 is right."""
    random = np.random.default_rng(seed)
    return np.where(random.random((count, len(means))) < means, random.integers(1, 10, (count, len(means))), 0)


def test_three_copies_of_one_model_do_not_outvote_two_others() -> None:
    outputs = erring((0.3, 0.3, 0.3), 1500)
    outputs = outputs[:, [0, 0, 0, 1, 2]]
    wrong = votes(Stacking(), outputs)[300:]
    best = (outputs[300:] != 0).mean(axis=0).min()
    assert wrong.mean() < 0.65 * best
    assert wrong.mean() < 0.65 * votes(Ensemble(), outputs)[300:].mean()
    assert wrong.mean() < 0.65 * votes(Ensemble(weighting="accuracy"), outputs)[300:].mean()


def test_copies_share_the_weight_of_one() -> None:
    ledger, policy = Ledger(None), Stacking()
    for row in erring((0.3, 0.3, 0.3), 500)[:, [0, 0, 0, 1, 2]].tolist():
        teach(policy, ledger, {model: b"%d" % value for model, value in zip(MODELS, row)}, b"0", MODELS)
    found = shares(policy, ledger)
    assert found["a"] == pytest.approx(found["b"]) == pytest.approx(found["c"])
    assert 3 * found["a"] == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize(
    "means", [(0.2, 0.22, 0.25, 0.28, 0.3), (0.05, 0.5, 0.5, 0.7, 0.7), (0.1, 0.3), (0.02, 0.02, 0.9), (0.3, 0.0, 0.3)]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_never_much_worse_than_the_best_model(means: tuple[float, ...], seed: int) -> None:
    outputs = erring(means, 600, seed)
    wrong = votes(Stacking(), outputs)
    assert wrong.sum() <= (outputs != 0).sum(axis=0).min() + 15


def test_a_model_that_fails_and_recovers_loses_its_say_and_has_it_back() -> None:
    means = (0.02, 0.4, 0.4, 0.4, 0.4)
    game = play(Stacking(), failing(means, broken=range(1000, 2000)), 4000, half_life=200)
    # The others together are better than each, and the good one better than those together.
    assert np.mean(game.losses[500:1000]) < 0.05
    assert np.mean(game.losses[1500:2000]) < 0.2
    assert np.mean(game.losses[3500:]) < 0.05


def test_without_feedback_all_count_alike() -> None:
    for answer in ("vote", "mean"):
        assert shares(Stacking(answer), Ledger()) == pytest.approx(dict.fromkeys(MODELS, 0.2))


def test_models_that_are_always_right_count_alike() -> None:
    ledger, policy = Ledger(None), Stacking()
    for _ in range(50):
        teach(policy, ledger, dict.fromkeys(MODELS, b"0"), b"0", MODELS)
    assert shares(policy, ledger) == pytest.approx(dict.fromkeys(MODELS, 0.2))


def test_a_vote_minimises_the_squared_error_of_the_labels_indicators() -> None:
    """As ordinary least squares on all labels' indicators does, where its weights are to add up to 1."""
    outputs = erring((0.2, 0.3, 0.4), 400)
    outputs[:, 2] = np.where(np.arange(400) % 3 == 0, outputs[:, 1], outputs[:, 2])
    policy, ledger = Stacking(prior=1e-9), Ledger(None)
    for row in outputs.tolist():
        teach(policy, ledger, {model: b"%d" % value for model, value in zip(MODELS, row)}, b"0", MODELS[:3])
    errors = (np.eye(10)[outputs] - np.eye(10)[0]).transpose(1, 0, 2).reshape(3, -1)
    inverse = np.linalg.inv(errors @ errors.T)
    expected = inverse.sum(axis=0) / inverse.sum()
    assert (expected > 0).all()
    assert list(shares(policy, ledger, MODELS[:3]).values()) == pytest.approx(expected, abs=1e-4)


def numbers(policy: Policy, outputs: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[float, Ledger]:
    """The mean squared error of the last half of the answers, and what was learned."""
    ledger, squares = Ledger(1000), []
    models = MODELS[: outputs.shape[1]]
    for row, label in zip(outputs.tolist(), labels.tolist()):
        by_model = {model: json.dumps(value).encode() for model, value in zip(models, row)}
        choice = policy.select(models, ledger.totals(), QUERY, Random(0))
        answered = json.loads(policy.combine(choice, by_model, ledger.totals(), QUERY).output)
        squares.append((answered - label) ** 2)
        teach(policy, ledger, by_model, json.dumps(label).encode(), models)
    return float(np.mean(squares[len(squares) // 2 :])), ledger


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_regression_finds_biases_and_weights(scale: float) -> None:
    """Of two independent models and a copy of the first, all with a bias; whatever the unit."""
    random = np.random.default_rng(1)
    labels = random.normal(10, 3, 800)
    first, second = labels + 2 + random.normal(0, 1, 800), labels - 5 + random.normal(0, 2, 800)
    outputs = np.stack([first, first, second], axis=1)
    error, ledger = numbers(Stacking("mean"), scale * outputs, scale * labels)
    # Weights by inverse variance: 0.8 and 0.2, whose answer has the variance 0.8.
    assert error / scale**2 == pytest.approx(0.8, rel=0.15)
    found = shares(Stacking("mean"), ledger, MODELS[:3])
    assert found["a"] + found["b"] == pytest.approx(0.8, abs=0.05)


def test_a_large_bias_is_corrected_whole() -> None:
    random = np.random.default_rng(1)
    labels = random.normal(0, 3, 600)
    outputs = np.stack([labels - 500 + random.normal(0, 1, 600), labels + random.normal(0, 10, 600)], axis=1)
    error, _ = numbers(Stacking("mean"), outputs, labels)
    # The bias that is left is 500 divided by the number of observations, here at least 300.
    assert error < 1 + 2 * (500 / 300) ** 2


def test_one_wild_output_costs_a_model_little() -> None:
    random = np.random.default_rng(1)
    labels = random.normal(0, 3, 600)
    outputs = np.stack([labels + random.normal(0, 1, 600), labels + random.normal(0, 2, 600)], axis=1)
    outputs[200, 0] = 1e12
    error, ledger = numbers(Stacking("mean"), outputs, labels)
    assert shares(Stacking("mean"), ledger, ("a", "b"))["a"] == pytest.approx(0.8, abs=0.1)
    assert error < 1


def test_errors_that_grow_are_followed() -> None:
    """The first were next to none, and what is next to none is no measure of what is wild."""
    random = np.random.default_rng(1)
    noise = np.where(np.arange(300) < 5, 1e-9, 1.0)
    labels = np.zeros(300)
    outputs = np.stack([noise * random.normal(0, 1, 300), noise * random.normal(0, 2, 300)], axis=1)
    _, ledger = numbers(Stacking("mean"), outputs, labels)
    assert shares(Stacking("mean"), ledger, ("a", "b"))["a"] == pytest.approx(0.8, abs=0.1)


def test_errors_of_opposite_signs_cancel() -> None:
    random = np.random.default_rng(1)
    labels, noise = random.normal(0, 3, 600), random.normal(0, 1, 600)
    outputs = np.stack([labels + noise, labels - noise + random.normal(0, 0.1, 600)], axis=1)
    error, _ = numbers(Stacking("mean"), outputs, labels)
    assert error < 0.05


def test_probabilities_are_scored_at_the_label() -> None:
    ledger, policy = Ledger(None), Stacking("mean")
    for number in range(300):
        label = number % 2
        sure = [0.05, 0.05]
        sure[label] = 0.95
        outputs = {"a": json.dumps(sure).encode(), "b": b"[0.5,0.5]"}
        teach(policy, ledger, outputs, b"%d" % label, ("a", "b"))
    assert shares(policy, ledger, ("a", "b"))["a"] > 0.9


def test_where_a_model_is_late_its_copy_speaks_for_it() -> None:
    policy, ledger = Stacking("mean"), Ledger(None)
    random = np.random.default_rng(1)
    for label in random.normal(0, 1, 300).tolist():
        first, second = label + random.normal(0, 1), label + random.normal(0, 1)
        told = {"a": first, "b": first, "c": second}
        teach(
            policy,
            ledger,
            {name: json.dumps(each).encode() for name, each in told.items()},
            json.dumps(label).encode(),
            "abc",
        )
    choice = policy.select(("a", "b", "c"), ledger.totals(), QUERY, Random(0))
    # Of both copies there is one: it weighs as much as both, half, and not a quarter against a half.
    combined = policy.combine(choice, {"a": b"10", "c": b"0"}, ledger.totals(), QUERY)
    assert json.loads(combined.output) == pytest.approx(5, abs=0.6)
    together = policy.combine(choice, {"a": b"1", "c": b"1"}, ledger.totals(), QUERY)
    assert together.confidence == pytest.approx(1 - choice.shares[1], abs=1e-6)


def test_a_vote_is_settled_only_where_nothing_missing_can_turn_it() -> None:
    choice, policy = Choice(("a", "b", "c"), (0.6, 0.3, 0.1)), Stacking()
    assert policy.is_settled(choice, {"a": b"1"}, (), 0.5)
    assert not policy.is_settled(choice, {"b": b"1", "c": b"1"}, (), 0.0)
    assert not Stacking("mean").is_settled(choice, {"a": b"1"}, (), 0.0)


def test_a_reward_tells_of_those_that_gave_another_answer_too() -> None:
    policy, totals = Stacking(), Totals()
    choice = Choice(("a", "b", "c"), (1 / 3,) * 3)
    query = JudgedQuery(outputs={"a": b"1", "b": b"2", "c": b"2"})
    told = policy.observe_reward(choice, {"a": 0.0}, totals, query)
    assert told == policy.observe(choice, {"a": 0.0, "b": 1.0, "c": 1.0}, totals, query)
    assert policy.observe_reward(choice, {}, totals, query) == {}
    assert Stacking("mean").observe_reward(choice, {"a": 0.0}, totals, query) == {}


def test_a_model_that_is_never_in_time_has_little_say() -> None:
    totals = Totals({("a", PULLS): 50.0, ("a", MISSED): 50.0, ("b", PULLS): 50.0})
    assert Stacking().select(("a", "b"), totals, QUERY, Random(0)).shares[0] < 0.03


def test_a_new_version_leaves_behind_what_its_predecessor_had_in_common() -> None:
    """The first version of b was a copy of a; the second is not, though a goes on to know of the first."""
    policy, ledger = Stacking(), Ledger(None)
    for version in "12":
        rows = erring((0.3, 0.3, 0.3), 400, int(version))
        if version == "1":
            rows[:, 1] = rows[:, 0]
        arms = Arms({"a": [("a:1", 1.0)], "b": [(f"b:{version}", 1.0)], "c": [("c:1", 1.0)]})
        for row in rows.tolist():
            teach(policy, ledger, {name: b"%d" % each for name, each in zip("abc", row)}, b"0", "abc", arms)
        found = policy.select(("a", "b", "c"), arms.view(ledger.totals()), QUERY, Random(0)).shares
        assert found[2] == pytest.approx(1 / 2 if version == "1" else 1 / 3, abs=0.06)


def test_a_model_that_is_linked_later_begins_as_an_average_one() -> None:
    policy, ledger = Stacking(), Ledger(None)
    for row in erring((0.1, 0.3), 300).tolist():
        teach(policy, ledger, {"a": b"%d" % row[0], "b": b"%d" % row[1]}, b"0", "ab")
    before, after = shares(policy, ledger, "ab"), shares(policy, ledger, ("a", "b", "new"))
    assert after["a"] > after["new"] > 0.1
    assert after["a"] > after["b"]
    assert before["a"] > before["b"]


def test_workers_that_learn_apart_know_together_what_one_would() -> None:
    rows = erring((0.1, 0.2, 0.3), 200)
    alone, apart, policy = Ledger(None), [Ledger(None), Ledger(None)], Stacking()
    for number, row in enumerate(rows.tolist()):
        outputs = {model: b"%d" % value for model, value in zip("abc", row)}
        teach(policy, alone, outputs, b"0", "abc")
        teach(policy, apart[number % 2], outputs, b"0", "abc")
    apart[0].add(apart[1].sums())
    assert shares(policy, apart[0], "abc") == pytest.approx(shares(policy, alone, "abc"))


def test_so_many_pairs_are_counted_and_no_more() -> None:
    models = tuple(f"m{number:02}" for number in range(64))
    ledger, policy = Ledger(None), Stacking()
    choice = policy.select(models, ledger.totals(), QUERY, Random(0))
    losses = dict.fromkeys(models, 1.0)
    told = policy.observe(choice, losses, ledger.totals(), JudgedQuery(outputs=dict.fromkeys(models, b"1")))
    assert len(told) <= 2 * MAX_PAIRED**2
    ledger.add(ledger.entries(told))
    assert sum(shares(policy, ledger, models).values()) == pytest.approx(1.0)


def test_long_names_are_kept_apart() -> None:
    """A link with its version may be longer than the name of a sum may be."""
    models = tuple(f"{'m' * 63}:{'v' * 33}{number}" for number in range(2))
    ledger, policy = Ledger(None), Stacking()
    for _ in range(50):
        teach(policy, ledger, {models[0]: b"1", models[1]: b"0"}, b"0", models)
    assert shares(policy, ledger, models)[models[1]] > 0.7


@given(
    taught=st.lists(st.tuples(st.dictionaries(st.sampled_from(MODELS), texts, min_size=1), texts), max_size=6),
    outputs=st.dictionaries(st.sampled_from(MODELS), texts, min_size=1),
    answer=st.sampled_from(["vote", "mean"]),
    half_life=st.sampled_from([1, 100, None]),
)
def test_any_outputs_and_labels_leave_shares_that_add_up(taught, outputs, answer: str, half_life) -> None:
    policy, ledger = Stacking(answer), Ledger(half_life)
    for given_outputs, label in taught:
        teach(policy, ledger, given_outputs, label, MODELS)
    choice = policy.select(MODELS, ledger.totals(), QUERY, Random(0))
    assert all(0.0 <= share <= 1.0 for share in choice.shares)
    assert math.fsum(choice.shares) == pytest.approx(1.0)
    combined = policy.combine(choice, outputs, ledger.totals(), QUERY)
    json.loads(combined.output)
    assert 0.0 <= combined.confidence <= 1.0


@given(seed=st.integers(0, 10_000), size=st.integers(1, 16), rank=st.integers(1, 20))
def test_no_other_weights_have_a_lesser_square(seed: int, size: int, rank: int) -> None:
    random = np.random.default_rng(seed)
    errors = random.normal(0, 1, (size, rank)) + random.normal(0, 2)
    matrix = errors @ errors.T / rank
    found = _least_square(matrix)
    assert (found >= 0).all() and found.sum() == pytest.approx(1.0)
    # Optimal if and only if no step towards a single model is downwards; but for the ridge that tells equals apart.
    slope = matrix @ found
    assert (slope >= found @ slope - 1e-5).all()


def test_independent_models_together_are_better_than_the_best() -> None:
    game = play(Stacking(), bernoulli((0.2, 0.22, 0.25, 0.28, 0.3)), 1000)
    assert game.loss < 0.3 * min(game.static_losses)


def test_one_model_alone_answers() -> None:
    assert Stacking("mean").combine(Choice(("a",), (1.0,)), {"a": b"3"}, Totals(), QUERY) == Combined(b"3", 1.0)
