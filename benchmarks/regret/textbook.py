"""Policies as the literature has them, for losses that change: discounted, windowed, or with a share for all.

Each is played in many games at once; a parameter is an array with one number a game.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.regret.simulation import Integers
from benchmarks.regret.streams import Floats

# So much less than any loss that it decides between equals only.
_TIE = 1e-9


class Discounted:
    """Counts and losses that halve every ``half_life`` rounds."""

    def __init__(self, games: int, models: int, half_life: Floats) -> None:
        self.rows = np.arange(games)
        self.scored, self.lost = np.zeros((games, models)), np.zeros((games, models))
        self._kept = 2 ** (-1 / half_life)[:, None]

    def add(self, asked: Integers, losses: Floats) -> None:
        self.scored *= self._kept
        self.lost *= self._kept
        self.scored[self.rows, asked] += 1
        self.lost[self.rows, asked] += losses


class Windowed:
    """Counts and losses of the last ``window`` rounds."""

    def __init__(self, games: int, models: int, window: Floats) -> None:
        self.rows = np.arange(games)
        self.scored, self.lost = np.zeros((games, models)), np.zeros((games, models))
        self._window = window.astype(np.int64)
        size = int(window.max())
        self._asked, self._losses = np.zeros((size, games), np.int64), np.zeros((size, games))
        self._round = 0

    def add(self, asked: Integers, losses: Floats) -> None:
        size = len(self._asked)
        over = self._round >= self._window
        old = (self._round - self._window) % size
        rows = self.rows[over]
        gone = self._asked[old[over], rows]
        self.scored[rows, gone] -= 1
        self.lost[rows, gone] -= self._losses[old[over], rows]
        self._asked[self._round % size], self._losses[self._round % size] = asked, losses
        self.scored[self.rows, asked] += 1
        self.lost[self.rows, asked] += losses
        self._round += 1


class AsksOne:
    """What policies that keep counts share: ``half_life`` or ``window`` says which counts these are."""

    def __init__(self, games: int, models: int, half_life: Floats | None = None, window: Floats | None = None) -> None:
        self.games, self.models = games, models
        self.counts: Discounted | Windowed
        if window is not None:
            self.counts = Windowed(games, models, window)
        else:
            assert half_life is not None
            self.counts = Discounted(games, models, half_life)

    def learn(self, asked: Integers, losses: Floats) -> None:
        self.counts.add(asked, losses)


class EpsilonGreedy(AsksOne):
    """Sutton and Barto, 2.2: of ``epsilon`` any, else the least mean loss. One never scored is as the mean of all."""

    def __init__(self, games: int, models: int, epsilon: Floats, **counts: Floats) -> None:
        super().__init__(games, models, **counts)
        self._epsilon = epsilon

    def choose(self, random: np.random.Generator) -> Integers:
        scored, lost = self.counts.scored, self.counts.lost
        usual = lost.sum(axis=1, keepdims=True) / np.maximum(scored.sum(axis=1, keepdims=True), _TIE)
        means = np.where(scored > 0, lost / np.maximum(scored, 1e-300), usual)
        best = (means + _TIE * random.random(means.shape)).argmin(axis=1)
        any_ = random.integers(0, self.models, self.games)
        return np.where(random.random(self.games) < self._epsilon, any_, best)


class Ucb(AsksOne):
    """D-UCB and SW-UCB (Garivier and Moulines, 2008), with ``exploration`` in the place of 2 sqrt(xi / 2)."""

    def __init__(self, games: int, models: int, exploration: Floats, **counts: Floats) -> None:
        super().__init__(games, models, **counts)
        self._exploration = exploration[:, None]

    def choose(self, random: np.random.Generator) -> Integers:
        scored = np.maximum(self.counts.scored, 1e-300)
        logs = np.log(np.maximum(self.counts.scored.sum(axis=1, keepdims=True), 1.0))
        index = self.counts.lost / scored - self._exploration * np.sqrt(2 * logs / scored)
        index = np.where(self.counts.scored > 0, index, -np.inf)
        return first_of_chance(index == index.min(axis=1, keepdims=True), random)


class Thompson(AsksOne):
    """Discounted Thompson sampling (Raj and Kalyani, 2017), and over a window (Trovo et al., 2020)."""

    def __init__(self, games: int, models: int, prior: Floats, **counts: Floats) -> None:
        super().__init__(games, models, **counts)
        self._prior = prior[:, None]

    def choose(self, random: np.random.Generator) -> Integers:
        right = np.maximum(self.counts.scored - self.counts.lost, 0)
        wrong = random.standard_gamma(self._prior + np.maximum(self.counts.lost, 0))
        asked: Integers = (wrong / (wrong + random.standard_gamma(self._prior + right))).argmin(axis=1)
        return asked


class Exp3S:
    """Exp3.S (Auer, Cesa-Bianchi, Freund, Schapire, 2002, section 8), of rewards."""

    def __init__(self, games: int, models: int, alpha: Floats, gamma: Floats) -> None:
        self._rows, self._models = np.arange(games), models
        self._alpha, self._gamma = alpha[:, None], gamma[:, None]
        self._weights = np.ones((games, models))
        self._shares = self._weights / models

    def choose(self, random: np.random.Generator) -> Integers:
        weights = self._weights / self._weights.sum(axis=1, keepdims=True)
        self._shares = (1 - self._gamma) * weights + self._gamma / self._models
        return drawn(self._shares, random)

    def learn(self, asked: Integers, losses: Floats) -> None:
        rewards = np.zeros_like(self._weights)
        rewards[self._rows, asked] = (1 - losses) / self._shares[self._rows, asked]
        spread = np.e * self._alpha / self._models * self._weights.sum(axis=1, keepdims=True)
        self._weights = self._weights * np.exp(self._gamma * rewards / self._models) + spread
        self._weights /= self._weights.max(axis=1, keepdims=True)


def first_of_chance(allowed: NDArray[np.bool_], random: np.random.Generator) -> Integers:
    """One of those models that are allowed, each as likely, by game."""
    asked: Integers = np.where(allowed, random.random(allowed.shape), -1).argmax(axis=1)
    return asked


def drawn(shares: Floats, random: np.random.Generator) -> Integers:
    """One model a game, by its shares."""
    bounds = shares.cumsum(axis=1)
    index: Integers = (bounds < random.random((len(shares), 1)) * bounds[:, -1:]).sum(axis=1)
    return index
