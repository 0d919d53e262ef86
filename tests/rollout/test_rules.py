"""One table a rule: facts, and what is done about them."""

from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace
from world import Records, records_of

from clipper.control.snapshot import ApplicationSnapshot, Newcomer, Peer, ReplicaAddress
from clipper.managers.reconcile.backoff import History
from clipper.managers.reconcile.plan import Slot
from clipper.registry.records import ApplicationRecord, KeyRecord, ModelRecord, VersionRecord
from clipper.rollout.facts import Facts, Failure, SlotFacts, WorkerFacts
from clipper.rollout.instructions import (
    Commit,
    DrainWorker,
    Forget,
    Instruction,
    Note,
    Push,
    Retire,
    Start,
    StartSpare,
    Stop,
    WakeAt,
)
from clipper.rollout.rollout import Rollout
from clipper.rollout.telling import ASK_AGAIN_S
from clipper.rollout.versions import LINK_TIMEOUT_S
from clipper.rollout.wanted import cancelled
from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching, VersionSpec
from clipper.types import ModelId

SPEC, OTHER = VersionSpec("a", "import", "m:f"), VersionSpec("b", "import", "m:f")
ONE, TWO = ModelId("m", "1"), ModelId("m", "2")
EPOCH = 7


def version(name: str = "1", **fields: Any) -> VersionRecord:
    return VersionRecord("m", name, **{"spec": SPEC, "batching": Batching(), "cache": True, "replicas_wanted": 1,
                                       "created_at": float(name), "input_type": "float64[2]", **fields})  # fmt: skip


def slot(index: int = 1, name: str = "1", phase: Any = "ready", **fields: Any) -> SlotFacts:
    id_ = f"m:{name}#{index}.g1"
    given = {"spec": SPEC, "id": id_, "address": ReplicaAddress(id_, f"unix:{id_}"), "input_type": "float64[2]"}
    return SlotFacts(Slot("m", name, index), phase, **(given | fields))


def dead(index: int = 1, name: str = "1", **fields: Any) -> SlotFacts:
    return slot(index, name, "dead", id="", address=None, input_type=None, **fields)


def worker(index: int = 0, **fields: Any) -> WorkerFacts:
    return WorkerFacts(index, **{"phase": "ready", "peer": Peer(index, f"w{index}"), **fields})


@dataclass
class Bench:
    """A rollout, and facts to be changed between its looks."""

    rollout: Rollout
    records: Records
    slots: tuple[SlotFacts, ...] = ()
    workers: tuple[WorkerFacts, ...] = (worker(),)
    now_s: float = 100.0
    can_commit_at_s: float = float("-inf")
    applications: tuple[ApplicationSnapshot, ...] = ()

    def look(self) -> list[Instruction]:
        facts = Facts(self.now_s, self.records, self.applications, self.slots, self.workers, self.can_commit_at_s)
        return self.rollout.look(facts)

    def applied(self, **fields: Any) -> "Bench":
        """All workers serve by the newest snapshot."""
        self.workers = tuple(
            worker(one.index, generation=self.rollout.telling.generation, is_outdated=one.is_outdated,
                   is_spare=one.is_spare, **fields) for one in self.workers
        )  # fmt: skip
        return self

    def push(self) -> Push:
        (push,) = self.look()
        assert isinstance(push, Push)
        return push

    def told(self, **fields: Any) -> "Bench":
        self.push()
        return self.applied(**fields)

    def record(self, name: str = "1", **fields: Any) -> None:
        id_ = ModelId("m", name)
        self.records.versions[id_] = replace(self.records.versions[id_], **fields)


def bench(*records: Any, slots: tuple[SlotFacts, ...] = (), workers: tuple[WorkerFacts, ...] = (worker(),)) -> Bench:
    return Bench(Rollout(EPOCH, workers=len(workers)), records_of(*records), slots, workers)


def noted(instructions: list[Instruction]) -> VersionRecord:
    (note,) = instructions
    assert isinstance(note, Note), note
    return note.record


