"""Finds the version that a rollback returns to, and makes the changes of a guardrail's stop. Records in and out."""

from msgspec.structs import replace

from clipper.control.descriptions import EndedRamp
from clipper.control.snapshot import NO_OUTCOME, Newcomer, RampOutcome
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.store import Put
from clipper.supervisor.rollout import newcomers
from clipper.supervisor.rollout.wanted import Records
from clipper.values.types import ModelId


def target(records: Records, model: ModelRecord) -> str | None:
    """Return the version to which a rollback returns unless it names a version; None if there is none.

    It is the model's previous version or, if a guardrail stopped that or it has failed, the version before it, and so
    on.
    """
    current = records.versions.get(ModelId(model.name, model.current or ""))
    if model.previous is not None or current is None:
        return _sound(records, model.name, model.previous, model.current)
    return _sound(records, model.name, current.predecessor, model.current, younger_s=current.created_at)


def after(records: Records, model: ModelRecord, version: str, judged: VersionRecord | None = None) -> ModelRecord:
    """Return the model with ``version`` as its current. ``judged``: a version's new record, instead of its present."""
    if model.current == version:
        return model
    first = newcomers.proven(records.applications.values(), model)
    return replace(model, current=version, previous=_sound(records, model.name, first, version, judged))


def stop(
    records: Records, application: ApplicationRecord, newcomer: Newcomer, why: str, outcome: RampOutcome = NO_OUTCOME
) -> list[Put] | None:
    """Return the changes that stop a newcomer; None if the version before does not run now.

    If the newcomer was deployed as its model's current version, the model is rolled back for all applications that
    follow it.
    """
    changes = [Put(newcomers.stopped(application, newcomer, why, outcome))]
    model, known = records.models.get(newcomer.model), records.versions.get(ModelId(newcomer.model, newcomer.version))
    if model is None or known is None:
        return changes
    stopped = replace(known, stopped=f"application {application.name!r}: {why}")
    changes.append(Put(stopped))
    if not newcomer.promoted or newcomer.before is None or model.current != newcomer.version:
        previous = _sound(records, model.name, model.previous, model.current, stopped)
        return changes if previous == model.previous else [*changes, Put(replace(model, previous=previous))]
    before = records.versions.get(ModelId(newcomer.model, newcomer.before))
    if before is None or before.state != "ready":
        return None

    def current(name: str) -> str | None:
        if name == newcomer.model:
            return newcomer.before
        other = records.models.get(name)
        return None if other is None else other.current

    changes.append(Put(after(records, model, newcomer.before, stopped)))
    for other in records.applications.values():
        if other.name != application.name:
            changed = newcomers.after_promotion(
                other, model.name, newcomer.before, newcomer.version, is_new=False, current=current
            )
            changes += [] if changed is other else [Put(changed)]
    return changes


def let_through(records: Records, application: ApplicationRecord, newcomer: Newcomer, ended: EndedRamp) -> list[Put]:
    """Return the changes that let a newcomer through. If it was stopped before, that no longer counts."""
    changes = [Put(newcomers.through(application, newcomer, ended))]
    version = records.versions.get(ModelId(newcomer.model, newcomer.version))
    if version is not None and version.stopped is not None:
        changes.append(Put(replace(version, stopped=None)))
    return changes


def _sound(
    records: Records,
    model: str,
    first: str | None,
    current: str | None,
    judged: VersionRecord | None = None,
    younger_s: float = float("inf"),
) -> str | None:
    """Return the first of a version and its predecessors that is not current, was not stopped and has not failed.

    ``judged`` is a version's new record, which replaces that in ``records``. ``younger_s`` is when the successor of
    ``first`` was deployed.
    """
    version = first
    while version is not None:
        record = records.versions.get(ModelId(model, version))
        if judged is not None and judged.version == version:
            record = judged
        # The name may belong to a later version by now, because a failed version was deployed again.
        if record is None or record.created_at >= younger_s:
            return None
        if version != current and record.stopped is None and record.state != "failed":
            return version
        version, younger_s = record.predecessor, record.created_at
    return None
