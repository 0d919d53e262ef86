"""``stacking``: all models answer, with weights that are fitted to the correlations of their errors."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from clipper.learning.mathematics.json_values import Array, parse_array, value_key
from clipper.learning.mathematics.parameters import check_choice, check_number
from clipper.learning.mathematics.probabilities import read_claim
from clipper.learning.policies.combine import DEFAULT_TOLERANCE, Combined, Combiner, make_combiner
from clipper.learning.policies.joint import Joint
from clipper.learning.policies.policy import Choice, Increments, JudgedQuery, QueryView, Totals

Floats = NDArray[np.float64]

ANSWERS = ("vote", "mean")
# With more models, pairs are counted among the first 16 only: there an observation adds up to 750 numbers.
MAX_PAIRED = 16
# The square of a larger number would come near the bound of a sum.
_LARGEST = 1e7
# An error counts as at most this many root mean squares of all earlier ones. Otherwise one wild output, a million times
# as far off as others, would cost a model its weight for forty half-lives.
_OUTLYING = 10.0
# The longest name of a number; a link's name with its version may be longer.
_MAX_NAME = 64
# The share of a mean square that makes equal models weigh alike; it is far below the difference of unequal models.
_LEAST_DIFFERENCE = 1e-6
# Far above the rounding errors of a solution.
_ROUNDING = 1e-9
# The most solutions, for sets of models that are late together, that are kept until the next feedback.
_MAX_KEPT = 64


class _Solved(msgspec.Struct, frozen=True, gc=False):
    """A solution: each model's share in the answer, and its bias, by which its numbers are too large."""

    shares: tuple[float, ...]
    biases: Mapping[str, float]