def committed(instructions: list[Instruction]) -> list[Any]:
    (commit,) = instructions
    assert isinstance(commit, Commit), commit
    return [change.record for change in commit.changes]


STARTING = version(state="starting", promotion=1, input_type=None)
CURRENT = (ModelRecord("m", current="1"), version(state="ready"))


def linked_start(**fields: Any) -> Bench:
    """A version whose only replica is up and known to the worker."""
    one = bench(ModelRecord("m"), STARTING, slots=(slot(),))
    noted_record = noted(one.look())
    one.records.versions[ONE] = noted_record
    return one.told(**fields)


# Versions


@pytest.mark.parametrize(
    ("record", "becomes"),
    [
        (version(state="ready"), "sleeping"),
        (version(state="starting"), "sleeping"),
        (version(state="sleeping"), None),
        (version(state="failed"), None),
        (version(state="sleeping", promotion=3), "starting"),
        (version(state="sleeping", kept=True), "starting"),
        (version(state="failed", promotion=3), None),
    ],
)
def test_what_runs_no_more_sleeps_and_what_is_asked_for_starts(record: VersionRecord, becomes: str | None) -> None:
    instructions = bench(ModelRecord("m"), record).look()
    if becomes is None:
        assert not any(isinstance(one, Note) for one in instructions)
    else:
        assert noted(instructions).state == becomes


@pytest.mark.parametrize(
    ("slots", "state", "error"),
    [
        ((dead(start_failure=Failure("no module", ("line",))),), "failed", "no module"),
        ((slot(), dead(2, start_failure=Failure("no memory"))), "failed", "no memory"),
        (
            (slot(), dead(2, history=History(crash_loop=True), last_error="killed")),
            "failed",
            "its replicas do not stay up: killed",
        ),
        ((slot(), slot(2)), "starting", None),
    ],
)
def test_a_start_fails_with_the_first_replica_that_cannot_start(
    slots: tuple[SlotFacts, ...], state: str, error: str | None
) -> None:
    record = noted(bench(ModelRecord("m"), replace(STARTING, replicas_wanted=2), slots=slots).look())
    assert (record.state, record.last_error) == (state, error)
    assert record.promotion == (None if state == "failed" else 1)


def test_a_start_that_failed_under_another_spec_says_nothing_of_this_one() -> None:
    """It was removed, and something else was deployed under its name, before anybody looked."""
    one = bench(ModelRecord("m"), STARTING, slots=(dead(spec=OTHER, start_failure=Failure("broken")),))
    assert one.look() == [Forget(Slot("m", "1", 1), "another version was deployed under its name")]


def test_a_version_whose_type_does_not_fit_fails() -> None:
    application = ApplicationRecord("app", "string", 20.0, links=(Link("m"),))
    record = noted(bench(ModelRecord("m"), STARTING, application, slots=(slot(),)).look())
    assert record.state == "failed" and "app" in (record.last_error or "")


def test_what_its_containers_report_is_recorded_with_a_start() -> None:
    starting = replace(STARTING, runtime="python 3.10")
    for input_type, runtime, recorded in (("float64[2]", "python 3.11", ("float64[2]", "python 3.11")),
                                          (None, "", (None, "python 3.10"))):  # fmt: skip
        told = slot(input_type=input_type, runtime=runtime, warning="slow to load")
        record = noted(bench(ModelRecord("m"), starting, slots=(told,)).look())
        assert (record.input_type, record.runtime) == recorded
        assert (record.state, record.warning) == ("starting", "slow to load")


@pytest.mark.parametrize(
    ("link", "promotion", "state"),
    [
        (Link("m", "1"), None, "failed"),
        (Link("m", "2"), 1, "starting"),
        (Link("m"), 1, "failed"),
        (Link("m"), None, "starting"),
        (Link("other", "1"), 1, "starting"),
    ],
)
def test_a_version_has_to_fit_the_applications_that_will_ask_it(link: Link, promotion: int | None, state: str) -> None:
    application = ApplicationRecord("app", "string", 20.0, links=(link,))
    starting = replace(STARTING, promotion=promotion, kept=True)
    assert noted(bench(ModelRecord("m"), starting, application, slots=(slot(),)).look()).state == state


