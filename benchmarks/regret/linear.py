"""Policies that fit each model's loss to a query's features, many games at once: textbooks', and ours.

tests/benchmarks/regret holds that the textbook's are MABWiser's where nothing is forgotten, and ours what the server
runs.
"""

import numpy as np

from benchmarks.regret.simulation import Integers
from benchmarks.regret.streams import Floats

# Sums fade, and inverses are made anew, once in so many rounds; in between inverses are updated.
ROUNDS_AT_ONCE = 20


class Ridge:
    """Each model's ``inv(ridge I + sum x x')`` and ``sum y x`` in each game, halving every ``half_life`` rounds."""

    def __init__(self, games: int, models: int, size: int, half_life: Floats, ridge: Floats) -> None:
        self._rows, self._round = np.arange(games), 0
        self._kept = (2 ** (-ROUNDS_AT_ONCE / half_life))[:, None, None]
        self._ridge = (ridge[:, None, None] * np.eye(size))[:, None]
        self._squares = np.zeros((games, models, size, size))
        self._inverse = np.broadcast_to(np.linalg.inv(self._ridge), self._squares.shape).copy()
        self.targets = np.zeros((games, models, size))

    def projected(self, features: Floats) -> Floats:
        """``inv(A_m) x``, of shape (games, models, size)."""
        projected: Floats = (self._inverse @ features[:, None, :, None])[..., 0]
        return projected

    def add(self, asked: Integers, targets: Floats, features: Floats) -> None:
        at = self._rows, asked
        self._squares[at] += features[:, :, None] * features[:, None, :]
        self.targets[at] += targets[:, None] * features
        self._round += 1
        if self._round % ROUNDS_AT_ONCE == 0:
            self._squares *= self._kept[..., None]
            self.targets *= self._kept
            self._inverse = np.linalg.inv(self._squares + self._ridge)
            return
        # Sherman's and Morrison's formula.
        gain = (self._inverse[at] @ features[:, :, None])[:, :, 0]
        gain /= np.sqrt(1.0 + (gain * features).sum(axis=1))[:, None]
        self._inverse[at] -= gain[:, :, None] * gain[:, None, :]


class Linear:
    """What the textbook's share, which fit rewards: 1 minus the loss."""

    def __init__(
        self, games: int, models: int, size: int, exploration: Floats, half_life: Floats, ridge: Floats
    ) -> None:
        self._exploration = exploration[:, None]
        self._ridge = Ridge(games, models, size, half_life, ridge)

    def beliefs(self, features: Floats) -> tuple[Floats, Floats]:
        """Each model's reward, and how far off it may be."""
        projected = self._ridge.projected(features)
        squares = np.maximum((projected * features[:, None]).sum(axis=2), 0.0)
        return (projected * self._ridge.targets).sum(axis=2), self._exploration * np.sqrt(squares)

    def learn(self, asked: Integers, losses: Floats, features: Floats) -> None:
        self._ridge.add(asked, 1.0 - losses, features)


class LinUcb(Linear):
    """Disjoint LinUCB (Li, Chu, Langford, Schapire, 2010); with a half-life, as D-LinUCB (Russac, Vernade, Cappe:
    "Weighted Linear Bandits for Non-Stationary Environments", 2019) forgets, each model by itself.
    """

    def choose(self, features: Floats, random: np.random.Generator) -> Integers:
        means, errors = self.beliefs(features)
        # Of equals one by chance, which is all of them at first.
        asked: Integers = (means + errors + 1e-9 * random.random(means.shape)).argmax(axis=1)
        return asked


class LinTs(Linear):
    """Linear Thompson sampling (Agrawal and Goyal, 2013), each model by itself; with a half-life, discounted."""

    def choose(self, features: Floats, random: np.random.Generator) -> Integers:
        means, errors = self.beliefs(features)
        asked: Integers = (means + errors * random.standard_normal(means.shape)).argmax(axis=1)
        return asked


class OurLinear:
    """What ``linucb`` and ``linear_thompson`` share. The ridge is 1, as features of the streams have a mean square of
    1, of which the server makes it.
    """

    def __init__(self, games: int, models: int, size: int, exploration: Floats, half_life: Floats) -> None:
        self._exploration = exploration[:, None]
        self._ridge = Ridge(games, models, size, half_life, np.ones(games))
        self._kept = 2 ** (-1 / half_life)
        self._scored, self._lost = np.zeros(games), np.zeros(games)

    def beliefs(self, features: Floats) -> tuple[Floats, Floats]:
        """Each model's loss, and how far off it may be."""
        usual = (self._lost + 1) / (self._scored + 2)
        projected = self._ridge.projected(features)
        targets = self._ridge.targets.copy()
        # inv(A) (b - S e usual) + e usual, where A is S and the identity.
        targets[:, :, 0] += usual[:, None]
        squares = np.maximum((projected * features[:, None]).sum(axis=2), 0.0)
        deviations = self._exploration * np.sqrt(usual * (1 - usual))[:, None]
        return (projected * targets).sum(axis=2), deviations * np.sqrt(squares)

    def learn(self, asked: Integers, losses: Floats, features: Floats) -> None:
        self._ridge.add(asked, losses, features)
        self._scored = self._scored * self._kept + 1
        self._lost = self._lost * self._kept + losses


class OurLinUcb(OurLinear):
    """``linucb``."""

    def choose(self, features: Floats, random: np.random.Generator) -> Integers:
        means, errors = self.beliefs(features)
        asked: Integers = (means - errors + 1e-9 * random.random(means.shape)).argmin(axis=1)
        return asked


class OurLinearThompson(OurLinear):
    """``linear_thompson``, which draws a model by the probability that its draw is the least, and so as draws do."""

    def choose(self, features: Floats, random: np.random.Generator) -> Integers:
        means, errors = self.beliefs(features)
        asked: Integers = (means + errors * random.standard_normal(means.shape)).argmin(axis=1)
        return asked
