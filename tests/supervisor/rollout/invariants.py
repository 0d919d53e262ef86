"""The invariants of a rollout that has nothing to do. Tests check them after every event."""

from clipper.supervisor.rollout.facts import Facts
from clipper.supervisor.rollout.rollout import Rollout
from clipper.supervisor.rollout.view import View
from clipper.values.types import ModelId


def validate(rollout: Rollout, facts: Facts) -> None:
    """After a look that had nothing to do.

    Raises:
        AssertionError: the rollout's state contradicts the facts.
    """
    view, snapshots = View(facts), rollout.snapshots
    assert snapshots.content is not None, "workers were told nothing"
    told = {replica.id for model in snapshots.content.models for one in model.versions for replica in one.replicas}
    assert told == set(snapshots.told_in), "replicas are told of, and it is not known since when"
    assert all(one <= snapshots.generation for one in snapshots.told_in.values()), "told in a snapshot that is none yet"
    slots = {one.id: one for one in facts.slots if one.id}
    for id_ in told:
        assert slots[id_].phase == "ready", f"workers are told of {id_}, which is {slots[id_].phase}"
        own = view.slots_of.get(slots[id_].slot.model_id, ())
        assert slots[id_] in own, f"workers are told of {id_}, which is of a version that was removed"
    for version in rollout.versions.linking:
        record = view.records.versions[version]
        assert version in view.runs, f"{version} does not run and is being linked"
        assert record.state == "starting" or record.promotion is not None, f"{version} is linked for nothing"
    for version, generation in rollout.versions.announcing.items():
        assert view.records.versions[version].state == "ready", f"{version} is announced and not ready"
        assert generation is not None and generation <= snapshots.generation, f"{version} is announced in no snapshot"
    for id_ in rollout.replicas.retired:
        assert slots[id_].phase == "stopping", f"{id_} is retired and {slots[id_].phase}"
    leaving = {one.id for one in facts.slots if one.phase == "stopping"}
    assert leaving == set(rollout.replicas.retired), "a replica is leaving that nobody would stop"
    for model in view.records.models.values():
        assert model.previous is None or model.previous != model.current, f"a rollback of {model.name} changes nothing"
        previous = view.records.versions.get(ModelId(model.name, model.previous or ""))
        assert previous is None or previous.stopped is None, f"a rollback returns to {previous.id}, which was stopped"
        waiting = [one.promotion for one in view.records.versions.values() if one.model == model.name and one.promotion]
        assert len(waiting) == len(set(waiting)), f"two versions of {model.name} are to become current at once"
