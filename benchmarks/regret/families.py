"""Each policy's family: settings of it, and of what textbooks have like it; it is measured beside the best of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.regret import linear, ours, panels, textbook
from benchmarks.regret.answers import LABELS
from benchmarks.regret.features import DIMENSIONS, FEATURE_STREAMS, blind, play_features
from benchmarks.regret.panels import play_panel
from benchmarks.regret.simulation import Setting, play
from benchmarks.regret.streams import SIZES, STREAMS, Floats
from clipper.learning.policies.by_name import POLICIES

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
# Of policies that see every model's loss: they react faster, and so may forget faster.
HEDGE_ETAS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
HEDGE_HALF_LIVES = (35, 50, 70, 100, 200, 500)
SHARES = (0.003, 0.01, 0.02)
# Of policies that go by features.
LINEAR_HALF_LIVES = (300, 500, 1000, 2000)
LINEAR_EXPLORATIONS = (0.1, 0.2, 0.4, 0.7, 1.0)
RIDGES = (0.3, 1.0)


@dataclass(frozen=True, slots=True)
class Course:
    """What policies are played on.

    Attributes:
        play: returns the regret, by setting, stream and seed, of games of one size.
        sizes: how many models, or how many features.
    """

    play: Callable[..., Floats]
    streams: Sequence[str]
    sizes: Sequence[int]


ASKING_ONE = Course(play, tuple(STREAMS), SIZES)
ASKING_ALL = Course(play_panel, tuple(STREAMS), SIZES)
WITH_FEATURES = Course(play_features, tuple(FEATURE_STREAMS), DIMENSIONS)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy with all settings of it that are tried, and what it is played on."""

    name: str
    make: Callable[..., Any]
    settings: Sequence[Setting]
    course: Course = ASKING_ONE


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
    """Of all policies that learn."""
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
                Candidate("other settings", ours.Exp3, _grid(eta=ETAS, gamma=GAMMAS, half_life=HALF_LIVES[2:])),
                Candidate(
                    "discounted",
                    partial(ours.Exp3, caution=0.0),
                    _grid(eta=ETAS, gamma=GAMMAS, half_life=HALF_LIVES[2:]),
                ),
                Candidate("Exp3.S", textbook.Exp3S, _grid(alpha=ALPHAS, gamma=(0.05, 0.07, 0.1, 0.2))),
            ],
        ),
        Family(
            "adaptive",
            _ours("adaptive", ours.Adaptive),
            [Candidate("other exploration", ours.Adaptive, _grid(exploration=(0.5, 0.7, 1.0, 1.4, 2.0, 3.0)))],
        ),
        Family(
            "exp4",
            Candidate("exp4", panels.Exp4, [setting_of("exp4")], ASKING_ALL),
            [
                Candidate("discounted", panels.Hedge, _grid(eta=HEDGE_ETAS, half_life=HEDGE_HALF_LIVES), ASKING_ALL),
                Candidate("never forgets", panels.Hedge, _grid(eta=HEDGE_ETAS, half_life=NEVER), ASKING_ALL),
                Candidate("fixed share", panels.FixedShare, _grid(eta=HEDGE_ETAS, share=SHARES), ASKING_ALL),
            ],
        ),
        # How many labels there are is no setting to search: a fact of the streams, as of an application.
        Family(
            "ensemble",
            Candidate("ensemble", panels.Ensemble, [setting_of("ensemble")], ASKING_ALL),
            [
                Candidate("log odds", panels.LogOdds, _grid(classes=(LABELS,), half_life=HEDGE_HALF_LIVES), ASKING_ALL),
                Candidate("never forgets", panels.LogOdds, _grid(classes=(LABELS,), half_life=NEVER), ASKING_ALL),
                Candidate("equal votes", panels.Equal, [{}], ASKING_ALL),
            ],
        ),
        Family(
            "stacking",
            Candidate("stacking", panels.Stacking, [setting_of("stacking")], ASKING_ALL),
            [
                Candidate(
                    "other settings",
                    panels.Stacking,
                    _grid(prior=(5, 10, 20), half_life=(35, 50, 70, 100, 140, 200)),
                    ASKING_ALL,
                ),
                Candidate("never forgets", panels.Stacking, _grid(prior=(5, 20), half_life=NEVER), ASKING_ALL),
            ],
        ),
        _linear("linucb", linear.OurLinUcb, "LinUCB", linear.LinUcb),
        _linear("linear_thompson", linear.OurLinearThompson, "LinTS", linear.LinTs),
    ]


