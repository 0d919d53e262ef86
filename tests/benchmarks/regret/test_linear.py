"""Policies by features: the textbook's are MABWiser's where nothing is forgotten, and ours what the server runs."""

import numpy as np
import pytest
from mabwiser import mab

from benchmarks.regret import linear, ours
from benchmarks.regret.families import setting_of
from benchmarks.regret.features import (
    DIMENSIONS,
    FEATURE_STREAMS,
    HIGHEST,
    LOWEST,
    MODELS,
    SPREAD,
    USUAL,
    blind,
    play_features,
)
from benchmarks.regret.streams import ROUNDS, SWAP_ROUNDS
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import tally
from clipper.learning.policies.by_name import make_policy
from clipper.learning.policies.linear import beliefs, lessons
from clipper.learning.policies.policy import JudgedQuery, QueryView

pytestmark = pytest.mark.long

NAMES = tuple("abcde")
SIZE, STEPS = 3, 300
NEVER = np.array([1e9])


def history() -> list[tuple[int, float, np.ndarray]]:
    """Which model was asked, what it lost, and the features, which are 1 or -1."""
    random = np.random.default_rng(4)
    found = []
    for _ in range(STEPS):
        x = random.choice([-1.0, 1.0], SIZE)
        model = int(random.integers(MODELS))
        found.append((model, float(random.random() < 0.4 + 0.3 * x[model % SIZE]), x))
    return found


def with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate(([1.0], x))[None]


@pytest.mark.parametrize(("exploration", "ridge"), [(0.5, 1.0), (1.5, 0.3)])
def test_the_textbooks_linucb_is_mabwisers(exploration: float, ridge: float) -> None:
    told = history()
    parameters = {"exploration": np.array([exploration]), "ridge": np.array([ridge]), "half_life": NEVER}
    played = linear.LinUcb(1, MODELS, SIZE + 1, **parameters)
    for model, loss, x in told:
        played.learn(np.array([model]), np.array([loss]), with_one(x))
    theirs = mab.MAB(list(NAMES), mab.LearningPolicy.LinUCB(alpha=exploration, l2_lambda=ridge))
    rows = np.concatenate([with_one(x) for _, _, x in told])
    theirs.fit([NAMES[model] for model, _, _ in told], [1 - loss for _, loss, _ in told], rows)
    x = np.array([1.0, -1.0, 1.0])
    means, errors = played.beliefs(with_one(x))
    expected = theirs.predict_expectations(with_one(x))
    assert means[0] + errors[0] == pytest.approx([expected[name] for name in NAMES])


@pytest.mark.parametrize("name", ["linucb", "linear_thompson"])
def test_what_ours_believe_is_what_the_server_does(name: str) -> None:
    setting = setting_of(name)
    make = linear.OurLinUcb if name == "linucb" else linear.OurLinearThompson
    played = make(1, MODELS, SIZE + 1, **{key: np.array([value]) for key, value in setting.items()})
    policy, ledger = make_policy(name), Ledger(int(setting["half_life"]))
    for model, loss, x in history():
        played.learn(np.array([model]), np.array([loss]), with_one(x))
        losses, query = {NAMES[model]: loss}, JudgedQuery(packed_features=x.tobytes())
        ledger.add(ledger.entries({**tally((NAMES[model],), losses), **lessons(losses, query)}))
    x = np.array([1.0, 1.0, -1.0])
    found = beliefs(policy, NAMES, ledger.totals(), QueryView(packed_features=x.tobytes()))
    means, errors = played.beliefs(with_one(x))
    # Both put some fading off.
    assert means[0] == pytest.approx(found.means, abs=0.01)
    assert errors[0] == pytest.approx(setting["exploration"] * found.errors, rel=0.03)


def test_what_begins_with_nothing_learned_asks_any_model() -> None:
    for make in (linear.OurLinUcb, linear.OurLinearThompson):
        parameters = {"exploration": np.full(500, 0.5), "half_life": np.full(500, 1000.0)}
        played = make(500, MODELS, 4, **parameters)
        asked = played.choose(np.ones((500, 4)), np.random.default_rng(0))
        assert np.bincount(asked, minlength=MODELS).min() > 60


def test_streams_are_what_they_are_said_to_be() -> None:
    for size in DIMENSIONS:
        by_name = {name: make(size, 3, np.random.default_rng(1)) for name, make in FEATURE_STREAMS.items()}
        assert all(each.shape[1:] == (3, MODELS, size + 1) for each in by_name.values())
        assert [len(each) for each in by_name.values()] == [1, 2, ROUNDS // SWAP_ROUNDS, 1, 2]
        steep = by_name["linear"][0]
        assert (steep[:, :, 0] == USUAL).all()
        assert np.linalg.norm(steep[:, :, 1:], axis=2) == pytest.approx(SPREAD)
        # No loss that matters is cut.
        assert LOWEST < USUAL - SPREAD and USUAL + SPREAD < HIGHEST
        assert not by_name["irrelevant"][..., 1:].any()
        changed = by_name["linear, changed"]
        assert (changed[1][:, 1:] == changed[0][:, :-1]).all()


def test_a_small_part_of_it_again() -> None:
    """Five features, two seeds: a policy that does not see them loses many times as much, and one that does little."""
    mine = play_features(linear.OurLinUcb, [setting_of("linucb")], 5, 2, ("linear",)).mean()
    unseen = play_features(blind(ours.Adaptive), [setting_of("adaptive")], 5, 2, ("linear",)).mean()
    assert 0 < mine < 0.1 * unseen
