"""The decision of a scheduler."""

from itertools import accumulate

import msgspec

from clipper.worker.abstraction.batching.deadline_queue import Taken
from clipper.worker.abstraction.batching.flow import Batch
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.work import Work


class Decision(msgspec.Struct, eq=False):
    """The scheduler's decision for this moment.

    Attributes:
        batches: batches to send.
        late: work to answer with ``timeout``: it cannot be answered in time.
        shed: work to answer with ``overloaded``: it could be in time, but only at the cost of more other work.
        wake_s: when to decide again if nothing happens before; None if that is not needed.
    """

    batches: list[tuple[ReplicaState, Batch]]
    late: list[Work]
    shed: list[Work]
    wake_s: float | None = None


def wake_at(decision: Decision, at_s: float) -> None:
    """Have the scheduler decide again at ``at_s`` at the latest."""
    if decision.wake_s is None or at_s < decision.wake_s:
        decision.wake_s = at_s


def first_of(works: list[Work], most_bytes: float) -> list[Work]:
    """Return the first works whose inputs have at most so many bytes together; at least one, if there are any."""
    ends = accumulate(len(work.row) for work in works)
    return works[: max(1, sum(end <= most_bytes for end in ends))]


def sort_out(decision: Decision, taken: Taken, met_s: float) -> None:
    """Split dropped work into late and shed. Work due before ``met_s`` would be late even if it were sent alone."""
    for work in taken.dropped:
        (decision.late if work.due_s < met_s else decision.shed).append(work)
    taken.dropped = []
