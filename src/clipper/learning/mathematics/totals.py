"""A policy's view of a state: the present numbers by model and name."""

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.learning.mathematics.confidence_sequences import Evidence
from clipper.learning.mathematics.costs import NO_COSTS, Costs
from clipper.learning.mathematics.parameters import check_number

# The key of a number: its model, "" for numbers of the application as a whole, and its name. The compiled form would
# make a new tuple of a ``tuple[str, str]`` for each dictionary that it puts it into; of this type it does not.
Key = tuple[str, ...]
Numbers = dict[Key, float]

# A sum of arrays, and the share of it that counts now.
Part = tuple[NDArray[np.float64], float]
# By model, name and size.
ArrayParts = Mapping[tuple[str, str, int], Sequence[Part]]

# Names of the numbers that are counted for every policy.
OBSERVATIONS = "observations"
PULLS = "pulls"
SCORED = "scored"
LOSS = "loss"
# How often a model that was asked did not answer by the deadline.
MISSED = "missed"
# If costs count, ``loss`` includes them; these are the numbers without costs, for display.
PLAIN_SCORED = "plain_scored"
PLAIN_LOSS = "plain_loss"
# The beginning of the names of numbers for calibration: see ``calibration``. Only the application's state has them.
CALIBRATION = "confidence."
# Numbers that never fade: how often a model was scored, its losses, and the sum of ``loss * (1 - loss)``. Comparisons
# of models rest on them: see ``confidence_sequences``.
EVER_SCORED = "scored~never"
EVER_LOSS = "loss~never"
EVER_SPREAD = "spread~never"
# The part of these numbers that comes from queries whose own data chose their models. Means of such losses do not
# compare models; ``weighing`` keeps sums that do, under names that begin with this.
PICKED_SCORED = "picked_scored~never"
PICKED_LOSS = "picked_loss~never"
PICKED_SPREAD = "picked_spread~never"
WEIGHED = "weighed."
# Marks a state that has separated these numbers since its first piece of feedback.
TELLS_PICKED = "tells_picked~never"
_EVIDENCE = frozenset((EVER_SCORED, EVER_LOSS, EVER_SPREAD, PICKED_SCORED, PICKED_LOSS, PICKED_SPREAD, TELLS_PICKED))
# The beginnings of the names of numbers that only the application's state has.
_OF_APPLICATIONS = (CALIBRATION, WEIGHED)

DEFAULT_PRIOR_WEIGHT = 10.0

# With this much feedback of its own, a context uses the application's numbers at twice their weight; with less, more.
FEW = 8.0


class Arrays:
    """The arrays that an application has learned. Contexts have none: they would take 17 KB for each model.

    Attributes:
        parts: each array's sums, which are faded only when they are read.
        memo: like ``Totals.memo``, but it outlives these arrays: an entry names the parts that it was made from.
    """

    __slots__ = ("memo", "parts")

    def __init__(self, parts: ArrayParts | None = None, memo: dict[Any, Any] | None = None) -> None:
        self.parts = parts or {}
        self.memo: dict[Any, Any] = {} if memo is None else memo