def test_a_version_becomes_ready_and_current_once_every_worker_has_linked_its_replicas() -> None:
    one = linked_start()
    one.record(is_new=True)
    ready, model = committed(one.look())
    assert (ready.state, ready.promotion, ready.kept, ready.is_new) == ("ready", None, False, False)
    assert model == ModelRecord("m", current="1", previous=None)


def test_a_version_that_is_not_to_be_current_becomes_ready_and_no_more() -> None:
    one = linked_start()
    one.record(promotion=None, kept=True)
    (ready,) = committed(one.look())
    assert (ready.state, ready.promotion, ready.kept) == ("ready", None, True)


def test_a_start_is_judged_while_there_is_a_replica_more_than_wanted() -> None:
    one = bench(ModelRecord("m"), STARTING, slots=(slot(), slot(2)))
    assert noted(one.look()).input_type == "float64[2]"


@pytest.mark.parametrize(
    "workers",
    [
        (worker(0, generation=(EPOCH << 32) + 1), worker(1, generation=EPOCH << 32)),  # one is behind
        (worker(0, generation=(EPOCH << 32) + 1), worker(1)),  # one has not answered
        (worker(0, generation=(EPOCH << 32) + 1), worker(1, phase="starting")),  # one comes up
        (worker(0, generation=(EPOCH << 32) + 1, unlinked={"m:1#1.g1": "refused"}),),
    ],
)
def test_no_version_is_promoted_before_every_worker_serves_by_it(workers: tuple[WorkerFacts, ...]) -> None:
    one = linked_start()
    one.workers = workers
    peers = tuple(each.peer for each in workers if each.peer)
    if len(peers) > 1:
        one.push()  # of the new peer
        step = one.rollout.telling.generation - ((EPOCH << 32) + 1)
        one.workers = tuple(
            each if each.generation is None else worker(each.index, generation=each.generation + step, phase=each.phase)
            for each in workers
        )
    assert not any(isinstance(each, Commit) for each in one.look())


@pytest.mark.parametrize("phase", ["backing_off", "crash_loop", "stopping"])
def test_a_worker_that_is_down_keeps_nobody_waiting(phase: Any) -> None:
    one = linked_start()
    one.workers = (*one.workers, worker(1, phase=phase, peer=None))
    assert committed(one.look())


def test_a_version_is_given_up_that_a_worker_cannot_dial() -> None:
    one = linked_start(unlinked={"m:1#1.g1": "refused"})
    assert one.look() == [WakeAt(100.0 + ASK_AGAIN_S)]
    one.now_s += LINK_TIMEOUT_S
    record = noted(one.look())
    assert record.state == "failed" and record.last_error == "a worker cannot dial its replica: refused"
    assert ONE not in one.rollout.versions.linking


def test_one_that_was_ready_already_only_does_not_become_current() -> None:
    one = bench(*CURRENT, version("2", state="ready", promotion=1), slots=(slot(), slot(1, "2"))).told(
        unlinked={"m:2#1.g1": "refused"}
    )
    assert isinstance(one.look()[0], WakeAt)
    one.now_s += LINK_TIMEOUT_S
    record = noted(one.look())
    assert (record.state, record.promotion) == ("ready", None) and "refused" in (record.last_error or "")


@pytest.mark.parametrize("slots", [(), (dead(last_error="killed"),), (slot(phase="starting"),)])
def test_no_version_becomes_ready_without_a_replica(slots: tuple[SlotFacts, ...]) -> None:
    """One that dies before all workers have it is waited for again, as one that is not up yet."""
    one = linked_start()
    one.slots = slots
    one.told()
    instructions = one.look()
    assert not any(isinstance(each, Commit) for each in instructions)
    assert ONE not in one.rollout.versions.linking


