"""The rules for when a slot's process starts, leaves service and ends. Each method is one rule."""

from dataclasses import dataclass, replace
from itertools import chain

from clipper.supervisor.managers.reconcile.plan import Slot, SlotState, plan_replicas
from clipper.supervisor.rollout.facts import SlotFacts
from clipper.supervisor.rollout.instructions import Forget, Instruction, Retire, Start, Stop
from clipper.supervisor.rollout.snapshot_rollout import SnapshotRollout
from clipper.supervisor.rollout.view import View
from clipper.supervisor.rollout.wanted import batch_timeout_s
from clipper.values.types import ModelId

OUTDATED = "it runs another Clipper's code or other settings"


@dataclass(frozen=True, slots=True)
class Retired:
    """A replica that has left service: the time, and the first snapshot without it."""

    since_s: float
    generation: int
    is_stopped: bool = False


class Replicas:
    """The rules for replicas. ``retired``: ids of those out of service; ``renewing``: versions that get new ones."""

    def __init__(self) -> None:
        self.retired: dict[str, Retired] = {}
        self.renewing: set[ModelId] = set()

    def drop_stale(self, view: View) -> None:
        leaving = {slot.id for slot in view.leaving}
        self.retired = {id_: one for id_, one in self.retired.items() if id_ in leaving}

    def drop_outdated(self, view: View) -> list[Instruction]:
        """Retire replicas of removed versions, which a new version of the same name must not get."""
        instructions: list[Instruction] = []
        for one in chain.from_iterable(view.misplaced.values()):
            if one.lives:
                instructions.append(Retire(one.slot, "another version was deployed under its name"))
            elif one.phase == "dead":
                instructions.append(Forget(one.slot, "another version was deployed under its name"))
        return instructions

    def move(self, view: View, snapshots: SnapshotRollout) -> tuple[list[Instruction], float]:
        """Start missing replicas, and retire surplus replicas once every worker knows the replicas that stay. Return
        what to do, or when the next start is due.
        """
        renewing = self._renewed(view)
        # For most versions there is nothing to plan. The slots of the others are looked at one by one.
        desired = {id_: view.runs.get(id_, 0) + (id_ in renewing) for id_ in {*view.unsettled, *renewing}}
        found = [one for id_ in desired for one in view.grouped.get(id_, ())]
        observed = [SlotState(one.slot, one.phase, one.history) for one in found]
        plan = plan_replicas(desired, observed, view.now_s)
        versions = view.records.versions
        dead = {one.slot: one for one in found}
        instructions: list[Instruction] = [Forget(slot, "it is no longer needed") for slot in plan.forget]
        instructions += [
            Start(slot, versions[slot.model_id].spec, _why_started(dead.get(slot), slot, view)) for slot in plan.start
        ]
        if snapshots.all_know(view.facts):
            instructions += [Retire(slot, "it is no longer needed") for slot in plan.retire]
            instructions += [
                Retire(slot, OUTDATED if dead[slot].is_outdated else "its node is being emptied")
                for slot in renewing.values()
                if slot is not None and slot not in plan.retire
            ]
        return instructions, float("inf") if plan.wake_at_s is None else plan.wake_at_s

    def stop(self, view: View, snapshots: SnapshotRollout) -> tuple[list[Instruction], float]:
        """Stop replicas that have drained; return what to do, or when the next replica is overdue.

        A replica has drained when every worker has reported, for a snapshot without it, that no batch is left there; or
        when its last batch has run for so long that it counts as hung.
        """
        undrained = {id_ for worker in view.facts.workers for id_ in worker.undrained}
        # A worker that drains finishes its batches and reports nothing more.
        is_draining = any(worker.phase in ("draining", "stopping") for worker in view.facts.workers)
        instructions: list[Instruction] = []
        wake_at_s = float("inf")
        for one in view.leaving:
            retired = self.retired.setdefault(one.id, Retired(view.now_s, snapshots.generation))
            if retired.is_stopped:
                continue
            knows = snapshots.have_applied(view.facts, retired.generation)
            overdue_at_s = retired.since_s + batch_timeout_s(view.records, one.slot.model)
            is_drained = knows and not is_draining and one.id not in undrained
            if is_drained or view.now_s >= overdue_at_s:
                self.retired[one.id] = replace(retired, is_stopped=True)
                why = "no worker has a batch left there" if is_drained else "its last batch takes too long"
                instructions.append(Stop(one.slot, why))
            else:
                wake_at_s = min(wake_at_s, overdue_at_s)
        return instructions, wake_at_s

    def _renewed(self, view: View) -> dict[ModelId, Slot | None]:
        """Return the versions whose replicas are being replaced, each with the slot to give back now, or None to wait.

        Replicas are replaced if they have other code or settings, or are on nodes that are being emptied, one at a time
        over all versions. Such a version has an additional slot. When all its slots are ready, the first old replica
        gives its slot back, and a new replica starts in it. So there are never too few. Workers are replaced first,
        because workers of the old code need not understand containers of the new code.
        """
        found: dict[ModelId, Slot | None] = {}
        if not view.has_outdated and not self.renewing:
            return found
        if any(worker.is_outdated or worker.is_spare for worker in view.facts.workers):
            return found
        for id_, wanted in sorted(view.runs.items(), key=lambda item: str(item[0])):
            slots = view.slots_of.get(id_, [])
            own = [one for one in slots if one.slot.index <= wanted]
            old = [one for one in own if (one.is_outdated or one.has_to_move) and one.lives]
            is_whole = not old and sum(one.phase == "ready" for one in own) == wanted
            if view.records.versions[id_].state != "ready" or is_whole or not (old or id_ in self.renewing):
                continue
            has_spare = len(view.in_service.get(id_, ())) > wanted
            found[id_] = old[0].slot if old and has_spare else None
            # A version whose replicas do not come up must not keep the other versions waiting.
            if not any(one.history.crash_loop for one in slots):
                break
        self.renewing = set(found)
        return found

    @property
    def waits(self) -> bool:
        """Whether some replica has left service and is not stopped yet."""
        return any(not one.is_stopped for one in self.retired.values())


def _why_started(before: SlotFacts | None, slot: Slot, view: View) -> str:
    if before is not None:
        return f"again: {before.last_error}"
    return "it is needed" if slot.index <= view.runs[slot.model_id] else "it stands in while others are replaced"
