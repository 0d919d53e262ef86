"""The frontier of cost and quality: what a mixture of models reaches at each cost."""

from collections.abc import Mapping
from itertools import pairwise


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the models on the frontier, from the cheapest to the best.

    It is the upper convex hull of the points from the cheapest to the best: no model, and no mixture of two by shares
    of the queries, is better than those on it and costs no more. ``points``: by model, its cost and its quality.
    """
    found: list[str] = []
    for model in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        point = points[model]
        if found and point[1] <= points[found[-1]][1]:
            continue
        while len(found) > 1 and _rise(points[found[-2]], points[found[-1]]) <= _rise(points[found[-1]], point):
            found.pop()
        found.append(model)
    return found


def reached(points: Mapping[str, tuple[float, float]], cost: float) -> float | None:
    """Return the best quality of a mixture of the models at a mean cost; None if all of them cost more."""
    on_it = [points[model] for model in frontier(points)]
    if not on_it or cost < on_it[0][0]:
        return None
    for low, high in pairwise(on_it):
        if cost < high[0]:
            return low[1] + _rise(low, high) * (cost - low[0])
    return on_it[-1][1]


def _rise(low: tuple[float, float], high: tuple[float, float]) -> float:
    return (high[1] - low[1]) / (high[0] - low[0])
