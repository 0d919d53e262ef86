"""Streams of losses that policies are tried on: each model's mean loss over time."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# A table of mean losses: by block of rounds, game and model.
Stream = Callable[[int, int, np.random.Generator], Floats]

ROUNDS = 20_000
# Rounds with the same means: so many fewer means to keep, and no stream moves noticeably within them.
BLOCK_ROUNDS = 20
BLOCKS = ROUNDS // BLOCK_ROUNDS

LEAST, LARGEST = 0.05, 0.5
CLOSE = (0.05, 0.06)
SWAP_ROUNDS = 2_500
# Of a model's mean loss after one round; over a whole game 0.28, half of the range in which it moves.
DRIFT_PER_ROUND = 0.002


def stationary(models: int, games: int, random: np.random.Generator) -> Floats:
    """Mean losses evenly spaced from 5 to 50 %, in an order that chance gives."""
    return _unchanging(_shuffled(np.linspace(LEAST, LARGEST, models), games, random))


def swapped(models: int, games: int, random: np.random.Generator) -> Floats:
    """The same; at half the best and the worst change places."""
    return _swapping(models, games, random, ROUNDS // 2)


def swapping(models: int, games: int, random: np.random.Generator) -> Floats:
    """The same; they do so every 2,500 rounds."""
    return _swapping(models, games, random, SWAP_ROUNDS)


def drifting(models: int, games: int, random: np.random.Generator) -> Floats:
    """Each model's mean loss is a random walk between 5 and 50 %, reflected at both."""
    width = LARGEST - LEAST
    steps = random.normal(0, DRIFT_PER_ROUND * BLOCK_ROUNDS**0.5, (BLOCKS, games, models))
    walk = (random.uniform(0, width, (games, models)) + np.cumsum(steps, axis=0)) % (2 * width)
    return LEAST + np.minimum(walk, 2 * width - walk)


def close(models: int, games: int, random: np.random.Generator) -> Floats:
    """The best model errs at 5 %, the next at 6 %, all others at 10 to 30 %."""
    return _unchanging(_shuffled(np.array([*CLOSE, *np.linspace(0.1, 0.3, models - 2)]), games, random))


STREAMS: Mapping[str, Stream] = {
    "stationary": stationary,
    "swapped": swapped,
    "swapping": swapping,
    "drifting": drifting,
    "close": close,
}
SIZES = (2, 5, 10, 20)


def _shuffled(means: Floats, games: int, random: np.random.Generator) -> Floats:
    return random.permuted(np.tile(means, (games, 1)), axis=1)


def _unchanging(means: Floats) -> Floats:
    return np.broadcast_to(means, (BLOCKS, *means.shape))


def _swapping(models: int, games: int, random: np.random.Generator, every: int) -> Floats:
    before = _shuffled(np.linspace(LEAST, LARGEST, models), games, random)
    rows, best, worst = np.arange(games), before.argmin(axis=1), before.argmax(axis=1)
    after = before.copy()
    after[rows, best], after[rows, worst] = before[rows, worst], before[rows, best]
    return np.stack([(before, after)[block * BLOCK_ROUNDS // every % 2] for block in range(BLOCKS)])
