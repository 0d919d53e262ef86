"""What asking a model costs, and how much of that weighs as much as an error.

A policy is to keep down ``loss + weight * cost``. What it learns from lies in [0, 1], so both are divided by the most
that a query of one model can come to, which changes no order:

    priced loss = (loss + weight * cost) / (1 + weight * largest cost)
"""

from collections.abc import Mapping
from types import MappingProxyType

_NONE: Mapping[str, float] = MappingProxyType({})


class Costs:
    """
    Args:
        by_model: at least 0 each, in a unit of the user's: money, milliseconds of a processor. A model that is not in
            it costs nothing.
        weight: how much loss a cost of 1 is worth, at least 0.
    """

    __slots__ = ("_scale", "by_model", "weight")

    def __init__(self, by_model: Mapping[str, float] = _NONE, weight: float = 0.0) -> None:
        self.by_model = by_model
        self.weight = weight
        self._scale = 1.0 + weight * max(by_model.values(), default=0.0)

    def of(self, model: str) -> float:
        return self.by_model.get(model, 0.0)

    def price(self, model: str) -> float:
        """The part of a priced loss that is the model's cost."""
        return self.weight * self.of(model) / self._scale

    def priced(self, model: str, loss: float) -> float:
        """A loss in [0, 1] with the cost of the model that was asked, in [0, 1] again."""
        # Rounding may leave the largest a little above.
        return min((loss + self.weight * self.of(model)) / self._scale, 1.0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Costs) and (self.by_model, self.weight) == (other.by_model, other.weight)

    __hash__ = None  # type: ignore[assignment]  # compared, never a key


NO_COSTS = Costs()
