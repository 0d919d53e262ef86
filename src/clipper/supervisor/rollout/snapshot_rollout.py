"""Decides which snapshot workers get, and knows which workers have applied it.

A snapshot's *generation* has its supervisor's *epoch* in the upper bits and a count below them. A worker never goes
back to a lower generation. The registry counts epochs; if it was restored from a backup, workers may have a higher
epoch. Then the supervisor takes an epoch above theirs; if its epoch comes from a lease, it asks for another lease.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from clipper.control.difference import EPOCH_BITS
from clipper.control.snapshot import ModelSnapshot, ReplicaAddress, Snapshot
from clipper.supervisor.rollout.facts import Facts, WorkerFacts
from clipper.supervisor.rollout.instructions import Instruction, Push, TakeEpochAbove, WakeAt
from clipper.supervisor.rollout.view import View
from clipper.supervisor.rollout.wanted import Contents
from clipper.values.types import ModelId

# Workers dial on their own. This is the interval between requests for the result.
ASK_AGAIN_S = 0.5


class SnapshotRollout:
    """The newest snapshot: its ``generation``, and its ``content`` without it.

    ``told_in`` has for each replica in it the first generation of this supervisor that had the replica.
    """

    def __init__(self, epoch: int, *, needs_key: bool, is_leased: bool = False) -> None:
        """Begin without a snapshot. ``needs_key``: as in a ``Snapshot``. ``is_leased``: as for ``Rollout``."""
        self.generation = epoch << EPOCH_BITS
        self.content: Snapshot | None = None
        self.told_in: dict[str, int] = {}
        self._needs_key = needs_key
        self._is_leased = is_leased
        # The epoch above which a lease was asked for.
        self._asked_above: int | None = None
        self._pushed_at_s = float("-inf")
        self._contents = Contents()
        # The revision of the last content, and the content.
        self._revision: int | None = None
        self._in_service: Mapping[ModelId, tuple[ReplicaAddress, ...]] = {}
        self._found: Snapshot | None = None

    def has_applied(self, worker: WorkerFacts, generation: int) -> bool:
        return worker.generation is not None and generation <= worker.generation <= self.generation

    def have_applied(self, facts: Facts, generation: int) -> bool:
        """Whether every worker that is up or starting serves by ``generation``. Others start with the newest."""
        return all(self.has_applied(worker, generation) for worker in facts.workers if worker.is_expected)

    def all_know(self, facts: Facts) -> bool:
        """Whether every worker that is up or starting serves by the newest snapshot."""
        return self.have_applied(facts, self.generation)

    def tell(self, view: View) -> list[Instruction]:
        """Push a snapshot if the newest is out of date, before all rules that depend on what workers know."""
        ahead = self._ahead(view.facts)
        if self._is_leased and (ahead is not None or self._asked_above is not None):
            return self._ask_above(view.now_s, ahead)
        if ahead is not None:
            self.generation = ((ahead >> EPOCH_BITS) + 1) << EPOCH_BITS
            return [self._push(view, self._content(view), "a worker is ahead: its snapshot is of another registry")]
        now = self._content(view)
        if now is self.content or now == self.content:
            return []
        return [self._push(view, now, _difference(self.content or Snapshot(), now))]

    def ask_again(self, view: View) -> tuple[list[Instruction], float]:
        """Push the same content again, since workers report what they have dialled and drained only with a snapshot.
        Return the snapshot, or when it is time for it.
        """
        due_s = self._pushed_at_s + ASK_AGAIN_S
        if self.content is None or view.now_s < due_s or not self.all_know(view.facts):
            return [], due_s if due_s > view.now_s else view.now_s + ASK_AGAIN_S
        return [self._push(view, self.content, "to ask what was linked and drained since")], due_s

    def _ask_above(self, now_s: float, ahead: int | None) -> list[Instruction]:
        """Ask for a lease of a later epoch. Nothing more is sent for this epoch, since workers would not obey it."""
        epoch = None if ahead is None else ahead >> EPOCH_BITS
        if epoch is None or epoch <= (self._asked_above or 0):
            return [WakeAt(now_s + ASK_AGAIN_S)]
        self._asked_above = epoch
        return [TakeEpochAbove(epoch, "a worker is ahead: Redis may have been restored from an older copy")]

    def _ahead(self, facts: Facts) -> int | None:
        """Return the highest generation in force that is not ours; None if there is none."""
        epoch = self.generation >> EPOCH_BITS
        found = [worker.found_generation for worker in facts.workers if worker.found_generation >> EPOCH_BITS >= epoch]
        told = [worker.generation for worker in facts.workers if (worker.generation or 0) > self.generation]
        return max([*found, *filter(None, told)], default=None)

    def _content(self, view: View) -> Snapshot:
        peers = tuple(worker.peer for worker in view.facts.workers if worker.peer is not None and worker.is_expected)
        facts, found = view.facts, self._found
        workers = max(sum(not worker.is_spare for worker in facts.workers), 1)
        # Most looks find nothing new: then even a check of each part would take longer than the rest of the look.
        if (
            found is None
            or facts.revision is None
            or (facts.revision, peers, workers) != (self._revision, found.peers, found.workers)
            or facts.applications is not found.applications
            or view.in_service is not self._in_service
        ):
            found = self._contents.make(
                view.records,
                view.runs,
                facts.applications,
                view.in_service,
                peers,
                facts.fleet_revision,
                workers,
                view.looping,
            )
        self._revision, self._in_service, self._found = facts.revision, view.in_service, found
        return found

    def _tell_no_more(self, model: ModelSnapshot | None) -> None:
        for id_ in _replica_ids(model):
            self.told_in.pop(id_, None)

    def _push(self, view: View, new: Snapshot, why: str) -> Push:
        before, self.content = self.content, new
        self.generation += 1
        self._pushed_at_s = view.now_s
        former = {model.name: model for model in before.models} if before is not None else {}
        if before is None or new.models is not before.models:
            for model in new.models:
                was = former.pop(model.name, None)
                if was is not model:
                    told = {id_: self.told_in.get(id_, self.generation) for id_ in _replica_ids(model)}
                    self._tell_no_more(was)
                    self.told_in |= told
            for gone in former.values():
                self._tell_no_more(gone)
        return Push(replace(new, generation=self.generation, needs_key=self._needs_key), why)


def _replica_ids(model: ModelSnapshot | None) -> list[str]:
    return [] if model is None else [replica.id for version in model.versions for replica in version.replicas]


def _difference(before: Snapshot, after: Snapshot) -> str:
    changed: list[str] = []
    if before.models is not after.models:
        models = {model.name: model for model in before.models}
        changed = [model.name for model in after.models if models.pop(model.name, None) != model] + list(models)
    parts = [f"models {', '.join(sorted(changed))}"] if changed else []
    parts += [
        name
        for name, is_new in (
            ("applications", before.applications != after.applications),
            ("workers", (before.peers, before.workers) != (after.peers, after.workers)),
            ("keys", before.keys != after.keys),
        )
        if is_new
    ]
    return f"changed: {'; '.join(parts) or 'nothing, it is the first'}"
