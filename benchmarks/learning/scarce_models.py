"""``python -m benchmarks.learning.scarce_models``: a full model answers queries that gain most by it, in virtual time.

Kinds of queries come by chance, as many of each, and features tell the policy which kind a query is. What is counted is
the share of right answers in time, with and without prices, beside a linear program over capacities and qualities.
"""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.learning.simulated_load import GOOD, QUICK, Application, Counted, Model

# By model, its quality for each kind of query.
Qualities = Mapping[str, Sequence[float]]
MIDDLING = Model("m", 0.004, 0.0)
CASES: Sequence[tuple[Sequence[Model], Qualities]] = (
    ((GOOD, QUICK), {"a": (0.98, 0.95), "b": (0.95, 0.6)}),
    ((GOOD, QUICK), {"a": (0.98,) * 4, "b": (0.95, 0.85, 0.7, 0.5)}),
    (
        (GOOD, MIDDLING, QUICK),
        {"a": (0.98,) * 4, "m": (0.97, 0.93, 0.8, 0.7), "b": (0.95, 0.85, 0.7, 0.5)},
    ),
)


class Mixed(Application):
    """An application whose queries differ. ``has_prices``: whether places in full models have prices."""

    def __init__(self, models: Sequence[Model], qualities: Qualities, *, has_prices: bool, seed: int) -> None:
        super().__init__("linear_thompson", models, seed=seed)
        self.tells_apart = has_prices
        self._qualities = qualities
        kinds = len(next(iter(qualities.values())))
        self._features = [row.tobytes() for row in np.eye(kinds)]

    def _kind(self) -> tuple[Mapping[str, float], bytes]:
        kind = self.random.randrange(len(self._features))
        return {name: self._qualities[name][kind] for name in self.names}, self._features[kind]


def possible(models: Sequence[Model], qualities: Qualities, per_s: float) -> float:
    """Return the largest share of right answers, if one model answers each query: the linear program's dual, whose
    prices are differences of qualities, and so multiples of 0.01."""
    quality = np.array([qualities[model.name] for model in models])
    capacities = [model.per_s / per_s for model in models]
    prices = [np.arange(0.0, 1.0, 0.01) if capacity < 1.0 else np.zeros(1) for capacity in capacities]
    grid = np.stack(np.meshgrid(*prices, indexing="ij"), axis=-1).reshape(-1, len(models))
    gains = (quality[None] - grid[:, :, None]).max(axis=1).mean(axis=1)
    return float((gains + grid @ np.array(capacities)).min())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rates", nargs="*", type=float, default=[90, 200, 400])
    options = parser.parse_args()
    print("| models, kinds | queries a second | possible | first come | with prices | of it | defaults |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for models, qualities in CASES:
        kinds = len(next(iter(qualities.values())))
        for per_s in options.rates:
            best, late = possible(models, qualities, per_s), {}
            for has_prices in (False, True):
                application = Mixed(models, qualities, has_prices=has_prices, seed=3)
                parts = application.run(lambda at_s, per_s=per_s: per_s, options.seconds)  # type: ignore[misc]
                late[has_prices] = sum(parts[1:], Counted())
            found, before = late[True], late[False].share
            print(
                f"| {len(models)}, {kinds} | {per_s:g} | {best:.3f} | {before:.3f} | {found.share:.3f} "
                f"| {found.share / best:.1%} | {found.default_share:.2%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
