"""The fate of processes, and decisions: steps of the history, and events."""

from dataclasses import replace

import pytest

from clipper.api.events import Step
from clipper.control.snapshot import Snapshot
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.history.story import MAX_STEPS, Story, started_event
from clipper.supervisor.managers.reconcile.plan import History, Slot
from clipper.supervisor.registry.records import VersionRecord
from clipper.supervisor.rollout.facts import Facts, SlotFacts, WorkerFacts
from clipper.supervisor.rollout.instructions import (
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
from clipper.values.types import ModelId
from tests.supervisor.rollout.fake_records import Records

SLOT = SlotFacts(Slot("m", "1", 1), "starting", VersionSpec("a", "import", "m:f"))


def facts(*slots: SlotFacts, **worker: object) -> Facts:
    workers = (WorkerFacts(0, **{"phase": "ready", **worker}),)  # type: ignore[arg-type]
    return Facts(0.0, Records(), (), slots, workers)


def test_it_tells_what_became_of_processes_once() -> None:
    story = Story()
    story.follow(1.0, facts(SLOT))
    story.follow(2.0, facts(SLOT))
    story.follow(3.0, facts(replace(SLOT, phase="ready")))
    story.follow(4.0, facts(replace(SLOT, phase="dead", last_error="killed"), phase="draining"))
    story.follow(5.0, facts(phase="ready", last_error="of before"))
    assert story.steps == (
        Step(1.0, "m:1#1", "starting"),
        Step(1.0, "worker-0", "ready"),
        Step(3.0, "m:1#1", "ready"),
        Step(4.0, "m:1#1", "dead: killed"),
        Step(4.0, "worker-0", "draining"),
        Step(5.0, "worker-0", "ready"),
        Step(5.0, "m:1#1", "gone"),
    )


def test_it_tells_what_was_decided_and_keeps_the_latest() -> None:
    story = Story()
    story.record(1.0, [Retire(SLOT.slot, "it is no longer needed"), StartSpare("of upgrades"), WakeAt(7.0)])
    assert story.steps == (
        Step(1.0, "m:1#1", "leaves service: it is no longer needed"),
        Step(1.0, "workers", "get a spare: of upgrades"),
    )
    for at in range(MAX_STEPS):
        story.record(float(at), [Retire(SLOT.slot, "")])
    assert len(story.steps) == MAX_STEPS and story.steps[0].at == 0.0


RECORD = VersionRecord("m", "1", SLOT.spec, Batching(), True, 1, 1.0, state="failed")


@pytest.mark.parametrize(
    ("instruction", "subject", "text"),
    [
        (Note(RECORD, "no module"), "m:1", "failed: no module"),
        (Commit(ModelId("m", "1"), (), "it is ready"), "m:1", "it is ready"),
        (Push(Snapshot(7), "changed: keys"), "workers", "get snapshot 7: changed: keys"),
        (Start(SLOT.slot, SLOT.spec, "it is needed"), "m:1#1", "is started: it is needed"),
        (Retire(SLOT.slot, "why"), "m:1#1", "leaves service: why"),
        (Stop(SLOT.slot, "why"), "m:1#1", "is stopped: why"),
        (Forget(SLOT.slot, "why"), "m:1#1", "is forgotten: why"),
        (StartSpare("why"), "workers", "get a spare: why"),
        (DrainWorker(2, "why"), "worker-2", "is drained: why"),
    ],
)
def test_each_decision_has_a_subject_and_a_reason(instruction: Instruction, subject: str, text: str) -> None:
    story = Story()
    story.record(1.0, [instruction])
    assert story.steps == (Step(1.0, subject, text),)


def test_what_happened_beside_is_noted_as_it_is() -> None:
    story = Story()
    story.note(1.0, "app", "the newcomer was stopped")
    assert story.steps == (Step(1.0, "app", "the newcomer was stopped"),)


def test_it_says_why_a_worker_is_down() -> None:
    story = Story()
    story.follow(1.0, facts(phase="backing_off", last_error="killed"))
    story.follow(2.0, facts(phase="crash_loop"))
    assert [event.text for event in story.steps] == ["backing_off: killed", "crash_loop"]


SPEC = VersionSpec(artifact="a" * 64, loader="file", target="model.joblib")
READY = SlotFacts(Slot("m", "2", 1), "ready", SPEC, id="m:2#1.g1")
DEAD = replace(READY, phase="dead", last_error="killed by SIGKILL")
LOOPS = replace(DEAD, history=History((1.0,), 5, crash_loop=True), last_error="exit 1")
WORKER = WorkerFacts(0, "ready")


def follow(*looks: SlotFacts | WorkerFacts | None) -> list[NewEvent]:
    story, found = Story(), []
    for look in looks:
        slots = (look,) if isinstance(look, SlotFacts) else ()
        workers = (look,) if isinstance(look, WorkerFacts) else ()
        found += story.follow(1.0, Facts(0.0, Records(), (), slots, workers))
    return found


def test_a_replica_that_ends_and_comes_back() -> None:
    starting = replace(READY, phase="starting", history=History((1.0,), 1))
    assert follow(READY, READY, DEAD, DEAD, starting, READY) == [
        NewEvent(
            "restart",
            "model m",
            "replica m:2#1 has ended and is started again: killed by SIGKILL",
            "2",
            "warning",
        )
    ]


def test_a_start_that_fails_is_told_with_its_version() -> None:
    starting = replace(READY, phase="starting")
    assert follow(starting, DEAD, starting, DEAD) == []


def test_a_replica_that_is_stopped_is_no_event() -> None:
    assert follow(READY, replace(READY, phase="stopping"), None, READY) == []


def test_of_a_crash_loop_the_beginning_is_told_once() -> None:
    starting = replace(LOOPS, phase="starting")
    up = replace(LOOPS, phase="ready")
    found = follow(READY, DEAD, READY, LOOPS, starting, LOOPS, starting, up, LOOPS, up)
    assert [(one.kind, one.level) for one in found] == [("restart", "warning"), ("crash_loop", "error")]
    assert found[1].message == "replica m:2#1 ends again and again, and is started every half minute: exit 1"
    # Once it was healthy, its next end is told again.
    assert [one.kind for one in follow(LOOPS, up, DEAD)] == ["restart"]


def test_a_loop_that_an_earlier_supervisor_told_is_not_told_again() -> None:
    assert follow(LOOPS, replace(LOOPS, phase="starting"), LOOPS) == []


def test_workers() -> None:
    down = replace(WORKER, phase="backing_off", last_error="killed by SIGKILL")
    starting = replace(WORKER, phase="starting")
    loops = replace(down, phase="crash_loop")
    found = follow(starting, WORKER, down, starting, loops, starting, WORKER, loops, starting, WORKER)
    assert [(one.kind, one.subject, one.message, one.level) for one in found] == [
        ("restart", "worker 0", "the worker has ended and is started again: killed by SIGKILL", "warning"),
        (
            "crash_loop",
            "worker 0",
            "the worker ends again and again, and is started every half minute: killed by SIGKILL",
            "error",
        ),
    ]


def test_a_worker_that_ends_after_a_loop_is_told_again() -> None:
    down, loops = replace(WORKER, phase="backing_off"), replace(WORKER, phase="crash_loop")
    assert [one.kind for one in follow(WORKER, loops, WORKER, down, WORKER, down, WORKER, loops)] == [
        "crash_loop",
        "restart",
        "crash_loop",
    ]


def test_a_worker_that_is_drained() -> None:
    (event,) = follow(WORKER, replace(WORKER, phase="draining"))
    assert event.message == "the worker is drained: it is started again with the present code and settings"
    spare = replace(WORKER, is_spare=True)
    (event,) = follow(spare, replace(spare, phase="draining"))
    assert event.message == "the worker is drained: it stood in while others were replaced"


def test_a_supervisor_starts() -> None:
    assert "taken over" not in started_event(7, 0, 0).message
    assert started_event(7, 2, 3).message.endswith("pid 7; it has taken over 2 workers and 3 replicas")


def test_a_worker_that_is_lost_and_found() -> None:
    up = replace(WORKER, node="10.0.0.2")
    lost = replace(up, phase="lost", last_error="worker-0 cannot be reached: TimeoutError()")
    found = follow(up, lost, lost, up)
    assert [(one.kind, one.subject, one.message, one.level) for one in found] == [
        (
            "lost",
            "worker 0",
            "the worker on node 10.0.0.2 cannot be reached: it goes on with its last snapshot, and nothing waits for "
            "it: worker-0 cannot be reached: TimeoutError()",
            "warning",
        ),
        ("lost", "worker 0", "the worker on node 10.0.0.2 can be reached again", "info"),
    ]
    ended = follow(up, lost, replace(up, phase="backing_off", last_error="was lost with its node"))
    assert [one.kind for one in ended] == ["lost", "restart"]
