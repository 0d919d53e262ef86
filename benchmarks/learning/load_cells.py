"""``python -m benchmarks.learning.load_cells``: what users get beside what is possible, in many kinds of load.

Each cell is a set of models, a shape of load, a policy, and a share of queries with labels, in the simulation of
``simulated_load``. What is possible is a linear program over the models' capacities and true qualities, which knows
both at each moment. ``--online`` prints which share of that is left to one that knows rates, times and qualities, and
not when the next query comes, for models on one accelerator.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from multiprocessing import Pool

import numpy as np
from scipy.optimize import linprog

from benchmarks.learning.simulated_load import GOOD, QUICK, Application, Counted, Model

SLO_S = 0.1
TWO = (GOOD, QUICK)
FIVE = tuple(
    Model(name, row_s, quality)
    for name, row_s, quality in (
        ("a", 0.02, 0.97),
        ("b", 0.01, 0.93),
        ("c", 0.005, 0.88),
        ("d", 0.002, 0.8),
        ("e", 0.0005, 0.7),
    )
)
SHARED = tuple(replace(model, device="gpu") for model in FIVE)
SETS = {"two": TWO, "five": FIVE, "shared": SHARED}
LABELS = (1.0, 0.1, 0.0)
POLICIES = ("single", "adaptive")
# A run has as many queries as tell one share of right answers from another, and lasts at least so long.
QUERIES, LEAST_S = 6_000, 30.0
PARTS = 30
# The policies learn in the first third of a run.
LEARNED_AFTER = PARTS // 3
# The aim: shares of the possible value, over the whole run and once it has learned; and defaults' share of the queries.
WHOLE, LEARNED, DEFAULTS = 0.95, 0.98, 0.005
# The tests hold less: with five models; and where they share an accelerator, on which a late batch makes those of all
# models late.
FIVE_LEARNED, SHARED_LEARNED, SHARED_DEFAULTS = 0.97, 0.975, 0.01


@dataclass(frozen=True, slots=True)
class Shape:
    """A load, by the share of a run that has passed, as a multiple of the best model's capacity, and what befalls that
    model."""

    rate: Callable[[float], float]
    is_slow: bool = False
    is_killed: bool = False
    has_two_replicas: bool = False


def _steady(times: float) -> Shape:
    return Shape(lambda passed: times)


SHAPES = {
    **{f"{times:g}x": _steady(times) for times in (0.25, 0.5, 0.9, 1, 2, 4)},
    # Of each tenth of the run, a fifth.
    "bursts": Shape(lambda passed: 3.0 if (10 * passed) % 1 < 0.2 else 0.5),
    "step": Shape(lambda passed: 0.5 if passed < 0.6 else 2.0),
    "one dies": Shape(lambda passed: 0.8, is_killed=True, has_two_replicas=True),
    "all die": Shape(lambda passed: 0.8, is_killed=True),
    "slow": Shape(lambda passed: 0.8, is_slow=True),
}
CHANGES = (0.5, 0.7)


@cache
def _mean_times(shape: str) -> float:
    return sum(SHAPES[shape].rate(step / 1000) for step in range(1000)) / 1000


@dataclass(frozen=True, slots=True)
class Cell:
    """A kind of load: keys of ``SETS`` and ``SHAPES``, the share of queries with labels, and the policy."""

    models: str
    shape: str
    labels: float
    policy: str
    queries: int = QUERIES

    @property
    def capacity_per_s(self) -> float:
        return SETS[self.models][0].per_s

    @property
    def end_s(self) -> float:
        return max(LEAST_S, self.queries / (_mean_times(self.shape) * self.capacity_per_s))

    def rate(self, at_s: float) -> float:
        return SHAPES[self.shape].rate(at_s / self.end_s) * self.capacity_per_s

    def made(self) -> tuple[Model, ...]:
        """Return the models, with what befalls the best one."""
        shape, (best, *others) = SHAPES[self.shape], SETS[self.models]
        from_s, until_s = (share * self.end_s for share in CHANGES)
        if shape.is_slow:
            best = replace(best, slowness=lambda at_s: 10.0 if from_s <= at_s < until_s else 1.0)
        if shape.is_killed:
            best = replace(best, replicas={"r": ((from_s, until_s),)})
        if shape.has_two_replicas:
            # Together they are as quick as one replica of the other shapes; on one accelerator each is as quick.
            times = 1 if best.device else 2
            best = replace(best, per_row_s=times * best.per_row_s, replicas={"q": (), **best.replicas})
        return (best, *others)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Right answers over what is possible, and the share of defaults: over the whole run, and once it has learned."""

    whole: float
    learned: float
    defaults: float
    queries: int

    def is_as_wanted(self, cell: Cell) -> bool:
        """Whether it is what is wanted, but for three standard deviations of how many queries get the default."""
        is_shared = cell.models == "shared"
        most = SHARED_DEFAULTS if is_shared else DEFAULTS
        most += 3 * math.sqrt(most / self.queries)
        learned = {"five": FIVE_LEARNED, "shared": SHARED_LEARNED}.get(cell.models, LEARNED)
        return self.whole >= WHOLE and self.learned >= learned and self.defaults <= most


