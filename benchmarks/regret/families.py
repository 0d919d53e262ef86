"""Each policy's family: settings of it, and of what textbooks have like it; it is measured beside the best of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.regret import ours, textbook
from benchmarks.regret.simulation import Maker, Setting, play
from benchmarks.regret.streams import SIZES, STREAMS, Floats
from clipper.selection.policies.registry import POLICIES

FEW_SEEDS, SEEDS = 4, 30
# Of a search with few seeds so many settings are tried with all.
FINALISTS = 3
# As many games at once as fill the processor's caches; fewer would be all overhead.
SETTINGS_AT_ONCE = 32

# Longer than any game: what MABWiser has, which never forgets.
NEVER = (1e9,)
HALF_LIVES = (100, 200, 300, 500, 700, 1000, 2000)
WINDOWS = (100, 200, 400, 800, 1500, 3000)
EPSILONS = (0.01, 0.02, 0.03, 0.05, 0.1)
EXPLORATIONS = (0.03, 0.05, 0.07, 0.1, 0.2, 0.5, 1.0)
PRIORS = (1, 2, 3, 4, 6, 8)
ETAS = (0.05, 0.1, 0.2, 0.3)
GAMMAS = (0.01, 0.02, 0.03, 0.05, 0.1)
ALPHAS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy with all settings of it that are tried."""

    name: str
    make: Maker
    settings: Sequence[Setting]


@dataclass(frozen=True, slots=True)
class Family:
    """``policy``, as it is by default, beside the candidates."""

    policy: str
    ours: Candidate
    others: Sequence[Candidate]


@dataclass(frozen=True, slots=True)
class Result:
    """Mean regret over the seeds, by stream and number of models, and the standard error of their sum."""

    name: str
    setting: Setting
    regret: Mapping[str, Mapping[str, float]]
    standard_error: float

    @property
    def sum(self) -> float:
        return sum(sum(by_size.values()) for by_size in self.regret.values())


def families() -> list[Family]:
    """Of all policies that learn whom to ask. ``exp4`` and ``ensemble`` ask all: what their answers lose depends on how
    models' errors go together, which no stream here says.
    """
    return [
        Family(
            "epsilon_greedy",
            _ours("epsilon_greedy", textbook.EpsilonGreedy),
            [
                Candidate("discounted", textbook.EpsilonGreedy, _grid(epsilon=EPSILONS, half_life=HALF_LIVES)),
                Candidate("never forgets", textbook.EpsilonGreedy, _grid(epsilon=EPSILONS, half_life=NEVER)),
                Candidate("window", textbook.EpsilonGreedy, _grid(epsilon=EPSILONS, window=WINDOWS)),
            ],
        ),
        Family(
            "ucb1",
            _ours("ucb1", textbook.Ucb),
            [
                Candidate("D-UCB", textbook.Ucb, _grid(exploration=EXPLORATIONS, half_life=HALF_LIVES)),
                Candidate("never forgets", textbook.Ucb, _grid(exploration=EXPLORATIONS, half_life=NEVER)),
                Candidate("SW-UCB", textbook.Ucb, _grid(exploration=EXPLORATIONS, window=WINDOWS)),
            ],
        ),
        Family(
            "thompson",
            _ours("thompson", textbook.Thompson),
            [
                Candidate("discounted", textbook.Thompson, _grid(prior=PRIORS, half_life=HALF_LIVES)),
                Candidate("never forgets", textbook.Thompson, _grid(prior=PRIORS, half_life=NEVER)),
                Candidate("window", textbook.Thompson, _grid(prior=PRIORS, window=WINDOWS)),
            ],
        ),
        Family(
            "exp3",
            _ours("exp3", ours.Exp3),
            [
                Candidate("discounted", ours.Exp3, _grid(eta=ETAS, gamma=GAMMAS, half_life=HALF_LIVES[2:])),
                Candidate("Exp3.S", textbook.Exp3S, _grid(alpha=ALPHAS, gamma=(0.05, 0.07, 0.1, 0.2))),
            ],
        ),
        Family(
            "adaptive",
            _ours("adaptive", ours.Adaptive),
            [Candidate("other exploration", ours.Adaptive, _grid(exploration=(0.5, 0.7, 1.0, 1.4, 2.0, 3.0)))],
        ),
    ]


def measure(candidate: Candidate, seeds: int) -> list[Result]:
    """All its settings, in their order."""
    parts = [
        candidate.settings[start : start + SETTINGS_AT_ONCE]
        for start in range(0, len(candidate.settings), SETTINGS_AT_ONCE)
    ]
    by_size = [np.concatenate([play(candidate.make, part, size, seeds) for part in parts]) for size in SIZES]
    return [
        _result(candidate.name, setting, [regret[index] for regret in by_size])
        for index, setting in enumerate(candidate.settings)
    ]


def measure_ours(family: Family) -> Result:
    return measure(family.ours, SEEDS)[0]


def search(candidate: Candidate) -> Result:
    """Its best setting: of all with few seeds the best few, of these with all seeds the best one."""
    few = sorted(measure(candidate, FEW_SEEDS), key=lambda result: result.sum)[:FINALISTS]
    finalists = Candidate(candidate.name, candidate.make, [result.setting for result in few])
    return min(measure(finalists, SEEDS), key=lambda result: result.sum)


def _result(name: str, setting: Setting, by_size: Sequence[Floats]) -> Result:
    means = {
        stream: {str(size): round(float(regret[index].mean()), 1) for size, regret in zip(SIZES, by_size)}
        for index, stream in enumerate(STREAMS)
    }
    # Streams and sizes are independent of each other, so the variances of their means add up.
    variance = sum(float(regret.var(axis=1, ddof=1).sum()) / regret.shape[1] for regret in by_size)
    return Result(name, setting, means, round(variance**0.5, 1))


def _ours(policy: str, make: Maker) -> Candidate:
    """The policy as it is where nothing is set."""
    default = POLICIES[policy]()
    names = {"epsilon", "exploration", "prior", "eta", "gamma"}
    setting = {name: float(getattr(default, name)) for name in sorted(names) if hasattr(default, name)}
    if policy != "adaptive":
        assert default.default_half_life is not None
        setting["half_life"] = float(default.default_half_life)
    return Candidate(policy, make, [setting])


def _grid(**values: Sequence[float]) -> list[Setting]:
    return [dict(zip(values, each)) for each in product(*values.values())]
