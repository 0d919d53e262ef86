"""The rules on what workers are told: facts, and what is done about them."""

from typing import Any

import pytest

from clipper.control.snapshot import ApplicationSnapshot, Peer
from clipper.supervisor.registry.records import KeyRecord, ModelRecord
from clipper.supervisor.rollout.facts import Facts
from clipper.supervisor.rollout.instructions import TakeEpochAbove, WakeAt
from clipper.supervisor.rollout.snapshot_rollout import ASK_AGAIN_S, SnapshotRollout
from tests.supervisor.rollout.rules_bench import (
    CURRENT,
    EPOCH,
    STOP,
    bench,
    committed,
    leaving,
    linked_start,
    slot,
    version,
    worker,
)


def test_a_snapshot_says_what_has_changed() -> None:
    assert bench(workers=(worker(peer=None),)).push().why == "changed: nothing, it is the first"
    one = bench(*CURRENT, slots=(slot(),))
    assert one.push().why == "changed: models m; workers"
    one.applications = (ApplicationSnapshot("app", "float64[2]", 20.0),)
    assert one.push().why == "changed: applications"
    one.records.keys["key"] = KeyRecord("key", "digest", created_at=1.0)
    assert one.push().why == "changed: keys"
    one.workers = (worker(0), worker(1))
    assert one.push().why == "changed: workers"
    one.slots = ()
    one.records.models = {"l": ModelRecord("l")}
    one.records.versions.clear()
    assert one.push().why == "changed: models l, m"


def test_workers_are_asked_again_only_while_something_is_awaited() -> None:
    one = leaving(worker(0)).applied(undrained=("m:1#2.g1",))
    first = one.rollout.snapshots.generation
    for later_s in (0.0, 0.4 * ASK_AGAIN_S):
        one.now_s = 100.0 + later_s
        assert one.look() == [WakeAt(100.0 + ASK_AGAIN_S)]
    one.now_s = 100.0 + ASK_AGAIN_S
    assert one.push().snapshot.generation == first + 1
    one.now_s += ASK_AGAIN_S
    assert one.look() == [WakeAt(one.now_s + ASK_AGAIN_S)]  # the last one was not answered yet
    one.applied()
    assert one.look() == STOP
    one.now_s += ASK_AGAIN_S
    assert one.look() == []


@pytest.mark.parametrize("fields", [{"found_generation": (9 << 32) + 5}, {"generation": (9 << 32) + 5}])
def test_a_worker_that_is_ahead_is_overtaken(fields: Any) -> None:
    """It was told by a supervisor of the registry as it was before a backup was restored."""
    one = linked_start()
    one.workers = (worker(0, **fields),)
    push = one.push()
    assert push.snapshot.generation == (10 << 32) + 1
    assert one.look() == [WakeAt(100.0 + ASK_AGAIN_S)]  # its answer to that is waited for
    assert committed(one.applied().look())


@pytest.mark.parametrize("fields", [{"found_generation": (9 << 32) + 5}, {"generation": (9 << 32) + 5}])
def test_where_epochs_are_of_leases_a_later_lease_is_asked_for_once(fields: Any) -> None:
    """Redis was restored from an older copy: workers refuse what is said for any epoch but that of a lease."""
    one = linked_start()
    one.rollout.snapshots = SnapshotRollout(EPOCH, needs_key=False, is_leased=True)
    one.workers = (worker(0), worker(1, **fields))
    (asked,) = one.look()
    assert isinstance(asked, TakeEpochAbove) and asked.epoch == 9
    for later_s in (0.0, 10.0):
        one.now_s = 100.0 + later_s
        assert one.look() == [WakeAt(one.now_s + ASK_AGAIN_S)]
    # Nothing is told meanwhile, also if the worker goes, or another is further still.
    one.workers = (worker(0),)
    assert one.look() == [WakeAt(one.now_s + ASK_AGAIN_S)]
    one.workers = (worker(0), worker(1, found_generation=12 << 32))
    (again,) = one.look()
    assert isinstance(again, TakeEpochAbove) and again.epoch == 12


def test_a_worker_that_was_found_in_this_epoch_is_overtaken_too() -> None:
    """Its supervisor counted as ours does, from a registry that was restored; it was not as far as we are now."""
    one = linked_start()
    one.workers = (worker(0, found_generation=EPOCH << 32, generation=None),)
    assert one.push().snapshot.generation == ((EPOCH + 1) << 32) + 1


def test_a_worker_that_serves_by_what_we_never_told_has_applied_nothing() -> None:
    one = linked_start()
    assert not one.rollout.snapshots.has_applied(worker(generation=(9 << 32)), EPOCH << 32)


def test_the_peers_are_those_that_have_a_process_and_are_not_leaving() -> None:
    one = bench(workers=(worker(0), worker(1, phase="draining"), worker(2, phase="backing_off", peer=None)))
    assert one.push().snapshot.peers == (Peer(0, "w0"),)


def test_a_snapshot_has_the_input_type_of_each_version() -> None:
    one = bench(*CURRENT, version("2", state="ready", kept=True, input_type="string"), slots=(slot(), slot(1, "2")))
    (model,) = one.push().snapshot.models
    assert [each.input_type for each in model.versions] == ["float64[2]", "string"]


def test_a_replica_is_told_of_from_its_first_snapshot_on() -> None:
    one = bench(*CURRENT, slots=(slot(),), workers=(worker(0), worker(1, phase="backing_off", peer=None)))

    def is_told_of(id_: str) -> bool:
        return one.rollout.told(Facts(one.now_s, one.records, (), one.slots, one.workers))(id_)

    first = one.push().snapshot.generation
    assert not is_told_of("m:1#2.g1")
    one.workers = (worker(0, generation=first - 1),)
    assert not is_told_of("m:1#1.g1")
    one.slots = (slot(), slot(2))
    one.workers = (worker(0, generation=first),)
    one.record(replicas_wanted=2)
    one.push()
    assert is_told_of("m:1#1.g1") and not is_told_of("m:1#2.g1")
