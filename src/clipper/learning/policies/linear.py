"""Learns each model's loss as a linear function of a query's features, for ``linucb`` and ``linear_thompson``.

For each model m the state holds one array over the queries that it was scored on: the upper triangle of ``S = sum x
x'``, and ``b = sum loss x``, where x begins with a 1. That is a separate ridge regression for each model (the disjoint
model of Li, Chu, Langford, Schapire: "A Contextual-Bandit Approach to Personalized News Article Recommendation", WWW
2010):

    A = S + R,   theta = prior + inv(A) (b - S prior),   loss of x: theta' x,   squared error of that: s^2 x' inv(A) x

No setting depends on the features' scale: R is diagonal, with the values of one average observation (rounded to a power
of 2), so that features ten times as large change nothing. The prior is the mean loss of all models, for any x: it holds
as far as nothing is known about a model. ``s^2 = m (1 - m)`` is the largest variance of a loss in [0, 1] with mean m.

Sums fade by the state's half-life. Features beyond 1e7 are clipped. A context has no arrays of its own: what
distinguishes users belongs in the features.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clipper.learning.mathematics.totals import LOSS, SCORED, Part, Totals
from clipper.learning.policies.distribution import Distribution
from clipper.learning.policies.policy import Choice, Increments, JudgedQuery, Policy, QueryView
from clipper.values.types import MAX_FEATURES

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

LINEAR = "linear"
# The square of a larger number would come near the bound of a sum.
_LARGEST = 1e7
# A model's matrix is inverted again when this share of it has faded, or after this many updates, whose rounding errors
# add up. Inverting one of 65 columns takes 130 us, and updating it 15.
_FADED = 0.05
_MAX_UPDATES = 100
# The sums of two new queries differ from those of one by far more than this.
_ROUNDING = 1e-9


class Beliefs(msgspec.Struct, frozen=True):
    """Each model's expected loss on a query, and its standard error; both of shape (models,)."""

    means: Floats
    errors: Floats


class _Sums(msgspec.Struct, frozen=True):
    """The sums of a model, faded as they were when they were first added up.

    Attributes:
        parts: the parts of the state in the sums.
        moments: the diagonal and the first row of S; shape (2, p).
        step: S's triangle and b of the feedback since the previous sums, if nearly nothing else differs.
    """

    parts: Sequence[Part]
    moments: Floats
    step: Floats | None = None


class _Solved(msgspec.Struct, frozen=True):
    """A model's ridge regression by ``z``, which is x over the features' scale.

    Attributes:
        rows: ``inv(A)``, and below it ``inv(A) b`` and ``inv(A) S e``, where e is the 1 that x begins with; shape
            (p + 2, p).
        updates: number of updates since the last inversion.
    """

    sums: _Sums
    scale: Floats
    rows: Floats
    updates: int = 0


class _Models(msgspec.Struct, frozen=True):
    """All models in one state: ``usual`` is the mean loss, ``average`` the mean x."""

    scale: Floats
    solved: Sequence[_Solved]
    usual: float
    average: Floats


def lessons(losses: Mapping[str, float], query: QueryView) -> Increments:
    """Return the increments to each scored model's sums; none for a query without features."""
    if query.features is None:
        return {}
    x = _with_one(query.features)
    squares = np.outer(x, x)[_triangle(len(x))]
    return {(model, LINEAR): np.concatenate((squares, loss * x)) for model, loss in losses.items()}


def beliefs(policy: object, models: tuple[str, ...], totals: Totals, query: QueryView) -> Beliefs:
    """Return each model's expected loss on this query; a query without features counts as the average one. ``policy``:
    owner of the memo.
    """
    features = query.features
    size = _known_size(models, totals) if features is None else len(features) + 1
    known: _Models | None = totals.memo.get((policy, models, size))
    if known is None:
        known = totals.memo[policy, models, size] = _solve(policy, models, totals, size)
    usual = known.usual
    z = (known.average if features is None else _with_one(features)) / known.scale
    means, squares = [], []
    for each in known.solved:
        products = each.rows @ z
        means.append(usual + products[size] - usual * products[size + 1])
        squares.append(products[:size] @ z)
    variance = usual * (1.0 - usual)
    return Beliefs(np.array(means), np.sqrt(variance * np.maximum(squares, 0.0)))


class Linear(Policy):
    """Draws one model for each query, by what is believed of each model's loss on it."""

    needs_features = True
    has_budget = True
    goes_by = "query"

    @abstractmethod
    def shares(self, believed: Beliefs) -> list[float]:
        """Return the probability of each model, (models,)."""
        ...

    def probabilities(self, models: Sequence[str], totals: Totals, query: QueryView) -> list[float]:
        """Return the probability of each model for this query, (models,)."""
        return self.shares(beliefs(self, tuple(models), totals, query))

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        return Distribution(models, self.probabilities(models, totals, query)).draw(random)

    def expected_losses(self, models: tuple[str, ...], totals: Totals, query: QueryView) -> Sequence[float]:
        return np.clip(beliefs(self, models, totals, query).means, 0.0, 1.0).tolist()  # type: ignore[no-any-return]

    def loss_errors(self, models: tuple[str, ...], totals: Totals, query: QueryView) -> Sequence[float]:
        return beliefs(self, models, totals, query).errors.tolist()  # type: ignore[no-any-return]

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        return lessons(losses, query)