def test_no_version_that_is_ready_becomes_current_without_a_replica() -> None:
    one = bench(*CURRENT, version("2", state="ready", promotion=1), slots=(slot(), dead(1, "2"))).told()
    assert not any(isinstance(each, Commit) for each in one.look())
    one.now_s += LINK_TIMEOUT_S
    assert noted(one.look()).last_error == "none of its replicas is ready"


def test_a_version_that_is_removed_while_it_is_linked_leaves_nothing_behind() -> None:
    """And a broken one under its name is never ready."""
    one = linked_start(unlinked={"m:1#1.g1": "refused"})
    assert isinstance(one.look()[0], WakeAt)
    del one.records.versions[ONE]
    one.slots = ()
    one.told()
    assert one.look() == []
    one.records.versions[ONE] = replace(STARTING, spec=OTHER, created_at=9.0)
    assert one.look() == [Start(Slot("m", "1", 1), OTHER, "it is needed")]
    one.slots = (slot(phase="starting", spec=OTHER),)
    one.now_s += LINK_TIMEOUT_S
    assert one.look() == []
    one.slots = (dead(spec=OTHER, start_failure=Failure("broken")),)
    assert noted(one.look()).state == "failed"


def test_a_version_made_anew_while_it_was_linked_is_linked_anew() -> None:
    one = linked_start()
    one.record(created_at=9.0)
    assert noted(one.look()).created_at == 9.0  # not a commit: its own replicas have to be up and told of first


def test_of_two_requests_the_later_one_wins_whichever_is_done_first() -> None:
    later = version("2", state="starting", promotion=2)
    one = bench(ModelRecord("m", current="0"), version("0", state="ready"), replace(STARTING, input_type="float64[2]"),
                later, slots=(slot(1, "0"), slot(phase="starting"), slot(1, "2")))  # fmt: skip
    one.records.versions[TWO] = noted(one.look())
    one.told()
    ready, model, overtaken = committed(one.look())
    assert (ready.version, model.current, model.previous) == ("2", "2", "0")
    assert (overtaken.version, overtaken.promotion, overtaken.state) == ("1", None, "starting")


def test_a_version_that_is_still_ramped_is_not_the_one_to_roll_back_to() -> None:
    ramped = ApplicationRecord("app", "float64[2]", 20.0, selection=Selection("thompson"), links=(Link("m"),),
                               newcomers=(Newcomer(1, "m", "2", "1", promoted=True),))  # fmt: skip
    one = bench(ModelRecord("m", current="2", previous="1"), version("1", state="ready"), version("2", state="ready"),
                version("3", state="ready", promotion=1, is_new=True), ramped,
                slots=(slot(1, "1"), slot(1, "2"), slot(1, "3"))).told()  # fmt: skip
    _, model, application = committed(one.look())
    assert model == ModelRecord("m", current="3", previous="1")
    assert application.newcomers == (Newcomer(1, "m", "3", "1", promoted=True),)


def test_the_first_version_of_a_model_is_a_newcomer_beside_another_model_that_answers_and_only_then() -> None:
    follows = ApplicationRecord("app", "float64[2]", 20.0, selection=Selection("thompson"),
                                links=(Link("m"), Link("n")))  # fmt: skip
    for current, ramped in ((None, ()), ("9", (Newcomer(1, "m", "1", None, promoted=True),))):
        first = version(state="ready", promotion=1, is_new=True)
        one = bench(ModelRecord("m"), ModelRecord("n", current=current), first, follows, slots=(slot(),)).told()
        _, model, *applications = committed(one.look())
        assert model == ModelRecord("m", current="1")
        assert [each.newcomers for each in applications] == ([ramped] if ramped else [])