def play(cell: Cell, seed: int = 1) -> Outcome:
    models, end_s = cell.made(), cell.end_s
    application = Application(cell.policy, models, label_share=cell.labels, seed=seed)
    parts = application.run(cell.rate, end_s, PARTS)
    right = [
        possible_share(models, cell.rate, end_s * part / PARTS, end_s * (part + 1) / PARTS) for part in range(PARTS)
    ]

    def over(first: int) -> float:
        best = sum(part.queries * share for part, share in zip(parts[first:], right[first:]))
        return sum(parts[first:], Counted()).right / best

    late = sum(parts[LEARNED_AFTER:], Counted())
    return Outcome(over(0), over(LEARNED_AFTER), late.default_share, late.queries)


STEPS = 40


def possible_share(models: Sequence[Model], rate: Callable[[float], float], from_s: float, until_s: float) -> float:
    """Return the largest share of right answers in a part of a run, at the rates and capacities of each moment."""
    right = queries = 0.0
    for step in range(STEPS):
        at_s = from_s + (until_s - from_s) * (step + 0.5) / STEPS
        right += rate(at_s) * best_share(rate(at_s), tuple(_supply(models, at_s)))
        queries += rate(at_s)
    return right / queries


def _supply(models: Sequence[Model], at_s: float) -> Iterator[tuple[str, float, float, int]]:
    """Yield of each model its accelerator, the time of a row, its quality, and the number of replicas that live."""
    for model in models:
        living = sum(not any(a <= at_s < b for a, b in deaths) for deaths in model.replicas.values())
        row_s = model.per_row_s * model.slowness(at_s)
        if row_s + model.fixed_s >= SLO_S:
            living = 0
        yield model.device or model.name, row_s, model.quality, min(living, 1) if model.device else living


@cache
def best_share(per_s: float, supply: tuple[tuple[str, float, float, int], ...]) -> float:
    """Return the largest share of right answers, if one model answers each query.

    A linear program over x_m, the queries a second that model m answers, with t_m its time of a row and q_m its
    quality:

        maximise   sum q_m x_m
        such that  sum x_m <= per_s, and t_m x_m summed over the models of an accelerator <= its replicas
    """
    devices = sorted({device for device, *_ in supply})
    rows, bounds = [[1.0] * len(supply)], [per_s]
    for device in devices:
        rows.append([row_s if living and device == its else 0.0 for its, row_s, _, living in supply])
        bounds.append(float(max(living for its, _, _, living in supply if its == device)))
    limits = [(0.0, None if living else 0.0) for *_, living in supply]
    found = linprog([-quality for _, _, quality, _ in supply], A_ub=rows, b_ub=bounds, bounds=limits)
    return float(-found.fun / per_s)


def online_share(models: Sequence[Model], per_s: float) -> float:
    """Return the largest share of right answers of models on one accelerator, if nobody knows when queries come.

    A Markov decision process (value iteration): the state is the work ahead of a query, in steps; each query asks a
    model that ends by the deadline, or none; until the next query, an exponential time, the accelerator works.
    """
    step_s = 0.0005
    states = round(SLO_S / step_s) + 1
    uses = [(0, 0.0), *((round(model.per_row_s / step_s), model.quality) for model in models)]
    ahead = np.arange(states)
    done = ahead[:, None] - ahead[None, :]
    # The work that is done until the next query, to the nearest step; all of it, if there is time for more.
    ends = np.exp(-per_s * step_s * np.maximum(np.stack((done - 0.5, done + 0.5)), 0.0))
    following = np.where(done < 0, 0.0, ends[0] - np.where(ahead == 0, 0.0, ends[1]))
    values, spread = np.zeros(states), math.inf
    while spread > 1e-6:
        then = following @ values
        best = np.max([right + np.append(then[used:], np.full(used, -np.inf)) for used, right in uses], axis=0)
        gains = best - values
        spread, values = np.ptp(gains), best - best[0]
    return float(gains.mean())


def cells(models: Sequence[str], shapes: Sequence[str], labels: Sequence[float], policies: Sequence[str]) -> list[Cell]:
    """Return all cells. ``single`` reads no labels, so they make no difference to it."""
    found = [Cell(*each) for each in product(models, shapes, labels, policies)]
    return [cell for cell in found if cell.policy != "single" or cell.labels == labels[0]]


def main() -> None:
    """Print a line for each cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(SETS))
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--labels", nargs="*", type=float, default=LABELS)
    parser.add_argument("--policies", nargs="*", default=POLICIES)
    parser.add_argument("--online", action="store_true", help="only print what is possible without foreknowledge")
    options = parser.parse_args()
    if options.online:
        for times in (0.5, 0.9, 1, 2, 3, 4):
            per_s = times * SHARED[0].per_s
            best = best_share(per_s, tuple(_supply(SHARED, 0.0)))
            print(
                f"{times:g}x {online_share(SHARED, per_s):.4f}, {online_share(SHARED, per_s) / best:.1%} of {best:.4f}"
            )
        return
    chosen = cells(options.models, options.shapes, options.labels, options.policies)
    with Pool() as pool:
        for cell, found in zip(chosen, pool.imap(play, chosen)):
            mark = "" if found.is_as_wanted(cell) else "  less than wanted"
            print(
                f"{cell.models:7} {cell.shape:9} labels {cell.labels:<4g} {cell.policy:10} whole {found.whole:.3f} "
                f"learned {found.learned:.3f} defaults {found.defaults:.2%}{mark}",
                flush=True,
            )


if __name__ == "__main__":
    main()
