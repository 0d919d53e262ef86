"""Each profile at each load: what the searched rules reach, and what the scheduler does, which knows nothing."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import msgspec

from benchmarks.batching.profiles import LOADS, profiles
from benchmarks.batching.rules import searched
from benchmarks.batching.scheduled import Scheduled
from benchmarks.batching.simulation import goodput
from benchmarks.harness.pages import lines, table
from clipper.settings.version import BatchingPolicy

QUERIES = 3000
SEED = 7
# The paper's two rules, and Clipper's variations of them.
CONTROLLERS: tuple[BatchingPolicy, ...] = ("aimd", "quantile", "aimd_damped", "quantile_refit")
RESULTS = Path(__file__).parent / "results" / "cells.json"


class Cell(msgspec.Struct, frozen=True):
    """Shares of queries answered in time: by the best rule that was searched, and by each of Clipper's controllers."""

    profile: str
    load: float
    rules: dict[str, float]

    @property
    def best(self) -> float:
        return max(self.rules.values())


def cells() -> list[tuple[str, float]]:
    return [(name, load) for name in profiles() for load in LOADS]


def measure_ours(name: str, load: float, policy: BatchingPolicy = "goodput") -> float:
    profile = profiles()[name]
    return goodput(Scheduled(profile, policy), profile, load, SEED, QUERIES)


def measure_rule(name: str, load: float, rule: str) -> float:
    profile = profiles()[name]
    return goodput(searched(profile)[rule](), profile, load, SEED, QUERIES)


def measure(cell: tuple[str, float]) -> Cell:
    name, load = cell
    profile = profiles()[name]
    shares = {rule: measure_rule(name, load, rule) for rule in searched(profile)}
    best = max(shares, key=shares.__getitem__)
    rules = {best: shares[best]} | {policy: measure_ours(name, load, policy) for policy in CONTROLLERS}
    ranked = dict(sorted(rules.items(), key=lambda item: -item[1]))
    return Cell(name, load, ranked)


def read() -> list[Cell]:
    """What the last search found."""
    return msgspec.json.decode(RESULTS.read_bytes(), type=list[Cell])


def write(found: list[Cell]) -> None:
    RESULTS.write_text(lines(found))


def describe(found: list[Cell]) -> str:
    """The controllers beside the best rule, as the mean over all profiles at each load, as Markdown."""

    def mean(load: float, share: Callable[[Cell], float]) -> str:
        return f"{fmean(share(cell) for cell in found if cell.load == load):.3f}"

    rows = [["the best rule of each cell", *(mean(load, lambda cell: cell.best) for load in LOADS)]]
    for policy in CONTROLLERS:
        rows.append([f"`{policy}`", *(mean(load, lambda cell, name=policy: cell.rules[name]) for load in LOADS)])  # type: ignore[misc]
    return table(["load", *map(str, LOADS)], rows)
