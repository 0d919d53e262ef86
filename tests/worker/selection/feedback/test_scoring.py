import math
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from clipper.control.feedback import Feedback
from clipper.errors import InvalidArgument, PolicyFailed
from clipper.learning.mathematics.losses import UserLoss, ZeroOne
from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.by_name import make_policy
from clipper.learning.policies.policy import Choice, Increments, JudgedQuery, Policy, QueryView
from clipper.worker.selection.feedback.scoring import default_loss, lesson, score

CHOICE = Choice(("a",), (1.0,))
OUTPUTS = {"a": b"1", "b": b"2"}


class Returning(Policy):
    """Returns these increments."""

    def __init__(self, increments: Any) -> None:
        self.increments = increments

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        return CHOICE

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        return self.increments  # type: ignore[no-any-return]  # that is the point


def test_label_scores_every_output_and_reward_the_selected() -> None:
    assert score(Feedback("i", label=b"1"), ZeroOne(), CHOICE, OUTPUTS) == {"a": 0.0, "b": 1.0}
    assert score(Feedback("i", reward=0.25), ZeroOne(), CHOICE, OUTPUTS) == {"a": 0.75}


def test_a_reward_is_for_the_models_whose_output_was_the_answer() -> None:
    choice, outputs = Choice(("a", "b", "c", "d"), (0.25,) * 4), {"a": b"3", "b": b"3.0", "c": b"2", "shadow": b"3"}
    rewarded = Feedback("i", reward=0.75)
    # The reward that c would have earned is not known; d gave nothing.
    assert score(rewarded, ZeroOne(), choice, outputs, answer=b"3") == {"a": 0.25, "b": 0.25, "d": 1.0}
    # A mean that no model gave is those models' that agree with it.
    assert score(rewarded, ZeroOne(), choice, outputs, answer=b"2.95") == {"a": 0.25, "b": 0.25, "d": 1.0}
    assert score(rewarded, ZeroOne(), choice, outputs, answer=b'"x"') == {"d": 1.0}
    assert score(rewarded, ZeroOne(), CHOICE, {"a": b"7"}, answer=b"8") == {"a": 0.25}


@pytest.mark.parametrize("feedback", [Feedback("i", label=b"1"), Feedback("i", reward=1.0)])
def test_selected_model_that_gave_no_output_is_as_wrong_as_can_be(feedback: Feedback) -> None:
    assert score(feedback, ZeroOne(), Choice(("c",), (1.0,)), {"a": b"1"})["c"] == 1.0


def test_a_default_stands_in_for_an_output_if_it_can_be_scored() -> None:
    label, reward = Feedback("i", label=b"1"), Feedback("i", reward=0.25)
    assert [default_loss(label, ZeroOne(), default, was_answered=True) for default in (b"1", b"0", None)] == [0, 1, 1]
    assert default_loss(reward, ZeroOne(), b"1", was_answered=True) == 0.75
    # The reward is for an answer that other models gave.
    assert default_loss(reward, ZeroOne(), b"1", was_answered=False) == 1.0
    assert default_loss(label, UserLoss(lambda output, label: 1 / 0, "mine:loss"), b"{}", was_answered=True) == 1.0
    assert score(label, ZeroOne(), Choice(("c",), (1.0,)), {}, no_answer_loss=0.5) == {"c": 0.5}


def test_a_miss_is_counted_beside_the_loss() -> None:
    numbers = lesson(make_policy("single"), CHOICE, {"a": 0.0, "b": 1.0}, Totals(), JudgedQuery(), {"a": 1.0, "b": 1.0})
    assert numbers["a", "missed"] == 1.0 and ("b", "missed") not in numbers


@pytest.mark.parametrize("reward", [-0.1, 1.1, math.nan, math.inf])
def test_reward_outside_its_range_is_refused(reward: float) -> None:
    with pytest.raises(InvalidArgument, match="reward"):
        score(Feedback("i", reward=reward), ZeroOne(), CHOICE, OUTPUTS)


@pytest.mark.parametrize("loss", ["1 / 0", "'much'", "2", "float('nan')", "exit(1)"])
def test_a_users_loss_that_fails_is_named(loss: str) -> None:
    wrong = UserLoss(eval(f"lambda output, label: {loss}"), "mine:loss")
    with pytest.raises(PolicyFailed, match="mine:loss"):
        score(Feedback("i", label=b"1"), wrong, CHOICE, OUTPUTS)


@pytest.mark.parametrize(
    "increments",
    [
        None,
        5,
        {"a": 1.0},
        {("a", "x"): "much"},
        {("a", "x"): math.nan},
        {("a", "x"): math.inf},
        {("a", "x"): 1e300},
        {("a/b", "x"): 1.0},
        {("a", "x/y"): 1.0},
        {("a", "x\n"): 1.0},
        {("a", "\ud800"): 1.0},
        {("a", "x" * 201): 1.0},
    ],
)
def test_increments_that_would_spoil_the_state_are_refused(increments: object) -> None:
    with pytest.raises(PolicyFailed, match="observe"):
        lesson(Returning(increments), CHOICE, {"a": 1.0}, Totals(), JudgedQuery())


def test_the_longest_name_that_a_pinned_model_can_have_is_learned_of() -> None:
    name = f"{'m' * 63}:{'v' * 63}"
    learned = lesson(Returning({(name, "x"): 1.0}), Choice((name,), (1.0,)), {name: 1.0}, Totals(), JudgedQuery())
    assert learned[name, "x"] == 1.0


def test_a_policy_that_is_no_subclass_of_ours_learns_from_rewards_too() -> None:
    class Own:
        def observe(
            self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery
        ) -> Increments:
            return {(model, "x"): 1.0 for model in losses}

    learned = lesson(Own(), Choice(("a", "b"), (0.5, 0.5)), {"a": 0.0}, Totals(), JudgedQuery(), is_reward=True)  # type: ignore[arg-type]
    assert learned["a", "x"] == 1.0


def test_increments_are_added_to_what_is_counted_anyway() -> None:
    learned = lesson(
        Returning({("a", "x"): 2, ("a", "loss"): 1.0}), CHOICE, {"a": 0.5, "b": 1.0}, Totals(), JudgedQuery()
    )
    assert learned["a", "x"] == 2.0
    assert learned["a", "loss"] == 1.5
    assert learned["b", "scored"] == learned["a", "pulls"] == 1.0
    assert ("b", "pulls") not in learned
