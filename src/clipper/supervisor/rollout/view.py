"""Facts, and the conclusions from them that several rules use."""

from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any, TypeVar

from clipper.control.snapshot import ReplicaAddress
from clipper.supervisor.registry.records import VersionRecord
from clipper.supervisor.rollout.facts import Facts, SlotFacts, changed_slots
from clipper.supervisor.rollout.wanted import running
from clipper.values.types import ModelId

# Names of conclusions: from records alone, from slots alone, from both, and from slots with versions' records.
OF_RECORDS = ("runs", "undecided")
OF_SLOTS = ("_groups", "leaving", "has_outdated")
OF_BOTH = ("unsettled",)
OF_FLEET = ("slots_of", "in_service", "looping", "misplaced")

T = TypeVar("T")


class View:
    """The facts of a moment, and conclusions from them, each drawn once.

    Most looks find at most one changed model or replica. So a view takes over conclusions of the view before that still
    hold, and draws conclusions by version anew only for versions with changed slots.
    """

    def __init__(self, facts: Facts, before: "View | None" = None) -> None:
        self.facts = facts
        self.now_s = facts.now_s
        self.records = facts.records
        self._slots_before: tuple[SlotFacts, ...] = ()
        # The conclusions of the view before, by name, that still hold for versions whose slots have not changed.
        self._partial: dict[str, Any] = {}
        if before is None:
            return
        was, known = before.facts, before.__dict__
        has_same_records = facts.revision is not None and facts.revision == was.revision
        has_same_fleet = facts.fleet_revision is not None and facts.fleet_revision == was.fleet_revision
        has_same_slots = facts.slots is was.slots
        for names, holds, needs_slots in (
            (OF_RECORDS, has_same_records, False),
            (OF_SLOTS, True, True),
            (OF_BOTH, has_same_records, True),
            (OF_FLEET, has_same_fleet, True),
        ):
            found = {name: known[name] for name in names if name in known} if holds else {}
            if has_same_slots or not needs_slots:
                self.__dict__.update(found)
            elif "_groups" in known:
                self._slots_before = was.slots
                self._partial |= found
        # Computed now, when it costs next to nothing: otherwise the next view would have to start over.
        for name in self._partial:
            getattr(self, name)

    @cached_property
    def runs(self) -> dict[ModelId, int]:
        """The target number of replicas of each version that should run."""
        return running(self.records)

    @cached_property
    def undecided(self) -> list[VersionRecord]:
        """The versions whose records may have to change: they start, or sleep and should not."""
        runs = self.runs
        return [
            record
            for id_, record in self.records.versions.items()
            if (record.state in ("sleeping", "starting") if id_ in runs else record.state in ("starting", "ready"))
            or record.promotion is not None
        ]

    @cached_property
    def _groups(self) -> tuple[dict[ModelId, tuple[SlotFacts, ...]], set[ModelId]]:
        """All slots by version, in order; and the versions whose slots differ from the view before."""
        changed, gone = changed_slots(self._slots_before, self.facts.slots)
        groups = dict(self._partial["_groups"][0]) if "_groups" in self._partial else {}
        old = set(map(id, gone))
        fresh: dict[ModelId, list[SlotFacts]] = {one.slot.model_id: [] for one in gone}
        for one in changed:
            fresh.setdefault(one.slot.model_id, []).append(one)
        for id_, new in fresh.items():
            group = [one for one in groups.get(id_, ()) if id(one) not in old] + new
            groups[id_] = tuple(sorted(group, key=lambda one: one.slot.index))
            if not group:
                del groups[id_]
        return groups, set(fresh)

    @property
    def grouped(self) -> dict[ModelId, tuple[SlotFacts, ...]]:
        return self._groups[0]

    @cached_property
    def slots_of(self) -> dict[ModelId, list[SlotFacts]]:
        """The slots of each version, without slots of a removed version of the same name."""
        return self._by_version("slots_of", lambda id_: self._slots(id_, are_own=True), self.grouped)

    @cached_property
    def in_service(self) -> dict[ModelId, tuple[ReplicaAddress, ...]]:
        """The ready replicas, which workers may ask, of each version that has any."""

        def find(id_: ModelId) -> tuple[ReplicaAddress, ...]:
            own = self.slots_of.get(id_, ())
            return tuple(one.address for one in own if one.phase == "ready" and one.address is not None)

        return self._by_version("in_service", find, self.grouped)

    @cached_property
    def looping(self) -> dict[ModelId, bool]:
        """The versions whose slots are all in a crash loop, so that no replica is expected soon."""

        def find(id_: ModelId) -> bool:
            own = self.slots_of.get(id_, ())
            return bool(own) and all(one.history.crash_loop for one in own)

        return self._by_version("looping", find, self.grouped)

    @cached_property
    def misplaced(self) -> dict[ModelId, list[SlotFacts]]:
        """The slots of removed versions whose names other versions have now."""
        return self._by_version("misplaced", lambda id_: self._slots(id_, are_own=False), self.grouped)

    @cached_property
    def unsettled(self) -> dict[ModelId, bool]:
        """The versions whose slots are not exactly the wanted slots, each with a process that starts or is ready."""
        runs, grouped = self.runs, self.grouped

        def find(id_: ModelId) -> bool:
            wanted, group = runs.get(id_, 0), grouped.get(id_, ())
            # Slots are in order and each is there once, so the last index tells whether all before it are there.
            is_whole = len(group) == wanted and (not group or group[-1].slot.index == wanted)
            return not is_whole or any(one.phase not in ("starting", "ready") for one in group)

        return self._by_version("unsettled", find, {**runs, **grouped})

    @cached_property
    def leaving(self) -> list[SlotFacts]:
        return [one for one in self.facts.slots if one.phase == "stopping"]

    @cached_property
    def has_outdated(self) -> bool:
        """Whether a process runs another Clipper's code, or in a place where it cannot stay."""
        return any(one.is_outdated or one.has_to_move for one in self.facts.slots)

    def _slots(self, id_: ModelId, *, are_own: bool) -> list[SlotFacts]:
        record = self.records.versions.get(id_)
        if record is None:
            return []
        return [one for one in self.grouped[id_] if (one.spec is record.spec or one.spec == record.spec) is are_own]

    def lacks(self, record: VersionRecord) -> int:
        """Return how many of its replicas are not in service."""
        wanted = self.runs.get(record.id, record.replicas_wanted)
        return max(wanted - len(self.in_service.get(record.id, ())), 0)

    def _by_version(self, name: str, find: Callable[[ModelId], T], versions: Collection[ModelId]) -> dict[ModelId, T]:
        known = self._partial.get(name)
        found: dict[ModelId, T] = {}
        if known is not None:
            found, regrouped = dict(known), self._groups[1]
            for id_ in regrouped:
                found.pop(id_, None)
            versions = [id_ for id_ in regrouped if id_ in versions]
        for id_ in versions:
            if one := find(id_):
                found[id_] = one
        return found