class _Sums(msgspec.Struct, frozen=True, gc=False):
    """Sums over some models' errors: counts and products, both of shape (n, n), and plain sums, (n,)."""

    counts: Floats
    products: Floats
    errors: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Stacking(Joint):
    """Asks all models, and answers with the weights that would have given the least squared error.

        w = argmin  w' A w   where  w_i >= 0,  sum w_i = 1;    A_ij = (sum e_i e_j + prior * T_ij) / (n_ij + prior)

    Stacked regressions (Wolpert, "Stacked Generalization", 1992; Breiman, "Stacked Regressions", 1996, who found that
    negative weights harm, and that a sum of 1 does not). e_i is the error of model i. Since the weights add up to 1,
    the answer's error is ``sum w_i e_i``, so only the products of errors are needed: a sum for each pair of models.

    - In a ``mean``, e_i is the output minus the label, less the model's mean error, the intercept, which also corrects
      its outputs. For vectors it is by element, without an intercept, and ``e_i e_j`` is the mean over elements. An
      error counts as at most ten root mean squares of all models' errors, and at most 1e7. For probabilities by label,
      where the actual label is one of these, the error is the probabilities minus 1 at that label.
    - In a ``vote``, an output is 1 at its label, and e_i is that minus 1 at the right label, times the loss l_i. So
      ``e_i e_j``, of which half is counted, is ``2 l_i l_j`` if both gave the same wrong label, and ``l_i l_j`` if they
      gave two. That is the regression of all labels' indicators at once.

    So models that err together share the weight of one, and a model that errs where the others do not gets more than
    its accuracy alone would earn. ``T`` has the mean square of all models on its diagonal, and the mean product beside
    it; it draws w towards 1 / n like a ridge, and a model without any evidence counts as an average one.

    Each of two models keeps the products with the other, and the one with fewer of them is read. So a new version
    leaves behind what its predecessor had in common with others, except for what it inherits.

    The weight in the answer is w_i times the share of queries that the model was in time for. If models are missing, a
    vote uses the weights of the others; a mean solves for the others alone.

    Args:
        answer: ``vote`` or ``mean``. A mean learns only from labels, since a reward does not tell the right number.
        prior: number of observations that the initial equal weights count as; above 0, at most 1,000.
        tolerance: for ``mean``: how near an output must be to the answer to agree with it; at least 0.
    """

    default_half_life = 100

    answer: str = "vote"
    prior: float = 5.0
    tolerance: float = DEFAULT_TOLERANCE
    _combiner: Combiner = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("answer", self.answer, ANSWERS)
        check_number("prior", self.prior, 0, 1000, above=True)
        object.__setattr__(self, "_combiner", make_combiner(self.answer, self.tolerance))

    def shares(self, models: tuple[str, ...], totals: Totals) -> tuple[float, ...]:
        return self._solved(models, totals).shares

    def combine(self, choice: Choice, outputs: Mapping[str, bytes], totals: Totals, query: QueryView) -> Combined:
        if self.answer == "vote":
            return self._combiner(choice.models, choice.shares, outputs)
        present = tuple(model for model in choice.models if model in outputs)
        solved = self._solved(present, totals)
        shares = choice.shares
        if len(present) < len(choice.models):
            # The models share their joint weight, so that the confidence still counts missing outputs.
            whole = sum(share for model, share in zip(choice.models, shares) if model in outputs)
            anew = {model: max(whole, _ROUNDING) * share for model, share in zip(present, solved.shares)}
            shares = tuple(anew.get(model, share) for model, share in zip(choice.models, shares))
        corrected = {model: _without_bias(outputs[model], solved.biases.get(model, 0.0)) for model in present}
        return self._combiner(choice.models, shares, corrected)

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        """Return each pair's product of errors, and its count; for a mean, also each model's error."""
        paired = [model for model in dict.fromkeys((*choice.models, *losses)) if model in losses][:MAX_PAIRED]
        increments: dict[tuple[str, str], float] = {}
        if self.answer == "mean":
            errors = _errors(paired, query, _largest_error(paired, totals))
            increments.update(
                ((model, _name("mean", "error")), float(each)) for model, each in errors.items() if not each.ndim
            )
            products = _products_of_numbers(errors)
        else:
            products = _products_of_votes({model: losses[model] for model in paired}, query.outputs)
        for first, second, product in products:
            for model, other in {(first, second), (second, first)}:
                increments[model, _name(self.answer, "count", model, other)] = 1.0
                if product:
                    increments[model, _name(self.answer, "product", model, other)] = product
        return increments

    def observe_reward(
        self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery
    ) -> Increments:
        return {} if self.answer == "mean" else Joint.observe_reward(self, choice, losses, totals, query)

    def _solved(self, models: tuple[str, ...], totals: Totals) -> _Solved:
        key = self, "solved", models
        solved: _Solved | None = totals.memo.get(key)
        if solved is None:
            sums = _sums(self.answer, models, totals)
            # Add one error of 0. The prior applies to weights only, or no bias would be fully corrected.
            biases = sums.errors / (sums.counts.diagonal() + 1.0)
            weights = _least_square(self._mean_products(sums, biases))
            heard = [float(weight) * totals.in_time(model) for model, weight in zip(models, weights)]
            total = sum(heard)
            solved = _Solved(tuple(weight / total for weight in heard), dict(zip(models, biases.tolist())))
            if len(totals.memo) < _MAX_KEPT:
                totals.memo[key] = solved
        return solved

    def _mean_products(self, sums: _Sums, biases: Floats) -> Floats:
        """Return A over the models' mean square; shape (n, n)."""
        counts, own = sums.counts, np.eye(len(biases), dtype=bool)
        means = sums.errors / np.maximum(counts.diagonal(), _ROUNDING)
        crossed = np.outer(biases, means)
        products = sums.products - counts * (crossed + crossed.T - np.outer(biases, biases))
        square = products[own].sum() / max(counts[own].sum(), _ROUNDING)
        if not square > 0:
            return np.asarray(own, np.float64)
        product = products[~own].sum() / max(counts[~own].sum(), _ROUNDING)
        usual = np.where(own, square, min(max(product, 0.0), square))
        return np.asarray((products + self.prior * usual) / (counts + self.prior) / square, np.float64)


def _largest_error(models: Sequence[str], totals: Totals) -> float:
    """Return the bound of an error, from the errors before."""
    count = sum(totals.number(model, _name("mean", "count")) for model in models)
    square = sum(totals.number(model, _name("mean", "product")) for model in models)
    return min(_OUTLYING * math.sqrt(square / count), _LARGEST) if count > 0 and square > 0 else _LARGEST


def _errors(models: Sequence[str], query: JudgedQuery, largest: float) -> dict[str, Floats]:
    """Return the known errors by model, of shape () or (n,). Errors of probabilities have a bound of their own."""
    label = None if query.label is None else parse_array(query.label)
    errors: dict[str, Floats] = {}
    for model in models:
        output = query.outputs.get(model)
        array = None if output is None or label is None else parse_array(output)
        if output is None or label is None or array is None:
            continue
        if array.shape == label.shape:
            with np.errstate(over="ignore"):
                error = np.clip(np.subtract(array.numbers, label.numbers), -largest, largest)
            errors[model] = error.reshape(array.shape)
        elif not label.shape and _is_place(label.numbers[0], array) and read_claim(output) is not None:
            errors[model] = np.array(array.numbers)
            errors[model][int(label.numbers[0])] -= 1.0
    return errors


