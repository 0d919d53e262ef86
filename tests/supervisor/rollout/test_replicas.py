"""The rules on replicas: facts, and what is done about them."""

from typing import Any

import pytest
from msgspec.structs import replace

from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.rollout.instructions import Retire, Start, Stop, WakeAt
from clipper.supervisor.rollout.versions import LINK_TIMEOUT_S
from tests.supervisor.rollout.rules_bench import (
    CURRENT,
    EPOCH,
    OTHER,
    SPEC,
    STOP,
    bench,
    dead,
    leaving,
    linked_start,
    slot,
    worker,
)


def test_what_is_missing_is_started_with_what_the_record_says() -> None:
    one = bench(CURRENT[0], replace(CURRENT[1], replicas_wanted=2), slots=(dead(last_error="killed"),)).told()
    assert one.look() == [
        Start(Slot("m", "1", 1), SPEC, "again: killed"),
        Start(Slot("m", "1", 2), SPEC, "it is needed"),
    ]


def test_no_replica_leaves_before_every_worker_knows_its_successor() -> None:
    one = bench(*CURRENT, slots=(slot(), slot(2)), workers=(worker(0), worker(1)))
    one.push()
    one.workers = (worker(0, generation=one.rollout.snapshots.generation), worker(1, generation=EPOCH << 32))
    assert one.look() == []
    assert one.applied().look() == [Retire(Slot("m", "1", 2), "it is no longer needed")]


@pytest.mark.parametrize("phase", ["starting", "ready"])
def test_a_removed_versions_replica_is_not_kept_for_a_namesake(phase: Any) -> None:
    """At once: it is nothing that anybody may be answered by."""
    one = bench(*CURRENT, slots=(slot(phase=phase, spec=OTHER),))
    assert one.look() == [Retire(Slot("m", "1", 1), "another version was deployed under its name")]
    one.slots = (slot(spec=OTHER, phase="stopping"),)
    assert one.push().snapshot.models[0].versions[0].replicas == ()


def test_a_replica_is_stopped_only_when_no_worker_has_a_batch_there() -> None:
    one = leaving(worker(0), worker(1))
    newest = one.rollout.snapshots.generation
    busy = worker(1, generation=newest, undrained=("m:1#2.g1",))
    for workers in (
        (worker(0, generation=newest), worker(1)),
        (worker(0, generation=newest), worker(1, generation=newest - 1)),
        (worker(0, generation=newest), busy),
        (
            worker(0, generation=newest),
            worker(1, generation=newest),
            worker(2, phase="draining", peer=None, is_spare=True),
        ),
    ):
        one.workers = workers
        assert not any(isinstance(each, Stop) for each in one.look())
    one.workers = (worker(0, generation=newest), worker(1, generation=newest))
    assert one.look() == STOP
    one.applied()
    assert one.look() == []  # it is told once
    one.slots = (slot(),)
    assert one.look() == [] and one.rollout.replicas.retired == {}


def test_one_that_is_stopped_already_keeps_no_other_from_being_stopped() -> None:
    one = bench(*CURRENT, slots=(slot(), slot(2, phase="stopping")))
    one.told()
    assert one.look() == STOP
    one.slots = (*one.slots, slot(3, phase="stopping"))
    assert one.look() == [Stop(Slot("m", "1", 3), "no worker has a batch left there")]


def test_it_is_looked_at_again_just_when_something_is_over() -> None:
    """And not only when workers are asked again."""
    one = linked_start()
    one.can_commit_at_s = one.now_s + 0.1
    assert one.look() == [WakeAt(one.now_s + 0.1)]
    one = linked_start(unlinked={"m:1#1.g1": "refused"})
    one.look()
    one.now_s += LINK_TIMEOUT_S - 0.1
    one.look()
    assert one.look() == [WakeAt(pytest.approx(one.now_s + 0.1))]
    one = leaving(worker(0))
    one.applied(undrained=("m:1#2.g1",)).look()
    one.now_s += 29.9
    one.look()
    assert one.look() == [WakeAt(pytest.approx(one.now_s + 0.1))]


def test_a_replica_whose_last_batch_takes_too_long_is_stopped_with_it() -> None:
    one = leaving(worker(0))
    one.applied(undrained=("m:1#2.g1",)).look()
    one.now_s += 29.9
    assert not any(isinstance(each, Stop) for each in one.look())
    one.now_s += 0.1
    one.applied(undrained=("m:1#2.g1",))
    assert one.look() == [Stop(Slot("m", "1", 2), "its last batch takes too long")]
