"""The rules that take a version from its deployment to ready and current, or to failed. Each method is one rule."""

from dataclasses import dataclass

from msgspec.structs import replace

from clipper.errors import InvalidArgument
from clipper.supervisor.registry.records import ModelRecord, VersionRecord
from clipper.supervisor.registry.store import Put
from clipper.supervisor.rollout import newcomers, rollbacks
from clipper.supervisor.rollout.facts import SlotFacts
from clipper.supervisor.rollout.instructions import Commit, Instruction, Note
from clipper.supervisor.rollout.snapshot_rollout import SnapshotRollout
from clipper.supervisor.rollout.view import View
from clipper.supervisor.rollout.wanted import check_fits
from clipper.values.types import ModelId

# Enough for a worker that has to start first, and then waits in vain for a replica's answer.
LINK_TIMEOUT_S = 45.0


@dataclass(frozen=True, slots=True)
class Linking:
    """A version whose replicas workers are dialling.

    ``created_at`` tells the version from a later one of the same name. ``is_start``: it becomes ready after that;
    otherwise it is ready already, and only becomes current.
    """

    created_at: float
    since_s: float
    is_start: bool


class Versions:
    """The rules for versions.

    ``linking`` are the versions whose replicas workers are dialling. ``announcing`` has for each version that has
    become ready the first snapshot after that; None until there is one. It is shown as ready once all workers have it.
    """

    def __init__(self) -> None:
        self.linking: dict[ModelId, Linking] = {}
        self.announcing: dict[ModelId, int | None] = {}

    def drop_stale(self, view: View) -> None:
        """Forget versions that are gone, have started, or no longer wait to become current."""
        self.linking = {id_: one for id_, one in self.linking.items() if self._goes_on(view, id_, one)}
        versions = view.records.versions
        self.announcing = {
            id_: one for id_, one in self.announcing.items() if id_ in versions and versions[id_].state == "ready"
        }

    def _goes_on(self, view: View, id_: ModelId, one: Linking) -> bool:
        record = view.records.versions.get(id_)
        if record is None or record.created_at != one.created_at:
            return False
        # A version that no longer runs goes to sleep once ``judge`` has seen it.
        # A replica that dies before workers have it is awaited again, like a replica that is not up yet.
        return record.state == "starting" and not view.lacks(record) if one.is_start else _is_to_be_promoted(record)

    def judge(self, view: View) -> list[Instruction]:
        """Record the outcome of starts, and which versions sleep."""
        judged = (self._judged(view, record) for record in view.undecided)
        return [note for note in judged if note is not None]

    def _judged(self, view: View, record: VersionRecord) -> Note | None:
        if record.id not in view.runs:
            if record.state in ("starting", "ready"):
                return Note(replace(record, state="sleeping", promotion=None), "nothing uses it any more")
        elif record.state == "sleeping":
            # A version that was asleep needs a replica to be ready.
            wanted = max(record.replicas_wanted, 1)
            again = replace(record, state="starting", replicas_wanted=wanted, last_error=None, log_tail=())
            return Note(again, "it is used again")
        elif record.state == "starting":
            return self._judge_start(view, record)
        return None

    def _judge_start(self, view: View, record: VersionRecord) -> Note | None:
        """Judge a start: a version fails with the first replica that cannot start; if all are up, workers dial them."""
        slots = view.slots_of.get(record.id, [])
        for slot in slots:
            if slot.start_failure is not None:
                return _failed(record, slot.start_failure.reason, slot.start_failure.log_tail)
            if slot.phase == "dead" and slot.history.crash_loop:
                return _failed(record, f"its replicas do not stay up: {slot.last_error}")
        if record.id in self.linking or view.lacks(record):
            return None
        record = _as_they_say(record, slots)
        try:
            for application, pinned in view.records.linking(record.model):
                if pinned == record.version or (pinned is None and record.promotion is not None):
                    check_fits(application, record)
        except InvalidArgument as error:
            return _failed(record, str(error))
        self.linking[record.id] = Linking(record.created_at, view.now_s, is_start=True)
        return Note(record, "all its replicas are up: workers get their addresses")

    def promote(self, view: View, snapshots: SnapshotRollout) -> tuple[list[Instruction], float]:
        """Make versions ready that workers have linked, and current if asked; return what to do, or when to look."""
        wake_at_s = float("inf")
        for record in view.undecided:
            id_ = record.id
            if id_ in view.runs and _is_to_be_promoted(record):
                self.linking.setdefault(id_, Linking(record.created_at, view.now_s, is_start=False))
            if id_ not in self.linking:
                continue
            why_not, over_s = _why_not_linked(view, snapshots, record), self.linking[id_].since_s + LINK_TIMEOUT_S
            # The previous version may have kept few replicas, and finally handles all queries with those that it then
            # has.
            is_short = record.state == "ready" and view.lacks(record) > 0
            if (why_not is not None or is_short) and view.now_s < over_s:
                wake_at_s = min(wake_at_s, over_s)
            elif why_not is not None:
                del self.linking[id_]
                if record.state == "starting":
                    return [_failed(record, why_not)], wake_at_s
                note = Note(
                    replace(record, promotion=None, last_error=why_not), f"it did not become current: {why_not}"
                )
                return [note], wake_at_s
            elif view.now_s < view.facts.can_commit_at_s:
                wake_at_s = min(wake_at_s, view.facts.can_commit_at_s)
            else:
                self.announcing[id_] = None
                return [_ready(view, record)], wake_at_s
        return [], wake_at_s

    def announce(self, view: View, snapshots: SnapshotRollout) -> None:
        """Note the snapshot that announces new ready versions. The newest snapshot must be up to date."""
        named = {id_: one or snapshots.generation for id_, one in self.announcing.items()}
        self.announcing = {id_: one for id_, one in named.items() if not snapshots.have_applied(view.facts, one)}


