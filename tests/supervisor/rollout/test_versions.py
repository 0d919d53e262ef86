"""The rules on versions: facts, and what is done about them."""

from typing import Any

import pytest
from msgspec.structs import replace

from clipper.control.snapshot import Newcomer
from clipper.settings.application import Link, Selection
from clipper.settings.replicas import ReplicaRange
from clipper.supervisor.managers.reconcile.plan import History, Slot
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.rollout.facts import Failure, SlotFacts, WorkerFacts
from clipper.supervisor.rollout.instructions import Commit, Forget, Note, Start, WakeAt
from clipper.supervisor.rollout.snapshot_rollout import ASK_AGAIN_S
from clipper.supervisor.rollout.versions import LINK_TIMEOUT_S
from clipper.supervisor.rollout.wanted import Contents, cancelled, running
from tests.supervisor.rollout.fake_records import records_of
from tests.supervisor.rollout.rules_bench import (
    CURRENT,
    EPOCH,
    ONE,
    OTHER,
    SPEC,
    STARTING,
    TWO,
    bench,
    committed,
    dead,
    linked_start,
    noted,
    slot,
    version,
    worker,
)


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


def test_a_version_that_was_asleep_has_a_replica_when_it_is_used_again() -> None:
    record = version(state="sleeping", replicas_wanted=0, scaling=ReplicaRange(0, 4), promotion=3)
    assert noted(bench(ModelRecord("m"), record).look()).replicas_wanted == 1


@pytest.mark.parametrize(("least", "wakes"), [(0, True), (1, False)])
def test_one_that_may_be_asleep_is_told_to_workers_as_one_that_wakes(least: int, wakes: bool) -> None:
    records = records_of(ModelRecord("m", current="1"), version(state="ready", scaling=ReplicaRange(least, 4)))
    (model,) = Contents().make(records, running(records), (), {}, ()).models
    assert [one.wakes for one in model.versions] == [wakes]


@pytest.mark.parametrize(
    ("slots", "is_starting"),
    [
        ((), True),
        ((slot(phase="starting"),), True),
        ((dead(last_error="killed"),), True),
        ((dead(history=History(crash_loop=True)), dead(2)), True),
        ((slot(), dead(2)), False),
        ((dead(history=History(crash_loop=True)),), False),
        ((slot(phase="starting", history=History(crash_loop=True)),), False),
    ],
)
def test_workers_are_told_whether_a_replica_is_coming(slots: tuple[SlotFacts, ...], is_starting: bool) -> None:
    one = bench(CURRENT[0], replace(CURRENT[1], replicas_wanted=2), slots=slots)
    (told,) = one.push().snapshot.models[0].versions
    assert (bool(told.replicas), told.is_starting) == (any(each.phase == "ready" for each in slots), is_starting)


def test_none_is_coming_for_a_version_that_is_asleep_or_stops() -> None:
    asleep = replace(CURRENT[1], replicas_wanted=0, scaling=ReplicaRange(0, 4))
    one = bench(CURRENT[0], asleep)
    (told,) = one.push().snapshot.models[0].versions
    assert told.wakes and not told.is_starting
    stopping = bench(ModelRecord("m"), version(state="sleeping"), slots=(slot(phase="stopping"),))
    assert not any(each.is_starting for each in stopping.push().snapshot.models[0].versions)


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
    ("at_deployment", "known", "told", "recorded"),
    [
        (None, (None, False), ("float64[]", False), ("float64[]", False)),
        (None, (None, False), ("float64[]", True), ("float64[]", True)),
        (None, (None, False), (None, False), (None, False)),
        # The first learned type stays, unless the container declares a type by now.
        (None, ("float64[]", False), ("int64[]", False), ("float64[]", False)),
        (None, ("float64[]", False), ("int64[]", True), ("int64[]", True)),
        # The deployment has the last word.
        ("float32[]", (None, False), ("float64[]", True), ("float32[]", True)),
        ("float32[]", (None, False), (None, False), ("float32[]", True)),
    ],
)
def test_the_type_of_outputs_is_declared_or_learned_once(
    at_deployment: str | None, known: tuple[str | None, bool], told: tuple[str | None, bool], recorded: object
) -> None:
    spec = replace(STARTING.spec, output_type=at_deployment)
    starting = replace(STARTING, spec=spec, output_type=known[0], output_is_declared=known[1])
    ready = slot(spec=spec, output_type=told[0], output_is_declared=told[1])
    record = noted(bench(ModelRecord("m"), starting, slots=(ready,)).look())
    assert (record.output_type, record.output_is_declared) == recorded


