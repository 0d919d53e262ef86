from dataclasses import replace

from world import Records

from clipper.managers.reconcile.plan import Slot
from clipper.rollout.facts import Facts, SlotFacts, WorkerFacts
from clipper.rollout.instructions import Retire, StartSpare, WakeAt
from clipper.rollout.story import MAX_EVENTS, Event, Story
from clipper.settings.version import VersionSpec

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
        Event(1.0, "m:1#1", "starting"),
        Event(1.0, "worker-0", "ready"),
        Event(3.0, "m:1#1", "ready"),
        Event(4.0, "m:1#1", "dead: killed"),
        Event(4.0, "worker-0", "draining"),
        Event(5.0, "worker-0", "ready"),
        Event(5.0, "m:1#1", "gone"),
    )


def test_it_tells_what_was_decided_and_keeps_the_latest() -> None:
    story = Story()
    story.tell(1.0, [Retire(SLOT.slot, "it is no longer needed"), StartSpare("of upgrades"), WakeAt(7.0)])
    assert story.events == (
        Event(1.0, "m:1#1", "leaves service: it is no longer needed"),
        Event(1.0, "workers", "get a spare: of upgrades"),
    )
    for at in range(MAX_EVENTS):
        story.tell(float(at), [Retire(SLOT.slot, "")])
    assert len(story.events) == MAX_EVENTS and story.events[0].at == 0.0