class Totals:
    """The numbers of a state, in which older observations count for less. Immutable: feedback makes new ``Totals``.

    Attributes:
        own, application: for a context, its own numbers, and the application's that are mixed in; else None.
        prior_weight, prior_most: the final weight of the application's numbers, and the scores that they count as now.
        costs: the costs of asking the application's models.
        memo: results that a policy has computed from exactly these numbers, once for many queries. Each key contains
            the policy itself.
        arrays: the application's arrays, even if the numbers are a context's.
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
        """Take a state's numbers. ``of_versions`` are without the inherited part; None if that is the same."""
        self._numbers = numbers or {}
        self.arrays = arrays or Arrays()
        self._of_versions = self._numbers if of_versions is None else of_versions
        self.costs = costs
        self.own: Totals | None = None
        self.application: Totals | None = None
        self.prior_weight = self.prior_most = 0.0
        self._mean_loss: float | None = None
        self._to_mix: list[tuple[Key, float, float]] | None = None
        self.memo: dict[Any, Any] = {}

    def number(self, model: str, name: str) -> float:
        """Return a number; 0 if nothing was ever added."""
        return self._numbers.get((model, name), 0.0)

    def array(self, model: str, name: str, size: int) -> NDArray[np.float64]:
        """Return a new array of shape (size,); zeros if no array of that size was ever added."""
        total = np.zeros(size)
        for amounts, counts in self.array_parts(model, name, size):
            total += counts * amounts
        return total

    def array_parts(self, model: str, name: str, size: int) -> Sequence[Part]:
        """Return the parts of ``array``. A sum stays the same object until more is added, while its share fades."""
        return self.arrays.parts.get((model, name, size), ())

    def of_version(self, model: str, name: str) -> float:
        """Return a number that the model's version has learned itself, without the inherited part."""
        return self._of_versions.get((model, name), 0.0)

    def evidence(self, model: str) -> Evidence:
        """Return all losses ever scored of the version itself, unless what came with a query chose its models."""
        return Evidence(
            *(
                max(self.of_version(model, ever) - self.of_version(model, picked), 0.0)
                for ever, picked in (
                    (EVER_SCORED, PICKED_SCORED),
                    (EVER_LOSS, PICKED_LOSS),
                    (EVER_SPREAD, PICKED_SPREAD),
                )
            )
        )

    @property
    def numbers(self) -> Numbers:
        return self._numbers

    @property
    def observations(self) -> float:
        """The amount of feedback that these numbers represent: at most ``half_life / ln 2``."""
        return self.number("", OBSERVATIONS)

    def in_time(self, model: str) -> float:
        """Return the share of a model's queries answered by the deadline, one success added: 1 if unknown, never 0."""
        pulls = self.number(model, PULLS)
        answered = max(pulls - self.number(model, MISSED), 0.0)
        return (answered + 1.0) / (pulls + 1.0)

    @property
    def mean_loss(self) -> float:
        """Return the mean loss over all scored outputs of all models; 0 if there were none."""
        if self._mean_loss is None:
            losses, scored = [], []
            for (_, name), amount in self._numbers.items():
                if name == LOSS:
                    losses.append(amount)
                elif name == SCORED:
                    scored.append(amount)
            count = math.fsum(scored)
            self._mean_loss = math.fsum(losses) / count if count > 0 else 0.0
        return self._mean_loss

    @property
    def to_mix(self) -> list[tuple[Key, float, float]]:
        """Return the numbers that are mixed into a context's, each with its number of scores.

        Left out are the evidence, which each state keeps for itself, and numbers that only the application's state has.
        """
        if self._to_mix is None:
            self._to_mix = [
                (key, amount, self._counted(*key))
                for key, amount in self._numbers.items()
                if key[1] not in _EVIDENCE and not key[1].startswith(_OF_APPLICATIONS)
            ]
        return self._to_mix

    def with_prior(self, prior: "Totals", weight: float = DEFAULT_PRIOR_WEIGHT) -> "Totals":
        """Return a context's numbers with the application's mixed in.

        A context without feedback decides exactly like the application, by the same numbers. With n observations of its
        own, the application's knowledge of each model counts as at most ``weight * (1 + 8 / n)`` observations. A model
        that the application has rarely asked must not look even less known, or policies that explore would send a new
        user there first. For large n it counts as ``weight``, which the context's own feedback outweighs.

        Raises:
            InvalidArgument: ``weight`` is below 0.
        """
        check_number("prior_weight", weight, 0)
        if weight == 0 or not prior.numbers:
            return Totals(self._numbers, self._of_versions, self.costs, prior.arrays) if prior.arrays.parts else self
        if self.observations <= 0:
            return prior
        most = weight * (1 + FEW / self.observations)
        # A model counts as scored at most this often.
        mixed = {key: amount * (most / counted) if counted > most else amount for key, amount, counted in prior.to_mix}
        for key, amount in self._numbers.items():
            mixed[key] = mixed.get(key, 0.0) + amount
        totals = Totals(mixed, costs=self.costs, arrays=prior.arrays)
        totals.own, totals.application = self, prior
        totals.prior_weight, totals.prior_most = weight, most
        return totals

    def share_of(self, key: Key, most: float) -> float:
        """Return the factor that makes a model's number count as at most ``most`` scores; at most 1."""
        counted = self._counted(*key)
        return most / counted if counted > most else 1.0

    def _counted(self, model: str, name: str) -> float:
        """Return how often a model was scored; for a number with a half-life of its own, by the same half-life."""
        _, mark, half_life = name.partition("~")
        return self.number(model, f"{SCORED}{mark}{half_life}") or self.number(model, SCORED) or self.observations


# A value in a state, or an increment to it, by model and name: a number, or float64 of shape (n,).
Amount = float | NDArray[np.float64]
# The amounts that a policy adds, by model and name.
Increments = Mapping[tuple[str, str], Amount]
# The amounts that are added to a state, by key.
Keyed = Mapping[Key, Amount]

NONE_MISSED: Mapping[str, float] = MappingProxyType({})


def tally(
    selected: Collection[str],
    losses: Mapping[str, float],
    missed: Mapping[str, float] = NONE_MISSED,
    plain: Mapping[str, float] | None = None,
    *,
    is_picked: bool = False,
) -> dict[Key, float]:
    """Count one observation.

    Args:
        selected: the models that the query asked.
        losses: the losses, in [0, 1], of all models whose outputs were scored, also if they were asked only for the
            feedback or as shadows.
        missed: the weight, up to 1, with which each selected model counts as late.
        plain: the losses without costs, if ``losses`` include costs.
        is_picked: whether the models were picked by what came with the query, so that means do not compare them.

    Returns:
        ``scored`` and ``loss`` of each model in ``losses``, also without fading and without costs; ``pulls`` and
        ``missed`` of the selected models that are in ``losses`` or ``missed``; ``plain_scored`` and ``plain_loss`` of
        each model in ``plain``.
    """
    counts: dict[Key, float] = {}
    for model, loss in (plain or {}).items():
        counts[model, PLAIN_SCORED] = 1.0
        counts[model, PLAIN_LOSS] = loss
    for model, loss in losses.items():
        counts[model, SCORED] = counts[model, EVER_SCORED] = 1.0
        counts[model, LOSS] = loss
        # Models are compared by their losses, without costs.
        lost = loss if plain is None else plain[model]
        counts[model, EVER_LOSS] = lost
        if 0.0 < lost < 1.0:
            counts[model, EVER_SPREAD] = lost * (1.0 - lost)
        if is_picked:
            counts[model, PICKED_SCORED] = 1.0
            counts[model, PICKED_LOSS] = lost
            if 0.0 < lost < 1.0:
                counts[model, PICKED_SPREAD] = lost * (1.0 - lost)
        if model in selected:
            counts[model, PULLS] = 1.0
            if model in missed:
                counts[model, MISSED] = missed[model]
    for model in missed:
        if model in selected and model not in losses:
            counts[model, PULLS] = 1.0
            counts[model, MISSED] = missed[model]
    return counts
