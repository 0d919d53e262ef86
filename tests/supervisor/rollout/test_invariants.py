"""Each invariant of a rollout that has nothing to do is noticed when it does not hold."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from clipper.control.snapshot import Peer, ReplicaAddress
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.registry.records import ModelRecord, VersionRecord
from clipper.supervisor.rollout.facts import Facts, SlotFacts, WorkerFacts
from clipper.supervisor.rollout.instructions import Push, WakeAt
from clipper.supervisor.rollout.rollout import Rollout
from clipper.supervisor.rollout.versions import Linking
from clipper.values.types import ModelId
from tests.supervisor.rollout.fake_records import Records, records_of
from tests.supervisor.rollout.invariants import validate

SPEC = VersionSpec("a", "import", "m:f")
ONE, TWO = ModelId("m", "1"), ModelId("m", "2")
GENERATION = 7 << 32


def version(name: str, state: str) -> VersionRecord:
    return VersionRecord("m", name, SPEC, Batching(), True, 1, float(name), state=state, input_type="float64[2]")  # type: ignore[arg-type]


def slot(index: int, phase: str) -> SlotFacts:
    id_ = f"m:1#{index}.g1"
    return SlotFacts(Slot("m", "1", index), phase, SPEC, id_, ReplicaAddress(id_, "unix:x"), "float64[2]")  # type: ignore[arg-type]


class Settled:
    """One version with a replica, a second replica on its way out, and a second version that sleeps."""

    def __init__(self) -> None:
        self.rollout = Rollout(7)
        self.records: Records = records_of(
            ModelRecord("m", current="1"), version("1", "ready"), version("2", "sleeping")
        )
        self.slots: tuple[SlotFacts, ...] = (slot(1, "ready"), slot(2, "stopping"))
        self.rollout.look(self.facts)
        instructions = self.rollout.look(self.facts)
        assert not any(isinstance(one, Push) for one in instructions)
        assert all(isinstance(one, WakeAt) for one in instructions)

    @property
    def facts(self) -> Facts:
        # It has not heard of the newest snapshot, so that the second replica is waited for.
        worker = WorkerFacts(0, "ready", Peer(0, "w0"), GENERATION)
        return Facts(100.0, self.records, (), self.slots, (worker,))

    def record(self, id_: ModelId, **fields: object) -> None:
        self.records.versions[id_] = changed(self.records.versions[id_], **fields)


def nothing_told(one: Settled) -> None:
    one.rollout.snapshots.content = None


def told_since_nobody_knows_when(one: Settled) -> None:
    one.rollout.snapshots.told_in.clear()


def told_in_the_future(one: Settled) -> None:
    one.rollout.snapshots.told_in["m:1#1.g1"] = one.rollout.snapshots.generation + 1


def told_of_one_that_starts(one: Settled) -> None:
    one.slots = (slot(1, "starting"), one.slots[1])


def told_of_a_removed_version(one: Settled) -> None:
    one.slots = (replace(one.slots[0], spec=VersionSpec("b", "import", "m:f")), one.slots[1])


def linking_what_does_not_run(one: Settled) -> None:
    one.rollout.versions.linking[TWO] = Linking(2.0, 100.0, is_start=True)


def linking_for_nothing(one: Settled) -> None:
    one.rollout.versions.linking[ONE] = Linking(1.0, 100.0, is_start=False)


def announcing_what_sleeps(one: Settled) -> None:
    one.rollout.versions.announcing[TWO] = one.rollout.snapshots.generation


def announcing_in_no_snapshot(one: Settled) -> None:
    one.rollout.versions.announcing[ONE] = None


def announcing_in_the_future(one: Settled) -> None:
    one.rollout.versions.announcing[ONE] = one.rollout.snapshots.generation + 1


def retired_and_starting(one: Settled) -> None:
    one.slots = (one.slots[0], slot(2, "starting"))


def leaving_and_forgotten(one: Settled) -> None:
    one.rollout.replicas.retired.clear()


def two_of_one_rank(one: Settled) -> None:
    one.record(ONE, promotion=3)
    one.record(TWO, promotion=3)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (nothing_told, "workers were told nothing"),
        (told_since_nobody_knows_when, "not known since when"),
        (told_in_the_future, "a snapshot that is none yet"),
        (told_of_one_that_starts, "which is starting"),
        (told_of_a_removed_version, "of a version that was removed"),
        (linking_what_does_not_run, "does not run and is being linked"),
        (linking_for_nothing, "is linked for nothing"),
        (announcing_what_sleeps, "is announced and not ready"),
        (announcing_in_no_snapshot, "is announced in no snapshot"),
        (announcing_in_the_future, "is announced in no snapshot"),
        (retired_and_starting, "is retired and starting"),
        (leaving_and_forgotten, "a replica is leaving that nobody would stop"),
        (two_of_one_rank, "are to become current at once"),
    ],
)
def test_what_does_not_hold_is_noticed(wrong: Callable[[Settled], None], says: str) -> None:
    one = Settled()
    validate(one.rollout, one.facts)
    wrong(one)
    with pytest.raises(AssertionError, match=says):
        validate(one.rollout, one.facts)


def announcing_in_the_newest_snapshot(one: Settled) -> None:
    one.rollout.versions.announcing[ONE] = one.rollout.snapshots.generation


def told_in_the_newest_snapshot(one: Settled) -> None:
    one.rollout.snapshots.told_in["m:1#1.g1"] = one.rollout.snapshots.generation


def linking_a_start_that_is_not_to_be_current(one: Settled) -> None:
    one.record(ONE, state="starting")
    one.rollout.versions.linking[ONE] = Linking(1.0, 100.0, is_start=True)


def linking_to_make_it_current(one: Settled) -> None:
    one.record(ONE, promotion=3)
    one.rollout.versions.linking[ONE] = Linking(1.0, 100.0, is_start=False)


def two_requests_of_different_rank(one: Settled) -> None:
    one.record(ONE, promotion=3)
    one.record(TWO, promotion=4)


def equal_requests_of_two_models(one: Settled) -> None:
    one.record(ONE, promotion=3)
    one.records.versions[ModelId("n", "1")] = changed(one.records.versions[TWO], model="n", promotion=3)
    one.records.models["n"] = ModelRecord("n")


@pytest.mark.parametrize(
    "right",
    [
        announcing_in_the_newest_snapshot,
        told_in_the_newest_snapshot,
        linking_a_start_that_is_not_to_be_current,
        linking_to_make_it_current,
        two_requests_of_different_rank,
        equal_requests_of_two_models,
    ],
)
def test_what_holds_is_let_through(right: Callable[[Settled], None]) -> None:
    one = Settled()
    right(one)
    validate(one.rollout, one.facts)
