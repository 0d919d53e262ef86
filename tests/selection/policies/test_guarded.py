"""A user's policy that raises or returns nonsense is one error with its name; one that keeps to the port passes."""

import math
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from clipper.errors import PolicyFailed
from clipper.selection.learning.totals import Totals
from clipper.selection.policies import Choice, Combined, Policy
from clipper.selection.policies.guarded import Guarded

MODELS = ("a", "b")
CHOICE = Choice(MODELS, (0.5, 0.5))


class Says(Policy):
    """Returns, or raises, the same from every method."""

    feedback = "all"

    def __init__(self, said: Any) -> None:
        self.said = said

    def _say(self) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def select(self, models: tuple[str, ...], totals: Totals, context: str | None, random: Random) -> Choice:
        return self._say()

    def combine(self, choice: Choice, outputs: Mapping[str, bytes], totals: Totals) -> Combined:
        return self._say()

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals) -> Mapping[tuple[str, str], float]:
        return self._say()


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no")


def call(method: str, said: object) -> object:
    policy = Guarded(Says(said), "mine:Says")
    if method == "select":
        return policy.select(MODELS, Totals(), None, Random(0))
    if method == "combine":
        return policy.combine(CHOICE, {"a": b"1", "b": b"not json"}, Totals())
    return policy.observe(CHOICE, {"a": 0.0}, Totals())


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("select", CHOICE),
        ("select", Choice(("b",), (1,))),
        ("combine", Combined(b"1", 0.5)),
        ("combine", Combined(b'{"new": 2}', 0)),
        ("combine", Combined(b"not json", 1.0)),  # a model's own output was checked where it came in
        ("observe", {}),
        ("observe", {("a", "wins"): 1, ("", "rounds"): -2.5}),
    ],
)
def test_what_keeps_to_the_port_passes(method: str, said: object) -> None:
    assert call(method, said) == said


@pytest.mark.parametrize("method", ["select", "combine", "observe"])
def test_what_it_raises_names_it(method: str) -> None:
    with pytest.raises(PolicyFailed, match=f"policy mine:Says: {method} raised KeyError: 'x'"):
        call(method, KeyError("x"))


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("select", None),
        ("select", ("a",)),
        ("select", Choice((), ())),
        ("select", Choice(("c",), (1.0,))),
        ("select", Choice(("a", "a"), (0.5, 0.5))),
        ("select", Choice(("a", "c"), (0.5, 0.5))),
        ("select", Choice(("a",), (0.5, 0.5))),
        ("select", Choice("a", (1.0,))),  # type: ignore[arg-type]
        ("select", Choice(("a",), (1.5,))),
        ("select", Choice(("a",), (math.nan,))),
        ("select", Choice(("a",), (True,))),
        ("select", Unprintable()),
        ("combine", None),
        ("combine", b"1"),
        ("combine", Combined(b"neither", 0.5)),
        ("combine", Combined("1", 0.5)),  # type: ignore[arg-type]
        ("combine", Combined(b"1", 1.1)),
        ("combine", Combined(b"1", None)),  # type: ignore[arg-type]
        ("observe", None),
        ("observe", {"a": 1.0}),
        ("observe", {("a", "wins"): math.inf}),
        ("observe", {("a", "wins"): math.nan}),
        ("observe", {("a", "wins"): "1"}),
        ("observe", {("a/b", "wins"): 1.0}),
        ("observe", {("a", "wins", "more"): 1.0}),
        ("observe", {("a", "loss"): 1.0}),
    ],
)
def test_nonsense_is_told(method: str, said: object) -> None:
    with pytest.raises(PolicyFailed, match=f"policy mine:Says: {method} returned .*: expected a "):
        call(method, said)


def test_feedback_is_the_policys() -> None:
    assert Guarded(Says(None), "mine:Says").feedback == "all"
