"""`make regret` plays the server's policies that ask all models; answers are as described."""

from random import Random

import numpy as np
import pytest

from benchmarks.regret import panels
from benchmarks.regret.answers import COMMON_CHANCE, RIGHT, answers, losses_of, vote
from benchmarks.regret.families import setting_of
from benchmarks.regret.panels import play_panel
from benchmarks.regret.streams import BLOCK_ROUNDS
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import tally
from clipper.learning.policies.by_name import make_policy
from clipper.learning.policies.combine import vote as vote_of_outputs
from clipper.learning.policies.policy import JudgedQuery, Policy, QueryView

pytestmark = pytest.mark.long

MODELS = ("a", "b", "c", "d")
MEANS = np.array([[0.1, 0.3, 0.4, 0.8]])


@pytest.mark.parametrize(
    ("make", "policy"),
    [
        (panels.Exp4, make_policy("exp4")),
        (panels.Ensemble, make_policy("ensemble")),
        (panels.Equal, make_policy("ensemble", {"weighting": "equal"})),
        (panels.Stacking, make_policy("stacking")),
    ],
)
def test_weights_are_those_of_the_servers_policy(make: panels.PanelMaker, policy: Policy) -> None:
    names = {panels.Exp4: "exp4", panels.Ensemble: "ensemble", panels.Stacking: "stacking"}
    setting = setting_of(names[make]) if make in names else {}
    panel = make(1, len(MODELS), **{key: np.array([value]) for key, value in setting.items()})
    ledger, chance = Ledger(int(setting.get("half_life", 100))), np.random.default_rng(3)
    for step in range(400):
        choice = policy.select(MODELS, ledger.totals(), QueryView(), Random(0))
        # The ledger's clock is one observation ahead, so the last digits differ, and early on a little more. Stacking
        # fits its weights only once in a block.
        if make is not panels.Stacking or step % BLOCK_ROUNDS == 0:
            assert choice.shares == pytest.approx(panel.weights()[0], abs=0.02 if step > 20 else 0.05)
        given = answers(MEANS, chance)
        losses = losses_of(given)
        by_model = dict(zip(MODELS, losses[0].tolist()))
        judged = JudgedQuery(outputs={model: b"%d" % label for model, label in zip(MODELS, given[0])})
        taught = {**tally(MODELS, by_model), **policy.observe(choice, by_model, ledger.totals(), judged)}
        ledger.add(ledger.entries(taught))
        ledger.drop_stale()
        panel.learn(losses, given)


def test_votes_are_counted_as_by_the_server() -> None:
    chance = np.random.default_rng(1)
    for weights in (chance.random((200, 4)), np.full((200, 4), 0.25)):
        given = chance.integers(0, 3, (200, 4))
        found = vote(weights, given)
        for row, label in enumerate(found):
            outputs = {model: b"%d" % output for model, output in zip(MODELS, given[row])}
            assert vote_of_outputs(MODELS, weights[row].tolist(), outputs).output == b"%d" % label


def test_answers_err_as_often_as_they_are_to_and_together() -> None:
    means = np.tile([0.1, 0.3], (100_000, 1))
    given = answers(means, np.random.default_rng(2))
    wrong = given != RIGHT
    assert wrong.mean(axis=0) == pytest.approx([0.1, 0.3], abs=0.01)
    # Where both meet the common chance, the better errs only where the worse does.
    both = COMMON_CHANCE**2 * 0.1 + (1 - COMMON_CHANCE**2) * 0.03
    assert wrong.all(axis=1).mean() == pytest.approx(both, abs=0.005)
    same = (given[:, 0] == given[:, 1])[wrong.all(axis=1)]
    assert same.mean() == pytest.approx(0.64, abs=0.02)


def test_a_small_part_of_it_again() -> None:
    """Two models that change places: who forgets, or lets none fall far behind, loses little."""
    setting = setting_of("exp4")

    def regret(make: panels.PanelMaker, half_life: float) -> float:
        played = play_panel(make, [{**setting, "half_life": half_life}], 2, 2, ("swapped",))
        return float(played.mean())

    never = regret(panels.Hedge, 1e9)
    assert 0 <= regret(panels.Exp4, setting["half_life"]) < 0.05 * never
    assert 0 <= regret(panels.Exp4, 1e9) < 0.05 * never