def _is_to_be_promoted(record: VersionRecord) -> bool:
    """Whether a version waits to become current and is ready already, like the previous version or a kept one."""
    return record.state == "ready" and record.promotion is not None


def _failed(record: VersionRecord, reason: str, log_tail: tuple[str, ...] = ()) -> Note:
    failed = replace(record, state="failed", promotion=None, last_error=reason, log_tail=log_tail)
    return Note(failed, f"it has failed: {reason}")


def _as_they_say(record: VersionRecord, slots: list[SlotFacts]) -> VersionRecord:
    """Return the record with what the version's containers have reported, once at least one is ready."""
    ready = [slot for slot in slots if slot.phase == "ready" and slot.input_type is not None]
    warning = next((slot.warning for slot in slots if slot.warning), record.warning)
    if not ready:
        return replace(record, warning=warning)
    output_type, is_declared, is_untyped = record.output_type, record.output_is_declared, record.output_is_untyped
    if record.spec.output_type is not None:
        output_type, is_declared, is_untyped = record.spec.output_type, True, False
    elif (output_type is None and not is_untyped) or ready[0].output_is_declared:
        first = ready[0]
        output_type, is_declared, is_untyped = first.output_type, first.output_is_declared, first.output_is_untyped
    return replace(
        record,
        input_type=ready[0].input_type,
        runtime=ready[0].runtime,
        warning=warning,
        output_type=output_type,
        output_is_declared=is_declared,
        output_is_untyped=is_untyped,
    )


def _why_not_linked(view: View, snapshots: SnapshotRollout, record: VersionRecord) -> str | None:
    addresses = view.in_service.get(record.id, ())
    if not addresses:
        return "none of its replicas is ready"
    if not snapshots.all_know(view.facts):
        return "not every worker took the snapshot with its replicas in time"
    unlinked = {id_: why for worker in view.facts.workers for id_, why in worker.unlinked.items()}
    reasons = [unlinked[address.id] for address in addresses if address.id in unlinked]
    return f"a worker cannot dial its replica: {reasons[0]}" if reasons else None


def _ready(view: View, record: VersionRecord) -> Commit:
    ready = replace(record, state="ready", promotion=None, last_error=None, log_tail=())
    if record.promotion is None:
        return Commit(record.id, (Put(ready),), "it is ready")
    model = view.records.models[record.model]
    replaced = _replaced(view, model, record)
    model = rollbacks.after(view.records, model, record.version, replaced)
    # The latest request wins, even if an older one is ready later: so older requests end here.
    overtaken = [
        Put(replace(other, promotion=None))
        for other in view.records.versions_of(record.model)
        if other.promotion is not None and other.promotion < record.promotion
    ]
    promoted = Put(replace(ready, kept=False, is_new=False))
    judged = [] if replaced is None else [Put(replaced)]
    changes = (promoted, Put(model), *overtaken, *judged, *_ramped(view, record))
    return Commit(record.id, changes, "it is ready and current")


def _replaced(view: View, model: ModelRecord, by: VersionRecord) -> VersionRecord | None:
    """Return the record of the version that another replaces, if that is judged by it; else None."""
    replaced = view.records.versions.get(ModelId(model.name, model.current or ""))
    if replaced is None or replaced.version == by.version:
        return None
    crashing = [slot for slot in view.slots_of.get(replaced.id, ()) if slot.history.crash_loop]
    if crashing and not view.in_service.get(replaced.id):
        return replace(replaced, stopped=f"its replicas did not stay up: {crashing[0].last_error}")
    # An operator chose it although it had been stopped, and relies on it.
    return replace(replaced, stopped=None) if by.is_new and replaced.stopped is not None else None


def _ramped(view: View, record: VersionRecord) -> list[Put]:
    """Return the changes of the applications that follow the model: where the policy learns, the version is ramped."""
    models = view.records.models
    was = models[record.model].current

    def current(model: str) -> str | None:  # called only for other models: at most one link follows this model
        return models[model].current if model in models else None

    before = list(view.records.applications.values())
    after = [
        newcomers.after_promotion(each, record.model, record.version, was, is_new=record.is_new, current=current)
        for each in before
    ]
    return [Put(new) for new, old in zip(after, before) if new is not old]
