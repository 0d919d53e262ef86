"""Plays bandits on streams: all settings, streams and seeds of one number of models at once, a round after another."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.regret.streams import BLOCK_ROUNDS, ROUNDS, STREAMS, Floats

Integers = NDArray[np.int64]
Setting = Mapping[str, float]


class Bandit(Protocol):
    """A policy of many games at once, all at the same round."""

    def choose(self, random: np.random.Generator) -> Integers:
        """The model that each game asks."""

    def learn(self, asked: Integers, losses: Floats) -> None:
        """Take the losses of what was asked."""


# Makes a bandit of so many games and models; parameters are arrays, one number a game.
Maker = Callable[..., Bandit]


def play(
    make: Maker, settings: Sequence[Setting], models: int, seeds: int, streams: Sequence[str] = tuple(STREAMS)
) -> Floats:
    """Return the regret, by setting, stream and seed: what the mean losses of the models that were asked exceed the
    best's by, in each round, added up. All settings meet the same losses.
    """
    means = np.concatenate(
        [STREAMS[name](models, seeds, np.random.default_rng([models, *name.encode()])) for name in streams], axis=1
    )
    games, copies = means.shape[1], len(settings)
    parameters = {name: np.repeat([setting[name] for setting in settings], games) for name in settings[0]}
    bandit = make(games * copies, models, **parameters)
    chance, luck = np.random.default_rng(0), np.random.default_rng(1)
    rows, regret = np.arange(games * copies), np.zeros(games * copies)
    for round_ in range(ROUNDS):
        if round_ % BLOCK_ROUNDS == 0:
            now = np.tile(means[round_ // BLOCK_ROUNDS], (copies, 1))
            excess = now - now.min(axis=1, keepdims=True)
        asked = bandit.choose(chance)
        regret += excess[rows, asked]
        bandit.learn(asked, (np.tile(luck.random(games), copies) < now[rows, asked]).astype(float))
    return regret.reshape(copies, len(streams), seeds)
