"""Facts, and the conclusions from them that several rules use."""

from functools import cached_property

from clipper.control.snapshot import ReplicaAddress
from clipper.registry.records import VersionRecord
from clipper.rollout.facts import Facts, SlotFacts, changed_slots
from clipper.rollout.wanted import running
from clipper.types import ModelId

# Conclusions from the records alone, from the slots alone, and from both.
OF_RECORDS = ("runs", "undecided")
OF_SLOTS = ("grouped", "leaving", "has_outdated")
OF_BOTH = ("slots_of", "in_service", "misplaced", "unsettled")


class View:
    """Facts of one moment, each conclusion drawn once.

    With thousands of models and replicas most looks find one of them changed, or none. So a view takes over the
    conclusions of the one before that still hold.
    """

    def __init__(self, facts: Facts, before: "View | None" = None) -> None:
        self.facts = facts
        self.now_s = facts.now_s
        self.records = facts.records
        self._grouped_before: tuple[tuple[SlotFacts, ...], dict[ModelId, tuple[SlotFacts, ...]]] = (), {}
        if before is None:
            return
        has_same_records = facts.revision is not None and facts.revision == before.facts.revision
        has_same_slots = facts.slots is before.facts.slots
        for names, holds in (
            (OF_RECORDS, has_same_records),
            (OF_SLOTS, has_same_slots),
            (OF_BOTH, has_same_records and has_same_slots),
        ):
            if holds:
                self.__dict__.update({name: before.__dict__[name] for name in names if name in before.__dict__})
        if not has_same_slots and "grouped" in before.__dict__:
            self._grouped_before = before.facts.slots, before.grouped

    @cached_property
    def runs(self) -> dict[ModelId, int]:
        """The target number of replicas of each version that is to run."""
        return running(self.records)

    @cached_property
    def undecided(self) -> list[VersionRecord]:
        """The versions of which something is to be recorded, or waited for: they start, or sleep and should not."""
        return [
            record
            for id_, record in self.records.versions.items()
            if (record.state in ("sleeping", "starting") if id_ in self.runs else record.state in ("starting", "ready"))
            or record.promotion is not None
        ]

    @cached_property
    def grouped(self) -> dict[ModelId, tuple[SlotFacts, ...]]:
        """All slots, by version, in order."""
        slots, before = self._grouped_before
        changed, gone = changed_slots(slots, self.facts.slots)
        groups = dict(before)
        old = set(map(id, gone))
        fresh: dict[ModelId, list[SlotFacts]] = {one.slot.model_id: [] for one in gone}
        for one in changed:
            fresh.setdefault(one.slot.model_id, []).append(one)
        for id_, new in fresh.items():
            group = [one for one in groups.get(id_, ()) if id(one) not in old] + new
            groups[id_] = tuple(sorted(group, key=lambda one: one.slot.index))
            if not group:
                del groups[id_]
        return groups

    @cached_property
    def slots_of(self) -> dict[ModelId, list[SlotFacts]]:
        """The slots of each version, without those of a removed version of the same name."""
        found = {}
        versions = self.records.versions
        for id_, group in self.grouped.items():
            record = versions.get(id_)
            if record is not None and (
                own := [one for one in group if one.spec is record.spec or one.spec == record.spec]
            ):
                found[id_] = own
        return found

    @cached_property
    def in_service(self) -> dict[ModelId, tuple[ReplicaAddress, ...]]:
        """The ready replicas of each version that has any: those that workers may ask."""
        found = {
            id_: tuple(slot.address for slot in slots if slot.phase == "ready" and slot.address is not None)
            for id_, slots in self.slots_of.items()
        }
        return {id_: addresses for id_, addresses in found.items() if addresses}

    @cached_property
    def misplaced(self) -> list[SlotFacts]:
        """The slots of removed versions whose names other versions have now."""
        return [
            one
            for id_, group in self.grouped.items()
            if (record := self.records.versions.get(id_)) is not None
            for one in group
            if one.spec is not record.spec and one.spec != record.spec
        ]

    @cached_property
    def unsettled(self) -> list[ModelId]:
        """The versions whose slots are not just the wanted ones, each with a process that starts or is ready."""
        found = [id_ for id_ in self.grouped if id_ not in self.runs]
        for id_, wanted in self.runs.items():
            group = self.grouped.get(id_, ())
            # In order and each once, so that the last index tells whether all before it are there.
            is_whole = len(group) == wanted and (not group or group[-1].slot.index == wanted)
            if not is_whole or any(one.phase not in ("starting", "ready") for one in group):
                found.append(id_)
        return found

    @cached_property
    def leaving(self) -> list[SlotFacts]:
        """The slots whose process has left service."""
        return [one for one in self.facts.slots if one.phase == "stopping"]

    @cached_property
    def has_outdated(self) -> bool:
        """Whether a process runs another Clipper's code."""
        return any(one.is_outdated for one in self.facts.slots)

    def lacks(self, record: VersionRecord) -> int:
        """How many replicas a version lacks to its target."""
        return max(record.replicas_wanted - len(self.in_service.get(record.id, ())), 0)
