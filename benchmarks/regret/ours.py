"""Our policies by the same formulas, played in many games at once. tests/benchmarks/regret holds that they agree.

``epsilon_greedy``, ``ucb1`` and ``thompson`` are the textbook's discounted ones, with our defaults.
"""

import numpy as np

from benchmarks.regret.simulation import Integers
from benchmarks.regret.streams import Floats
from benchmarks.regret.textbook import drawn, first_of_chance
from clipper.learning.policies.adaptive import HALF_LIVES, RECORD_HALF_LIFE, WIDTHS
from clipper.learning.policies.exp3 import CAUTION


class Exp3:
    """``exp3``; without ``caution`` the textbook's, with forgetting."""

    def __init__(
        self, games: int, models: int, eta: Floats, gamma: Floats, half_life: Floats, caution: Floats | float = CAUTION
    ) -> None:
        self._caution = caution
        self._rows, self._models = np.arange(games), models
        self._eta, self._gamma, self._kept = eta[:, None], gamma[:, None], 2 ** (-1 / half_life)
        self._excess, self._scored, self._lost = np.zeros((games, models)), np.zeros(games), np.zeros(games)
        self.probabilities = self._excess

    def choose(self, random: np.random.Generator) -> Integers:
        weights = np.exp(-self._eta * (self._excess - self._excess.min(axis=1, keepdims=True)))
        weights /= weights.sum(axis=1, keepdims=True)
        self.probabilities = (1 - self._gamma) * weights + self._gamma / self._models
        return drawn(self.probabilities, random)

    def learn(self, asked: Integers, losses: Floats) -> None:
        usual = self._lost / np.maximum(self._scored, 1e-12)
        self._excess *= self._kept[:, None]
        self._excess[self._rows, asked] += (losses - usual) / (self.probabilities[self._rows, asked] + self._caution)
        self._scored = self._scored * self._kept + 1
        self._lost = self._lost * self._kept + losses


class Adaptive:
    """``adaptive``."""

    def __init__(self, games: int, models: int, exploration: Floats) -> None:
        self._rows, self._exploration = np.arange(games), exploration[:, None]
        self._kept = np.array([1.0 if each is None else 2 ** (-1 / each) for each in HALF_LIVES])
        self._scored = np.zeros((games, models, len(HALF_LIVES)))
        self._lost = np.zeros_like(self._scored)
        self._foretold = np.zeros((games, len(HALF_LIVES)))
        self._bounds = np.cumsum([probability for _, probability in WIDTHS])
        self._widths = np.array([width for width, _ in WIDTHS])

    def lower_bounds(self, widths: Floats) -> Floats:
        """Of each model's loss, by game and model, at so large a part of the full width, by game."""
        best = self._foretold.argmax(axis=1)
        counts, losses = self._scored[self._rows, :, best], self._lost[self._rows, :, best]
        known = counts.sum(axis=1, keepdims=True)
        usual = np.where(known > 1e-6, losses.sum(axis=1, keepdims=True) / np.maximum(known, 1e-6), 0.5)
        means = np.where(counts > 1e-6, np.clip(losses / np.maximum(counts, 1e-6), 0, 1), usual)
        z = widths[:, None] * self._exploration
        part = z * z / (2 * np.maximum(counts, 1e-6))
        bounds = (means + part - np.sqrt(2 * part * means * (1 - means) + part * part)) / (1 + 2 * part)
        return np.where(z <= 0, means, np.where(counts <= 1e-6, 0.0, np.maximum(bounds, 0.0)))

    def choose(self, random: np.random.Generator) -> Integers:
        step = np.minimum(np.searchsorted(self._bounds, random.random(len(self._rows))), len(self._widths) - 1)
        bounds = self.lower_bounds(self._widths[step])
        least = bounds == bounds.min(axis=1, keepdims=True)
        least[self._scored.sum(axis=(1, 2)) <= 1e-6, 1:] = False
        return first_of_chance(least, random)

    def learn(self, asked: Integers, losses: Floats) -> None:
        lost = losses[:, None]
        expected = (self._lost[self._rows, asked] + 1) / (self._scored[self._rows, asked] + 2)
        expected = np.clip(expected, 1e-9, 1 - 1e-9)
        foretold = lost * np.log(expected) + (1 - lost) * np.log(1 - expected)
        self._foretold *= 2 ** (-1 / RECORD_HALF_LIFE)
        self._foretold += foretold - foretold.mean(axis=1, keepdims=True)
        self._scored *= self._kept
        self._lost *= self._kept
        self._scored[self._rows, asked] += 1
        self._lost[self._rows, asked] += lost