def without_features() -> list[Candidate]:
    """Policies as they are by default, on queries whose features they do not see."""
    makers = {"adaptive": ours.Adaptive, "thompson": textbook.Thompson, "exp3": ours.Exp3}
    return [Candidate(policy, blind(make), [setting_of(policy)], WITH_FEATURES) for policy, make in makers.items()]


def measure(candidate: Candidate, seeds: int) -> list[Result]:
    """All its settings, in their order."""
    parts = [
        candidate.settings[start : start + SETTINGS_AT_ONCE]
        for start in range(0, len(candidate.settings), SETTINGS_AT_ONCE)
    ]
    course = candidate.course
    by_size = [
        np.concatenate([course.play(candidate.make, part, size, seeds) for part in parts]) for size in course.sizes
    ]
    return [
        _result(candidate, setting, [regret[index] for regret in by_size])
        for index, setting in enumerate(candidate.settings)
    ]


def measure_default(candidate: Candidate) -> Result:
    """Of a candidate with one setting."""
    return measure(candidate, SEEDS)[0]


def search(candidate: Candidate) -> Result:
    """Its best setting: of all with few seeds the best few, of these with all seeds the best one."""
    few = sorted(measure(candidate, FEW_SEEDS), key=lambda result: result.sum)[:FINALISTS]
    finalists = replace(candidate, settings=[result.setting for result in few])
    return min(measure(finalists, SEEDS), key=lambda result: result.sum)


def _result(candidate: Candidate, setting: Setting, by_size: Sequence[Floats]) -> Result:
    course = candidate.course
    means = {
        stream: {str(size): round(float(regret[index].mean()), 1) for size, regret in zip(course.sizes, by_size)}
        for index, stream in enumerate(course.streams)
    }
    # Streams and sizes are independent of each other, so the variances of their means add up.
    variance = sum(float(regret.var(axis=1, ddof=1).sum()) / regret.shape[1] for regret in by_size)
    return Result(candidate.name, setting, means, round(variance**0.5, 1))


def setting_of(policy: str) -> Setting:
    """The policy's, where nothing is set."""
    default = POLICIES[policy]()
    names = {"epsilon", "exploration", "prior", "eta", "gamma", "classes"}
    setting = {name: float(getattr(default, name)) for name in sorted(names) if hasattr(default, name)}
    if policy != "adaptive":
        assert default.default_half_life is not None
        setting["half_life"] = float(default.default_half_life)
    return setting


def _ours(policy: str, make: Callable[..., Any]) -> Candidate:
    """The policy as it is where nothing is set."""
    return Candidate(policy, make, [setting_of(policy)])


def _linear(policy: str, make: Callable[..., Any], name: str, textbooks: Callable[..., Any]) -> Family:
    """One that goes by features, beside the textbook's, which never forgets, and the same with a half-life."""
    shared = {"exploration": LINEAR_EXPLORATIONS, "ridge": RIDGES}
    explorations = (0.25, 0.35, 0.5, 0.7, 1.0)
    return Family(
        policy,
        Candidate(policy, make, [setting_of(policy)], WITH_FEATURES),
        [
            Candidate(name, textbooks, _grid(**shared, half_life=NEVER), WITH_FEATURES),
            Candidate("discounted", textbooks, _grid(**shared, half_life=LINEAR_HALF_LIVES), WITH_FEATURES),
            Candidate(
                "other settings",
                make,
                _grid(exploration=explorations, half_life=LINEAR_HALF_LIVES),
                WITH_FEATURES,
            ),
        ],
    )


def _grid(**values: Sequence[float]) -> list[Setting]:
    return [dict(zip(values, each)) for each in product(*values.values())]
