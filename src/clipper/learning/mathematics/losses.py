"""Losses: how wrong an output is, as a number in [0, 1], given the true label.

Every policy learns from losses on one scale, so a loss with another scale is divided by its range and clipped. A
``reward`` in [0, 1] may replace the label.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clipper.errors import InvalidArgument, PolicyFailed
from clipper.learning.mathematics.json_values import decode, is_same, parse_array
from clipper.learning.mathematics.parameters import check_number
from clipper.learning.mathematics.probabilities import read_claim

# Returns the loss of an output in [0, 1], given its label; both are JSON. It raises InvalidArgument for an unfit label,
# and so does making a loss with a parameter outside of its range.
Loss = Callable[[bytes, bytes], float]


@dataclass(frozen=True, slots=True)
class ZeroOne:
    """The loss 0 if the output equals the label as a JSON value, or decides for it (see ``probabilities``); else 1."""

    def __call__(self, output: bytes, label: bytes) -> float:
        if is_same(output, label):
            return 0.0
        claim = read_claim(output)
        return 0.0 if claim is not None and claim.is_right(label) else 1.0


@dataclass(frozen=True, slots=True)
class Absolute:
    """The loss ``|output - label| / range``, at most 1; for vectors the mean over their elements.

    An output of another form than the label's has the loss 1. ``range``: the difference from which on the loss is 1;
    above 0.
    """

    range: float = 1.0

    def __post_init__(self) -> None:
        check_number("range", self.range, 0, above=True)

    def __call__(self, output: bytes, label: bytes) -> float:
        return _mean_loss(output, label, lambda difference: min(difference / self.range, 1.0))


@dataclass(frozen=True, slots=True)
class Squared(Absolute):
    """The loss ``((output - label) / range) ** 2``, at most 1; otherwise like ``absolute``."""

    def __call__(self, output: bytes, label: bytes) -> float:
        return _mean_loss(output, label, lambda difference: min(difference / self.range, 1.0) ** 2)


@dataclass(frozen=True, slots=True)
class Log:
    """The loss ``-ln(p) / -ln(floor)``, at most 1, where p is the probability that the output gives to the label.

    An output is a number, the probability of label 1 or ``true``; or a list, by label from 0 on; or an object, by
    label. An output that gives the label no probability has the loss 1. ``floor``: the probability at and below which
    the loss is 1; above 0, at most 0.5.
    """

    floor: float = 0.001

    def __post_init__(self) -> None:
        check_number("floor", self.floor, 0, 0.5, above=True)

    def __call__(self, output: bytes, label: bytes) -> float:
        probability = _probability(decode(output), _class_label(label))
        if not probability >= self.floor:  # also where it is not a number
            return 1.0
        return math.log(min(probability, 1.0)) / math.log(self.floor)


@dataclass(frozen=True, slots=True)
class UserLoss:
    """A user's own function of output and label in Python. Raises PolicyFailed for all but a number in [0, 1]."""

    function: Callable[[Any, Any], float] = field(repr=False)
    name: str

    def __call__(self, output: bytes, label: bytes) -> float:
        try:
            loss = self.function(decode(output), decode(label))
        except (Exception, SystemExit) as error:  # the user's code may raise anything, which the user is shown
            raise PolicyFailed(f"loss {self.name} raised {type(error).__name__}: {error}") from error
        try:
            check_number(f"the result of loss {self.name}", loss, 0, 1)
        except InvalidArgument as error:
            raise PolicyFailed(str(error)) from error
        return float(loss)


LOSSES: Mapping[str, Callable[..., Loss]] = {
    "zero_one": ZeroOne,
    "absolute": Absolute,
    "squared": Squared,
    "log": Log,
}


def loss_of_reward(reward: object) -> float:
    """Return ``1 - reward``. Raises InvalidArgument if ``reward`` is not a number in [0, 1]."""
    check_number("reward", reward, 0, 1)
    return 1.0 - float(reward)  # type: ignore[arg-type]  # checked just now


def _mean_loss(output: bytes, label: bytes, loss: Callable[[float], float]) -> float:
    true = parse_array(label)
    if true is None:
        raise InvalidArgument(f"label is {_shown(label)}: expected a number, or lists of numbers of one length")
    made = parse_array(output)
    if made is None or made.shape != true.shape:
        return 1.0
    if not true.shape:
        return loss(abs(made.numbers[0] - true.numbers[0]))
    return math.fsum(loss(abs(a - b)) for a, b in zip(made.numbers, true.numbers)) / len(true.numbers)


def _class_label(text: bytes) -> str | int:
    label = decode(text)
    if isinstance(label, float) and label.is_integer():
        return int(label)
    if isinstance(label, (str, int)):  # a bool is an int
        return label
    raise InvalidArgument(f"label is {_shown(text)}: expected a whole number, true, false or a string")


def _probability(output: Any, label: str | int) -> float:
    """Return the probability of the label; NaN if the output states none."""
    found: Any = None
    if isinstance(output, dict):
        found = output.get(str(label))
    elif isinstance(output, list) and isinstance(label, int):
        found = output[label] if 0 <= label < len(output) else None
    elif label in (0, 1) and _is_number(output):
        found = output if label == 1 else 1.0 - output
    return float(found) if _is_number(found) else math.nan


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(text: bytes) -> str:
    return text[:80].decode(errors="replace")
