"""Reads outputs with probabilities: the label that an output decides for, and the probability that it gives to it.

Only these forms count, and all probabilities are numbers from 0 to 1:

- A list of two or more probabilities that add up to 1, by label from 0 on, as ``predict_proba`` returns them.
- An object of two or more probabilities that add up to 1, by label: ``{"cat": 0.8, "dog": 0.2}``.
- An object with ``"label"`` and one of ``"probability"``, ``"confidence"`` and ``"score"``; or ``"probabilities"``, in
  one of the two forms above, of which the largest is the label's.

A label alone has no probability, and neither has a number: 1 may be a label.
"""

from typing import Any, Literal

import msgspec

from clipper.learning.mathematics.json_values import decode, is_same

# The labels of a thousand classes with all digits are 22 KiB; a longer text is not parsed for this on a query's path.
MAX_TEXT_BYTES = 32 * 1024
# Rounded or single-precision probabilities may miss a sum of 1 by this.
SUM_TOLERANCE = 0.01
# Rounding may push a probability above 1 by this.
_ROUNDING = 1e-6

_LABEL = "label"
OF_LABEL = ("probability", "confidence", "score")
OF_ALL = "probabilities"


class Claim(msgspec.Struct, frozen=True, gc=False):
    """The decision of an output.

    Attributes:
        label: an index in a list, a name in an object, or the value of ``"label"``.
        probability: in [0, 1].
        told_by: the form of the output.
    """

    label: Any
    probability: float
    told_by: Literal["place", "name", "value"]

    def is_right(self, label: bytes) -> bool:
        """Whether the output decides for ``label``, a JSON text. Labels are compared as the ``log`` loss does."""
        if self.told_by == "value":
            return is_same(msgspec.json.encode(self.label), label)
        value = decode(label)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if self.told_by == "name":
            return isinstance(value, (str, int)) and str(value) == self.label
        return isinstance(value, int) and value == self.label


def read_claim(output: bytes) -> Claim | None:
    """Return the decision and probability of an output, a JSON text; None if it states none, or is too long."""
    if output[:1] not in (b"[", b"{") or len(output) > MAX_TEXT_BYTES:
        return None
    value = decode(output)
    if isinstance(value, dict) and _LABEL in value:
        return _of_label(value)
    return _likeliest(value)


def _of_label(value: dict[str, Any]) -> Claim | None:
    for name in OF_LABEL:
        probability: Any = value.get(name)
        if _is_probability(probability):
            return Claim(value[_LABEL], min(float(probability), 1.0), "value")
    likeliest = _likeliest(value.get(OF_ALL))
    return None if likeliest is None else Claim(value[_LABEL], likeliest.probability, "value")


def _likeliest(value: object) -> Claim | None:
    """Return the likeliest label; the first of equally likely labels."""
    if isinstance(value, list):
        numbers: list[Any] = value
    elif isinstance(value, dict):
        numbers = list(value.values())
    else:
        return None
    if len(numbers) < 2 or not all(map(_is_probability, numbers)) or abs(sum(numbers) - 1.0) > SUM_TOLERANCE:
        return None
    largest = max(numbers)
    place = numbers.index(largest)
    probability = min(float(largest), 1.0)
    if isinstance(value, list):
        return Claim(place, probability, "place")
    return Claim(list(value)[place], probability, "name")


def _is_probability(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1 + _ROUNDING