def _solve(policy: object, models: tuple[str, ...], totals: Totals, size: int) -> _Models:
    memo: dict[Any, Any] = totals.arrays.memo
    before: list[_Solved | None] = [memo.get((policy, model, size)) for model in models]
    sums = [
        _sums(totals.array_parts(model, LINEAR, _corner(size) + size), size, None if known is None else known.sums)
        for model, known in zip(models, before)
    ]
    diagonal, first = np.add.reduce([each.moments for each in sums])
    scale = _scale(diagonal, first[0], next((known.scale for known in before if known is not None), None))
    found = [_solved(each, scale, size, known) for each, known in zip(sums, before)]
    memo.update(((policy, model, size), each) for model, each in zip(models, found))
    scored = sum(totals.number(model, SCORED) for model in models)
    lost = sum(totals.number(model, LOSS) for model in models)
    average = first / first[0] if first[0] > 0 else np.eye(size)[0]
    return _Models(scale, found, min(max((lost + 1.0) / (scored + 2.0), 0.0), 1.0), average)


def _sums(parts: Sequence[Part], size: int, before: _Sums | None) -> _Sums:
    """Return the model's sums: ``before`` itself if nothing was added since and next to nothing has faded."""
    if before is not None and len(parts) == len(before.parts):
        pairs = list(zip(parts, before.parts))
        if all(abs(now - then) <= _FADED * then for (_, now), (_, then) in pairs):
            steps = [counts * (new - old) for (new, _), (old, counts) in pairs if new is not old]
            if not steps:
                return before
            step = sum(steps[1:], steps[0])
            as_faded = [(new, then) for (new, _), (_, then) in pairs]
            return _Sums(as_faded, before.moments + step[_moments(size)], step)
    total = _total(parts, size)
    return _Sums(parts, total[_moments(size)])


def _total(parts: Sequence[Part], size: int) -> Floats:
    """Return the sum of the parts: S's triangle and b."""
    total = np.zeros(_corner(size) + size)
    for amounts, counts in parts:
        total += counts * amounts
    return total


def _scale(diagonal: Floats, count: float, before: Floats | None) -> Floats:
    """Return each feature's scale, from the squares of all; ``before`` itself if it still holds."""
    # A feature that has always been 0 has no scale.
    typical = np.where(diagonal > 0, diagonal, count) / count if count > 0 else np.ones(len(diagonal))
    if before is not None:
        ratio = typical / (before * before)
        # The scale rounds to the same power of 2.
        if ratio.min() > 0.5 and ratio.max() < 2.0:
            return before
    return np.asarray(np.exp2(np.round(0.5 * np.log2(typical))), np.float64)


def _solved(sums: _Sums, scale: Floats, size: int, before: _Solved | None) -> _Solved:
    """Return ``before`` if it is of these sums; else solve, by recursive least squares if one query was added."""
    if before is not None and before.scale is scale:
        if before.sums is sums:
            return before
        step = sums.step
        if step is not None and step[0] > 0 and before.updates < _MAX_UPDATES:
            counts = step[0]
            x = step[:size] / counts
            if (np.abs(step[_moments(size)[0]] - counts * x * x) <= _ROUNDING * sums.moments[0]).all():
                z = x / scale
                # The Sherman-Morrison formula for the inverse, and the same for the two products, with their residuals
                # from b's loss and from e's 1.
                products = before.rows @ z
                gain = products[:size] * (counts / (1.0 + counts * (z @ products[:size])))
                products[size] -= step[_corner(size)] / counts
                products[size + 1] -= 1.0
                return _Solved(sums, scale, before.rows - np.multiply.outer(products, gain), before.updates + 1)
    return _Solved(sums, scale, _rows(_total(sums.parts, size), scale, size))


def _rows(total: Floats, scale: Floats, size: int) -> Floats:
    matrix = np.zeros((size, size))
    rows, columns = _triangle(size)
    matrix[rows, columns] = matrix[columns, rows] = total[: _corner(size)]
    matrix /= np.outer(scale, scale)
    # With this, eigenvalues are at least 1, and no rounding makes the matrix singular.
    matrix[np.diag_indices(size)] += 1.0
    inverse = np.linalg.inv(matrix)
    return np.vstack((inverse, inverse @ (total[_corner(size) :] / scale), inverse @ (total[:size] / scale)))


def _with_one(features: Floats) -> Floats:
    x = np.empty(len(features) + 1)
    x[0] = 1.0
    np.clip(features, -_LARGEST, _LARGEST, out=x[1:])
    return x


def _known_size(models: Sequence[str], totals: Totals) -> int:
    """Return the size of the arrays, with the 1: the most common one if there are several; 1 if there are none."""
    lengths = [length for model, name, length in totals.arrays.parts if name == LINEAR and model in models]
    return max((round((-3 + (9 + 8 * length) ** 0.5) / 2) for length in lengths), default=1)


def _corner(size: int) -> int:
    return size * (size + 1) // 2


@lru_cache(maxsize=MAX_FEATURES + 1)
def _triangle(size: int) -> tuple[Places, Places]:
    """Return rows and columns of the upper triangle, by rows."""
    return np.triu_indices(size)


@lru_cache(maxsize=MAX_FEATURES + 1)
def _moments(size: int) -> Places:
    """Return the positions of the diagonal and of the first row in the triangle."""
    rows, columns = _triangle(size)
    return np.stack((np.flatnonzero(rows == columns), np.arange(size)))