@pytest.mark.parametrize(
    ("at_deployment", "known", "told", "recorded"),
    [
        (None, (None, False), (None, True), (None, True)),
        # The first finding stays, unless a type is declared.
        (None, (None, True), ("float64[]", False), (None, True)),
        (None, ("float64[]", False), (None, True), ("float64[]", False)),
        ("float32[]", (None, True), (None, True), ("float32[]", False)),
    ],
)
def test_that_outputs_have_no_type_is_learned_once(
    at_deployment: str | None, known: tuple[str | None, bool], told: tuple[str | None, bool], recorded: object
) -> None:
    spec = replace(STARTING.spec, output_type=at_deployment)
    starting = replace(STARTING, spec=spec, output_type=known[0], output_is_untyped=known[1])
    ready = slot(spec=spec, output_type=told[0], output_is_untyped=told[1])
    record = noted(bench(ModelRecord("m"), starting, slots=(ready,)).look())
    assert (record.output_type, record.output_is_untyped) == recorded
    declares = slot(spec=spec, output_type="bool[]", output_is_declared=True)
    record = noted(bench(ModelRecord("m"), starting, slots=(declares,)).look())
    assert (record.output_type, record.output_is_untyped) == (at_deployment or "bool[]", False)


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


def test_a_version_is_ready_and_current_once_every_worker_linked_it() -> None:
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
        step = one.rollout.snapshots.generation - ((EPOCH << 32) + 1)
        one.workers = tuple(
            each if each.generation is None else worker(each.index, generation=each.generation + step, phase=each.phase)
            for each in workers
        )
    assert not any(isinstance(each, Commit) for each in one.look())


@pytest.mark.parametrize("phase", ["backing_off", "crash_loop", "stopping"])
def test_a_worker_that_is_down_keeps_nobody_waiting(phase: Any) -> None:
    one = linked_start()
    down = worker(1, phase=phase, peer=None)
    one.workers = (*one.workers, down)
    newest = one.push().snapshot
    assert newest.workers == 2  # each has half of what is bounded over all
    one.workers = (worker(0, generation=newest.generation), down)
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


def test_a_version_removed_while_it_is_linked_leaves_nothing_behind() -> None:
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


def test_a_first_version_is_a_newcomer_only_beside_an_answering_model() -> None:
    follows = ApplicationRecord("app", "float64[2]", 20.0, selection=Selection("thompson"),
                                links=(Link("m"), Link("n")))  # fmt: skip
    absent, silent, answering = (), (ModelRecord("n"),), (ModelRecord("n", current="9"),)
    for others, ramped in ((absent, ()), (silent, ()), (answering, (Newcomer(1, "m", "1", None, promoted=True),))):
        first = version(state="ready", promotion=1, is_new=True)
        one = bench(ModelRecord("m"), *others, first, follows, slots=(slot(),)).told()
        _, model, *applications = committed(one.look())
        assert model == ModelRecord("m", current="1")
        assert [each.newcomers for each in applications] == ([ramped] if ramped else [])


def test_asking_again_for_the_current_version_ends_what_waits_after_it() -> None:
    waits = version("2", state="starting", promotion=3)
    records = records_of(ModelRecord("m", current="1"), version("1", state="ready"), waits, version("3", state="ready"))
    assert cancelled(records, "m") == [replace(waits, promotion=None)]
    assert cancelled(records, "other") == []


def test_an_earlier_request_that_ends_first_leaves_the_later_one_its_wish() -> None:
    one = linked_start()
    one.records.versions[TWO] = version("2", state="starting", promotion=2, input_type=None)
    one.slots = (*one.slots, slot(1, "2", "starting"))
    ready, model = committed(one.look())
    assert (ready.version, model.current) == ("1", "1")


def test_an_unwritable_registry_is_tried_again_and_holds_up_nothing_else() -> None:
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


def test_a_version_is_announced_once_all_workers_know_it_is_current() -> None:
    one = linked_start()
    ready, model = committed(one.look())
    one.records.versions[ONE], one.records.models["m"] = ready, model
    assert not one.rollout.is_announced(ONE)
    one.push()
    assert one.look() == [] and not one.rollout.is_announced(ONE)
    one.applied().look()
    assert one.rollout.is_announced(ONE)


@pytest.mark.parametrize("becomes", [None, "sleeping"])
def test_a_version_removed_or_asleep_before_it_is_announced_is_forgotten(becomes: str | None) -> None:
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
