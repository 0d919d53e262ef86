"""Facts in, instructions out: the order of the rules.

Each look uses the present state, not events, and applies the first rule that has something to do. The caller carries
out its instructions and looks again until there are none. So every rule sees the effects of the rules before it, and
what could not be done.

The order keeps queries from being lost: every worker knows new replicas before a version becomes current, and a replica
is stopped only when every worker has reported that it was taken out and has no batch left.
"""

from collections.abc import Callable

from clipper.supervisor.rollout.facts import Facts
from clipper.supervisor.rollout.instructions import Instruction, WakeAt
from clipper.supervisor.rollout.replicas import Replicas
from clipper.supervisor.rollout.snapshot_rollout import SnapshotRollout
from clipper.supervisor.rollout.versions import Versions
from clipper.supervisor.rollout.view import View
from clipper.supervisor.rollout.workers import renew_workers
from clipper.values.types import ModelId


class Rollout:
    """The rules, with a memory between looks. It may be lost: the next supervisor starts from the facts alone."""

    def __init__(self, epoch: int, *, needs_key: bool = False, is_leased: bool = False) -> None:
        """Begin without a memory.

        ``epoch`` is above that of the supervisor before. ``needs_key``: applications answer only clients with a key.
        ``is_leased``: another epoch takes another lease.
        """
        self.snapshots = SnapshotRollout(epoch, needs_key=needs_key, is_leased=is_leased)
        self.versions = Versions()
        self.replicas = Replicas()
        self._view: View | None = None

    def look(self, facts: Facts) -> list[Instruction]:
        """Decide what to do now. Once that is done, look again, until there is at most a ``WakeAt``."""
        view = self._view = View(facts, self._view)
        self.versions.drop_stale(view)
        self.replicas.drop_stale(view)
        if instructions := self.replicas.drop_outdated(view) or self.versions.judge(view) or self.snapshots.tell(view):
            return instructions
        # From here on the newest snapshot is up to date.
        self.versions.announce(view, self.snapshots)
        wakes_at_s = []
        for rule in (self.versions.promote, self.replicas.move, self.replicas.stop):
            instructions, wake_at_s = rule(view, self.snapshots)
            if instructions:
                return instructions
            wakes_at_s.append(wake_at_s)
        if instructions := renew_workers(view, self.snapshots):
            return instructions
        if self.replicas.waits or self.versions.linking:
            instructions, wake_at_s = self.snapshots.ask_again(view)
            wakes_at_s.append(wake_at_s)
        if instructions:
            return instructions
        at_s = min(wakes_at_s)
        return [] if at_s == float("inf") else [WakeAt(at_s)]

    def is_announced(self, id_: ModelId) -> bool:
        """Whether every worker knows of a ready version: its replicas, and whether it is current."""
        return id_ not in self.versions.announcing

    def told(self, facts: Facts) -> Callable[[str], bool]:
        """Return a function that tells by a replica's id whether all workers that answer queries may ask it."""
        snapshots = self.snapshots
        in_force = [worker.generation for worker in facts.workers if worker.generation is not None]
        lowest = min(in_force, default=snapshots.generation) if max(in_force, default=0) <= snapshots.generation else -1
        return lambda replica_id: snapshots.told_in.get(replica_id, lowest + 1) <= lowest
