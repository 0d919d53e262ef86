"""Which workers are on which nodes."""

import pytest

from clipper.rollout.nodes import MAX_WORKERS_ON_NODES, place_workers


@pytest.mark.parametrize(
    ("nodes", "per_node", "placed", "found"),
    [
        ((), 2, {}, {}),
        (("b", "a"), 1, {}, {0: "a", 1: "b"}),
        (("a", "b"), 2, {}, {0: "a", 1: "b", 2: "a", 3: "b"}),
        # One is lost, and its index is free for the next.
        (("b",), 1, {0: "a", 1: "b"}, {1: "b"}),
        (("b", "c"), 1, {1: "b"}, {0: "c", 1: "b"}),
        # Fewer a node than there are, as after a start with fewer.
        (("a",), 1, {0: "a", 1: "a"}, {0: "a"}),
        (("a",), 3, {7: "a"}, {0: "a", 1: "a", 7: "a"}),
    ],
)
def test_workers_stay_where_they_are_and_what_is_missing_gets_the_lowest_numbers(
    nodes: tuple[str, ...], per_node: int, placed: dict[int, str], found: dict[int, str]
) -> None:
    assert place_workers(nodes, per_node, placed) == found
    assert place_workers(nodes, per_node, found) == found


def test_every_node_gets_a_worker_before_any_gets_two_if_there_are_not_enough_for_all() -> None:
    nodes = [f"10.0.{number // 250}.{number % 250}" for number in range(200)]
    found = place_workers(nodes, 2, {})
    assert len(found) == MAX_WORKERS_ON_NODES
    assert set(found.values()) == set(nodes)
    assert place_workers(nodes * 2, 2, found) == found
