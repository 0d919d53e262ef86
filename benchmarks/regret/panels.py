"""Policies that ask all models and make one answer of theirs, many games at once: ours, and what textbooks have."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from benchmarks.regret.answers import answers, losses_of, vote
from benchmarks.regret.simulation import Setting
from benchmarks.regret.streams import BLOCK_ROUNDS, ROUNDS, STREAMS, Floats


class Panel(Protocol):
    """A policy of many games at once, all at the same round."""

    def weights(self) -> Floats:
        """Of each model in the vote, (games, models)."""

    def learn(self, losses: Floats) -> None:
        """Take the losses of all models, (games, models)."""


# Makes a panel of so many games and models; parameters are arrays, one number a game.
PanelMaker = Callable[..., Panel]


class Hedge:
    """``exp4``: exponential weights on losses that halve every ``half_life`` rounds. Where that is never it is Hedge
    (Freund and Schapire, 1997).
    """

    def __init__(self, games: int, models: int, eta: Floats, half_life: Floats) -> None:
        self._eta, self._kept = eta[:, None], 2 ** (-1 / half_life)[:, None]
        self._lost = np.zeros((games, models))

    def weights(self) -> Floats:
        return normal(np.exp(-self._eta * (self._lost - self._lost.min(axis=1, keepdims=True))))

    def learn(self, losses: Floats) -> None:
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

    def learn(self, losses: Floats) -> None:
        weights = normal(self._weights * np.exp(-self._eta * losses))
        self._weights = (1 - self._share) * weights + self._share / self._models


class LogOdds:
    """``ensemble`` weighted by accuracy: the log odds of each model (Nitzan and Paroush, 1982), over counts that halve
    every ``half_life`` rounds.
    """

    def __init__(self, games: int, models: int, classes: Floats, half_life: Floats) -> None:
        self._others, self._kept = classes[:, None] - 1, 2 ** (-1 / half_life)[:, None]
        self._scored, self._lost = np.zeros((games, 1)), np.zeros((games, models))

    def weights(self) -> Floats:
        error = (self._lost + 1) / (self._scored + 2)
        return normal(np.maximum(np.log(self._others * (1 - error) / error), 0.01))

    def learn(self, losses: Floats) -> None:
        self._scored = self._scored * self._kept + 1
        self._lost = self._lost * self._kept + losses


class Equal:
    """``ensemble`` as it is by default: it learns nothing."""

    def __init__(self, games: int, models: int) -> None:
        self._weights = np.full((games, models), 1 / models)

    def weights(self) -> Floats:
        return self._weights

    def learn(self, losses: Floats) -> None:
        pass


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
        panel.learn(np.tile(losses, (copies, 1)))
    return regret.reshape(copies, len(streams), seeds)
