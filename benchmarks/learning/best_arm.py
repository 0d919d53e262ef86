"""``python -m benchmarks.learning.best_arm [RUNS]``: how often ``best_arm`` is wrong, and how much feedback it takes.

Beside it stand equal shares that end by the same rule, and what no test can do with less: the lower bound of Garivier
and Kaufmann: "Optimal Best Arm Identification with Fixed Confidence" (2016). Also how often a confidence sequence ever
misses.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool
from random import Random
from statistics import fmean

from clipper.learning.mathematics.confidence_sequences import (
    NO_EVIDENCE,
    Evidence,
    log_capital_above,
    log_capital_below,
)
from clipper.learning.mathematics.totals import Numbers, Totals, tally
from clipper.learning.policies.best_arm import BestArm
from clipper.learning.policies.policy import QueryView

RUNS = 400
# Of confidence sequences, which are cheaper to look at.
COVERAGE_LOSSES = 2000
MODELS = "abcdefghij"


@dataclass(frozen=True, slots=True)
class Game:
    """Mean losses of 0 and 1, of which the first is the least."""

    name: str
    means: tuple[float, ...]
    confidence: float = 0.95
    tolerance: float = 0.0
    # Queries that are asked before feedback on them comes.
    delay: int = 1


GAMES = [
    Game("two", (0.1, 0.2)),
    Game("two, asked to be surer", (0.1, 0.2), confidence=0.99),
    Game("two, feedback 100 queries late", (0.1, 0.2), delay=100),
    Game("four, feedback 10 queries late", (0.05, 0.1, 0.15, 0.2), delay=10),
    Game("eight, feedback 10 queries late", (0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.3, 0.4), delay=10),
    Game("two, hardly sure", (0.3, 0.4), confidence=0.6),
    Game("three that are equal", (0.1, 0.1, 0.1), tolerance=0.05, delay=10),
    Game("two within the tolerance", (0.1, 0.11), tolerance=0.03, delay=10),
]


@dataclass(frozen=True, slots=True)
class Result:
    feedback: int
    is_wrong: bool


def play(game: Game, shares: str, seed: int) -> Result:
    """One test to its end, its models asked by ``best_arm``, or in ``equal`` shares."""
    policy, random = BestArm(game.confidence, game.tolerance), Random(seed)
    models = tuple(MODELS[: len(game.means)])
    numbers: Numbers = {}
    totals, waiting, feedback = Totals(), list[str](), 0
    while True:
        choice = policy.select(models, totals, QueryView(), random)
        waiting.append(choice.models[0] if shares == "best_arm" else random.choice(models))
        if len(waiting) < game.delay:
            continue
        for model in waiting:
            loss = float(random.random() < game.means[models.index(model)])
            for key, amount in tally((model,), {model: loss}).items():
                numbers[key] = numbers.get(key, 0.0) + amount
        feedback += len(waiting)
        waiting.clear()
        totals = Totals(numbers)
        standing = policy.standing(models, totals)
        if standing is not None and standing.winner is not None:
            excess = game.means[models.index(standing.winner)] - min(game.means)
            return Result(feedback, excess > 0 and excess >= game.tolerance)


def lower_bound(means: Sequence[float], confidence: float) -> float:
    """The mean feedback that a test needs which errs with probability 1 - ``confidence`` at most, by theorem 1 and 5.

    The first mean is the least one, and no other is as low.
    """
    best, others = means[0], means[1:]

    def nearest(share: float, other: float) -> float:
        return (best + share * other) / (1 + share)

    def share_for(gain: float, other: float) -> float:
        """How much of the best's share a model gets for that gain."""
        low, high = 0.0, 1e9
        for _ in range(200):
            share = (low + high) / 2
            mean = nearest(share, other)
            if divergence(best, mean) + share * divergence(other, mean) < gain:
                low = share
            else:
                high = share
        return low

    low, high = 0.0, min(divergence(best, other) for other in others)
    for _ in range(100):
        gain = (low + high) / 2
        at = [nearest(share_for(gain, other), other) for other in others]
        if sum(divergence(best, mean) / divergence(other, mean) for mean, other in zip(at, others)) < 1:
            low = gain
        else:
            high = gain
    shares = 1 + sum(share_for(low, other) for other in others)
    return shares / low * divergence(1 - confidence, confidence)


def divergence(mean: float, other: float) -> float:
    """Kullback and Leibler's of losses of 0 and 1."""
    return mean * math.log(mean / other) + (1 - mean) * math.log((1 - mean) / (1 - other))


def ever_misses(ones: float, zeros: float, error: float, seed: int) -> bool:
    """Whether the sequence of a Beta distribution's mean, or that of zeros and ones if ``zeros`` is 0, ever misses."""
    random, known, limit = Random(seed), NO_EVIDENCE, -math.log(error)
    mean = ones / (ones + zeros) if zeros else ones
    for _ in range(COVERAGE_LOSSES):
        loss = random.betavariate(ones, zeros) if zeros else float(random.random() < ones)
        known += Evidence(1, loss, loss * (1 - loss))
        if max(log_capital_above(known, mean), log_capital_below(known, mean)) >= limit:
            return True
    return False


def main(runs: int, games: Sequence[Game] = GAMES) -> None:
    print("| game | mean losses | confidence | tolerance | wrong | feedback | equal shares | lower bound |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with Pool() as pool:
        for game in games:
            ours = pool.map(partial(play, game, "best_arm"), range(runs), 4)
            equal = pool.map(partial(play, game, "equal"), range(runs // 4), 4)
            bound = f"{lower_bound(game.means, game.confidence):,.0f}" if not game.tolerance else ""
            means = " ".join(f"{mean:.2g}" for mean in game.means)
            print(
                f"| {game.name} | {means} | {game.confidence:g} | {game.tolerance:g} | "
                f"{sum(each.is_wrong for each in ours)} of {runs} | {fmean(each.feedback for each in ours):,.0f} | "
                f"{fmean(each.feedback for each in equal):,.0f} | {bound} |"
            )
            sys.stdout.flush()
        for name, ones, zeros in (
            ("0 and 1, mean 0.1", 0.1, 0.0),
            ("Beta(2, 8)", 2.0, 8.0),
            ("Beta(50, 50)", 50.0, 50.0),
        ):
            for error in (0.05, 0.5):
                missed = sum(pool.map(partial(ever_misses, ones, zeros, error), range(runs), 4))
                print(f"losses {name}: {missed} of {runs} sequences of confidence {1 - error:g} ever miss the mean")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
