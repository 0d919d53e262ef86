"""Which workers are on which nodes."""

import pytest

from clipper.supervisor.rollout.workers import MAX_WORKERS_ON_NODES, place_workers
from clipper.values.types import ModelId
from tests.supervisor.rollout.nodes_world import LOST_AFTER_S, NODES, NodesWorld
from tests.supervisor.rollout.world import World


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
def test_workers_stay_in_place_and_missing_ones_get_the_lowest_numbers(
    nodes: tuple[str, ...], per_node: int, placed: dict[int, str], found: dict[int, str]
) -> None:
    assert place_workers(nodes, per_node, placed) == found
    assert place_workers(nodes, per_node, found) == found


def test_workers_of_a_node_that_is_left_stay_and_it_gets_no_new_ones() -> None:
    placed = {0: "a", 1: "b", 2: "b"}
    assert place_workers(("a", "c"), 1, placed, leaving=("b",)) == {0: "a", 1: "b", 2: "b", 3: "c"}
    assert place_workers(("a", "b"), 3, {0: "a"}, leaving=("b",)) == {0: "a", 1: "a", 2: "a"}


def test_every_node_gets_a_worker_before_any_gets_two_if_workers_are_few() -> None:
    nodes = [f"10.0.{number // 250}.{number % 250}" for number in range(200)]
    found = place_workers(nodes, 2, {})
    assert len(found) == MAX_WORKERS_ON_NODES
    assert set(found.values()) == set(nodes)
    assert place_workers(nodes * 2, 2, found) == found


def test_nothing_waits_for_a_lost_worker_and_all_waits_for_it_once_found() -> None:
    world = NodesWorld()
    world.settle(5.0)
    world.operators.deploy("m", "1", "good", "a", current=True, replicas=1)
    world.settle(5.0)
    lost = world.workers[1]
    world.cut(1)
    world.advance(world.now_s + LOST_AFTER_S + 1)
    assert lost.phase == "lost"
    before = lost.serves
    world.operators.deploy("m", "2", "good", "a", current=True, replicas=1)
    World.settle(world, 10.0)
    assert world.records.models["m"].current == "2" and world.records.versions[ModelId("m", "2")].state == "ready"
    assert lost.phase == "lost" and lost.serves is before  # it goes on by that
    world.heal(1)
    world.operators.deploy("m", "3", "good", "a", current=True, replicas=1)
    for _ in range(10):
        world.look()
        for worker in world.workers:
            if worker is not lost:
                world.deliver(worker)
                world.hear(worker)
        world.advance(world.now_s + 0.5)
    assert world.records.models["m"].current == "2", "it became current, and a worker that counts was not told"
    World.settle(world, 10.0)
    assert world.records.models["m"].current == "3" and lost.serves.generation == world.rollout.snapshots.generation


def test_a_lost_node_keeps_nobody_waiting_and_the_next_takes_its_numbers() -> None:
    world = NodesWorld()
    world.settle(5.0)
    world.lose_node(0)
    world.follow_nodes()
    assert [worker.index for worker in world.workers] == [1, 2, 4, 5]
    world.operators.deploy("m", "1", "good", "a", current=True, replicas=1)
    World.settle(world, 10.0)
    assert world.records.models["m"].current == "1"
    assert {worker.serves.workers for worker in world.workers} == {4}
    world.settle(5.0)
    assert [(worker.index, worker.node) for worker in world.workers if worker.node == NODES[0]] == [
        (0, NODES[0]),
        (3, NODES[0]),
    ]
    assert {worker.serves.workers for worker in world.workers} == {6}
