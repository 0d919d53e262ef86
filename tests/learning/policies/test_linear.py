"""The linear policies beside plain ridge regression, on streams of features whose best model is known."""

from collections.abc import Iterable
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Arrays, Totals, tally
from clipper.learning.policies.by_name import make_policy
from clipper.learning.policies.linear import beliefs, lessons
from clipper.learning.policies.linear_thompson import least_of
from clipper.learning.policies.policy import Choice, JudgedQuery, Policy, QueryView
from tests.example_counts import share_of

MODELS = ("a", "b", "c")
LINEAR = ("linucb", "linear_thompson")
Floats = NDArray[np.float64]


def judged(x: Iterable[float]) -> JudgedQuery:
    return JudgedQuery(packed_features=np.array(x, "<f8").tobytes())


def query(x: Iterable[float]) -> QueryView:
    return QueryView(packed_features=np.array(x, "<f8").tobytes())


def learn(ledger: Ledger, model: str, loss: float, x: Iterable[float]) -> None:
    ledger.add(ledger.entries({**tally((model,), {model: loss}), **lessons({model: loss}, judged(x))}))


def plain(
    rows: dict[str, list[tuple[float, Floats, float]]], x: Floats, usual: float, scale: Floats
) -> tuple[list[float], list[float]]:
    """Means and errors by the docstring's formulas, from every query: its weight, features with the 1, and loss."""
    means, errors = [], []
    for model in MODELS:
        weights = np.array([weight for weight, _, _ in rows[model]])
        features = np.array([each for _, each, _ in rows[model]]).reshape(len(weights), len(x))
        losses = np.array([loss for _, _, loss in rows[model]])
        gram = features.T @ (weights[:, None] * features)
        ridge, prior = gram + np.diag(scale**2), np.array([usual, *[0.0] * (len(x) - 1)])
        theta = prior + np.linalg.solve(ridge, features.T @ (weights * losses) - gram @ prior)
        means.append(float(theta @ x))
        errors.append(float(np.sqrt(usual * (1 - usual) * (x @ np.linalg.solve(ridge, x)))))
    return means, errors


@settings(max_examples=share_of(15), deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 6),
    st.sampled_from([None, 200]),
    st.lists(st.integers(-3, 3), min_size=6, max_size=6),
)
def test_beliefs_are_those_of_ridge_regression_from_every_query(
    seed: int, size: int, half_life: int | None, powers: list[int]
) -> None:
    """Also of features of quite other sizes, looked at after each feedback or now and then, and what is old fades."""
    random = np.random.default_rng(seed)
    ledger, policy = Ledger(half_life), make_policy("linucb")
    sizes, count = 10.0 ** np.array(powers[:size]), 80
    rows: dict[str, list[tuple[float, Floats, float]]] = {model: [] for model in MODELS}
    fade = 1.0 if half_life is None else 2 ** (-1 / half_life)
    scored = lost = 0.0
    for number in range(count):
        x, model = random.normal(size=size) * sizes, MODELS[random.integers(2)]
        loss = float(random.random() < 0.3 + 0.4 * (x[0] > 0))
        learn(ledger, model, loss, x)
        rows[model].append((fade ** (count - 1 - number), np.array([1.0, *x]), loss))
        scored, lost = scored * fade + 1, lost * fade + loss
        if random.random() < 0.3:
            beliefs(policy, MODELS, ledger.totals(), query(x))
    x = random.normal(size=size) * sizes
    found = beliefs(policy, MODELS, ledger.totals(), query(x))
    everything = [(weight, each) for of_model in rows.values() for weight, each, _ in of_model]
    typical = sum(weight * each**2 for weight, each in everything) / sum(weight for weight, _ in everything)
    scale = 2.0 ** np.round(0.5 * np.log2(typical))
    usual = (lost + 1) / (scored + 2)
    means, errors = plain(rows, np.array([1.0, *x]), usual, scale)
    # Up to 5 % of fading is put off, and so may the ridge be by which half of a power of two a scale is rounded.
    assert found.means == pytest.approx(means, abs=1e-7 if half_life is None else 0.1)
    assert found.errors == pytest.approx(errors, rel=1e-7 if half_life is None else 0.15)
    # A model that nobody has asked yet is believed to be like the mean of all.
    assert found.means[2] == pytest.approx(usual, abs=0.01)


