"""The decision of a scheduler."""

import msgspec

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
