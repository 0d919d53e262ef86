"""Losses: each on [0, 1], whatever comes."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import InvalidArgument, PolicyFailed
from clipper.learning.mathematics.losses import Absolute, Log, Loss, Squared, UserLoss, ZeroOne, loss_of_reward

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("loss", "output", "label", "expected"),
    [
        (ZeroOne(), b"3", b"3.0", 0.0),
        (ZeroOne(), b"3", b"4", 1.0),
        (ZeroOne(), b'"cat"', b'"cat"', 0.0),
        (Absolute(), b"0.25", b"1", 0.75),
        (Absolute(range=10), b"2", b"7", 0.5),
        (Absolute(range=10), b"2", b"700", 1.0),
        (Absolute(), b"[0, 0.5]", b"[0, 0]", 0.25),
        (Absolute(), b'"cat"', b"1", 1.0),
        (Absolute(), b"[1]", b"1", 1.0),
        (Squared(), b"0.5", b"1", 0.25),
        (Squared(range=10), b"2", b"7", 0.25),
        (Squared(range=10), b"2", b"-700", 1.0),
        (Squared(), b"[[0.5, 0]]", b"[[0, 0]]", 0.125),
        (Log(floor=0.01), b"0.1", b"1", 0.5),
        (Log(floor=0.01), b"0.9", b"0", 0.5),
        (Log(floor=0.01), b"0.9", b"false", 0.5),
        (Log(), b"1", b"true", 0.0),
        (Log(), b"0", b"1", 1.0),
        (Log(floor=0.01), b"[0.8, 0.1, 0.1]", b"2", 0.5),
        (Log(floor=0.01), b"[0.8, 0.1, 0.1]", b"2.0", 0.5),
        (Log(floor=0.01), b"[0.1, 0.9]", b"0", 0.5),
        (Log(), b"[0.8, 0.2]", b"2", 1.0),
        (Log(), b"[0.8, 0.2]", b"-1", 1.0),
        (Log(floor=0.01), b'{"cat": 0.1, "dog": 0.9}', b'"cat"', 0.5),
        (Log(), b'{"dog": 0.9}', b'"cat"', 1.0),
        (Log(), b"0.5", b"2", 1.0),
        (Log(), b"1.5", b"1", 0.0),
        (Log(), b'"cat"', b"1", 1.0),
    ],
)
def test_what_an_output_loses(loss: Loss, output: bytes, label: bytes, expected: float) -> None:
    assert loss(output, label) == pytest.approx(expected)


@given(finite, finite, st.sampled_from([Absolute(), Absolute(1e-300), Squared(), Squared(1e300), Log(), ZeroOne()]))
def test_losses_are_within_bounds_for_any_number(output: float, label: float, loss: Loss) -> None:
    label = float(round(label)) if isinstance(loss, Log) else label
    assert 0.0 <= loss(json.dumps(output).encode(), json.dumps(label).encode()) <= 1.0


@pytest.mark.parametrize(
    ("loss", "label"),
    [(Absolute(), b'"cat"'), (Squared(), b"[1, [2]]"), (Log(), b"0.5"), (Log(), b"null"), (Log(), b"[1]")],
)
def test_a_label_that_cannot_be_compared_with_is_the_callers_fault(loss: Loss, label: bytes) -> None:
    with pytest.raises(InvalidArgument, match=f"label is {re.escape(label.decode())}: expected"):
        loss(b"1", label)


def test_a_reward_is_a_loss_the_other_way_round() -> None:
    assert [loss_of_reward(reward) for reward in (0, 0.25, 1)] == [1.0, 0.75, 0.0]


@pytest.mark.parametrize("reward", [-0.1, 1.1, math.nan, math.inf, True, "1", None, 10**400])
def test_a_reward_is_a_number_in_range(reward: object) -> None:
    with pytest.raises(InvalidArgument, match=r"reward is .*: expected a number at least 0 and at most 1"):
        loss_of_reward(reward)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Absolute(range=0), "range is 0: expected a number above 0"),
        (lambda: Squared(range=-1), "range is -1: expected a number above 0"),
        (lambda: Log(floor=0.6), "floor is 0.6: expected a number above 0 and at most 0.5"),
    ],
)
def test_parameters_are_checked(make, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make()


def test_a_users_loss_gets_values() -> None:
    loss = UserLoss(lambda output, label: abs(output["score"] - label) / 10, "mine:loss")
    assert loss(b'{"score": 7}', b"2") == 0.5


@pytest.mark.parametrize("result", [-0.1, 2, math.nan, None, "0"])
def test_a_users_loss_that_returns_nonsense_is_told(result: object) -> None:
    with pytest.raises(PolicyFailed, match=r"the result of loss mine:loss is .*: expected a number"):
        UserLoss(lambda output, label: result, "mine:loss")(b"1", b"1")  # type: ignore[arg-type, return-value]


def test_a_users_loss_that_raises_is_told() -> None:
    with pytest.raises(PolicyFailed, match="loss mine:loss raised KeyError: 'score'"):
        UserLoss(lambda output, label: output["score"], "mine:loss")(b"{}", b"1")
