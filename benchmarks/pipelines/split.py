"""The best fixed split of a pipeline's SLO, found by search in simulation, with the models' times known."""

import random
from collections.abc import Iterator, Sequence

from clipper.cli.capacity.simulation import Outcome, Simulation, Step, arrivals

SEED = 7
# Parts of the SLO that are tried: a coarse grid, and then a fine one around its best.
COARSE, FINE = 10, 20


def depths(steps: Sequence[Step]) -> list[int]:
    """Return by step how many come before it on the longest path. Steps that run side by side get the same part."""
    found: list[int] = []
    for step in steps:
        found.append(1 + max((found[before] for before in step.needs), default=-1))
    return found


def capacity_per_s(steps: Sequence[Step], slo_s: float) -> float:
    """Return what the pipeline can do with the best split, if a query waits for one batch of each step."""

    def able(parts: Sequence[float]) -> float:
        return min(
            step.capacity_per_s(part * slo_s) * step.replicas / step.rows_per_query
            for step, part in zip(steps, parts, strict=True)
        )

    return max(able(parts) for parts in _parts(steps, FINE))


def best_split(steps: Sequence[Step], slo_s: float, per_s: float, seconds: float) -> tuple[tuple[float, ...], Outcome]:
    """Return the parts of the SLO by step with which the most queries are answered in time, and what comes of them."""
    times_s = list(arrivals(per_s, seconds, 1.0, random.Random(SEED)))

    def tried(parts: tuple[float, ...]) -> Outcome:
        return Simulation(steps, slo_s, random.Random(SEED), [part * slo_s for part in parts]).run(times_s)

    coarse = {parts: tried(parts) for parts in _parts(steps, COARSE)}
    best = max(coarse, key=lambda parts: coarse[parts].in_time)
    near = [parts for parts in _parts(steps, FINE) if max(abs(a - b) for a, b in zip(parts, best)) <= 1 / COARSE]
    fine = {parts: tried(parts) for parts in near}
    best = max(fine, key=lambda parts: fine[parts].in_time)
    return best, fine[best]


def _parts(steps: Sequence[Step], grid: int) -> Iterator[tuple[float, ...]]:
    """Yield splits into multiples of one part in ``grid``."""
    depth = depths(steps)
    for whole in _sums(max(depth) + 1, grid):
        yield tuple(whole[each] / grid for each in depth)


def _sums(count: int, total: int) -> Iterator[tuple[int, ...]]:
    if count == 1:
        yield (total,)
        return
    for first in range(1, total - count + 2):
        for rest in _sums(count - 1, total - first):
            yield (first, *rest)
