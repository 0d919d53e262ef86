"""The cost of a worker's preference for the replicas on its own node, in simulation."""

import pytest

from benchmarks.batching.nearness import compare
from benchmarks.batching.profiles import profiles


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "far", "load", "most_far"),
    [
        ("3ms 4 replicas", 2, 0.2, 0.02),
        ("40ms 4 replicas", 2, 0.9, 0.7),
        ("3ms 4 replicas, bursts", 2, 0.5, 0.5),
    ],
)
def test_what_the_preference_costs_in_simulation(name: str, far: int, load: float, most_far: float) -> None:
    """``make batching`` says what it is: here, that it is next to nothing."""
    found = compare(profiles()[name], load, far, seed=3, queries=400)
    assert found.near_first >= found.even - 0.01
    assert found.far_share <= most_far
