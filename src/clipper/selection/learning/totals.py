"""What a policy reads of a state: one number by model and name, as of now."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.selection.learning.confidence_sequences import Evidence
from clipper.selection.learning.costs import NO_COSTS, Costs
from clipper.selection.learning.parameters import check_number

# By model and name. The model is "" where a number is of the application and not of one model.
Numbers = Mapping[tuple[str, str], float]

# A sum of arrays, and how much of it counts now.
Part = tuple[NDArray[np.float64], float]
# By model, name and size.
ArrayParts = Mapping[tuple[str, str, int], Sequence[Part]]

# Names of the numbers that are counted for every policy.
OBSERVATIONS = "observations"
PULLS = "pulls"
SCORED = "scored"
LOSS = "loss"
# Of the times that a model was asked, how often it did not answer by the deadline.
MISSED = "missed"
# Where costs weigh, ``loss`` is with them; the same without is beside it, for people to see.
PLAIN_SCORED = "plain_scored"
PLAIN_LOSS = "plain_loss"
# Names of the numbers by which confidences are calibrated begin so: see ``calibration``. Only the application has them.
CALIBRATION = "confidence."
# What never fades, by its name: how often a model was scored, its losses, and the sum of ``loss * (1 - loss)``. These
# are what a comparison of models may rest on: see ``confidence_sequences``.
EVER_SCORED = "scored~never"
EVER_LOSS = "loss~never"
EVER_SPREAD = "spread~never"
_EVIDENCE = frozenset((EVER_SCORED, EVER_LOSS, EVER_SPREAD))

DEFAULT_PRIOR_WEIGHT = 10.0

# With so much feedback of its own, a context has the application's at twice its weight; with less, at more.
FEW = 8.0


class Arrays:
    """The arrays that an application has learned. A context has none of its own: they take 17 KB a model.

    Attributes:
        parts: each array's sums, whose fading is put off until somebody reads them.
        memo: as ``Totals.memo``, but it outlives these arrays: what is kept there says of which parts it was made.
    """

    __slots__ = ("memo", "parts")

    def __init__(self, parts: ArrayParts | None = None, memo: dict[Any, Any] | None = None) -> None:
        self.parts = parts or {}
        self.memo: dict[Any, Any] = {} if memo is None else memo


class Totals:
    """One state's numbers, with what is old counted less. Never changed: after feedback there is another one.

    Attributes:
        own, application: where these are a context's, its numbers alone, and the application's that are mixed in; else
            None.
        prior_weight, prior_most: how much the latter count in the end, and for how many scores of a model now.
        costs: what asking each of the application's models costs.
        memo: where a policy keeps what it has worked out from exactly these numbers, so that it is not done for each
            query. The policy itself is a part of each key.
        arrays: the application's, also where these are a context's.
    """

    __slots__ = (
        "_mean_loss",
        "_numbers",
        "_of_versions",
        "_to_mix",
        "application",
        "arrays",
        "costs",
        "memo",
        "own",
        "prior_most",
        "prior_weight",
    )

    def __init__(
        self,
        numbers: Numbers | None = None,
        of_versions: Numbers | None = None,
        costs: Costs = NO_COSTS,
        arrays: Arrays | None = None,
    ) -> None:
        """``of_versions``: without what versions have of their predecessors; the same as ``numbers`` if None."""
        self._numbers = numbers or {}
        self.arrays = arrays or Arrays()
        self._of_versions = self._numbers if of_versions is None else of_versions
        self.costs = costs
        self.own: Totals | None = None
        self.application: Totals | None = None
        self.prior_weight = self.prior_most = 0.0
        self._mean_loss: float | None = None
        self._to_mix: list[tuple[tuple[str, str], float]] | None = None
        self.memo: dict[Any, Any] = {}

    def number(self, model: str, name: str) -> float:
        """0 where nothing was ever added."""
        return self._numbers.get((model, name), 0.0)

    def array(self, model: str, name: str, size: int) -> NDArray[np.float64]:
        """A new array of shape (size,); zeros where none of that size was ever added."""
        total = np.zeros(size)
        for amounts, counts in self.array_parts(model, name, size):
            total += counts * amounts
        return total

    def array_parts(self, model: str, name: str, size: int) -> Sequence[Part]:
        """What ``array`` adds up. A sum is the same object until something is added to it, while its share fades."""
        return self.arrays.parts.get((model, name, size), ())

    def of_version(self, model: str, name: str) -> float:
        """The same, of what the model's version has learned itself, without what its predecessors left it."""
        return self._of_versions.get((model, name), 0.0)

    def evidence(self, model: str) -> Evidence:
        """All losses of the model's version that ever were scored, and none of its predecessors'."""
        return Evidence(*(self.of_version(model, name) for name in (EVER_SCORED, EVER_LOSS, EVER_SPREAD)))

    @property
    def numbers(self) -> Numbers:
        return self._numbers

    @property
    def observations(self) -> float:
        """How much feedback these numbers stand for: at most ``half_life / ln 2``, however much there was."""
        return self.number("", OBSERVATIONS)

    def in_time(self, model: str) -> float:
        """The share of the times that a model was asked in which it answered by the deadline, as if of one more.

        So it is 1 for a model of which nothing is known, and never 0.
        """
        pulls = self.number(model, PULLS)
        answered = max(pulls - self.number(model, MISSED), 0.0)
        return (answered + 1.0) / (pulls + 1.0)

    @property
    def mean_loss(self) -> float:
        """Mean over all scored outputs, of whatever model; 0 if there was none."""
        if self._mean_loss is None:
            scored = self._sum(SCORED)
            self._mean_loss = self._sum(LOSS) / scored if scored > 0 else 0.0
        return self._mean_loss

    @property
    def to_mix(self) -> list[tuple[tuple[str, str], float]]:
        """The numbers that a context's are mixed with: all but the evidence, which is a state's own, and those of
        calibration, which are the application's."""
        if self._to_mix is None:
            self._to_mix = [item for item in self._numbers.items() if _is_mixed(item[0][1])]
        return self._to_mix

    def with_prior(self, prior: "Totals", weight: float = DEFAULT_PRIOR_WEIGHT) -> "Totals":
        """A context's numbers with the application's mixed in.

        A context without feedback decides exactly as the application does, by the same numbers. With n observations of
        its own, what the application knows of each model counts as if from at most ``weight * (1 + 8 / n)``: a model
        that the application has hardly asked is not made to look even less known, or policies that explore would send
        a new user there first. In the end it is ``weight``, and own feedback outweighs that as it comes.

        Raises:
            InvalidArgument: ``weight`` is below 0.
        """
        check_number("prior_weight", weight, 0)
        if weight == 0 or not prior.numbers:
            return Totals(self._numbers, self._of_versions, self.costs, prior.arrays) if prior.arrays.parts else self
        if self.observations <= 0:
            return prior
        most = weight * (1 + FEW / self.observations)
        mixed = {key: amount * prior.share_of(key, most) for key, amount in prior.to_mix}
        for key, amount in self._numbers.items():
            mixed[key] = mixed.get(key, 0.0) + amount
        totals = Totals(mixed, costs=self.costs, arrays=prior.arrays)
        totals.own, totals.application = self, prior
        totals.prior_weight, totals.prior_most = weight, most
        return totals

    def share_of(self, key: tuple[str, str], most: float) -> float:
        """By what a number is multiplied, for its model to count as if scored ``most`` times; 1 if that is more.

        A number that fades by a half-life of its own goes by the count that does.
        """
        model, name = key
        _, mark, half_life = name.partition("~")
        counted = self.number(model, f"{SCORED}{mark}{half_life}") or self.number(model, SCORED) or self.observations
        return most / counted if counted > most else 1.0

    def _sum(self, wanted: str) -> float:
        return math.fsum(amount for (_, name), amount in self._numbers.items() if name == wanted)


def _is_mixed(name: str) -> bool:
    return name not in _EVIDENCE and not name.startswith(CALIBRATION)