def test_the_current_version_that_is_asked_for_again_ends_what_waits_to_take_its_place() -> None:
    waits = version("2", state="starting", promotion=3)
    records = records_of(ModelRecord("m", current="1"), version("1", state="ready"), waits, version("3", state="ready"))
    assert cancelled(records, "m") == [replace(waits, promotion=None)]
    assert cancelled(records, "other") == []


def test_an_earlier_request_that_is_done_first_leaves_the_later_one_its_wish() -> None:
    one = linked_start()
    one.records.versions[TWO] = version("2", state="starting", promotion=2, input_type=None)
    one.slots = (*one.slots, slot(1, "2", "starting"))
    ready, model = committed(one.look())
    assert (ready.version, model.current) == ("1", "1")


def test_a_registry_that_cannot_be_written_is_tried_again_later_and_holds_up_nothing_else() -> None:
    one = linked_start()
    one.can_commit_at_s = 105.0
    one.records.versions[TWO] = version("2", state="starting", kept=True, input_type=None)
    assert one.look() == [Start(Slot("m", "2", 1), SPEC, "it is needed")]
    one.slots = (*one.slots, slot(1, "2", "starting"))
    one.now_s = 100.0
    (wake,) = one.look()
    assert isinstance(wake, WakeAt) and wake.at_s <= 105.0
    one.now_s = 105.0
    assert committed(one.look())


def test_a_version_is_announced_once_every_worker_knows_that_it_is_current() -> None:
    one = linked_start()
    ready, model = committed(one.look())
    one.records.versions[ONE], one.records.models["m"] = ready, model
    assert not one.rollout.is_announced(ONE)
    one.push()
    assert one.look() == [] and not one.rollout.is_announced(ONE)
    one.applied().look()
    assert one.rollout.is_announced(ONE)


@pytest.mark.parametrize("becomes", [None, "sleeping"])
def test_a_version_that_is_removed_or_sleeps_before_it_is_announced_is_forgotten(becomes: str | None) -> None:
    one = linked_start()
    ready, _ = committed(one.look())
    one.records.versions[ONE] = ready
    assert not one.rollout.is_announced(ONE)
    if becomes is None:
        del one.records.versions[ONE]
        one.slots = ()
    else:
        one.record(state=becomes)
    one.look()
    assert one.rollout.is_announced(ONE)


# Replicas


def test_what_is_missing_is_started_with_what_the_record_says() -> None:
    one = bench(CURRENT[0], replace(CURRENT[1], replicas_wanted=2), slots=(dead(last_error="killed"),)).told()
    assert one.look() == [
        Start(Slot("m", "1", 1), SPEC, "again: killed"),
        Start(Slot("m", "1", 2), SPEC, "it is needed"),
    ]


def test_no_replica_leaves_service_before_every_worker_knows_what_takes_its_place() -> None:
    one = bench(*CURRENT, slots=(slot(), slot(2)), workers=(worker(0), worker(1)))
    one.push()
    one.workers = (worker(0, generation=one.rollout.telling.generation), worker(1, generation=EPOCH << 32))
    assert one.look() == []
    assert one.applied().look() == [Retire(Slot("m", "1", 2), "it is no longer needed")]


@pytest.mark.parametrize("phase", ["starting", "ready"])
def test_a_replica_of_a_version_that_was_removed_is_not_kept_for_one_of_its_name(phase: Any) -> None:
    """At once: it is nothing that anybody may be answered by."""
    one = bench(*CURRENT, slots=(slot(phase=phase, spec=OTHER),))
    assert one.look() == [Retire(Slot("m", "1", 1), "another version was deployed under its name")]
    one.slots = (slot(spec=OTHER, phase="stopping"),)
    assert one.push().snapshot.models[0].versions[0].replicas == ()


def leaving(*workers: WorkerFacts) -> Bench:
    one = bench(*CURRENT, slots=(slot(), slot(2, phase="stopping")), workers=workers)
    one.push()
    return one


STOP = [Stop(Slot("m", "1", 2), "no worker has a batch left there")]


