"""Decides how much background work a batch may hold, so that no prediction is late because of it."""

from clipper.worker.abstraction.batching.deadline_queue import DeadlineQueue
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.work import Work

# If fewer predictions than this are expected during one batch, background work may use a replica more freely.
QUIET_ARRIVALS = 0.05
# A query that arrives while background work runs must be answerable within this share of its SLO.
BACKGROUND_SHARE = 0.8
# Background rows that may ride along with a batch of predictions, as a share of its size.
RIDE_SHARE = 0.25


def rows_alone(replica: ReplicaState, row_bytes: float, per_s: float, slo_s: float) -> int:
    """Return the rows of a batch of background work from which a prediction that arrives meanwhile can recover."""
    times = replica.times
    spare_s = BACKGROUND_SHARE * slo_s - times.slow_s(1, row_bytes)
    is_quiet = per_s * times.mean_s(1) < QUIET_ARRIVALS
    if is_quiet:
        spare_s = max(spare_s, slo_s / 2)
    return max(min(replica.limit, int(times.rows_within(spare_s, row_bytes))), int(is_quiet))


def riders(replica: ReplicaState, batch: list[Work], queue: DeadlineQueue, first_due_s: float, now_s: float) -> int:
    """Return the background rows that may join a batch of all waiting predictions and make none of them late."""
    size = len(batch)
    more = min(int(size * RIDE_SHARE), replica.limit - size)
    if more <= 0:
        return 0
    size_bytes = 0.0
    if queue.varies:
        size_bytes = sum([len(work.row) for work in batch]) + more * queue.background_row_bytes
    slow_s = replica.times.slow_s(size + more, size_bytes)
    return more if now_s + replica.rest_s(now_s) + slow_s <= first_due_s else 0
