"""The rules that replace workers and replicas of other code: facts, and what is done about them."""

from dataclasses import replace as replaced

from msgspec.structs import replace

from clipper.supervisor.managers.reconcile.plan import History, Slot
from clipper.supervisor.registry.records import ModelRecord
from clipper.supervisor.rollout.facts import SlotFacts
from clipper.supervisor.rollout.instructions import DrainWorker, Retire, Start, StartSpare, Stop
from tests.supervisor.rollout.rules_bench import (
    CURRENT,
    SPEC,
    STARTING,
    Bench,
    bench,
    dead,
    linked_start,
    slot,
    version,
    worker,
)


def upgrading(*slots: SlotFacts, wanted: int = 1) -> Bench:
    return bench(CURRENT[0], replace(CURRENT[1], replicas_wanted=wanted), slots=slots).told()


def test_a_replica_of_old_code_is_replaced_once_another_stands_in() -> None:
    old = slot(is_outdated=True)
    one = upgrading(old)
    assert one.look() == [Start(Slot("m", "1", 2), SPEC, "it stands in while others are replaced")]
    one.slots = (old, slot(2, phase="starting"))
    assert one.look() == []
    one.slots = (old, slot(2))
    one.push()
    assert one.look() == []  # workers have to know of it first
    assert one.applied().look() == [Retire(Slot("m", "1", 1), "it runs another Clipper's code or other settings")]
    one.slots = (slot(phase="stopping", is_outdated=True), slot(2))
    one.told()
    assert one.look() == [Stop(Slot("m", "1", 1), "no worker has a batch left there")]
    one.slots = (slot(2),)
    assert one.look() == [Start(Slot("m", "1", 1), SPEC, "it is needed")]
    one.slots = (slot(phase="starting"), slot(2))
    assert one.look() == []  # the one that stands in stays until then
    one.slots = (slot(), slot(2))
    one.told()
    assert one.look() == [Retire(Slot("m", "1", 2), "it is no longer needed")]


def test_a_replica_on_an_emptied_node_moves_once_another_stands_in() -> None:
    moves = slot(has_to_move=True)
    one = upgrading(moves)
    assert one.look() == [Start(Slot("m", "1", 2), SPEC, "it stands in while others are replaced")]
    one.slots = (moves, slot(2))
    one.told()
    assert one.look() == [Retire(Slot("m", "1", 1), "its node is being emptied")]
    # With no room elsewhere it stays where it is.
    other = upgrading(moves, dead(2, history=History((100.0,), 1)))
    assert not any(isinstance(each, Retire) for each in other.look())


def test_a_version_that_needs_no_new_replicas_keeps_no_other_waiting() -> None:
    model = ModelRecord("m", current="1", previous="2")
    one = bench(model, CURRENT[1], version("2", state="ready"), slots=(slot(), slot(1, "2", is_outdated=True)))
    assert one.told().look() == [Start(Slot("m", "2", 2), SPEC, "it stands in while others are replaced")]


def test_the_replicas_of_a_start_are_what_they_are_until_it_is_over() -> None:
    one = bench(ModelRecord("m"), STARTING, slots=(slot(phase="starting", is_outdated=True),))
    assert one.told().look() == []


def test_replicas_are_replaced_one_at_a_time_over_all_versions() -> None:
    other = version("2", state="ready")
    slots = (slot(is_outdated=True), slot(2, is_outdated=True), slot(3), slot(1, "2", is_outdated=True))
    model = ModelRecord("m", current="1", previous="2")
    one = bench(model, replace(CURRENT[1], replicas_wanted=2), other, slots=slots)
    assert one.told().look() == [Retire(Slot("m", "1", 1), "it runs another Clipper's code or other settings")]


def test_one_that_does_not_come_up_keeps_the_old_and_delays_no_other() -> None:
    loops = dead(2, history=History((100.0,), 5, crash_loop=True))
    one = bench(ModelRecord("m", current="1", previous="2"), CURRENT[1], version("2", state="ready"),
                slots=(slot(is_outdated=True), loops, slot(1, "2", is_outdated=True)))  # fmt: skip
    assert one.told().look() == [Start(Slot("m", "2", 2), SPEC, "it stands in while others are replaced")]


def test_workers_of_old_code_are_replaced_singly_and_before_replicas() -> None:
    old = (worker(0, is_outdated=True), worker(1, is_outdated=True))
    one = bench(*CURRENT, slots=(slot(is_outdated=True),), workers=old).told()
    assert one.look() == [StartSpare("workers with other code or settings have to be replaced")]
    one.workers = (*one.workers, worker(2, phase="starting", peer=None, is_spare=True))
    assert one.look() == []
    one.workers = (*one.workers[:2], worker(2, is_spare=True))
    one.push()
    assert one.look() == []
    one.applied()
    assert one.look() == [DrainWorker(0, "it runs with other code or settings")]
    newest = one.rollout.snapshots.generation
    one.workers = (worker(0, phase="draining", generation=newest), *one.workers[1:])
    one.told()
    for generation in (newest, one.rollout.snapshots.generation):
        one.workers = (worker(0, phase="draining", generation=generation), *one.workers[1:])
        assert not any(isinstance(each, DrainWorker) for each in one.look())
    one.workers = (worker(0), worker(1), worker(2, is_spare=True))
    one.told()
    assert one.look() == [DrainWorker(2, "all workers are replaced")]


def test_on_nodes_one_worker_of_all_is_replaced_at_a_time_without_a_spare() -> None:
    old = (worker(0, is_outdated=True, node="a"), worker(1, is_outdated=True, node="b"))
    lost = worker(2, phase="lost", peer=None, node="c")
    one = bench(*CURRENT, slots=(slot(),), workers=(*old, lost))
    newest = one.push().snapshot.generation
    one.workers = (replaced(old[0], generation=newest), replaced(old[1]), lost)
    assert not any(isinstance(each, DrainWorker) for each in one.look())
    one.workers = (replaced(old[0], generation=newest), replaced(old[1], generation=newest), lost)
    assert one.look() == [DrainWorker(0, "it runs with other code or settings")]
    new = worker(0, generation=newest, node="a")
    for first in (replaced(new, phase="starting"), replaced(new, phase="backing_off", peer=None)):
        one.workers = (first, replaced(old[1], generation=newest), lost)
        assert not any(isinstance(each, DrainWorker) for each in one.look())
    one.workers = (new, replaced(old[1], generation=newest), lost)
    newest = one.push().snapshot.generation
    one.workers = (replaced(new, generation=newest), replaced(old[1], generation=newest), lost)
    assert one.look() == [DrainWorker(1, "it runs with other code or settings")]
    one.workers = (replaced(new, generation=newest), worker(1, generation=newest, node="b"), lost)
    assert one.look() == []


def test_workers_are_replaced_while_a_version_is_linked() -> None:
    refused = {"m:1#1.g1": "refused"}
    one = linked_start(unlinked=refused)
    one.workers = (worker(generation=one.rollout.snapshots.generation, unlinked=refused, is_outdated=True),)
    assert one.look() == [StartSpare("workers with other code or settings have to be replaced")]
