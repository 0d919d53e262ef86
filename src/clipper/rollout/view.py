"""Facts, and the conclusions from them that several rules use."""

from functools import cached_property

from clipper.control.snapshot import ReplicaAddress
from clipper.registry.records import VersionRecord
from clipper.rollout.facts import Facts, SlotFacts
from clipper.rollout.wanted import running
from clipper.types import ModelId


class View:
    """Facts of one moment, each conclusion drawn once."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.now_s = facts.now_s
        self.records = facts.records

    @cached_property
    def runs(self) -> dict[ModelId, int]:
        """The target number of replicas of each version that is to run."""
        return running(self.records)

    @cached_property
    def slots_of(self) -> dict[ModelId, list[SlotFacts]]:
        """The slots of each version, without those of a removed version of the same name."""
        found: dict[ModelId, list[SlotFacts]] = {}
        for slot in self.facts.slots:
            if self.is_as_recorded(slot):
                found.setdefault(slot.slot.model_id, []).append(slot)
        return found

    @cached_property
    def in_service(self) -> dict[ModelId, tuple[ReplicaAddress, ...]]:
        """The ready replicas of each version that has any: those that workers may ask."""
        found = {
            id_: tuple(slot.address for slot in slots if slot.phase == "ready" and slot.address is not None)
            for id_, slots in self.slots_of.items()
        }
        return {id_: addresses for id_, addresses in found.items() if addresses}

    def is_as_recorded(self, slot: SlotFacts) -> bool:
        """False if it was started for a version that was removed, even if another has its name now."""
        record = self.records.versions.get(slot.slot.model_id)
        return record is not None and record.spec == slot.spec

    def lacks(self, record: VersionRecord) -> int:
        """How many replicas a version lacks to its target."""
        return max(record.replicas_wanted - len(self.in_service.get(record.id, ())), 0)
