"""Load that does not wait for answers, in virtual time: the scheduler beside the best of ``benchmarks.batching.rules``.

The scheduler knows nothing beforehand and has one setting for all. The rules are told the model's times and are tuned
for each cell by search: what they reach is in ``benchmarks/batching/results``; ``make batching`` searches all of it
again.
"""

import pytest

from benchmarks.batching.cells import CONTROLLERS, QUERIES, SEED, Cell, cells, measure_ours, measure_rule, read
from benchmarks.batching.profiles import profiles
from benchmarks.batching.scheduled import Scheduled
from benchmarks.batching.simulation import goodput

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
    assert measure_ours(cell.profile, cell.load) >= SHORT.get((cell.profile, cell.load), floor) * cell.best


# What falls short, and of what: see docs/batching.md. Each has a floor of its own, so that it gets no worse.
# With rows whose time cannot be seen in them, one seed differs from the next by a tenth.
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


@pytest.mark.parametrize("name", ["40ms", "10ms", "3ms", "3ms 4 replicas"])
def test_a_cold_start_costs_ten_batches(name: str) -> None:
    """Half a load from nothing: what is lost is no more than comes in the time of ten batches, or in a second."""
    profile = profiles()[name]
    lost = 1 - goodput(Scheduled(profile), profile, 0.5, SEED, QUERIES, warm_up=0.0)
    end_s = max(40 * profile.slo_s, QUERIES / (profile.cap_per_s() * 0.5))
    assert lost <= min(1.0, 10 * profile.slo_s / 2) / end_s
