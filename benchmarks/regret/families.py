"""Each policy's family: settings of it, and of what textbooks have like it; it is measured beside the best of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.regret import contextual, ours, panels, textbook
from benchmarks.regret.answers import LABELS
from benchmarks.regret.contextual import play_contextual
from benchmarks.regret.panels import play_panel
from benchmarks.regret.simulation import Setting, play
from benchmarks.regret.streams import SIZES, STREAMS, Floats
from clipper.selection.policies.registry import POLICIES

FEW_SEEDS, SEEDS = 4, 30
# Of games with features, each of which takes several times as long.
CONTEXTUAL_SEEDS = 10
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
# The textbook's 0.25 is as wide as 0.5 of ours, which goes by the losses' variance of a quarter at most.
LINEAR_EXPLORATIONS, LINEAR_SPREADS = (0.1, 0.25, 0.5, 1.0), (0.05, 0.12, 0.25, 0.5)
LINEAR_HALF_LIVES = (300, 1000)
SHARES = (0.003, 0.01, 0.02)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy with all settings of it that are tried, and how it is played.

    ``sizes``: how many models there are; or features, of a policy that goes by these.
    """

    name: str
    make: Callable[..., Any]
    settings: Sequence[Setting]
    play: Callable[..., Floats] = play
    streams: Sequence[str] = tuple(STREAMS)
    sizes: Sequence[int] = SIZES
    seeds: int = SEEDS


@dataclass(frozen=True, slots=True)
class Family:
    """``policy``, as it is by default, beside the candidates."""

    policy: str
    ours: Candidate
    others: Sequence[Candidate]


@dataclass(frozen=True, slots=True)
class Result:
    """Mean regret over the seeds, by stream and number of models or features, and the standard error of their sum."""

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
                Candidate("discounted", ours.Exp3, _grid(eta=ETAS, gamma=GAMMAS, half_life=HALF_LIVES[2:])),
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
            Candidate("exp4", panels.Exp4, [setting_of("exp4")], play_panel),
            [
                Candidate("discounted", panels.Hedge, _grid(eta=HEDGE_ETAS, half_life=HEDGE_HALF_LIVES), play_panel),
                Candidate("never forgets", panels.Hedge, _grid(eta=HEDGE_ETAS, half_life=NEVER), play_panel),
                Candidate("fixed share", panels.FixedShare, _grid(eta=HEDGE_ETAS, share=SHARES), play_panel),
            ],
        ),
        # How many labels there are is no setting to search: a fact of the streams, as of an application.
        Family(
            "ensemble",
            Candidate("ensemble", panels.Ensemble, [setting_of("ensemble")], play_panel),
            [
                Candidate("log odds", panels.LogOdds, _grid(classes=(LABELS,), half_life=HEDGE_HALF_LIVES), play_panel),
                Candidate("never forgets", panels.LogOdds, _grid(classes=(LABELS,), half_life=NEVER), play_panel),
                Candidate("equal votes", panels.Equal, [{}], play_panel),
            ],
        ),
    ]


def contextual_families() -> list[Family]:
    """Of those that go by features."""
    return [
        Family(
            policy,
            _by_features(policy, partial(make, is_ours=True), [setting_of(policy)]),
            [
                _by_features(
                    "other exploration",
                    partial(make, is_ours=True),
                    _grid(exploration=explorations, half_life=(setting_of(policy)["half_life"],)),
                ),
                _by_features("discounted", make, _grid(exploration=explorations, half_life=LINEAR_HALF_LIVES)),
                _by_features("never forgets", make, _grid(exploration=explorations, half_life=NEVER)),
            ],
        )
        for policy, make, explorations in (
            ("linucb", contextual.LinUcb, LINEAR_EXPLORATIONS),
            ("linear_thompson", contextual.LinTs, LINEAR_SPREADS),
        )
    ]


def measure(candidate: Candidate, seeds: int) -> list[Result]:
    """All its settings, in their order."""
    parts = [
        candidate.settings[start : start + SETTINGS_AT_ONCE]
        for start in range(0, len(candidate.settings), SETTINGS_AT_ONCE)
    ]
    by_size = [
        np.concatenate([candidate.play(candidate.make, part, size, seeds) for part in parts])
        for size in candidate.sizes
    ]
    return [
        _result(candidate, setting, [regret[index] for regret in by_size])
        for index, setting in enumerate(candidate.settings)
    ]


def measure_ours(family: Family) -> Result:
    return measure(family.ours, family.ours.seeds)[0]


def search(candidate: Candidate) -> Result:
    """Its best setting: of all with few seeds the best few, of these with all seeds the best one."""
    few = sorted(measure(candidate, FEW_SEEDS), key=lambda result: result.sum)[:FINALISTS]
    finalists = replace(candidate, settings=[result.setting for result in few])
    return min(measure(finalists, candidate.seeds), key=lambda result: result.sum)


def _result(candidate: Candidate, setting: Setting, by_size: Sequence[Floats]) -> Result:
    means = {
        stream: {str(size): round(float(regret[index].mean()), 1) for size, regret in zip(candidate.sizes, by_size)}
        for index, stream in enumerate(candidate.streams)
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


def _by_features(name: str, make: Callable[..., Any], settings: Sequence[Setting]) -> Candidate:
    return Candidate(name, make, settings, play_contextual, contextual.STREAMS, contextual.FEATURES, CONTEXTUAL_SEEDS)


def _ours(policy: str, make: Callable[..., Any]) -> Candidate:
    """The policy as it is where nothing is set."""
    return Candidate(policy, make, [setting_of(policy)])


def _grid(**values: Sequence[float]) -> list[Setting]:
    return [dict(zip(values, each)) for each in product(*values.values())]
