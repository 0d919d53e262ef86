"""Figure 8 in simulation, as the paper's own is: five networks' answers, its two policies and ours, over many seeds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.paper.networks import Outputs
from benchmarks.regret import ours, panels
from benchmarks.regret.answers import LABELS, vote
from benchmarks.regret.families import setting_of
from benchmarks.regret.simulation import Integers
from benchmarks.regret.streams import Floats
from benchmarks.regret.textbook import drawn

SEEDS = 40
BREAKS_AT, RECOVERS_AT = 5_000, 10_000
# The best network, whose answers are noise in between.
BROKEN = 0
# As the authors' code has them.
PAPERS_EXP3_ETA, PAPERS_EXP4_ETA = 0.05, 0.2
# The shares that the paper's networks err on CIFAR-10, in its authors' notebooks.
PAPERS_ERRORS = (0.0915, 0.17, 0.24, 0.35, 0.46)
# A chance that has become less than any that is ever drawn.
_LEAST = 1e-300


class PapersExp3:
    """As the authors ran it: ``s_i <- s_i exp(-eta L / p_i)`` of the model that was asked, eta 0.05, no floor."""

    def __init__(self, games: int, models: int, eta: float) -> None:
        self._rows, self._eta = np.arange(games), eta
        self._weights = np.full((games, models), 1 / models)

    def choose(self, random: np.random.Generator) -> Integers:
        return drawn(self._weights, random)

    def learn(self, asked: Integers, losses: Floats) -> None:
        chances = np.maximum(self._weights[self._rows, asked], _LEAST)
        self._weights[self._rows, asked] *= np.exp(-self._eta * losses / chances)
        self._weights /= self._weights.sum(axis=1, keepdims=True)


class PapersExp4:
    """As the authors ran it: a label is drawn by the weighted votes; ``w_i <- w_i exp(-eta l_a / p_a)`` of the models
    that gave it, eta 0.2.
    """

    def __init__(self, games: int, models: int, eta: float) -> None:
        self._rows, self._eta = np.arange(games), eta
        self._weights = np.full((games, models), 1 / models)

    def answer(self, given: Integers, random: np.random.Generator) -> Integers:
        """The label of a model that is drawn by its weight: so labels are drawn by the votes."""
        answered: Integers = given[self._rows, drawn(self._weights, random)]
        return answered

    def learn(self, given: Integers, answered: Integers, wrong: Floats) -> None:
        behind = given == answered[:, None]
        chances = np.maximum((self._weights * behind).sum(axis=1), _LEAST)
        self._weights = self._weights * np.exp(-self._eta * (wrong / chances)[:, None] * behind)
        self._weights /= self._weights.sum(axis=1, keepdims=True)


def as_papers(images: int) -> Outputs:
    """Return outputs of networks that err as often as the paper's, independently of each other."""
    random = np.random.default_rng([8, 2])
    labels = random.integers(0, LABELS, images)
    errs = random.random((images, len(PAPERS_ERRORS))) < PAPERS_ERRORS
    others = (labels[:, None] + random.integers(1, LABELS, errs.shape)) % LABELS
    return Outputs(labels, np.where(errs, others, labels[:, None]))


def simulate(outputs: Outputs, seeds: int = SEEDS) -> Mapping[str, Any]:
    """Errors of each policy and network over all images, in an order that each seed gives: mean over the seeds, and
    half of its 95 % interval.
    """
    rows, models = np.arange(seeds), outputs.given.shape[1]
    noise, chance = np.random.default_rng([8, 0]), np.random.default_rng([8, 1])
    exp3, papers_exp3 = ours.Exp3(seeds, models, **_default("exp3", seeds)), PapersExp3(seeds, models, PAPERS_EXP3_ETA)
    exp4, papers_exp4 = (
        panels.Exp4(seeds, models, **_default("exp4", seeds)),
        PapersExp4(seeds, models, PAPERS_EXP4_ETA),
    )
    errors = {name: np.zeros(seeds) for name in ("exp3", "exp4", "paper_exp3", "paper_exp4")}
    alone = np.zeros((seeds, models))
    orders = [np.random.default_rng([seed, 8]).permutation(len(outputs.labels)) for seed in range(seeds)]
    for query, images in enumerate(np.stack(orders, axis=1)):
        given, labels = outputs.given[images], outputs.labels[images]
        if BREAKS_AT <= query < RECOVERS_AT:
            given[:, BROKEN] = noise.integers(0, LABELS, seeds)
        losses = (given != labels[:, None]).astype(float)
        alone += losses
        for name, policy in (("exp3", exp3), ("paper_exp3", papers_exp3)):
            asked = policy.choose(chance)
            policy.learn(asked, losses[rows, asked])
            errors[name] += losses[rows, asked]
        errors["exp4"] += vote(exp4.weights(), given) != labels
        exp4.learn(losses, given)
        answered = papers_exp4.answer(given, chance)
        wrong = (answered != labels).astype(float)
        papers_exp4.learn(given, answered, wrong)
        errors["paper_exp4"] += wrong
    found = {name: described(each) for name, each in errors.items()}
    return {"seeds": seeds, "errors": found, "network_errors": [round(float(each), 1) for each in alone.mean(axis=0)]}


def described(each: Floats) -> dict[str, float]:
    """Of one number a seed."""
    half = 1.96 * float(each.std(ddof=1)) / len(each) ** 0.5
    return {"mean": round(float(each.mean()), 1), "half_interval": round(half, 1)}


def _default(policy: str, games: int) -> dict[str, Floats]:
    return {name: np.full(games, value) for name, value in setting_of(policy).items()}