def test_a_memo_followed_by_updates_believes_as_one_that_begins_anew() -> None:
    random = np.random.default_rng(7)
    ledger, policy = Ledger(1000), make_policy("linucb")
    for _ in range(400):
        x = random.normal(size=8)
        learn(ledger, MODELS[random.integers(3)], float(random.random() < 0.4), x)
        beliefs(policy, MODELS, ledger.totals(), query(x))
    totals, x = ledger.totals(), random.normal(size=8)
    anew = Totals(totals.numbers, arrays=Arrays(totals.arrays.parts))
    followed, fresh = (beliefs(policy, MODELS, each, query(x)) for each in (totals, anew))
    assert followed.means == pytest.approx(fresh.means, abs=0.005)
    assert followed.errors == pytest.approx(fresh.errors, rel=0.05)


def test_a_feature_in_other_units_changes_nothing() -> None:
    ledgers = [Ledger(None), Ledger(None)]
    random, policy = np.random.default_rng(3), make_policy("linear_thompson")
    for _ in range(200):
        x, model = random.normal(size=2), MODELS[random.integers(3)]
        loss = float(random.random() < 0.5)
        learn(ledgers[0], model, loss, x)
        learn(ledgers[1], model, loss, x * [1024.0, 1 / 64])
    x = np.array([0.5, -1.0])
    one = beliefs(policy, MODELS, ledgers[0].totals(), query(x))
    other = beliefs(policy, MODELS, ledgers[1].totals(), query(x * [1024.0, 1 / 64]))
    assert one.means == pytest.approx(other.means)
    assert one.errors == pytest.approx(other.errors)


@settings(max_examples=share_of(25), deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1, 1), st.sampled_from([1e-12, 1e-3, 0.05, 0.3, 2.0])), min_size=2, max_size=5),
    st.integers(0, 1000),
)
def test_the_probability_of_the_least_is_what_draws_come_to(beliefs_of: list[tuple[float, float]], seed: int) -> None:
    means, errors = (np.array(each) for each in zip(*beliefs_of))
    found = least_of(means, errors)
    assert sum(found) == pytest.approx(1.0) and min(found) >= 0
    # Of equals each is drawn as often as any, where numpy's draws would be equal, too.
    spread = np.maximum(errors, 1e-9)
    drawn = np.random.default_rng(seed).normal(means, spread, size=(20_000, len(means))).argmin(axis=1)
    assert found == pytest.approx(np.bincount(drawn, minlength=len(means)) / 20_000, abs=0.025)


def test_of_two_models_it_is_the_closed_form() -> None:
    """P(a < b) = Phi((b - a) / sqrt(s^2 + t^2)): Phi(1) and Phi(-2)."""
    assert least_of(np.array([0.0, 0.5]), np.array([0.3, 0.4]))[0] == pytest.approx(0.8413, abs=0.003)
    assert least_of(np.array([1.0, 0.0]), np.array([0.3, 0.4]))[0] == pytest.approx(0.02275, abs=0.003)


@pytest.mark.parametrize("name", LINEAR)
def test_before_any_feedback_all_are_alike(name: str) -> None:
    policy, random = make_policy(name), Random(1)
    drawn = [policy.select(MODELS, Totals(), query([1.0, 2.0]), random) for _ in range(3000)]
    assert all(choice.shares == (pytest.approx(1 / 3),) for choice in drawn)
    for model in MODELS:
        assert sum(choice.models == (model,) for choice in drawn) == pytest.approx(1000, abs=150)


@pytest.mark.parametrize("name", LINEAR)
def test_a_query_without_features_is_taken_to_be_the_average_one(name: str) -> None:
    ledger, policy = Ledger(None), make_policy(name)
    for number in range(300):
        # The average query, at 0.5, is best with b; others with a or c.
        for model, loss in (("a", 0.6), ("b", 0.1), ("c", 0.6)):
            learn(ledger, model, loss, [number % 2])
    assert policy.select(MODELS, ledger.totals(), QueryView(), Random(0)).models == ("b",)
    assert policy.observe(Choice(("a",), (1.0,)), {"a": 1.0}, Totals(), JudgedQuery("ada")) == {}


