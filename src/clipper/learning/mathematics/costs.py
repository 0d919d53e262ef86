"""Costs of asking models, weighed against errors.

A policy minimises ``loss + weight * cost``. It learns from numbers in [0, 1], so both are divided by the largest
possible sum for one model, which changes no order:

    priced loss = (loss + weight * cost) / (1 + weight * largest cost)
"""

from collections.abc import Mapping
from types import MappingProxyType

_NONE: Mapping[str, float] = MappingProxyType({})


class Costs:
    """The costs of an application's models.

    Args:
        by_model: costs of at least 0, in the user's unit: money, or milliseconds of a processor. Other models cost
            nothing.
        weight: the loss that a cost of 1 is worth, at least 0.
    """

    __slots__ = ("_scale", "by_model", "weight")

    def __init__(self, by_model: Mapping[str, float] = _NONE, weight: float = 0.0) -> None:
        self.by_model = by_model
        self.weight = weight
        self._scale = 1.0 + weight * max(by_model.values(), default=0.0)

    def of(self, model: str) -> float:
        return self.by_model.get(model, 0.0)

    def price(self, model: str) -> float:
        """Return the part of a priced loss that is the model's cost."""
        return self.weight * self.of(model) / self._scale

    def priced(self, model: str, loss: float) -> float:
        """Return a loss in [0, 1] with the asked model's cost, in [0, 1] again: rounding keeps the order of sums."""
        return (loss + self.weight * self.of(model)) / self._scale

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Costs) and (self.by_model, self.weight) == (other.by_model, other.weight)

    __hash__ = None  # type: ignore[assignment]  # compared, never a key


NO_COSTS = Costs()
