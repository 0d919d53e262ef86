"""Policies that ask all models and make one answer of theirs, many games at once: ours, and what textbooks have.

tests/benchmarks/regret holds that ours are what the server runs.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from benchmarks.regret.answers import answers, losses_of, vote
from benchmarks.regret.simulation import Integers, Setting
from benchmarks.regret.streams import BLOCK_ROUNDS, ROUNDS, STREAMS, Floats
from clipper.learning.policies.ensemble import RECORD_HALF_LIFE, SHARPNESSES
from clipper.learning.policies.exp4 import FURTHEST
from clipper.learning.policies.stacking import MAX_PAIRED

# So many steps from the weights of twenty rounds before are near enough to the best ones.
DESCENTS = 40


class Panel(Protocol):
    """A policy of many games at once, all at the same round."""

    def weights(self) -> Floats:
        """Of each model in the vote, (games, models)."""

    def learn(self, losses: Floats, given: Integers) -> None:
        """Take what all models answered, after ``weights``, and its losses; both (games, models)."""


# Makes a panel of so many games and models; parameters are arrays, one number a game.
PanelMaker = Callable[..., Panel]


class Exp4:
    """``exp4``: exponential weights on losses that fade, none further behind than ``FURTHEST``."""

    def __init__(self, games: int, models: int, eta: Floats, half_life: Floats) -> None:
        self._eta, self._kept = eta[:, None], 2 ** (-1 / half_life)[:, None]
        self._excess = np.zeros((games, models))

    def weights(self) -> Floats:
        return normal(np.exp(-self._eta * (self._excess - self._excess.min(axis=1, keepdims=True))))

    def learn(self, losses: Floats, given: Integers) -> None:
        more = losses - (self.weights() * losses).sum(axis=1, keepdims=True)
        excess = self._excess * self._kept
        best = (excess + more).min(axis=1, keepdims=True)
        follows = np.minimum(best - excess.min(axis=1, keepdims=True), 0.0)
        self._excess = excess + np.minimum(more, np.maximum(best + FURTHEST / self._eta - excess, follows))


class Hedge:
    """Hedge (Freund and Schapire, 1997): exponential weights on losses; here they halve every ``half_life`` rounds."""

    def __init__(self, games: int, models: int, eta: Floats, half_life: Floats) -> None:
        self._eta, self._kept = eta[:, None], 2 ** (-1 / half_life)[:, None]
        self._lost = np.zeros((games, models))

    def weights(self) -> Floats:
        return normal(np.exp(-self._eta * (self._lost - self._lost.min(axis=1, keepdims=True))))

    def learn(self, losses: Floats, given: Integers) -> None:
        self._lost = self._lost * self._kept + losses


class FixedShare:
    """Fixed share (Herbster and Warmuth: "Tracking the best expert", 1998): exponential weights, of which ``share`` is
    spread over all models after each round.
    """

    def __init__(self, games: int, models: int, eta: Floats, share: Floats) -> None:
        self._eta, self._share, self._models = eta[:, None], share[:, None], models
        self._weights = np.full((games, models), 1 / models)

    def weights(self) -> Floats:
        return self._weights

    def learn(self, losses: Floats, given: Integers) -> None:
        weights = normal(self._weights * np.exp(-self._eta * losses))
        self._weights = (1 - self._share) * weights + self._share / self._models


class LogOdds:
    """The log odds of each model (Nitzan and Paroush, 1982), over counts that halve every ``half_life`` rounds."""

    def __init__(self, games: int, models: int, classes: Floats, half_life: Floats) -> None:
        self._others, self._kept = classes[:, None] - 1, 2 ** (-1 / half_life)[:, None]
        self._scored, self._lost = np.zeros((games, 1)), np.zeros((games, models))

    def weights(self) -> Floats:
        error = (self._lost + 1) / (self._scored + 2)
        return normal(np.maximum(np.log(self._others * (1 - error) / error), 0.01))

    def learn(self, losses: Floats, given: Integers) -> None:
        self._scored = self._scored * self._kept + 1
        self._lost = self._lost * self._kept + losses


class Ensemble(LogOdds):
    """``ensemble``: the same to a power, that of ``SHARPNESSES`` whose answers have lost least of late."""

    def __init__(self, games: int, models: int, classes: Floats, half_life: Floats) -> None:
        super().__init__(games, models, classes, half_life)
        self._rows, self._excess = np.arange(games), np.zeros((games, len(SHARPNESSES)))

    def weights(self) -> Floats:
        odds = super().weights()
        sharpness = np.array(SHARPNESSES)[self._excess.argmin(axis=1)]
        return _to_power(odds, sharpness[:, None])

    def learn(self, losses: Floats, given: Integers) -> None:
        self._excess *= 2 ** (-1 / RECORD_HALF_LIFE)
        split = np.flatnonzero((given != given[:, :1]).any(axis=1))
        odds, given_there, losses_there = super().weights()[split], given[split], losses[split]
        for place, sharpness in enumerate(SHARPNESSES):
            answered = vote(_to_power(odds, sharpness), given_there)
            self._excess[split, place] += (losses_there * (given_there == answered[:, None])).max(axis=1)
        super().learn(losses, given)


class Equal:
    """``ensemble`` of equals: it learns nothing."""

    def __init__(self, games: int, models: int) -> None:
        self._weights = np.full((games, models), 1 / models)

    def weights(self) -> Floats:
        return self._weights

    def learn(self, losses: Floats, given: Integers) -> None:
        pass


class Stacking:
    """``stacking``, of votes: weights that are fitted to how models err together, here once in ``BLOCK_ROUNDS``."""

    def __init__(self, games: int, models: int, prior: Floats, half_life: Floats) -> None:
        self._prior, self._kept = prior, 2 ** (-1 / half_life)
        self._paired, self._count, self._round = min(models, MAX_PAIRED), np.zeros(games), 0
        self._products = np.zeros((games, models, models))
        self._weights = np.full((games, models), 1 / models)

    def weights(self) -> Floats:
        if self._round % BLOCK_ROUNDS == 0:
            self._weights = _least_squares(self._matrices(), self._weights)
        return self._weights

    def learn(self, losses: Floats, given: Integers) -> None:
        both = losses[:, :, None] * losses[:, None, :]
        same = given[:, :, None] == given[:, None, :]
        both *= np.where(same, 1.0, 0.5)
        both[:, self._paired :], both[:, :, self._paired :] = 0.0, 0.0
        self._products = self._products * self._kept[:, None, None] + both
        self._count = self._count * self._kept + 1
        self._round += 1

    def _matrices(self) -> Floats:
        """Mean products of errors, over the models' mean square; as ``Stacking`` of the server has them."""
        paired, models = self._paired, self._products.shape[1]
        own, count = np.eye(models, dtype=bool), np.maximum(self._count, 1e-9)
        squares = np.trace(self._products, axis1=1, axis2=2) / (paired * count)
        between = max(paired * (paired - 1), 1) * count
        product = (self._products.sum(axis=(1, 2)) - np.trace(self._products, axis1=1, axis2=2)) / between
        usual = np.where(own, squares[:, None, None], np.clip(product, 0.0, squares)[:, None, None])
        counts = np.zeros((models, models))
        counts[:paired, :paired] = 1.0
        total = self._products + self._prior[:, None, None] * usual
        means = total / (counts * self._count[:, None, None] + self._prior[:, None, None])
        known = squares > 0
        means = means / np.where(known, squares, 1.0)[:, None, None]
        return np.where(known[:, None, None], means, own)