@pytest.mark.parametrize("name", LINEAR)
def test_features_of_any_size_are_learned_from(name: str) -> None:
    ledger, policy = Ledger(1000), make_policy(name)
    for x in ([1e300, -1e300], [5e-324, 0.0], [0.0, 0.0], [1e7, -1e-300]):
        for model in MODELS:
            learn(ledger, model, 0.5, x)
        choice = policy.select(MODELS, ledger.totals(), query(x), Random(0))
        assert choice.models[0] in MODELS and 0 < choice.shares[0] <= 1


@pytest.mark.parametrize("name", LINEAR)
def test_another_number_of_features_begins_anew(name: str) -> None:
    ledger, policy = Ledger(1000), make_policy(name)
    for _ in range(50):
        learn(ledger, "a", 0.0, [1.0, 1.0])
        learn(ledger, "b", 1.0, [1.0, 1.0])
    choice = policy.select(("a", "b"), ledger.totals(), query([1.0]), Random(0))
    assert choice.shares[0] == pytest.approx(0.5)
    learn(ledger, "b", 1.0, [1.0])
    drawn = [policy.select(("a", "b"), ledger.totals(), query([1.0]), Random(seed)).models for seed in range(100)]
    assert drawn.count(("a",)) > 60


def lost(policy: Policy, seed: int, queries: int = 400, half_life: int | None = 1000) -> float:
    """Mean regret where each of three models is the expert of a region of two features."""
    random, chance, ledger = np.random.default_rng(seed), Random(seed), Ledger(half_life)
    experts = np.array([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
    regret = 0.0
    for _ in range(queries):
        x = random.normal(size=2)
        losses = 1 / (1 + np.exp(3 * experts @ x))
        choice = policy.select(MODELS, ledger.totals(), query(x), chance)
        model = choice.models[0]
        regret += losses[MODELS.index(model)] - losses.min()
        loss = {model: float(chance.random() < losses[MODELS.index(model)])}
        taught = policy.observe(choice, loss, ledger.totals(), judged(x))
        ledger.add(ledger.entries({**tally(choice.models, loss), **taught}))
    return regret / queries


@pytest.mark.parametrize("name", LINEAR)
def test_experts_of_regions_are_told_apart(name: str) -> None:
    """A policy without features, or the best single model, loses over 0.3 a query on this."""
    seeds = range(3)
    without = np.mean([lost(make_policy("adaptive"), seed) for seed in seeds])
    with_features = np.mean([lost(make_policy(name), seed) for seed in seeds])
    assert without > 0.3
    assert with_features < 0.25 * without


def digits() -> tuple[Floats, NDArray[np.int64], Floats]:
    """Of each handwritten digit eight features by a fixed projection, its label, and whether each of three models errs.

    The models tell digits by the nearest mean, and each knows digits of its own alone: 0 to 3, 4 to 6, 7 to 9.
    """
    loaded = load_digits()
    pictures, labels = loaded.data / 16.0, loaded.target
    train, rest = slice(0, 900), slice(900, None)
    _, _, directions = np.linalg.svd(pictures[train] - pictures[train].mean(axis=0), full_matrices=False)
    means = np.array([pictures[train][labels[train] == digit].mean(axis=0) for digit in range(10)])
    distances = ((pictures[rest][:, None] - means) ** 2).sum(axis=2)
    known = np.array([[digit in own for digit in range(10)] for own in (range(4), range(4, 7), range(7, 10))])
    answers = np.array([np.where(own, distances, np.inf).argmin(axis=1) for own in known])
    return (pictures[rest] @ directions[:8].T), labels[rest], (answers != labels[rest]).T.astype(float)


@pytest.mark.parametrize("name", LINEAR)
def test_on_handwritten_digits_each_model_gets_those_that_it_knows(name: str) -> None:
    """The best single model errs on 65 %, and who always knows which to ask on 7 %; these come to 28 and 24 %."""
    features, _, errors = digits()
    policy, chance, ledger = make_policy(name), Random(2), Ledger(1000)
    lost_late, order = 0.0, np.random.default_rng(0).permutation(np.repeat(np.arange(len(errors)), 2))
    for step, index in enumerate(order):
        x = features[index]
        choice = policy.select(MODELS, ledger.totals(), query(x), chance)
        loss = float(errors[index, MODELS.index(choice.models[0])])
        learn(ledger, choice.models[0], loss, x)
        lost_late += loss * (step >= len(order) // 2)
    single = errors.mean(axis=0).min()
    assert lost_late / (len(order) / 2) < 0.6 * single
