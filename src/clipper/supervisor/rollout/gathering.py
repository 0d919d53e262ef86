"""Turns slots and workers into the rollout's facts."""

from collections.abc import Callable

from clipper.control.snapshot import Peer
from clipper.managers.launcher import ContainerNote
from clipper.managers.manager import SlotStatus
from clipper.rollout.facts import Failure, SlotFacts, WorkerFacts
from clipper.supervisor.workers.worker_process import WorkerProcess


def slot_facts(status: SlotStatus, is_outdated: Callable[[ContainerNote], bool]) -> SlotFacts:
    """``is_outdated`` is the manager's."""
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
        is_outdated=replica is not None and is_outdated(replica.note),
    )


def worker_facts(worker: WorkerProcess) -> WorkerFacts:
    applied = worker.applied
    return WorkerFacts(
        worker.index,
        worker.phase,
        # An adopted worker is a peer before we have dialled it: the others know it already.
        peer=None if worker.process is None else Peer(worker.instance, worker.control),
        generation=None if applied is None else applied.generation,
        found_generation=worker.found_generation,
        unlinked={} if applied is None else applied.unlinked,
        undrained=() if applied is None else applied.undrained,
        last_error=worker.last_error,
        is_spare=worker.is_spare,
        is_outdated=worker.process is not None and worker.is_outdated,
    )
