"""Streams of queries with features, for policies that go by them: each model's mean loss on each query."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from benchmarks.regret.simulation import Bandit, Integers, Maker, Setting
from benchmarks.regret.streams import LARGEST, LEAST, ROUNDS, SWAP_ROUNDS, Floats

MODELS = 5
# How many features a query brings.
DIMENSIONS = (5, 16)

# A loss is linear in the features between these.
LOWEST, HIGHEST = 0.02, 0.98
USUAL = 0.35
# The standard deviation of a model's mean loss over the queries.
SPREAD = 0.2

# Coefficients by phase, game and model, that of the constant first; phases are of equal length, and at least one.
FeatureStream = Callable[[int, int, np.random.Generator], Floats]


def linear(size: int, games: int, random: np.random.Generator) -> Floats:
    """Each model's mean loss is linear in the features, in a direction that chance gives."""
    directions = random.normal(size=(games, MODELS, size))
    directions *= SPREAD / np.linalg.norm(directions, axis=2, keepdims=True)
    coefficients = np.concatenate((np.full((games, MODELS, 1), USUAL), directions), axis=2)
    return coefficients[None]


def changed(size: int, games: int, random: np.random.Generator) -> Floats:
    """The same; at half each model becomes what the one before it was."""
    before = linear(size, games, random)[0]
    return np.stack((before, np.roll(before, 1, axis=1)))


def changing(size: int, games: int, random: np.random.Generator) -> Floats:
    """The same; they do so every 2,500 rounds."""
    before = linear(size, games, random)[0]
    return np.stack([np.roll(before, phase, axis=1) for phase in range(ROUNDS // SWAP_ROUNDS)])


def irrelevant(size: int, games: int, random: np.random.Generator) -> Floats:
    """No feature matters: mean losses are evenly spaced from 5 to 50 %, in an order that chance gives."""
    coefficients = np.zeros((1, games, MODELS, size + 1))
    coefficients[0, :, :, 0] = random.permuted(np.tile(np.linspace(LEAST, LARGEST, MODELS), (games, 1)), axis=1)
    return coefficients


def irrelevant_changed(size: int, games: int, random: np.random.Generator) -> Floats:
    """The same; at half each model becomes what the one before it was."""
    before = irrelevant(size, games, random)[0]
    return np.stack((before, np.roll(before, 1, axis=1)))


FEATURE_STREAMS: Mapping[str, FeatureStream] = {
    "linear": linear,
    "linear, changed": changed,
    "linear, changing": changing,
    "irrelevant": irrelevant,
    "irrelevant, changed": irrelevant_changed,
}


class FeatureBandit(Protocol):
    """A policy of many games at once, all at the same round; features are of shape (games, p) and begin with a 1."""

    def choose(self, features: Floats, random: np.random.Generator) -> Integers:
        """The model that each game asks."""

    def learn(self, asked: Integers, losses: Floats, features: Floats) -> None:
        """Take the losses of what was asked."""


class Blind:
    """A policy that does not look at them."""

    def __init__(self, make: Maker, games: int, models: int, size: int, **parameters: Floats) -> None:
        self._bandit: Bandit = make(games, models, **parameters)

    def choose(self, features: Floats, random: np.random.Generator) -> Integers:
        return self._bandit.choose(random)

    def learn(self, asked: Integers, losses: Floats, features: Floats) -> None:
        self._bandit.learn(asked, losses)


def blind(make: Maker) -> Callable[..., FeatureBandit]:
    return partial(Blind, make)


def play_features(
    make: Callable[..., Any],
    settings: Sequence[Setting],
    size: int,
    seeds: int,
    streams: Sequence[str] = tuple(FEATURE_STREAMS),
) -> Floats:
    """Return the regret, by setting, stream and seed: what the mean losses of the models that were asked exceed those
    of the best for the same query by, added up. All settings meet the same queries and losses.
    """
    by_stream = [FEATURE_STREAMS[name](size, seeds, np.random.default_rng([size, *name.encode()])) for name in streams]
    games, copies = seeds * len(streams), len(settings)
    parameters = {name: np.repeat([setting[name] for setting in settings], games) for name in settings[0]}
    bandit: FeatureBandit = make(games * copies, MODELS, size + 1, **parameters)
    chance, luck = np.random.default_rng(0), np.random.default_rng(1)
    rows, regret = np.arange(games * copies), np.zeros(games * copies)
    for round_ in range(ROUNDS):
        if round_ % SWAP_ROUNDS == 0:
            coefficients = np.concatenate([each[round_ * len(each) // ROUNDS] for each in by_stream])
        features = np.concatenate((np.ones((games, 1)), luck.standard_normal((games, size))), axis=1)
        means = np.clip((coefficients @ features[:, :, None])[:, :, 0], LOWEST, HIGHEST)
        seen, now = np.tile(features, (copies, 1)), np.tile(means, (copies, 1))
        asked = bandit.choose(seen, chance)
        regret += now[rows, asked] - now.min(axis=1)
        losses = (np.tile(luck.random(games), copies) < now[rows, asked]).astype(float)
        bandit.learn(asked, losses, seen)
    return regret.reshape(copies, len(streams), seeds)