def _least_squares(matrices: Floats, start: Floats) -> Floats:
    """Of each game the weights, at least 0 and adding up to 1, with the least ``w' A w``; near enough to ``start``.

    By accelerated projected gradients (Beck and Teboulle, 2009), of all games at once.
    """
    # No eigenvalue is above the largest sum of a row.
    step = 1.0 / np.abs(matrices).sum(axis=2).max(axis=1)[:, None]
    weights, ahead, pace = start, start, 1.0
    for _ in range(DESCENTS):
        slopes = (matrices @ ahead[:, :, None])[:, :, 0]
        found = _on_simplex(ahead - step * slopes)
        faster = (1 + (1 + 4 * pace * pace) ** 0.5) / 2
        ahead = found + (pace - 1) / faster * (found - weights)
        weights, pace = found, faster
    return weights


def _on_simplex(points: Floats) -> Floats:
    """The nearest points whose numbers are at least 0 and add up to 1 (Held, Wolfe, Crowder, 1974)."""
    models = points.shape[1]
    falling = -np.sort(-points, axis=1)
    excess = (falling.cumsum(axis=1) - 1) / np.arange(1, models + 1)
    kept = (falling > excess).sum(axis=1)
    nearest: Floats = np.maximum(points - excess[np.arange(len(points)), kept - 1][:, None], 0.0)
    return nearest


def _to_power(weights: Floats, power: Floats | int) -> Floats:
    return normal((weights / weights.max(axis=1, keepdims=True)) ** power)


def normal(weights: Floats) -> Floats:
    """Scaled to a sum of 1 in each game."""
    scaled: Floats = weights / weights.sum(axis=1, keepdims=True)
    return scaled


def play_panel(
    make: PanelMaker, settings: Sequence[Setting], models: int, seeds: int, streams: Sequence[str] = tuple(STREAMS)
) -> Floats:
    """Return the regret, by setting, stream and seed: how many answers more are wrong than of the model that is best
    in each round. All settings meet the same answers. Below 0 where a vote is better than any one model.
    """
    means = np.concatenate(
        [STREAMS[name](models, seeds, np.random.default_rng([models, *name.encode()])) for name in streams], axis=1
    )
    games, copies = means.shape[1], len(settings)
    parameters = {name: np.repeat([setting[name] for setting in settings], games) for name in settings[0]}
    panel = make(games * copies, models, **parameters)
    luck, each, regret = np.random.default_rng(1), np.arange(games), np.zeros(games * copies)
    for round_ in range(ROUNDS):
        if round_ % BLOCK_ROUNDS == 0:
            now = means[round_ // BLOCK_ROUNDS]
            best = now.argmin(axis=1)
        given = answers(now, luck)
        losses = losses_of(given)
        answered = vote(panel.weights(), np.tile(given, (copies, 1)))
        regret += losses_of(answered) - np.tile(losses[each, best], copies)
        panel.learn(np.tile(losses, (copies, 1)), np.tile(given, (copies, 1)))
    return regret.reshape(copies, len(streams), seeds)
