"""Turns slots and workers into the rollout's facts."""

from clipper.control.snapshot import Peer
from clipper.supervisor.managers.manager import Manager, SlotStatus
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.rollout.facts import Failure, SlotFacts, WorkerFacts
from clipper.supervisor.workers.worker_process import WorkerProcess

# Of all slots, whether or not the manager has said that they changed: at most so old is a fact that it did not tell of.
LOOK_AT_ALL_S = 10.0


class SlotGathering:
    """The facts of all slots. Those of a slot, and those of all, stay the same object while they do not change: so two
    moments are compared by identity."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._known: dict[Slot, SlotFacts] = {}
        self._facts: tuple[SlotFacts, ...] = ()
        self._looked_s = float("-inf")

    def facts(self, now_s: float) -> tuple[SlotFacts, ...]:
        """In order of slots."""
        touched = self._manager.touched()
        if now_s - self._looked_s >= LOOK_AT_ALL_S:
            self._looked_s = now_s
            touched = dict.fromkeys(self._known) | {one.slot: one for one in self._manager.slots()}
        has_changed, in_order = False, True
        for slot, status in touched.items():
            before = self._known.get(slot)
            now = None if status is None else slot_facts(status, self._manager)
            if now == before:
                continue
            has_changed = True
            if now is None:
                del self._known[slot]
            else:
                in_order = in_order and before is not None
                self._known[slot] = now
        if not in_order:
            self._known = {slot: self._known[slot] for slot in sorted(self._known)}
        if has_changed:
            self._facts = tuple(self._known.values())
        return self._facts


def slot_facts(status: SlotStatus, manager: Manager) -> SlotFacts:
    replica, death = status.replica, status.start_failure
    welcome = None if replica is None else replica.welcome
    return SlotFacts(
        status.slot,
        status.phase,
        status.spec,
        id="" if replica is None else replica.note.id,
        address=None if replica is None else replica.address,
        input_type=None if welcome is None else str(welcome.input_type),
        runtime="" if welcome is None else welcome.runtime,
        warning=None if replica is None else replica.warning,
        start_failure=None if death is None else Failure(death.reason, death.log_tail),
        last_error=status.last_error,
        history=status.history,
        is_outdated=replica is not None and manager.is_outdated(replica.note),
        has_to_move=replica is not None and manager.has_to_move(replica),
    )


def worker_facts(worker: WorkerProcess) -> WorkerFacts:
    applied = worker.applied
    return WorkerFacts(
        worker.index,
        worker.phase,
        # An adopted worker is a peer before we have dialled it: the others know it already.
        None if worker.process is None or worker.control is None else Peer(worker.instance, worker.control.wire),
        generation=None if applied is None else applied.generation,
        found_generation=worker.found_generation,
        unlinked={} if applied is None else applied.unlinked,
        undrained=() if applied is None else applied.undrained,
        last_error=worker.last_error,
        is_spare=worker.is_spare,
        is_outdated=worker.process is not None and worker.is_outdated,
        node=worker.node,
    )
