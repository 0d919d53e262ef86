from dataclasses import replace

import pytest
from fake_records import Records

from clipper.control.snapshot import Snapshot
from clipper.managers.reconcile.plan import Slot
from clipper.registry.records import VersionRecord
from clipper.rollout.facts import Facts, SlotFacts, WorkerFacts
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
from clipper.rollout.story import MAX_EVENTS, Step, Story
from clipper.settings.version import Batching, VersionSpec
from clipper.types import ModelId

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
    assert story.events == (
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
    assert story.events == (
        Step(1.0, "m:1#1", "leaves service: it is no longer needed"),
        Step(1.0, "workers", "get a spare: of upgrades"),
    )
    for at in range(MAX_EVENTS):
        story.record(float(at), [Retire(SLOT.slot, "")])
    assert len(story.events) == MAX_EVENTS and story.events[0].at == 0.0


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
    assert story.events == (Step(1.0, subject, text),)


def test_what_happened_beside_is_noted_as_it_is() -> None:
    story = Story()
    story.note(1.0, "app", "the newcomer was stopped")
    assert story.events == (Step(1.0, "app", "the newcomer was stopped"),)


def test_it_says_why_a_worker_is_down() -> None:
    story = Story()
    story.follow(1.0, facts(phase="backing_off", last_error="killed"))
    story.follow(2.0, facts(phase="crash_loop"))
    assert [event.text for event in story.events] == ["backing_off: killed", "crash_loop"]
