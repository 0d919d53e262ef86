"""Load that does not wait for answers, in virtual time: the scheduler beside the best of ``benchmarks.batching.rules``.

The scheduler knows nothing beforehand and has one setting for all. The rules are told the model's times and are tuned
for each cell by search: what they reach is in ``benchmarks/batching/results``; ``make batching`` searches all of it
again.
"""

from dataclasses import replace

import pytest

from benchmarks.batching.__main__ import PAGE
from benchmarks.batching.cells import (
    CONTROLLERS,
    QUERIES,
    SEED,
    Cell,
    cells,
    describe,
    measure_ours,
    measure_rule,
    read,
)
from benchmarks.batching.profiles import Profile, profiles
from benchmarks.batching.scheduled import Scheduled
from benchmarks.batching.simulation import goodput
from benchmarks.harness.pages import fill
from clipper.settings.version import BatchingPolicy
from clipper.worker.abstraction.batching.probing import PROBE_EVERY_S, PROBE_TIMES

pytestmark = pytest.mark.long

# Those at the loads where rules differ; ``make batching`` looks at all of them.
LOADS = (0.9, 1.5)
CELLS = [cell for cell in read() if cell.load in LOADS]
# Of the best rule's share of queries in time, up to what the replicas can do and above.
FLOOR, OVERLOAD_FLOOR = 0.97, 0.93


def cell_id(cell: Cell) -> str:
    return f"{cell.profile}, load {cell.load}"


@pytest.mark.parametrize("cell", CELLS, ids=cell_id)
def test_nearly_as_many_are_in_time_as_by_the_best_rule(cell: Cell) -> None:
    floor = FLOOR if cell.load <= 1.0 else OVERLOAD_FLOOR
    profile = profiles()[cell.profile]
    scheduled = Scheduled(profile)
    share = goodput(scheduled, profile, cell.load, SEED, QUERIES)
    assert share >= SHORT.get((cell.profile, cell.load), floor) * cell.best
    assert scheduled.longest_silence_s <= longest_silence_s(profile)


def longest_silence_s(profile: Profile) -> float:
    """For how long a replica may be sent nothing while queries are given up: a second, or ten of its own times."""
    slowest_s = profile.mean_s(1) * max(profile.speeds) * profile.slow_times * (1 + 4 * profile.noise) + profile.stall_s
    return max(PROBE_EVERY_S, PROBE_TIMES * max(slowest_s, profile.first_slos * profile.slo_s))


@pytest.mark.parametrize("first_slos", [0.98, 0.995])
@pytest.mark.parametrize("name", profiles())
def test_one_slow_first_batch_silences_no_replica(name: str, first_slos: float) -> None:
    """It takes so long that queries as slow as that are late, since the worker itself needs a part of their SLO."""
    profile = replace(profiles()[name], left=0.97)
    load, queries = 20.0 / profile.cap_per_s(), 200
    cold = replace(profile, first_slos=first_slos)
    scheduled = Scheduled(cold)
    share = goodput(scheduled, cold, load, SEED, queries, warm_up=0.3)
    assert share >= FLOOR * goodput(Scheduled(profile), profile, load, SEED, queries, warm_up=0.3)
    assert scheduled.longest_silence_s <= longest_silence_s(cold)


# Shortfalls, which docs/batching-measured.md explains. Each has a floor of its own, so that it gets no worse. With rows
# whose time cannot be seen in them, one seed differs from the next by a tenth.
SHORT: dict[tuple[str, float], float] = {
    ("slow rows", 1.5): 0.87,
    ("slow rows, 20 ms", 0.9): 0.89,
    ("slow rows, 20 ms", 1.5): 0.92,
}


def test_what_is_said_of_the_rules_is_what_they_reach() -> None:
    for cell in CELLS[::20]:
        best = next(rule for rule in cell.rules if rule not in CONTROLLERS)
        assert measure_rule(cell.profile, cell.load, best) == pytest.approx(cell.rules[best], abs=0.005)


def test_every_profile_is_there_at_every_load() -> None:
    assert {(cell.profile, cell.load) for cell in read()} == set(cells())


def test_the_page_has_what_the_controllers_reach() -> None:
    """If this fails: ``make batching``."""
    page = PAGE.read_text()
    assert fill(page, {"controllers": describe(read())}) == page


@pytest.mark.parametrize("policy", CONTROLLERS)
def test_what_is_said_of_the_controllers_is_what_they_reach(policy: BatchingPolicy) -> None:
    (cell,) = [cell for cell in read() if (cell.profile, cell.load) == ("3ms", 0.9)]
    assert measure_ours(cell.profile, cell.load, policy) == pytest.approx(cell.rules[policy], abs=0.005)


@pytest.mark.parametrize("name", ["40ms", "10ms", "3ms", "3ms 4 replicas"])
def test_a_cold_start_costs_ten_batches(name: str) -> None:
    """Half a load from nothing: what is lost is no more than comes in the time of ten batches, or in a second."""
    profile = profiles()[name]
    lost = 1 - goodput(Scheduled(profile), profile, 0.5, SEED, QUERIES, warm_up=0.0)
    end_s = max(40 * profile.slo_s, QUERIES / (profile.cap_per_s() * 0.5))
    assert lost <= min(1.0, 10 * profile.slo_s / 2) / end_s