def test_a_replica_is_stopped_only_when_no_worker_has_a_batch_there() -> None:
    one = leaving(worker(0), worker(1))
    newest = one.rollout.telling.generation
    busy = worker(1, generation=newest, undrained=("m:1#2.g1",))
    for workers in (
        (worker(0, generation=newest), worker(1)),
        (worker(0, generation=newest), worker(1, generation=newest - 1)),
        (worker(0, generation=newest), busy),
        (worker(0, generation=newest), worker(1, generation=newest), worker(2, phase="draining", peer=None)),
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


# Telling


def test_a_snapshot_says_what_has_changed() -> None:
    assert bench(workers=(worker(peer=None),)).push().why == "changed: nothing, it is the first"
    one = bench(*CURRENT, slots=(slot(),))
    assert one.push().why == "changed: models m; workers"
    one.applications = (ApplicationSnapshot("app", "float64[2]", 20.0),)
    assert one.push().why == "changed: applications"
    one.records.keys["key"] = KeyRecord("key", "digest", 1.0)
    assert one.push().why == "changed: keys"
    one.workers = (worker(0), worker(1))
    assert one.push().why == "changed: workers"
    one.slots = ()
    one.records.models = {"l": ModelRecord("l")}
    one.records.versions.clear()
    assert one.push().why == "changed: models l, m"


def test_workers_are_asked_again_while_something_is_waited_for_and_no_longer() -> None:
    one = leaving(worker(0)).applied(undrained=("m:1#2.g1",))
    first = one.rollout.telling.generation
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


def test_a_worker_that_was_found_in_this_epoch_is_overtaken_too() -> None:
    """Its supervisor counted as ours does, from a registry that was restored; it was not as far as we are now."""
    one = linked_start()
    one.workers = (worker(0, found_generation=EPOCH << 32, generation=None),)
    assert one.push().snapshot.generation == ((EPOCH + 1) << 32) + 1


def test_a_worker_that_serves_by_what_we_never_told_has_applied_nothing() -> None:
    one = linked_start()
    assert not one.rollout.telling.has_applied(worker(generation=(9 << 32)), EPOCH << 32)


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
        return one.rollout.is_told_of(Facts(one.now_s, one.records, (), one.slots, one.workers), id_)

    first = one.push().snapshot.generation
    assert not is_told_of("m:1#2.g1")
    one.workers = (worker(0, generation=first - 1),)
    assert not is_told_of("m:1#1.g1")
    one.slots = (slot(), slot(2))
    one.workers = (worker(0, generation=first),)
    one.record(replicas_wanted=2)
    one.push()
    assert is_told_of("m:1#1.g1") and not is_told_of("m:1#2.g1")


# Upgrades


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
    assert one.applied().look() == [Retire(Slot("m", "1", 1), "it runs another Clipper's code")]
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
    assert one.told().look() == [Retire(Slot("m", "1", 1), "it runs another Clipper's code")]


def test_one_that_does_not_come_up_keeps_the_old_ones_and_no_other_version_waiting() -> None:
    loops = dead(2, history=History((100.0,), 5, crash_loop=True))
    one = bench(ModelRecord("m", current="1", previous="2"), CURRENT[1], version("2", state="ready"),
                slots=(slot(is_outdated=True), loops, slot(1, "2", is_outdated=True)))  # fmt: skip
    assert one.told().look() == [Start(Slot("m", "2", 2), SPEC, "it stands in while others are replaced")]


def test_workers_of_old_code_are_replaced_one_at_a_time_and_before_replicas() -> None:
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
    newest = one.rollout.telling.generation
    one.workers = (worker(0, phase="draining", generation=newest), *one.workers[1:])
    one.told()
    for generation in (newest, one.rollout.telling.generation):
        one.workers = (worker(0, phase="draining", generation=generation), *one.workers[1:])
        assert not any(isinstance(each, DrainWorker) for each in one.look())
    one.workers = (worker(0), worker(1), worker(2, is_spare=True))
    one.told()
    assert one.look() == [DrainWorker(2, "all workers are replaced")]