def _is_place(number: float, array: Array) -> bool:
    return len(array.shape) == 1 and number.is_integer() and 0 <= number < array.shape[0]


def _products_of_numbers(errors: Mapping[str, Floats]) -> Iterator[tuple[str, str, float]]:
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for model, error in errors.items():
        by_shape.setdefault(error.shape, []).append(model)
    for models in by_shape.values():
        rows = np.array([errors[model] for model in models]).reshape(len(models), -1)
        products = (rows @ rows.T / rows.shape[1]).tolist()
        for number, first in enumerate(models):
            for second, product in zip(models[number:], products[number][number:]):
                yield first, second, product


def _products_of_votes(losses: Mapping[str, float], outputs: Mapping[str, bytes]) -> Iterator[tuple[str, str, float]]:
    models = list(losses)
    # A model without an output errs unlike any other, so it need not be compared.
    keys = {model: value_key(outputs[model]) if model in outputs else object() for model in models if losses[model] > 0}
    for number, first in enumerate(models):
        for second in models[number:]:
            both = losses[first] * losses[second]
            yield first, second, both if both > 0 and keys[first] == keys[second] else both / 2


def _sums(answer: str, models: tuple[str, ...], totals: Totals) -> _Sums:
    paired = models[:MAX_PAIRED]
    counts, products = (
        np.array([totals.number(model, name) for model, name in _pairs(answer, kind, paired)]).reshape(len(paired), -1)
        for kind in ("count", "product")
    )
    # Rounding may leave two equal sums slightly apart.
    fewer = counts < counts.T - _ROUNDING
    alike = ~(fewer | fewer.T)
    chosen = np.where(alike, (products + products.T) / 2, np.where(fewer, products, products.T))
    errors = np.array([totals.number(model, _name(answer, "error")) for model in paired])
    others = len(models) - len(paired)
    return _Sums(
        np.pad(np.minimum(counts, counts.T), (0, others)), np.pad(chosen, (0, others)), np.pad(errors, (0, others))
    )


@lru_cache(maxsize=256)  # the cache is enough for a hundred applications
def _pairs(answer: str, kind: str, models: tuple[str, ...]) -> Sequence[tuple[str, str]]:
    return [(model, _name(answer, kind, model, other)) for model in models for other in models]


@lru_cache(maxsize=16384)  # the cache is enough for 30 applications with 16 models, which have 512 names each
def _name(answer: str, kind: str, model: str = "", other: str = "") -> str:
    """Return the name of a sum: it contains the other model's name, but not the model's own, which may change."""
    if model == other:
        return f"{answer}.{kind}"
    if len(other) > _MAX_NAME:
        other = hashlib.sha256(other.encode()).hexdigest()[:32]
    return f"{answer}.{kind}.{other}"


def _least_square(matrix: Floats) -> Floats:
    """Return w of shape (n,), at least 0 and adding up to 1, with the least ``w' matrix w``.

    It is z over its sum, where z >= 0 has the least ``z' matrix z / 2 - sum z``. It is found by the active sets of
    Lawson and Hanson, "Solving Least Squares Problems" (1974), chapter 23, starting with the set that is left when
    everything below 0 has been dropped.
    """
    size = len(matrix)
    # If models were not always asked together, or for old versions, the sums need not be those of any errors.
    lowest = float(np.linalg.eigvalsh(matrix)[0])
    matrix = matrix + (max(-lowest, 0.0) + _LEAST_DIFFERENCE) * np.eye(size)
    free = np.ones(size, dtype=bool)
    while (z := _free_minimum(matrix, free)).min() < 0:
        free &= z > 0
    # It takes some rounds; only rounding errors cause more.
    for _ in range(3 * size):
        slope = np.where(free, 0.0, 1.0 - matrix @ z)
        if slope.max() <= _ROUNDING:
            break
        free[int(slope.argmax())] = True
        while (found := _free_minimum(matrix, free)).min() < 0:
            below = found < 0
            z = z + (z[below] / (z[below] - found[below])).min() * (found - z)
            free &= z > _ROUNDING * z.max()
            z = np.where(free, z, 0.0)
        z = found
    return np.asarray(z / z.sum(), np.float64)


def _free_minimum(matrix: Floats, free: NDArray[np.bool_]) -> Floats:
    z = np.zeros(len(matrix))
    z[free] = np.linalg.solve(matrix[np.ix_(free, free)], np.ones(int(free.sum())))
    return z


def _without_bias(output: bytes, bias: float) -> bytes:
    array = parse_array(output) if bias else None
    if array is None or array.shape:
        return output
    return Array((), (array.numbers[0] - bias,)).encode()
